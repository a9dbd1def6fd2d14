"""The part that SBX's and Stable-Baselines3's workers share, as their interface is one."""

from collections.abc import Callable
from typing import Any

from benchmarks.workers.common import Stopwatch, arguments, report, settings_of


def measure_learner(watch: Stopwatch, make: Any, policy: dict[str, Any], parameters: Callable[[Any], int]) -> None:
    """Learn for the first time, which compiles, then go on `--repeat` times; print one JSON line.

    Args:
        watch: has timed the import.
        make: the class of the algorithm.
        policy: of its policy's arguments, those that differ between the two.
        parameters: how many the actor and the critics have.
    """
    args = arguments()
    settings = settings_of(args.work)
    with watch("build"):
        model = make(
            "MlpPolicy",
            settings["env"],
            learning_rate=settings["learning_rate"],
            buffer_size=settings["replay_size"],
            learning_starts=settings["prefill"],
            batch_size=settings["batch_size"],
            gamma=settings["discount"],
            tau=settings["tau"],
            train_freq=1,
            gradient_steps=1,
            policy_kwargs={"net_arch": list(settings["hidden"]), **policy},
            seed=args.seed,
        )
    updates = settings["check_updates" if args.check else "updates"]
    with watch("run"):
        model.learn(settings["prefill"] + updates)
    steady = Stopwatch()
    for index in range(args.repeat):
        with steady(str(index)):
            model.learn(updates, reset_num_timesteps=False)
    facts = {}
    if args.check:
        from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]

        mean, _ = evaluate_policy(model, model.get_env(), settings["eval_episodes"])
        gradient_steps = int(getattr(model, "_n_updates", 0))
        facts = {"gradient_steps": gradient_steps, "parameters": parameters(model), "return": float(mean)}
    report(watch, steady, facts)
