"""Evaluation: whole episodes, an exact number, none favoured. Axes: E episodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import rlx
from rlx.types import Step

KEY = jax.random.key(0)


class Lottery(NamedTuple):
    """Episodes of 1 or 39 steps with equal odds, 20 on average; reward 1 + action."""

    observation_space = spaces.Box(0, 40, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, key):
        return jnp.where(jax.random.bernoulli(key), 1.0, 39.0), jnp.zeros(1)

    def step(self, key, state, action):
        return Step(state - 1, jnp.zeros(1), 1.0 + action, state == 1, jnp.zeros((), bool), {})


def act(state, key, observation):
    """Action 0, or a coin where it may be random."""
    shape = observation.shape[:-1]
    return jnp.full(shape, state) if key is None else jax.random.randint(key, shape, 0, 2)


ALGORITHM = rlx.Algorithm(None, None, act)


def test_long_episodes_count_as_much_as_short_ones():
    """Counting the first 200 to end among few environments would find about 2 steps, not 20."""
    episodes = rlx.evaluate(ALGORITHM, Lottery(), jnp.int32(0), KEY, 200)
    assert episodes.episode_return.shape == episodes.episode_length.shape == (200,)
    assert {*np.unique(episodes.episode_length)} == {1, 39}
    assert abs(np.mean(episodes.episode_length) - 20) < 3 * 19 / np.sqrt(200)
    np.testing.assert_array_equal(episodes.episode_return, episodes.episode_length)


def test_greedy_takes_the_mode_and_else_it_samples():
    greedy = rlx.evaluate(ALGORITHM, Lottery(), jnp.int32(1), KEY, 50)
    np.testing.assert_array_equal(greedy.episode_return, 2 * greedy.episode_length)
    sampled = rlx.evaluate(ALGORITHM, Lottery(), jnp.int32(1), KEY, 50, greedy=False)
    assert abs(sampled.episode_return.sum() / sampled.episode_length.sum() - 1.5) < 0.05
    assert len(np.unique(sampled.episode_return)) > 5


def test_jit_and_vmap_over_states():
    run = jax.jit(jax.vmap(lambda state: rlx.evaluate(ALGORITHM, Lottery(), state, KEY, 7)))
    episodes = run(jnp.arange(2))
    np.testing.assert_array_equal(episodes.episode_return[1], 2 * episodes.episode_return[0])


def test_host_environments():
    env = rlx.envs.gymnasium("CartPole-v1", max_episode_steps=9)
    episodes = rlx.evaluate(ALGORITHM, env, jnp.int32(0), KEY, 5, greedy=False)
    assert episodes.episode_length.shape == (5,)
    np.testing.assert_array_equal(episodes.episode_return, episodes.episode_length)
    again = rlx.evaluate(ALGORITHM, env, jnp.int32(0), KEY, 5, greedy=False)
    jax.tree.map(np.testing.assert_array_equal, episodes, again)
    pushed = rlx.evaluate(ALGORITHM, rlx.envs.gymnasium("CartPole-v1"), jnp.int32(0), KEY, 5)
    assert np.all((pushed.episode_length >= 8) & (pushed.episode_length <= 11))  # always left: it falls


def test_no_episodes_are_refused():
    with pytest.raises(ValueError, match="num_episodes=0"):
        rlx.evaluate(ALGORITHM, Lottery(), jnp.int32(0), KEY, 0)


def test_an_episode_without_end_is_cut_off():
    """A policy that walks into the wall of the cliff's world for ever: there is no time limit."""
    env = rlx.make("CliffWalking-v1")
    walker = rlx.Algorithm(None, None, lambda state, key, observation: jnp.zeros(observation.shape, jnp.int32))
    episodes = rlx.evaluate(walker, env, (), KEY, num_episodes=3, max_steps=50)
    np.testing.assert_array_equal(episodes.episode_length, 50)
    np.testing.assert_array_equal(episodes.episode_return, -50.0)
