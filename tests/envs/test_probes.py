"""The probes by hand: what they show, what they pay, when they end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.envs import probes

PROBES = [
    probes.ConstantReward,
    probes.ObservationReward,
    probes.DelayedReward,
    probes.ActionReward,
    probes.ObservationActionReward,
    probes.Clock,
    probes.ContinuousTarget,
]
KEY = jax.random.key(0)


def episode(env, action, key=KEY, length=1):
    """Observations [length + 1], rewards, terminated, truncated [length] under one action."""
    state, observation = env.reset(key)
    rows, observations = [], [observation]
    for _ in range(length):
        step = env.step(key, state, action)
        state = step.state
        observations.append(step.observation)
        rows.append((step.reward, step.terminated, step.truncated))
    return np.array(observations)[:, 0].tolist(), *(np.array(column).tolist() for column in zip(*rows, strict=True))


def key_of(cue):
    """A key whose reset shows this cue."""
    return next(key for key in jax.random.split(KEY, 32) if probes.ObservationReward().reset(key)[0] == cue)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("make", PROBES)
def test_types_hold(make, continuous):
    env = make(continuous=continuous)
    env.action_space.seed(0)
    action = jnp.asarray(env.action_space.sample())
    assert action.shape == ((1,) if continuous else ())
    state, observation = jax.eval_shape(env.reset, KEY)
    step = jax.eval_shape(env.step, KEY, state, action)
    assert (step.state, step.observation) == (state, observation)
    assert step.reward == jax.ShapeDtypeStruct((), jnp.float32)
    assert step.terminated == step.truncated == jax.ShapeDtypeStruct((), bool)
    assert env.observation_space.contains(np.array(env.reset(KEY)[1]))
    assert env.observation_space.contains(np.array(env.step(KEY, env.reset(KEY)[0], action).observation))
    leaves = jax.tree.leaves(env.reset(KEY))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    assert jax.tree.leaves(env) == []
    jax.jit(lambda env, key: env.reset(key))(env, KEY)  # hashable


def test_constant_reward():
    assert episode(probes.ConstantReward(), 0) == ([0, 0], [1], [True], [False])


@pytest.mark.parametrize("cue", [-1, 1])
def test_observation_reward(cue):
    assert episode(probes.ObservationReward(), 0, key_of(cue)) == ([cue, cue], [cue], [True], [False])


def test_delayed_reward():
    assert episode(probes.DelayedReward(), 0, length=2) == ([0, 1, 1], [0, 1], [False, True], [False, False])


@pytest.mark.parametrize(("action", "reward"), [(0, -1), (1, 1)])
def test_action_reward(action, reward):
    assert episode(probes.ActionReward(), action) == ([0, 0], [reward], [True], [False])
    assert episode(probes.ActionReward(continuous=True), jnp.array([reward / 2]))[1] == [reward / 2]


@pytest.mark.parametrize(("cue", "action", "reward"), [(-1, 0, 1), (-1, 1, -1), (1, 0, -1), (1, 1, 1)])
def test_observation_action_reward(cue, action, reward):
    env = probes.ObservationActionReward()
    assert episode(env, action, key_of(cue)) == ([cue, cue], [reward], [True], [False])


@pytest.mark.parametrize("limit", [1, 10])
def test_clock_is_cut_off_and_never_ends(limit):
    before = [False] * (limit - 1)
    observations, rewards, terminated, truncated = episode(probes.Clock(limit=limit), 0, length=limit)
    assert observations == [0] * (limit + 1)
    assert rewards == [1] * limit
    assert terminated == [False] * limit
    assert truncated == [*before, True]


def test_clock_values_in_its_docstring():
    to_go = np.arange(1, probes.Clock().limit + 1)
    assert np.mean((1 - 0.9**to_go) / (1 - 0.9)) == pytest.approx(4.1, abs=0.05)


@pytest.mark.parametrize(("cue", "action", "reward"), [(1, 0.5, 0), (-1, -0.5, 0), (1, -0.5, -1), (-1, 1.0, -2.25)])
def test_continuous_target(cue, action, reward):
    env = probes.ContinuousTarget()
    assert episode(env, jnp.array([action]), key_of(cue)) == ([cue, cue], [reward], [True], [False])


def test_cues_are_even():
    _, cue = jax.vmap(probes.ObservationReward().reset)(jax.random.split(KEY, 4096))
    assert abs(float(cue.mean())) < 0.06  # 4 standard errors
