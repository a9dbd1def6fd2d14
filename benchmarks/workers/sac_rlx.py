"""SAC by rlx. Beside the peers it also computes its metrics, and its target entropy is of the density over [-1, 1].

Each of its runs begins anew, prefill and all, where theirs go on.
"""

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
        actor = rlx.nets.soft_actor(env, settings["hidden"])
        critic = rlx.nets.q_critic(env, settings["hidden"])
        same = ("batch_size", "replay_size", "prefill", "discount", "tau")
        config = rlx.SACConfig(**{name: settings[name] for name in same})
        algorithm = rlx.sac(env, actor, critic, optax.flatten(optax.adam(settings["learning_rate"])), config)
        updates = settings["check_updates" if args.check else "updates"]

    def prepare(key: Any) -> Any:
        init = rlx.jit(algorithm.init, once=True).lower(key).compile()
        steps = rlx.compile_steps(algorithm, jax.eval_shape(algorithm.init, key), updates)
        return lambda key: steps(init(key))

    def check(out: Any) -> dict[str, Any]:
        state, metrics = out
        episodes = jax.jit(lambda state, key: rlx.evaluate(algorithm, env, state, key, settings["eval_episodes"]))(
            state, jax.random.key(1)
        )
        return {
            "gradient_steps": metrics["actor_loss"].size * config.gradient_steps,
            "parameters": sum(x.size for x in jax.tree.leaves((state.actor.params, state.critic.params))),
            "return": float(episodes.episode_return.mean()),
        }

    def flop() -> float:
        from benchmarks.budget import matrix_flops

        return updates * matrix_flops(algorithm.step, jax.eval_shape(algorithm.init, jax.random.key(0)))

    measure(args, watch, prepare, check, flop)


if __name__ == "__main__":
    main()
