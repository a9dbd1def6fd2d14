"""Tabular learners: the updates by hand, the action that is really taken, the values they come to."""

import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.algorithms.tabular import Model, move_towards, remember, remembered
from rlx.ops import MDP, expected_sarsa_target, q_learning_target, sarsa_target

KEY = jax.random.key(0)
TARGETS = {"q_learning": q_learning_target, "sarsa": sarsa_target, "expected_sarsa": expected_sarsa_target}


def test_rows_of_one_pair_move_it_as_far_as_one_after_the_other():
    q, count = jnp.array([[1.0, 5.0], [0.0, 0.0]]), jnp.array([[3, 1], [0, 0]])
    state, action, target = jnp.array([0, 0, 0, 0]), jnp.array([0, 1, 0, 0]), jnp.array([4.0, 7.0, 1.0, 7.0])
    moved = move_towards(q, count, state, action, target, 0.5, 0.0)
    np.testing.assert_allclose(moved, [[1 + (1 - 0.5**3) * (4 - 1), 6.0], [0, 0]])
    same = jnp.full(3, 4.0)
    together = move_towards(q, count, state[:3], jnp.zeros(3, jnp.int32), same, 0.5, 0.0)
    for _ in range(3):
        q = move_towards(q, count, state[:1], action[:1], same[:1], 0.5, 0.0)
    np.testing.assert_allclose(together, q)


def test_step_sizes_fall_with_visits():
    q, count = jnp.zeros((1, 1)), jnp.array([[4]])
    row = jnp.array([0]), jnp.array([0]), jnp.array([1.0])
    assert move_towards(q, count, *row, 0.5, 0.5)[0, 0] == 0.25
    value = jnp.zeros((1, 1))
    for n, target in enumerate([3.0, 5.0, 10.0]):  # power 1 and step size 1: the mean
        value = move_towards(value, jnp.array([[n + 1]]), jnp.array([0]), jnp.array([0]), jnp.array([target]), 1.0, 1.0)
    assert value[0, 0] == 6.0


def test_memory_keeps_rows_whole_and_draws_what_was_taken():
    empty = Model(jnp.zeros((3, 2)), jnp.zeros((3, 2), bool), jnp.zeros((3, 2), jnp.int32))
    row = Model(jnp.array([1.0, 2.0, 3.0]), jnp.array([False, True, False]), jnp.array([1, 2, 0]))
    model = remember(empty, jnp.array([2, 2, 0]), jnp.array([1, 1, 0]), row)
    np.testing.assert_array_equal(model.reward, [[3, 0], [0, 0], [0, 2]])
    np.testing.assert_array_equal(model.terminated, [[False, False], [False, False], [False, True]])
    np.testing.assert_array_equal(model.next_state, [[0, 0], [0, 0], [0, 2]])

    state, action = remembered(KEY, jnp.array([[1, 0], [0, 0], [0, 7]]), 1000)
    pairs, often = np.unique(np.stack([state, action], 1), axis=0, return_counts=True)
    np.testing.assert_array_equal(pairs, [[0, 0], [2, 1]])
    assert abs(often[0] - 500) < 64  # 4 standard errors


def trace(algorithm, steps):
    """States of a learner, one environment step apart."""
    state, step, states = jax.jit(algorithm.init)(KEY), jax.jit(algorithm.step), []
    for _ in range(steps):
        states.append(state)
        state, _ = step(state)
    return [*states, state]


@pytest.mark.parametrize("name", TARGETS)
def test_updates_equal_a_slow_twin(name):
    """One environment, row by row, as the books have it; the next action is the one that the next step takes."""
    env = rlx.envs.frozen_lake(slippery=False, max_steps=7)
    mdp = jax.tree.map(np.asarray, env.mdp)
    config = rlx.TabularConfig(num_steps=1, step_size=0.5, exploration=0.4, initial_value=0.3, discount=0.9)
    states = trace(rlx.td_control(env, TARGETS[name], config=config), 60)
    q = np.full((16, 4), 0.3)
    cut = ended = 0
    for before, after in itertools.pairwise(states):
        s, a, time = int(before.rollout.observation[0]), int(before.action[0]), int(before.rollout.env_state.time[0])
        (s2,), (r,), (terminated,) = mdp.next_state[s, a], mdp.reward[s, a], mdp.terminated[s, a]
        truncated = time + 1 == 7
        greedy = (q[s2] == q[s2].max()) / (q[s2] == q[s2].max()).sum()
        following = {
            "q_learning": q[s2].max(),
            "sarsa": q[s2, int(after.action[0])],
            "expected_sarsa": (0.1 + 0.6 * greedy) @ q[s2],
        }[name]
        if truncated and not terminated and name == "sarsa":
            # the action drawn in s2 is not taken: it has to be one of the four
            error = 4 * [np.asarray(after.q)[s, a] - q[s, a]] - 0.5 * (r + 0.9 * q[s2] - q[s, a])
            assert np.abs(error).min() < 1e-5
            q[s, a] = np.asarray(after.q)[s, a]
        else:
            q[s, a] += 0.5 * (r + (0.0 if terminated else 0.9 * following) - q[s, a])
        np.testing.assert_allclose(after.q, q, atol=1e-5)
        assert int(after.rollout.observation[0]) == (0 if terminated or truncated else s2)
        assert after.count.sum() == before.count.sum() + 1
        cut, ended = cut + (truncated and not terminated), ended + terminated
    assert cut > 0
    assert ended > 2


def two_steps(reward=2.0):
    """State 0 leads to 1 (paying 1), 1 leads to the end (paying `reward`); one action."""
    shape = 2, 1, 1
    return MDP(
        jnp.ones(shape),
        jnp.ones(shape, jnp.int32),
        jnp.array([1.0, reward]).reshape(shape),
        jnp.array([False, True]).reshape(shape),
        jnp.array([1.0, 0.0]),
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("planning_steps", [0, 3])
@pytest.mark.parametrize(("max_steps", "values"), [(None, [2.8, 2.0]), (2, [2.8, 2.0]), (1, [1.0, 0.0])])
def test_ends_and_cuts(target, planning_steps, max_steps, values):
    """An end has no future, whether the time is up as well (max_steps=2) or not; a cut has one.

    At max_steps=1 state 1 is never acted in: its value stays 0, and is asked for.
    """
    env = rlx.envs.TabularEnv(two_steps(), max_steps)
    config = rlx.TabularConfig(step_size=1.0, discount=0.9, planning_steps=planning_steps, num_steps=20)
    state, _ = rlx.train(rlx.td_control(env, target, config=config), KEY, 1)
    np.testing.assert_allclose(state.q[:, 0], values, rtol=1e-6)
    config = rlx.TabularConfig(step_size=1.0, discount=0.9, num_steps=20, initial_value=5.0)
    state, _ = rlx.train(rlx.td_control(env, target, config=config), KEY, 1)
    if max_steps == 1:
        np.testing.assert_allclose(state.q[:, 0], [1 + 0.9 * 5, 5.0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 8])
def test_q_learning_comes_to_the_best_values_on_slippery_ice(num_envs):
    env = rlx.envs.frozen_lake()
    best = rlx.ops.value_iteration(env.mdp, 0.9)
    config = rlx.TabularConfig(
        num_envs=num_envs, num_steps=1000, discount=0.9, step_size=1.0, step_size_power=0.7, exploration=1.0
    )
    algorithm = rlx.td_control(env, config=config)
    run = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, 400 // num_envs)[0].q))
    q = run(jax.random.split(jax.random.key(1000), 4))
    error = q.max(-1) - best.value  # [S, states]
    assert np.abs(error.mean(0)).max() < 0.04  # of one seed it is up to 0.07
    assert np.abs(error).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("target", [sarsa_target, expected_sarsa_target])
def test_on_policy_targets_come_to_the_values_of_the_policy_that_acts(target):
    mdp = rlx.envs.frozen_lake().mdp
    env = rlx.envs.TabularEnv(mdp._replace(initial=jnp.full(16, 1 / 16)), 20)  # to see every state often
    config = rlx.TabularConfig(
        num_envs=8, num_steps=1000, discount=0.9, step_size=1.0, step_size_power=0.7, exploration=1.0
    )
    state, _ = jax.jit(lambda key: rlx.train(rlx.td_control(env, target, config=config), key, 20))(KEY)
    even = rlx.ops.policy_values(mdp, jnp.full((16, 4), 0.25), 0.9)
    np.testing.assert_allclose(state.q, rlx.ops.action_values(mdp, even, 0.9), atol=0.05)


@pytest.mark.slow
def test_planning_learns_from_fewer_steps():
    """The idea of Sutton and Barto's figure 8.2: what a few episodes have shown is worth many updates."""
    env = rlx.envs.frozen_lake(("SFFFFF", *["FFFFFF"] * 4, "FFFFFG"), slippery=False)

    def values(planning_steps):
        """Of the start, after 500 steps, for 20 seeds."""
        config = rlx.TabularConfig(num_steps=500, discount=0.95, step_size=0.5, planning_steps=planning_steps)
        algorithm = rlx.td_control(env, config=config)
        run = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, 1)[0].q[0].max()))
        return run(jax.random.split(jax.random.key(1000), 20))

    best, without, planned = 0.95**9, values(0), values(20)
    assert planned.mean() > 0.6 * best
    assert without.mean() < 0.2 * best


def test_metrics_tell_episodes_apart():
    env = rlx.envs.TabularEnv(two_steps())
    algorithm = rlx.td_control(env, config=rlx.TabularConfig(num_envs=3, num_steps=5))
    _, metrics = jax.jit(lambda key: rlx.train(algorithm, key, 2))(KEY)
    np.testing.assert_array_equal(metrics["episodes"], [6, 9])  # ends at steps 2, 4 and 6, 8, 10
    np.testing.assert_allclose(metrics["episode_return"], 3.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["episode_length"], 2.0)
    np.testing.assert_allclose(metrics["tried"], 1.0)


def test_states_may_count_from_another_number():
    @jax.tree_util.register_dataclass
    class Shifted(rlx.envs.TabularEnv):
        @property
        def observation_space(self):
            return gymnasium.spaces.Discrete(2, start=5)

        def reset(self, key):
            state, observation = super().reset(key)
            return state, observation + 5

        def step(self, key, state, action):
            step = super().step(key, state, action)
            return step._replace(observation=step.observation + 5)

    config = rlx.TabularConfig(step_size=1.0, discount=0.9)
    algorithm = rlx.td_control(Shifted(two_steps()), config=config)
    state, _ = rlx.train(algorithm, KEY, 1)
    np.testing.assert_allclose(state.q[:, 0], [2.8, 2.0], rtol=1e-6)
    assert algorithm.act(state, None, jnp.array([5, 6])).shape == (2,)


@pytest.mark.parametrize(
    ("env", "message"),
    [(rlx.envs.CartPole(), "Discrete"), (rlx.envs.gymnasium("Taxi-v4"), "host")],
    ids=["box", "host"],
)
def test_what_has_no_table_is_refused(env, message):
    with pytest.raises(ValueError, match=message):
        rlx.td_control(env)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_envs": 0},
        {"num_steps": 0},
        {"discount": 1.1},
        {"step_size": 0.0},
        {"step_size": 1.1},
        {"step_size_power": -0.1},
        {"exploration": -1.0},
        {"initial_value": float("nan")},
        {"planning_steps": -1},
    ],
)
def test_bad_values_are_refused(changes):
    (field,) = changes
    with pytest.raises(ValueError, match=f"TabularConfig.*{field}"):
        rlx.TabularConfig(**changes)
