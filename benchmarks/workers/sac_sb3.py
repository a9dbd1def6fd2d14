"""SAC by Stable-Baselines3."""

from benchmarks.workers.common import Stopwatch
from benchmarks.workers.sb3_loop import measure_learner


def main() -> None:
    watch = Stopwatch()
    with watch("import"):
        import torch  # pyright: ignore[reportMissingImports]
        from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(1)

    def parameters(model: SAC) -> int:
        return sum(x.numel() for part in (model.actor, model.critic) for x in part.parameters())

    measure_learner(watch, SAC, {}, parameters)


if __name__ == "__main__":
    main()
