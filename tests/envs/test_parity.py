"""Our environments beside gymnasium's: 10,000 steps of random actions, each from gymnasium's own state."""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.envs import acrobot, mountain_car, mountain_car_continuous
from rlx.envs.acrobot import Acrobot
from rlx.envs.cartpole import CartPole
from rlx.envs.cartpole import State as CartPoleState
from rlx.envs.mountain_car import MountainCar
from rlx.envs.mountain_car_continuous import MountainCarContinuous
from rlx.envs.pendulum import Pendulum
from rlx.envs.pendulum import State as PendulumState
from rlx.types import Step

STEPS = 10_000
IDS = {
    "CartPole-v1": CartPole(),
    "Pendulum-v1": Pendulum(),
    "Acrobot-v1": Acrobot(),
    "MountainCar-v0": MountainCar(),
    "MountainCarContinuous-v0": MountainCarContinuous(),
}
ENVS = pytest.mark.parametrize(("env", "name"), [(env, name) for name, env in IDS.items()], ids=list(IDS))
# Added to every start but the first, uniform in plus or minus: else a random policy sees hardly any termination
SPREAD = {
    "CartPole-v1": [2.4, 0, 0, 0],
    "Pendulum-v1": [0, 0],
    "Acrobot-v1": [np.pi - 0.1, np.pi - 0.1, 4, 9],
    "MountainCar-v0": [0.6, 0.07],
    "MountainCarContinuous-v0": [0.6, 0.07],
}
# Middle and half the width of the uniform start of each field
STARTS = {
    "CartPole-v1": [(0, 0.05)] * 4,
    "Pendulum-v1": [(0, np.pi), (0, 1)],
    "Acrobot-v1": [(0, 0.1)] * 4,
    "MountainCar-v0": [(-0.5, 0.1), (0, 0)],
    "MountainCarContinuous-v0": [(-0.5, 0.1), (0, 0)],
}


def reference(name, **kwargs):
    """A gymnasium environment with its time limit and no checker (it would refuse torques beyond the bounds)."""
    env = gymnasium.make(name, disable_env_checker=True, **kwargs)
    env.reset(seed=0)
    env.action_space.seed(0)
    return env


def draw(env):
    """A random action; torques go beyond the bounds by half, as clipping is the environment's."""
    action = env.action_space.sample()
    return action if np.isscalar(action) else 1.5 * action


class Record(NamedTuple):
    """STEPS rows of gymnasium's."""

    state: list[np.ndarray]  # float64, its raw state before the step
    time: list[int]
    action: list[np.ndarray]
    observation: list[np.ndarray]  # after the step
    reward: list[float]
    terminated: list[bool]
    truncated: list[bool]


def record(env) -> Record:
    rows, time, start = [], 0, np.random.default_rng(0)
    spread = np.array(SPREAD[env.spec.id])
    for _ in range(STEPS):
        state, action = np.array(env.unwrapped.state), draw(env)
        observation, reward, terminated, truncated, _ = env.step(action)
        rows.append((state, time, action, observation, reward, terminated, truncated))
        time += 1
        if terminated or truncated:
            env.reset()
            env.unwrapped.state += start.uniform(-spread, spread).astype(env.unwrapped.state.dtype)
            time = 0
    return Record(*zip(*rows, strict=True))


@pytest.mark.parametrize(
    ("env", "state", "name"),
    [
        (CartPole(), CartPoleState, "CartPole-v1"),
        (CartPole(max_steps=20), CartPoleState, "CartPole-v1"),  # the random policy never comes to 500
        (Pendulum(), PendulumState, "Pendulum-v1"),
        (Acrobot(), acrobot.State, "Acrobot-v1"),
        (Acrobot(max_steps=20), acrobot.State, "Acrobot-v1"),
        (MountainCar(), mountain_car.State, "MountainCar-v0"),
        (MountainCar(max_steps=20), mountain_car.State, "MountainCar-v0"),
        (MountainCarContinuous(), mountain_car_continuous.State, "MountainCarContinuous-v0"),
        (MountainCarContinuous(max_steps=20), mountain_car_continuous.State, "MountainCarContinuous-v0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_steps_equal_gymnasium(env, state, name):
    theirs = record(reference(name, max_episode_steps=env.max_steps))
    raw = np.stack(theirs.state)  # [STEPS, fields]
    if isinstance(env, Pendulum):  # gymnasium's angle comes to 43 rad, where one float32 digit moves the reward by 2e-5
        raw[:, 0] = (raw[:, 0] + np.pi) % (2 * np.pi) - np.pi
    states = state(*jnp.asarray(raw.T, jnp.float32), jnp.array(theirs.time))
    ours = jax.jit(jax.vmap(env.step, (None, 0, 0)))(jax.random.key(0), states, jnp.array(theirs.action))

    np.testing.assert_allclose(ours.observation, theirs.observation, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.reward, theirs.reward, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ours.terminated, theirs.terminated)
    np.testing.assert_array_equal(ours.truncated, theirs.truncated)
    np.testing.assert_array_equal(ours.state.time, np.array(theirs.time) + 1)

    # what the comparison has to have met
    observation, action = np.array(theirs.observation), np.array(theirs.action)
    if isinstance(env, Pendulum):
        assert np.abs(action).max() > env.max_torque
        assert np.abs(raw[:, 0]).max() > 3.1
    else:
        assert sum(theirs.terminated) > (10 if env.max_steps == 20 else 0)
    if isinstance(env, CartPole):
        position, _, angle, _ = np.abs(observation).T
        assert np.sum(position > env.max_position) > 10
        assert np.sum(angle > env.max_angle) > 100
    if isinstance(env, Acrobot):
        for before, after in zip(raw.T[:2], ours.state[:2], strict=True):
            assert np.any(np.abs(after - before) > 5.7)  # it went round: no velocity reaches so far in a step
        assert {0.0, -1.0} == set(theirs.reward)
    if isinstance(env, (MountainCar, MountainCarContinuous)):
        position, velocity = observation.T
        assert np.sum((position == np.float32(env.min_position)) & (velocity == 0)) > 10
        assert np.sum(np.abs(velocity) == np.float32(env.max_speed)) > 10
    if isinstance(env, MountainCarContinuous):
        assert np.abs(action).max() > 1.4
    if action.ndim == 1:
        assert len(np.unique(action)) == env.action_space.n
    if env != CartPole():
        assert any(theirs.truncated)
    if env.max_steps == 20:
        assert np.any(np.logical_and(theirs.terminated, theirs.truncated))


def test_cartpole_running_free_stays_near_gymnasium():
    """Over 200 steps of the same pushes. An unsteered pole falls as e^(4 t / s), and so does a rounding error grow."""
    theirs, env = reference("CartPole-v1"), CartPole()
    state = CartPoleState(*jnp.asarray(theirs.unwrapped.state, jnp.float32), jnp.int32(0))
    actions, observations = [], []
    for _ in range(200):
        position, velocity, angle, angular_velocity = theirs.unwrapped.state
        actions.append(int(angle + angular_velocity + 0.1 * position + 0.2 * velocity > 0))
        observation, _, terminated, _, _ = theirs.step(actions[-1])
        assert not terminated
        observations.append(observation)

    def step(state, action):
        step = env.step(jax.random.key(0), state, action)
        return step.state, step

    _, ours = jax.lax.scan(step, state, jnp.array(actions))
    drift = np.abs(ours.observation - np.array(observations)).max(1)
    assert np.all(drift < 3e-7 * np.exp(4 * env.time_step * np.arange(1, 201)))
    assert drift[:50].max() < 1e-5
    assert not jnp.any(ours.terminated | ours.truncated)


def test_pendulum_angle_is_taken_modulo_a_turn():
    angle = jnp.linspace(-3.0, 3.0, 13)  # rad
    step = jax.vmap(lambda angle: Pendulum().step(jax.random.key(0), PendulumState(angle, 1.0, 0), jnp.ones(1)))
    for turns in (-5, 1, 5):
        here, there = step(angle), step(angle + 2 * jnp.pi * turns)
        np.testing.assert_allclose(there.observation, here.observation, atol=1e-5)
        np.testing.assert_allclose(there.reward, here.reward, atol=5e-5)


@ENVS
def test_spaces_equal_gymnasiums(env, name):
    assert env.observation_space == reference(name).observation_space
    assert env.action_space == reference(name).action_space


@ENVS
def test_resets_are_spread_as_gymnasiums(env, name):
    state, observation = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 4096))
    middle, half = np.array(STARTS[name]).T
    raw = np.stack(state[:-1], 1)  # [4096, fields]
    assert np.all(np.abs(raw - middle) <= half * (1 + 1e-6))
    np.testing.assert_allclose(raw.mean(0), middle, atol=0.05 * half.max())  # 3 standard errors: 0.027 half
    np.testing.assert_allclose(raw.std(0), half / np.sqrt(3), rtol=0.05)
    drawn = raw[:, half > 0]
    assert len(np.unique(drawn[:, 0])) > 4000
    assert not np.any(np.triu(np.abs(np.corrcoef(drawn.T, drawn.T)), 1 + drawn.shape[1]) > 0.1)
    np.testing.assert_array_equal(state.time, 0)

    theirs = reference(name)
    theirs.unwrapped.state = raw[0]
    get = {"Pendulum-v1": "_get_obs", "Acrobot-v1": "_get_ob"}.get(name)
    expected = getattr(theirs.unwrapped, get)() if get else raw[0]
    np.testing.assert_allclose(observation[0], expected, atol=1e-6)


@ENVS
def test_rollout_stays_in_the_space_and_types_hold(env, name):
    key = jax.random.key(0)
    action = jnp.asarray(env.action_space.sample())
    state, observation = jax.eval_shape(env.reset, key)
    step = jax.eval_shape(env.step, key, state, action)
    assert step.state == state
    assert step.observation == observation
    assert observation.shape == env.observation_space.shape
    assert observation.dtype == env.observation_space.dtype
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    flag = jax.ShapeDtypeStruct((), bool)
    assert step == Step(state, observation, scalar, flag, flag, {})

    def act(state, key):
        drawn = jax.random.randint(key, (), 0, env.action_space.n) if action.ndim == 0 else jax.random.normal(key, (1,))
        step = env.step(key, state, drawn)
        return step.state, step

    _, steps = jax.lax.scan(act, env.reset(key)[0], jax.random.split(key, 30))
    end = np.argmax(steps.terminated) + 1 if steps.terminated.any() else 30  # what comes after is nobody's
    assert all(env.observation_space.contains(np.array(row)) for row in steps.observation[:end])


@ENVS
def test_eager_reset_returns_no_buffer_twice(env, name):
    leaves = jax.tree.leaves(env.reset(jax.random.key(0)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize(
    ("make", "constant", "inert"),
    [
        (CartPole, "length", set()),
        (Pendulum, "length", set()),
        (Acrobot, "length", {"torque"}),  # action 1 has none
        (MountainCar, "gravity", {"force", "goal_position", "goal_velocity"}),
        (MountainCarContinuous, "power", {"goal_position", "goal_velocity"}),
    ],
)
def test_constants_are_traced_batched_and_differentiated(make, constant, inert):
    key = jax.random.key(0)

    def last(env):
        """Sum of the observation after 10 steps of the same action."""
        action = jnp.ones(env.action_space.shape)

        def step(state, _):
            step = env.step(key, state, action)
            return step.state, step.observation

        return jax.lax.scan(step, env.reset(key)[0], length=10)[1][-1].sum()

    value = getattr(make(), constant)
    values = jnp.array([0.5, 0.75, 1.0]) * value
    batched = jax.vmap(lambda value: last(make(**{constant: value})))(values)
    np.testing.assert_allclose(batched, [last(make(**{constant: float(value)})) for value in values], rtol=1e-4)
    assert len(np.unique(batched)) == 3
    np.testing.assert_allclose(jax.jit(last)(make()), last(make()), rtol=1e-4)  # the environment as an argument

    slopes = jax.grad(last)(make())  # with respect to each constant
    assert np.all(np.isfinite(jax.tree.leaves(slopes)))
    zero = {path[0].name for path, slope in jax.tree_util.tree_leaves_with_path(slopes) if slope == 0}
    assert zero == inert
    step = 2e-2 * value
    difference = (last(make(**{constant: value + step})) - last(make(**{constant: value - step}))) / (2 * step)
    np.testing.assert_allclose(getattr(slopes, constant), difference, rtol=2e-2)
