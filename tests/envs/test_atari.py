"""Atari games through the bridge; skipped where ale-py or opencv is not installed."""

import jax
import numpy as np
import optax
import pytest

import rlx

pytest.importorskip("ale_py", reason="pip install 'rlx[atari]'")
pytest.importorskip("cv2", reason="pip install 'rlx[atari]'")


def test_observations_are_the_last_four_frames():
    env = rlx.vectorize(rlx.make("ALE/Breakout-v5"), 2)
    state, observation = env.reset(jax.random.key(0))
    assert env.action_space.n == 4
    for action in (1, 2, 3, 2):
        before = observation
        state, observation, step = env.step(jax.random.key(0), state, np.full(2, action))
        assert observation.shape == (2, 4, 84, 84)
        assert observation.dtype == np.uint8
        np.testing.assert_array_equal(observation[:, :3], before[:, 1:])  # the oldest comes first
    assert not step.terminated.any()


def test_games_are_named():
    assert rlx.make("ALE/Pong-v5").name == "ALE/Pong-v5"
    with pytest.raises(ValueError, match=r"did you mean .*ALE/Breakout-v5"):
        rlx.make("ALE/Brekout-v5")


@pytest.mark.slow
def test_dqn_learns_from_pixels_with_clipped_rewards():
    env = rlx.make("ALE/Breakout-v5")
    config = rlx.DQNConfig(
        num_envs=2, num_steps=4, batch_size=8, prefill=64, replay_size=256, reward_clip=1.0, epsilon_steps=10
    )
    algorithm = rlx.dqn(env, rlx.nets.q_network(env, (32,)), optax.adam(1e-4), config)
    begun = algorithm.init(jax.random.key(0))
    assert begun.replay.rows.observation.dtype == np.uint8
    ((state, metrics),) = rlx.chunks(algorithm, begun, 3, every=3)
    assert np.all(np.isfinite(metrics["loss"]))
    assert state.replay.size == 32 + 12
