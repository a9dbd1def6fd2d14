"""The replay by flashbax: its item buffer, the faster one of its two for single transitions."""

from typing import Any

from benchmarks.workers.common import REPLAY, measure_replay


def build(capacity: int) -> tuple[Any, Any, Any]:
    import flashbax  # pyright: ignore[reportMissingImports]
    import jax
    import jax.numpy as jnp

    buffer = flashbax.make_item_buffer(
        max_length=capacity, min_length=1, sample_batch_size=REPLAY["batch_size"], add_batches=True
    )

    def rows(observation: Any, reward: Any) -> dict[str, Any]:
        flags = jnp.zeros(reward.shape, bool)
        return {
            "observation": observation,
            "action": jnp.zeros(reward.shape, jnp.int32),
            "reward": reward,
            "terminated": flags,
            "truncated": flags,
            "next_observation": observation,
        }

    def init() -> Any:
        full = rows(jnp.zeros((capacity, REPLAY["observation"])), jnp.zeros(capacity))
        return buffer.add(buffer.init(jax.tree.map(lambda x: x[0], full)), full)

    def add(replay: Any, observation: Any, reward: Any) -> Any:
        return buffer.add(replay, rows(observation, reward))

    def sample(replay: Any, key: Any) -> Any:
        return buffer.sample(replay, key).experience

    return init, add, sample


if __name__ == "__main__":
    measure_replay(build)
