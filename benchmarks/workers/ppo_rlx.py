"""PPO by rlx. Beside rejax it also computes its metrics, and its gradient norm is one of actor and critic together."""

from typing import Any

from benchmarks.workers.common import Stopwatch, arguments, measure, settings_of


def main() -> None:
    args, watch = arguments(), Stopwatch()
    settings = settings_of(args.work)
    with watch("import"):
        import jax
        import optax

        import rlx
    with watch("build"):
        updates = settings["check_updates" if args.check else "updates"]
        env: Any = rlx.make(settings["env"])
        network = rlx.nets.actor_critic(env, settings["hidden"], settings["activation"])
        optimizer = optax.flatten(
            optax.chain(optax.clip_by_global_norm(settings["max_grad_norm"]), optax.adam(settings["learning_rate"]))
        )
        same = ("num_envs", "num_steps", "num_epochs", "num_minibatches", "discount", "trace", "clip", "value_coef")
        config = rlx.PPOConfig(
            **{name: settings[name] for name in same},
            entropy_coef=settings["entropy_coef"],
            value_clip=settings["clip"],
        )
        one = rlx.ppo(env, network, optimizer, config)
        algorithm = one if settings["num_seeds"] == 1 else rlx.over_seeds(one)

    def keys(key: Any) -> Any:
        return key if settings["num_seeds"] == 1 else jax.random.split(key, settings["num_seeds"])

    def prepare(key: Any) -> Any:
        init = rlx.jit(algorithm.init, once=True).lower(keys(key)).compile()
        steps = rlx.compile_steps(algorithm, jax.eval_shape(algorithm.init, keys(key)), updates)
        return lambda key: steps(init(keys(key)))

    def check(out: Any) -> dict[str, Any]:
        state, metrics = out

        def play(state: Any) -> Any:
            key = jax.random.key(1)
            return rlx.evaluate(one, env, state, key, settings["eval_episodes"], greedy=False).episode_return.mean()

        returns = jax.jit(play if settings["num_seeds"] == 1 else jax.vmap(play))(state)
        return {
            "env_steps": metrics["loss"].size * config.env_steps,
            "parameters": sum(x.size for x in jax.tree.leaves(state.learner.params)) // settings["num_seeds"],
            "return": float(returns.mean()),
        }

    def flop() -> float:
        from benchmarks.budget import matrix_flops

        return updates * matrix_flops(algorithm.step, jax.eval_shape(algorithm.init, keys(jax.random.key(0))))

    measure(args, watch, prepare, check, flop)


if __name__ == "__main__":
    main()
