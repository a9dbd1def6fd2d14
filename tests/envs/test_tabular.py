"""Finite MDPs as environments: gymnasium's transition tables entry for entry, and its steps."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.envs import tabular
from rlx.envs.tabular import TabularEnv
from rlx.ops import MDP
from rlx.types import Step

KEY = jax.random.key(0)
IDS = {
    "CliffWalking-v1": {},
    "CliffWalkingSlippery-v1": {},
    "FrozenLake-v1": {},
    "FrozenLake8x8-v1": {},
    "Taxi-v4": {},
    "FrozenLake-v1 firm": {"is_slippery": False},
    "FrozenLake8x8-v1 firm": {"is_slippery": False},
}
NAMES = pytest.mark.parametrize("name", IDS)


def theirs(name):
    return gymnasium.make(name.split()[0], disable_env_checker=True, **IDS[name])


def ours(name):
    if not name.endswith("firm"):
        return rlx.make(name)
    size, limit = (8, 200) if "8x8" in name else (4, 100)
    return rlx.envs.frozen_lake(rlx.envs.LAKES[size], slippery=False, max_steps=limit)


@NAMES
def test_tables_equal_gymnasiums(name):
    table = theirs(name).unwrapped.P
    probability, next_state, reward, terminated, _ = map(np.asarray, ours(name).mdp)
    assert set(table) == set(range(len(probability)))
    assert set(table[0]) == set(range(probability.shape[1]))
    for state, action in np.ndindex(probability.shape[:2]):
        possible = probability[state, action] > 0
        rows = zip(*(x[state, action][possible] for x in (probability, next_state, reward, terminated)), strict=True)
        for found, right in zip(rows, table[state][action], strict=True):  # in the same order
            assert found[0] == pytest.approx(right[0], abs=1e-7)
            assert found[1:] == tuple(right[1:])


@NAMES
def test_starts_and_spaces_equal_gymnasiums(name):
    env, reference = ours(name), theirs(name)
    np.testing.assert_allclose(env.mdp.initial, reference.unwrapped.initial_state_distrib, atol=1e-7)
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    assert env.max_steps == reference.spec.max_episode_steps


@pytest.mark.parametrize("name", ["CliffWalking-v1", "FrozenLake8x8-v1 firm", "Taxi-v4", "FrozenLake-v1"])
def test_steps_equal_gymnasium(name):
    """10,000 random actions, each from gymnasium's own state; where the ice is slippery, what may follow follows."""
    env, reference = ours(name), theirs(name)
    if env.max_steps is None:
        reference = gymnasium.wrappers.TimeLimit(reference, 30)
        env = rlx.envs.cliff_walking(max_steps=30)
    reference.action_space.seed(0)
    reference.reset(seed=0)
    rows, time = [], 0
    for _ in range(10_000):
        state, action = int(reference.unwrapped.s), int(reference.action_space.sample())
        observation, reward, terminated, truncated, _ = reference.step(action)
        rows.append((state, time, action, observation, reward, terminated, truncated))
        time += 1
        if terminated or truncated:
            reference.reset()
            reference.unwrapped.s = int(reference.np_random.integers(env.observation_space.n))  # to see every state
            time = int(reference.np_random.integers(env.max_steps))
            limit = reference
            while not isinstance(limit, gymnasium.wrappers.TimeLimit):
                limit = limit.env
            limit._elapsed_steps = time
    state, time, action, observation, reward, terminated, truncated = map(np.array, zip(*rows, strict=True))
    step = jax.jit(jax.vmap(env.step))(
        jax.random.split(KEY, 10_000), tabular.State(jnp.int32(state), jnp.int32(time)), jnp.int32(action)
    )
    np.testing.assert_array_equal(step.truncated, truncated)
    np.testing.assert_array_equal(step.state.time, time + 1)
    np.testing.assert_array_equal(step.observation, step.state.position)
    assert terminated.any()
    assert truncated.any()
    if name == "FrozenLake-v1":
        possible = (env.mdp.next_state == step.observation[:, None, None, None])[np.arange(10_000), state, action] & (
            env.mdp.probability[state, action] > 0
        )
        assert possible.any(-1).all()
        assert np.any(step.terminated & step.truncated)
        assert abs(float(step.terminated.mean()) - terminated.mean()) < 0.02
        return
    np.testing.assert_array_equal(step.observation, observation)
    np.testing.assert_array_equal(step.reward, reward)
    np.testing.assert_array_equal(step.terminated, terminated)


def test_outcomes_come_as_often_as_their_probability():
    mdp = MDP(
        probability=jnp.array([[[0.0, 0.2, 0.0, 0.5, 0.3, 0.0]]]),
        next_state=jnp.zeros((1, 1, 6), jnp.int32),
        reward=jnp.arange(6.0)[None, None],
        terminated=jnp.zeros((1, 1, 6), bool),
        initial=jnp.ones(1),
    )
    env = TabularEnv(mdp)
    state, _ = env.reset(KEY)
    step = jax.vmap(env.step, (0, None, None))(jax.random.split(KEY, 10_000), state, jnp.int32(0))
    share = np.bincount(np.int32(step.reward), minlength=6) / 10_000
    assert share[[0, 2, 5]].sum() == 0
    np.testing.assert_allclose(share[[1, 3, 4]], [0.2, 0.5, 0.3], atol=0.02)  # 4 standard errors


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2.0**-24])
def test_no_rounding_leads_to_what_cannot_be(monkeypatch, u):
    monkeypatch.setattr(tabular, "uniform", lambda key, n: (jnp.float32(u),))
    for probability in ([0.0, 1 / 3, 1 / 3, 1 / 3, 0.0], [0.0] * 7 + [1 / 300] * 300 + [0.0], [0.1] * 10, [0.0, 1.0]):
        probability = jnp.array(probability)
        assert probability[tabular._draw(KEY, probability)] > 0


def test_resets_are_spread_over_the_starts():
    env = rlx.envs.taxi()
    position = np.asarray(jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 30_000))[1])
    share = np.bincount(position, minlength=500) / 30_000
    np.testing.assert_array_equal(share > 0, env.mdp.initial > 0)
    np.testing.assert_allclose(share, env.mdp.initial, atol=0.0017)  # 5 standard errors


ENVS = {
    "FrozenLake-v1": rlx.envs.frozen_lake(),
    "CliffWalking-v1": rlx.envs.cliff_walking(),
    "DeepSea-bsuite": rlx.envs.deep_sea(),
    "Bandit": rlx.envs.Bandit(jnp.arange(3.0)),
}


@pytest.mark.parametrize("name", ENVS)
def test_types_hold(name):
    env = ENVS[name]
    state, observation = jax.eval_shape(env.reset, KEY)
    step = jax.eval_shape(env.step, KEY, state, jnp.int32(0))
    flag = jax.ShapeDtypeStruct((), bool)
    assert step == Step(state, observation, jax.ShapeDtypeStruct((), jnp.float32), flag, flag, {})
    state, observation = env.reset(KEY)
    assert env.observation_space.contains(np.array(observation))
    leaves = jax.tree.leaves((state, observation))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    envs = rlx.vectorize(env, 4)
    _, rows, episodes = rlx.rollout(
        envs, lambda *_: jnp.zeros(4, jnp.int32), None, rlx.start_rollout(envs, KEY), jax.random.key(1), 30
    )
    assert rows.observation.shape == (30, 4)
    assert (episodes["episodes"] > 0) == (name != "CliffWalking-v1")  # up and up for ever: no limit, no end


def test_tables_are_traced_and_batched():
    def share(slip):
        """Of 500 steps to the right from the start, the share that goes there."""
        env = rlx.envs.frozen_lake()
        sure = jnp.array([0.5 * slip, 1.0 - slip, 0.5 * slip])
        env = TabularEnv(env.mdp._replace(probability=jnp.broadcast_to(sure, env.mdp.probability.shape)), 100)
        state, _ = env.reset(KEY)
        step = jax.vmap(env.step, (0, None, None))(jax.random.split(KEY, 500), state, jnp.int32(2))
        return jnp.mean(step.observation == 1)

    np.testing.assert_allclose(jax.jit(jax.vmap(share))(jnp.array([0.0, 0.5, 1.0])), [1.0, 0.5, 0.0], atol=0.09)


@pytest.mark.parametrize("seed", [None, 3])
def test_deep_sea_by_hand(seed):
    env = rlx.envs.deep_sea(4, seed)
    treasure = rlx.ops.value_iteration(env.mdp, 1.0)
    state, position = env.reset(KEY)
    rows = []
    for _ in range(4):
        step = env.step(KEY, state, treasure.action[position])
        state, position = step.state, step.observation
        rows.append((int(position), float(step.reward), bool(step.terminated)))
    cost = 0.01 / 4
    right = [(5, -cost, False), (10, -cost, False), (15, -cost, False), (15, 1 - cost, True)]
    np.testing.assert_allclose(rows, right, rtol=1e-6)
    actions = treasure.action[jnp.array([0, 5, 10, 15])]
    assert np.all(actions == 1) == (seed is None)
    # all other ways down: no treasure, the steps to the right cost
    paths = jnp.stack(jnp.meshgrid(*[jnp.arange(2)] * 4), -1).reshape(-1, 4)

    def ret(path):
        def one(state, action):
            step = env.step(KEY, state, action)
            return step.state, (step.reward, step.terminated)

        _, (reward, terminated) = jax.lax.scan(one, env.reset(KEY)[0], path)
        return reward.sum(), terminated

    returns, terminated = jax.vmap(ret)(paths)
    np.testing.assert_array_equal(terminated, [[False] * 3 + [True]] * 16)
    assert np.sum(returns > 0.98) == 1
    assert np.all(np.sort(returns)[:-1] <= 0)


def test_bandit_pays_normal_rewards():
    env = rlx.envs.Bandit(jnp.array([0.0, 5.0]), deviation=2.0)
    state, _ = env.reset(KEY)
    step = jax.vmap(env.step, (0, None, None))(jax.random.split(KEY, 20_000), state, jnp.int32(1))
    noise = (np.asarray(step.reward) - 5.0) / 2.0
    assert np.all(step.terminated)
    np.testing.assert_allclose([noise.mean(), noise.std(), (noise**3).mean()], [0, 1, 0], atol=0.08)
    np.testing.assert_allclose([(noise < -1).mean(), (noise < 1).mean()], [0.1587, 0.8413], atol=0.012)
