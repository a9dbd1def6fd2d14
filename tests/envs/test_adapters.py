"""gymnax and brax environments as rlx's, where those libraries are installed."""

import dataclasses
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import rlx
from rlx.envs import from_brax, from_gymnax, probes, to_gymnasium


def shapes(tree):
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(tree)]


def check_types(env):
    """Types of the state and the observation hold over a step; flags, reward and observation are what they should."""
    key = jax.random.key(0)
    state, observation = jax.eval_shape(env.reset, key)
    step = jax.eval_shape(env.step, key, state, jnp.asarray(env.action_space.sample()))
    assert shapes(step.state) == shapes(state)
    assert shapes(step.observation) == shapes(observation)
    assert (observation.shape, observation.dtype) == (env.observation_space.shape, env.observation_space.dtype)
    assert (step.reward.shape, step.reward.dtype) == ((), jnp.float32)
    assert step.terminated.dtype == step.truncated.dtype == bool


class OldGymnax:
    """gymnax 0.0.9 had no `is_truncated`."""


def test_gymnax_that_is_missing_or_old_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax.environments.spaces", None)
    with pytest.raises(ImportError, match=r"pip install 'rlx\[gymnax\]'"):
        from_gymnax(OldGymnax())


class Wrapper:
    unwrapped = None


def test_wrapped_brax_is_refused():
    with pytest.raises(ValueError, match="Wrapper is a wrapper"):
        from_brax(Wrapper())


@pytest.fixture(scope="module")
def gymnax():
    pytest.importorskip(
        "gymnax", reason="NOT TESTED: gymnax is missing: pip install 'rlx[gymnax]'", exc_type=ImportError
    )
    import gymnax

    return gymnax


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "Catch-bsuite", "FourRooms-misc"])
def test_gymnax_types(gymnax, name):
    check_types(from_gymnax(*gymnax.make(name)))


def test_gymnax_cartpole_is_ours(gymnax):
    """Both flags and the numbers, from the same states."""
    theirs, ours = from_gymnax(*gymnax.make("CartPole-v1")), rlx.envs.CartPole()
    assert theirs.action_space == ours.action_space
    key = jax.random.key(0)
    raw = jax.random.uniform(key, (512, 4), minval=-1, maxval=1) * jnp.array([3.0, 1.0, 0.3, 1.0])
    time = jnp.arange(512)
    ours_state = jax.vmap(ours.reset)(jax.random.split(key, 512))[0]
    ours_state = type(ours_state)(*raw.T, time)
    theirs_state = jax.vmap(theirs.reset)(jax.random.split(key, 512))[0]
    names = ("x", "x_dot", "theta", "theta_dot")
    theirs_state = theirs_state.replace(**dict(zip(names, raw.T, strict=True)), time=time)
    expected = jax.vmap(ours.step, (None, 0, 0))(key, ours_state, time % 2)
    found = jax.vmap(theirs.step, (None, 0, 0))(key, theirs_state, time % 2)
    np.testing.assert_allclose(found.observation, expected.observation, atol=1e-5)
    np.testing.assert_array_equal(found.terminated, expected.terminated)
    np.testing.assert_array_equal(found.truncated, expected.truncated)
    assert expected.terminated.any()
    assert expected.truncated.any()
    assert not np.array_equal(expected.terminated, expected.truncated)


def test_gymnax_params_may_be_traced_and_leave_for_gymnasium(gymnax):
    env, params = gymnax.make("CartPole-v1")
    key = jax.random.key(0)

    def last(gravity):
        changed = dataclasses.replace(from_gymnax(env, params), params=params.replace(gravity=gravity))
        return changed.step(key, changed.reset(key)[0], 1).observation[3]

    assert len(np.unique(jax.vmap(last)(jnp.array([1.0, 9.8, 100.0])))) == 3
    envs = to_gymnasium(from_gymnax(env, params), 2)
    assert envs.reset(seed=0)[0].shape == (2, 4)
    assert isinstance(envs, gymnasium.vector.VectorEnv)


@pytest.fixture(scope="module")
def brax():
    pytest.importorskip("brax", reason="NOT TESTED: brax is missing: pip install 'rlx[brax]'")
    import brax.envs

    return brax


@pytest.mark.filterwarnings("ignore")  # of brax's own
def test_brax(brax):
    env = from_brax(brax.envs.get_environment("fast"), 5)  # its own environment for tests
    check_types(env)
    assert env.action_space == spaces.Box(-1, 1, (1,), np.float32)
    envs = rlx.vectorize(env, 2)

    def step(carry, key):
        state, _, out = envs.step(jax.random.split(key, (2, 2)), carry, jnp.zeros((2, 1)))
        return state, (out.terminated, out.truncated)

    state, _ = envs.reset(jax.random.key(0))
    _, (terminated, truncated) = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))(
        state, jax.random.split(jax.random.key(1), 12)
    )
    assert not terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(truncated[:, 0]), [4, 9])
    with pytest.raises(ValueError, match="wrapper"):
        from_brax(brax.envs.create("fast"))
    with pytest.raises(ValueError, match="episode_length"):
        from_brax(brax.envs.get_environment("fast"), 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_brax_tells_a_fall_from_the_time_limit(brax):
    env = from_brax(brax.envs.get_environment("inverted_pendulum", backend="generalized"), 30)
    check_types(env)
    envs = rlx.vectorize(env, 4)

    def step(carry, key):
        action = jnp.array([[0.0], [1.0], [0.0], [1.0]])
        state, _, out = envs.step(jax.random.split(key, (2, 4)), carry, action)
        return state, (out.terminated, out.truncated)

    state, _ = envs.reset(jax.random.key(0))
    run = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    _, (terminated, truncated) = run(state, jax.random.split(jax.random.key(1), 60))
    assert terminated[:, 1].any()  # pushed over
    assert not truncated[:, 1].any()


def test_flags_survive_the_way_out_and_back():
    """An rlx environment as gymnasium's, as a recipe, back in rlx."""
    recipe = rlx.envs.gymnasium(lambda: to_gymnasium(probes.Clock(limit=3)))
    envs = rlx.vectorize(recipe, 2)
    state, _ = envs.reset(jax.random.key(0))
    ends = []
    for _ in range(6):
        state, _, step = envs.step(jax.random.key(0), state, np.zeros(2, int))
        ends.append((step.terminated.any(), step.truncated.all()))
    assert ends == [(False, False), (False, False), (False, True)] * 2
