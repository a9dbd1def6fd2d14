"""DQN by rlx. Beside the plain one it also computes its metrics."""

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
        env: Any = rlx.make(settings["env"])
        network = rlx.nets.q_network(env, settings["hidden"], settings["activation"])
        optimizer = optax.flatten(
            optax.chain(optax.clip_by_global_norm(settings["max_grad_norm"]), optax.adam(settings["learning_rate"]))
        )
        same = ("num_envs", "batch_size", "replay_size", "prefill", "discount", "target_every")
        config = rlx.DQNConfig(
            **{name: settings[name] for name in (*same, "epsilon_start", "epsilon_end", "epsilon_steps")},
            num_steps=1,
            double=False,
            huber=None,
        )
        algorithm = rlx.dqn(env, network, optimizer, config)

    def prepare(key: Any) -> Any:
        init = rlx.jit(algorithm.init, once=True).lower(key).compile()
        steps = rlx.compile_steps(algorithm, jax.eval_shape(algorithm.init, key), settings["updates"])
        return lambda key: steps(init(key))

    def check(out: Any) -> dict[str, Any]:
        state, metrics = out
        episodes = jax.jit(lambda state, key: rlx.evaluate(algorithm, env, state, key, settings["eval_episodes"]))(
            state, jax.random.key(1)
        )
        return {
            "gradient_steps": int(state.updates),
            "env_steps": metrics["loss"].size * config.env_steps,
            "parameters": sum(x.size for x in jax.tree.leaves(state.learner.params)),
            "return": float(episodes.episode_return.mean()),
        }

    def flop() -> float:
        from benchmarks.budget import matrix_flops

        return settings["updates"] * matrix_flops(algorithm.step, jax.eval_shape(algorithm.init, jax.random.key(0)))

    measure(args, watch, prepare, check, flop)


if __name__ == "__main__":
    main()
