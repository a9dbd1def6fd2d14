"""PPO by rlx. Beside rejax it also computes its metrics, and its gradient norm is one of actor and critic together."""

from typing import Any

from benchmarks.workers.common import PPO, Stopwatch, measure


def main() -> None:
    watch = Stopwatch()
    with watch("import"):
        import jax
        import optax

        import rlx
    with watch("build"):
        env: Any = rlx.make(PPO["env"])
        network = rlx.nets.actor_critic(env, PPO["hidden"], PPO["activation"])
        optimizer = optax.flatten(
            optax.chain(optax.clip_by_global_norm(PPO["max_grad_norm"]), optax.adam(PPO["learning_rate"]))
        )
        same = ("num_envs", "num_steps", "num_epochs", "num_minibatches", "discount", "trace", "clip", "value_coef")
        config = rlx.PPOConfig(
            **{name: PPO[name] for name in same}, entropy_coef=PPO["entropy_coef"], value_clip=PPO["clip"]
        )
        algorithm = rlx.ppo(env, network, optimizer, config)

    def prepare(key: Any) -> Any:
        init = rlx.jit(algorithm.init, once=True).lower(key).compile()
        steps = rlx.compile_steps(algorithm, jax.eval_shape(algorithm.init, key), PPO["updates"])
        return lambda key: steps(init(key))

    def check(out: Any) -> dict[str, Any]:
        state, metrics = out
        episodes = jax.jit(
            lambda state, key: rlx.evaluate(algorithm, env, state, key, PPO["eval_episodes"], greedy=False)
        )(state, jax.random.key(1))
        return {
            "env_steps": metrics["loss"].shape[0] * config.env_steps,
            "parameters": sum(x.size for x in jax.tree.leaves(state.learner.params)),
            "return": float(episodes.episode_return.mean()),
        }

    measure(watch, prepare, check)


if __name__ == "__main__":
    main()
