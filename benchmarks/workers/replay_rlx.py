"""The replay by rlx."""

from typing import Any

from benchmarks.workers.common import REPLAY, measure_replay


def build(capacity: int) -> tuple[Any, Any, Any]:
    import jax.numpy as jnp

    from rlx.core import replay as replays
    from rlx.types import Transition

    num_envs, width = REPLAY["added"], REPLAY["observation"]

    def rows(observation: Any, reward: Any) -> Transition:
        flags = jnp.zeros(reward.shape, bool)
        return Transition(observation, jnp.zeros(reward.shape, jnp.int32), reward, flags, flags, observation)

    def init() -> replays.Replay:
        steps = capacity // num_envs
        return replays.init_replay(rows(jnp.zeros((steps, num_envs, width)), jnp.zeros((steps, num_envs))), steps)

    def add(replay: replays.Replay, observation: Any, reward: Any) -> replays.Replay:
        return replays.add(replay, rows(observation[None], reward[None]))

    def sample(replay: replays.Replay, key: Any) -> replays.Batch:
        return replays.read(replay, replays.sample_rows(key, replay, (REPLAY["batch_size"],)), 0.99)

    return init, add, sample


if __name__ == "__main__":
    measure_replay(build)
