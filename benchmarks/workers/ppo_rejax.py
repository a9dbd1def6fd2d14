"""PPO by rejax, its evaluation left out. Its `max_grad_norm` clips each element, it has an optimiser each for actor
and critic, and it logs nothing."""

from typing import Any

from benchmarks.workers.common import PPO, Stopwatch, measure


def main() -> None:
    watch = Stopwatch()
    with watch("import"):
        import jax
        import rejax  # pyright: ignore[reportMissingImports]
        from rejax.evaluate import evaluate  # pyright: ignore[reportMissingImports]
    with watch("build"):
        env_steps = PPO["updates"] * PPO["num_envs"] * PPO["num_steps"]
        same = ("env", "num_envs", "num_steps", "num_epochs", "num_minibatches", "learning_rate", "max_grad_norm")
        algorithm = rejax.PPO.create(
            **{name: PPO[name] for name in same},
            gamma=PPO["discount"],
            gae_lambda=PPO["trace"],
            clip_eps=PPO["clip"],
            vf_coef=PPO["value_coef"],
            ent_coef=PPO["entropy_coef"],
            agent_kwargs={"hidden_layer_sizes": PPO["hidden"], "activation": PPO["activation"]},
            total_timesteps=env_steps,
            eval_freq=env_steps,
            skip_initial_evaluation=True,
        ).replace(eval_callback=lambda algorithm, state, key: ())

    def prepare(key: Any) -> Any:
        return jax.jit(algorithm.train).lower(key).compile()

    def check(out: Any) -> dict[str, Any]:
        state, _ = out
        act = algorithm.make_act(state)
        _, returns = evaluate(act, jax.random.key(1), algorithm.env, algorithm.env_params, PPO["eval_episodes"])
        params = (state.actor_ts.params, state.critic_ts.params)
        return {
            "env_steps": int(state.global_step),
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "return": float(returns.mean()),
        }

    measure(watch, prepare, check)


if __name__ == "__main__":
    main()
