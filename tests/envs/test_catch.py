"""Catch by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.envs.catch import Catch, State
from rlx.types import Step

KEY = jax.random.key(0)


def play(env, column, actions):
    """Steps of an episode whose ball comes from `column`, the paddle in the middle."""
    state = State(jnp.int32(0), jnp.int32(column), jnp.int32(env.columns // 2))
    steps = []
    for action in actions:
        steps.append(env.step(KEY, state, action))
        state = steps[-1].state
    return steps


@pytest.mark.parametrize(
    ("column", "actions", "reward"),
    [
        (2, [1] * 9, 1),
        (4, [1] * 9, -1),
        (4, [2] * 9, 1),  # the wall stops the paddle
        (0, [0] * 2 + [1] * 7, 1),
        (1, [0] * 2 + [1] * 7, -1),
        (0, [2, 2, 2, 2, 0, 0, 0, 0, 1], 1),  # 4 to the right of 2 is column 4, 4 back is 0
        (3, [1] * 8 + [2], 1),  # the paddle moves before the ball lands
    ],
)
def test_reward_comes_with_the_ball(column, actions, reward):
    steps = play(Catch(), column, actions)
    assert [float(step.reward) for step in steps] == [0] * 8 + [reward]
    assert [bool(step.terminated) for step in steps] == [False] * 8 + [True]
    assert not any(bool(step.truncated) for step in steps)


def test_observation_shows_ball_and_paddle():
    (step,) = play(Catch(), 4, [0])
    expected = np.zeros((10, 5, 1), np.uint8)
    expected[1, 4] = expected[9, 1] = 255
    np.testing.assert_array_equal(step.observation, expected)
    caught = play(Catch(), 2, [1] * 9)[-1].observation
    assert caught[9, 2, 0] == 255
    assert np.sum(caught == 255) == 1


def test_reset_is_even_over_columns():
    state, observation = jax.vmap(Catch().reset)(jax.random.split(KEY, 4096))
    assert np.all(np.abs(np.bincount(state.ball_column) / 4096 - 0.2) < 0.025)  # 4 standard errors
    np.testing.assert_array_equal(state.paddle_column, 2)
    assert np.all(np.sum(observation == 255, (1, 2, 3)) == 2)
    assert np.all(np.argmax(observation[:, 0, :, 0], 1) == state.ball_column)


def test_other_boards():
    step = play(Catch(rows=3, columns=7), 3, [1, 1])[-1]
    assert (bool(step.terminated), float(step.reward)) == (True, 1.0)
    assert Catch(rows=3, columns=7).observation_space.shape == step.observation.shape


def test_types_hold():
    env = rlx.make("Catch-bsuite")
    state, observation = jax.eval_shape(env.reset, KEY)
    step = jax.eval_shape(env.step, KEY, state, jnp.int32(0))
    flag = jax.ShapeDtypeStruct((), bool)
    assert step == Step(state, observation, jax.ShapeDtypeStruct((), jnp.float32), flag, flag, {})
    state, observation = env.reset(KEY)
    assert env.observation_space.contains(np.array(observation))
    leaves = jax.tree.leaves((state, observation))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
