"""SAC by SBX, whose learner is JAX and whose environment gymnasium's."""

from benchmarks.workers.common import Stopwatch
from benchmarks.workers.sb3_loop import measure_learner


def main() -> None:
    watch = Stopwatch()
    with watch("import"):
        import flax.linen as nn
        import jax
        from sbx import SAC  # pyright: ignore[reportMissingImports]

    def parameters(model: SAC) -> int:
        policy = model.policy
        return sum(x.size for x in jax.tree.leaves((policy.actor_state.params, policy.qf_state.params)))

    measure_learner(watch, SAC, {"activation_fn": nn.relu}, parameters)


if __name__ == "__main__":
    main()
