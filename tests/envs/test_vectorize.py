"""Auto-reset and the way from a policy's action to the space's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import rlx
from rlx.envs.vectorize import action_to_space

KEY = jax.random.key(0)
INF = np.inf


@pytest.mark.parametrize("env", [rlx.envs.CartPole(max_steps=3), rlx.envs.Pendulum(max_steps=3)])
def test_every_reset_is_a_new_random_start(env):
    """B4: an auto-reset that restores a cached first state plays one start for ever."""
    envs = rlx.vectorize(env, 4)
    state, observation = envs.reset(KEY)
    action = jnp.zeros((4, *env.action_space.shape))
    step, starts = jax.jit(envs.step), [observation]
    for key in jax.random.split(KEY, 9):
        state, observation, out = step(jax.random.split(key, (2, 4)), state, action)
        done = out.terminated | out.truncated
        starts.append(observation[done])
        np.testing.assert_array_equal(observation[~done], out.observation[~done])
        np.testing.assert_array_equal(state.time, np.where(done, 0, out.state.time))
    starts = np.concatenate(starts)
    assert len(starts) == len(np.unique(starts, axis=0)) == 16


def test_only_the_environment_that_ended_begins_anew():
    envs = rlx.vectorize(rlx.envs.CartPole(), 3)
    state, _ = envs.reset(KEY)
    state = state._replace(position=jnp.array([0.0, 3.0, 0.0]))
    after, observation, out = jax.jit(envs.step)(jax.random.split(KEY, (2, 3)), state, jnp.zeros(3, int))
    np.testing.assert_array_equal(out.terminated, [False, True, False])
    np.testing.assert_array_equal(after.time, [1, 0, 1])
    assert np.all(np.abs(observation[1]) <= 0.05)
    assert out.observation[1, 0] > 2.4
    np.testing.assert_array_equal(observation[::2], out.observation[::2])


@pytest.mark.parametrize(
    ("low", "high", "action", "expected"),
    [
        (-2.0, 6.0, [-1, 0, 1], [-2, 2, 6]),  # rescaled
        (-2.0, 6.0, [-9, 0.5, 9], [-2, 4, 6]),  # clipped first
        (0.0, 1.0, [-1, 0, 1], [0, 0.5, 1]),
        (-INF, INF, [-9, 0, 9], [-9, 0, 9]),  # as they are
        (0.0, INF, [-9, 0.5, 9], [0, 0.5, 9]),  # a bound that is there holds
        (-INF, 3.0, [-9, 0.5, 9], [-9, 0.5, 3]),
    ],
)
@pytest.mark.parametrize("xp", [np, jnp])
def test_box_actions(low, high, action, expected, xp):
    to_space = action_to_space(spaces.Box(low, high, (1,), np.float32))
    found = to_space(xp.array(action, xp.float32)[:, None])
    np.testing.assert_allclose(found[:, 0], expected)
    assert found.dtype == np.float32


def test_each_dimension_of_a_box_has_its_own_bounds():
    to_space = action_to_space(spaces.Box(np.array([0, -INF, -4], np.float32), np.array([2, INF, 4], np.float32)))
    np.testing.assert_allclose(to_space(jnp.array([[1.0, 7.0, -0.5]])), [[2, 7, -2]])


@pytest.mark.parametrize("start", [0, 3])
def test_discrete_actions_count_from_zero(start):
    np.testing.assert_array_equal(action_to_space(spaces.Discrete(2, start=start))(jnp.arange(2)), [start, start + 1])


@pytest.mark.parametrize("space", [spaces.Tuple([spaces.Discrete(2)]), spaces.Dict({"a": spaces.Discrete(2)})])
def test_other_action_spaces_are_refused(space):
    with pytest.raises(ValueError, match="not supported"):
        action_to_space(space)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(ValueError, match="CartPole-v1"):
        rlx.make("CartPol-v1")
    with pytest.raises(ValueError, match="Acrobot-v1"):
        rlx.envs.gymnasium("Acrobott-v1")
    assert rlx.make("CartPole-v1") == rlx.envs.CartPole()
    assert rlx.make("CartPole-v0") == rlx.envs.gymnasium("CartPole-v0")
