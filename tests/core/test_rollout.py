"""Rollouts over a world that writes its own history into the observations. Axes: T time, B environments."""

from functools import partial
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import rlx
from rlx.types import Step

T, B = 11, 3
KEY = jax.random.key(0)


class Diary(NamedTuple):
    """An episode has a random name and a random end: after 1 to 4 steps, terminated, truncated or both.

    Observation [name, steps so far, action before]; reward: steps so far + action / 10.
    """

    class State(NamedTuple):
        name: jax.Array
        length: jax.Array
        end: jax.Array  # 1 terminated, 2 truncated, 3 both
        time: jax.Array

    observation_space = spaces.Box(0, 10, (3,))
    action_space = spaces.Discrete(2)

    def reset(self, key):
        name_key, length_key, end_key = jax.random.split(key, 3)
        name = jax.random.uniform(name_key)
        length, end = jax.random.randint(length_key, (), 1, 5), jax.random.randint(end_key, (), 1, 4)
        return self.State(name, length, end, jnp.int32(0)), jnp.stack([name, 0.0, -1.0])

    def step(self, key, state, action):
        state = state._replace(time=state.time + 1)
        observation = jnp.stack([state.name, state.time.astype(float), action.astype(float)])
        over = state.time == state.length
        reward = state.time + action / 10
        return Step(state, observation, reward, over & (state.end != 2), over & (state.end != 1), {})


def coin(actor, key, observation):
    return jax.random.randint(key, observation.shape[:1], 0, 2)


def two_rollouts(env, policy=coin, steps=T):
    """Transitions `[2 T, B, ...]` of two rollouts in a row, and the metrics of each."""
    state, run = rlx.start_rollout(env, KEY), partial(rlx.rollout, env, policy, num_steps=steps)
    if not env.host:
        run = jax.jit(run)
    state, first, metrics = run((), state, jax.random.key(1))
    state, second, more = run((), state, jax.random.key(2))
    transitions = jax.tree.map(lambda *halves: np.concatenate(halves), first, second)
    return state, transitions, jax.tree.map(np.asarray, (metrics, more))


def slow_metrics(transitions, starts):
    """Episodes that end in each of the rollouts from `starts`, whenever they began, by a walk along each row."""
    ended = [[] for _ in starts]
    steps, envs = transitions.reward.shape
    for b in range(envs):
        total, length = 0.0, 0
        for t in range(steps):
            total, length = total + transitions.reward[t, b], length + 1
            if transitions.terminated[t, b] or transitions.truncated[t, b]:
                ended[sum(t >= start for start in starts) - 1].append((total, length))
                total, length = 0.0, 0
    return ended, (total, length)


def assert_metrics_equal(metrics, ended):
    for found, expected in zip(metrics, ended, strict=True):
        assert found["episodes"] == len(expected) > 0
        means = np.mean(expected, axis=0)
        np.testing.assert_allclose([found["episode_return"], found["episode_length"]], means, rtol=1e-5)


@pytest.fixture(scope="module")
def diary():
    return two_rollouts(rlx.vectorize(Diary(), B))


def test_next_observation_is_the_true_successor_and_the_next_row_a_new_episode(diary):
    state, transitions, _ = diary
    here, there, done = (
        transitions.observation,
        transitions.next_observation,
        transitions.terminated | transitions.truncated,
    )
    np.testing.assert_array_equal(there[..., 0], here[..., 0])  # the same episode, the last step too
    np.testing.assert_array_equal(there[..., 1], here[..., 1] + 1)
    np.testing.assert_array_equal(there[..., 2], transitions.action)
    following = np.concatenate([here[1:], state.observation[None]])
    np.testing.assert_array_equal(following[~done], there[~done])
    np.testing.assert_array_equal(following[done][:, 1:], [[0, -1]] * done.sum())
    names = [*here[0, :, 0], *following[done][:, 0]]
    assert len(set(names)) == len(names) > 10  # every episode is a new draw, in every environment
    pairs = {*zip(transitions.terminated[done].tolist(), transitions.truncated[done].tolist(), strict=True)}
    assert pairs == {(True, False), (False, True), (True, True)}


def test_metrics_equal_a_slow_loop(diary):
    state, transitions, metrics = diary
    ended, (total, length) = slow_metrics(transitions, [0, T])
    assert_metrics_equal(metrics, ended)
    np.testing.assert_allclose((state.episode_return[-1], state.episode_length[-1]), (total, length), rtol=1e-6)


def test_an_episode_longer_than_the_rollout_counts_once():
    env = rlx.vectorize(rlx.envs.CartPole(max_steps=5), 1)
    _, _, (first, second) = two_rollouts(env, steps=3)
    assert (first["episodes"], first["episode_return"]) == (0, 0)
    assert (second["episodes"], second["episode_return"], second["episode_length"]) == (1, 5, 5)


def test_actor_and_key_reach_the_policy():
    env = rlx.vectorize(rlx.envs.CartPole(), B)

    @jax.jit
    def run(actor):
        policy = lambda actor, key, observation: actor + coin((), key, observation)  # noqa: E731
        return rlx.rollout(env, policy, actor, rlx.start_rollout(env, KEY), KEY, T)[1]

    action = run(5).action
    assert {*np.unique(action)} == {5, 6}
    assert len({row.tobytes() for row in np.array(action)}) > 3  # another key on every step


def test_host_rollout_over_gymnasium_agrees():
    limit = 12
    env = rlx.vectorize(rlx.envs.gymnasium("CartPole-v1", max_episode_steps=limit), B)
    assert env.host
    state, transitions, metrics = two_rollouts(env, steps=40)
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), transitions)
    jax_env = rlx.vectorize(rlx.envs.CartPole(max_steps=limit), B)
    twin = jax.eval_shape(lambda: rlx.rollout(jax_env, coin, (), rlx.start_rollout(jax_env, KEY), KEY, 80)[1])
    assert shapes == jax.tree.map(lambda x: (x.shape, str(x.dtype)), twin)

    observation, done = transitions.observation, transitions.terminated | transitions.truncated
    following = np.concatenate([observation[1:], np.asarray(state.observation)[None]])
    np.testing.assert_array_equal(following[~done], transitions.next_observation[~done])
    assert np.all(np.abs(following[done]) <= 0.05)  # a reset
    from rlx.envs.cartpole import CartPole, State

    def successor(observation, action):  # our CartPole, which is gymnasium's
        return CartPole().step(KEY, State(*observation, time=0), action).observation

    true = jax.jit(jax.vmap(jax.vmap(successor)))(observation, transitions.action)
    np.testing.assert_allclose(transitions.next_observation, true, atol=1e-5)  # final observations too
    beyond = (np.abs(true[..., 0]) > 2.4) | (np.abs(true[..., 2]) > np.radians(12))
    np.testing.assert_array_equal(transitions.terminated, beyond)
    ended, _ = slow_metrics(transitions, [0, 40])
    assert_metrics_equal(metrics, ended)
    assert transitions.truncated.any()
    assert transitions.terminated.any()
    assert max(length for half in ended for _, length in half) == limit


def test_host_environments_may_be_classes():
    class Tiny(gymnasium.Env):
        observation_space, action_space = spaces.Box(-9, 9, (1,), np.float64), spaces.Box(-2, 6, (1,), np.float32)

        def __init__(self, bonus=0.0):
            self.bonus = bonus

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.array([self.np_random.random()]), {}

        def step(self, action):
            return np.array([float(action[0])]), self.bonus, True, False, {}

    env = rlx.vectorize(rlx.envs.gymnasium(Tiny, bonus=2.5), B)
    actions = jnp.array([[-7.0], [0.0], [0.5]])
    _, transitions, _ = rlx.rollout(env, lambda actor, *_: actor, actions, rlx.start_rollout(env, KEY), KEY, 4)
    assert np.all(transitions.reward == 2.5)
    assert transitions.observation.dtype == transitions.reward.dtype == np.float32
    np.testing.assert_allclose(transitions.next_observation[..., 0], [[-2, 2, 4]] * 4)  # clipped, then rescaled
    np.testing.assert_array_equal(transitions.action[..., 0], [[-7, 0, 0.5]] * 4)  # as the policy drew it
    assert len(np.unique(transitions.observation)) == 4 * B  # fresh random resets
