"""A host algorithm that goes on from a loaded state."""

import jax
import numpy as np
import optax

import rlx


def test_a_loaded_state_goes_on_with_new_episodes(tmp_path):
    env = rlx.envs.gymnasium("CartPole-v1")
    network = rlx.nets.actor_critic(env, hidden=(4,))
    config = rlx.PPOConfig(num_envs=2, num_steps=4, num_minibatches=1, normalize_reward=True)

    def make():
        return rlx.ppo(env, network, optax.adam(1e-3), config)

    first = make()
    (state, _), *_ = rlx.chunks(first, first.init(jax.random.key(0)), 3, every=3)
    path = rlx.save_checkpoint(tmp_path, 3, state)

    second = make()
    loaded = rlx.load_checkpoint(path, second.init(jax.random.key(1)))
    restarted = rlx.restart_environments(second, loaded, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, restarted.learner, state.learner)
    assert restarted.reward_scaler.moments == loaded.reward_scaler.moments
    assert not restarted.reward_scaler.discounted.any()
    assert not restarted.rollout.episode_length.any()
    assert (np.abs(restarted.rollout.observation) <= 0.05).all()  # where CartPole begins
    (after, metrics), *_ = rlx.chunks(second, restarted, 2, every=2)
    assert np.isfinite(metrics["loss"]).all()
    assert (np.asarray(after.rollout.episode_length) <= 8).all()
