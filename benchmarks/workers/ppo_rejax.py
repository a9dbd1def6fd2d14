"""PPO by rejax, its evaluation left out. Its `max_grad_norm` clips each element, it has an optimiser each for actor
and critic, and it logs nothing."""

from typing import Any

from benchmarks.workers.common import Stopwatch, arguments, measure, settings_of


def main() -> None:
    args, watch = arguments(), Stopwatch()
    settings = settings_of(args.work)
    with watch("import"):
        import jax
        import rejax  # pyright: ignore[reportMissingImports]
        from rejax.evaluate import evaluate  # pyright: ignore[reportMissingImports]
    with watch("build"):
        updates = settings["check_updates" if args.check else "updates"]
        env_steps = updates * settings["num_envs"] * settings["num_steps"]
        same = ("env", "num_envs", "num_steps", "num_epochs", "num_minibatches", "learning_rate", "max_grad_norm")
        algorithm = rejax.PPO.create(
            **{name: settings[name] for name in same},
            gamma=settings["discount"],
            gae_lambda=settings["trace"],
            clip_eps=settings["clip"],
            vf_coef=settings["value_coef"],
            ent_coef=settings["entropy_coef"],
            agent_kwargs={"hidden_layer_sizes": settings["hidden"], "activation": settings["activation"]},
            total_timesteps=env_steps,
            eval_freq=env_steps,
            skip_initial_evaluation=True,
        ).replace(eval_callback=lambda algorithm, state, key: ())
        train = algorithm.train if settings["num_seeds"] == 1 else jax.vmap(algorithm.train)

    def keys(key: Any) -> Any:
        return key if settings["num_seeds"] == 1 else jax.random.split(key, settings["num_seeds"])

    def prepare(key: Any) -> Any:
        program = jax.jit(train).lower(keys(key)).compile()
        return lambda key: program(keys(key))

    def check(out: Any) -> dict[str, Any]:
        state, _ = out

        def play(state: Any) -> Any:
            act, episodes = algorithm.make_act(state), settings["eval_episodes"]
            return evaluate(act, jax.random.key(1), algorithm.env, algorithm.env_params, episodes)[1].mean()

        returns = jax.jit(play if settings["num_seeds"] == 1 else jax.vmap(play))(state)
        params = (state.actor_ts.params, state.critic_ts.params)
        return {
            "env_steps": int(state.global_step.sum()),
            "parameters": sum(x.size for x in jax.tree.leaves(params)) // settings["num_seeds"],
            "return": float(returns.mean()),
        }

    measure(args, watch, prepare, check)


if __name__ == "__main__":
    main()
