"""The replay beside a plain list of steps, the sums of the tree beside a loop, and what sampling costs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import rlx
from rlx.cli.spec import fill
from rlx.core import replay as rp
from rlx.types import Transition

KEY = jax.random.key(0)


def steps(rng, length, num_envs):
    """Transitions whose rewards tell them apart, with images and nested observations."""
    shape = (length, num_envs)
    observation = {"image": rng.integers(0, 256, (*shape, 2, 2), np.uint8), "x": rng.random((*shape, 3), np.float32)}
    following = {"image": rng.integers(0, 256, (*shape, 2, 2), np.uint8), "x": rng.random((*shape, 3), np.float32)}
    action, reward = rng.integers(0, 5, shape).astype(np.int32), rng.random(shape).astype(np.float32)
    return Transition(observation, action, reward, rng.random(shape) < 0.1, rng.random(shape) < 0.1, following)


def by_hand(held, step, env, discount, n):
    """An n-step transition from a list of steps, the oldest first, one row at a time."""
    total, weight = 0.0, 1.0
    for t in range(step, min(step + n, len(held))):
        row = held[t]
        total += weight * row.reward[env]
        weight *= discount
        if row.terminated[env] or row.truncated[env]:
            break
    return total, row.terminated[env], jax.tree.map(lambda x: x[env], row.next_observation), weight


@pytest.mark.parametrize(("capacity", "prefill", "chunk", "chunks"), [(7, 3, 2, 1), (7, 3, 2, 5), (5, 9, 5, 2)])
@pytest.mark.parametrize("n", [1, 3])
def test_n_steps_equal_a_walk_over_a_list(capacity, prefill, chunk, chunks, n):
    rng, num_envs = np.random.default_rng(0), 2
    parts = [steps(rng, prefill, num_envs), *(steps(rng, chunk, num_envs) for _ in range(chunks))]
    replay = rp.init_replay(parts[0], capacity)
    for part in parts[1:]:
        replay = jax.jit(rp.add)(replay, part)
    seen = [jax.tree.map(lambda x, t=t: x[t], part) for part in parts for t in range(len(part.reward))]
    held = seen[-capacity:]
    assert replay.size == len(held)
    assert replay.rows.observation["image"].dtype == jnp.uint8
    oldest = (int(replay.next) - len(held)) % capacity
    for age, env in itertools.product(range(len(held)), range(num_envs)):
        row = jnp.array([(oldest + age) % capacity * num_envs + env])
        batch = rp.read(replay, row, 0.9, n)
        first = jax.tree.map(lambda x, env=env: x[env], held[age].observation)
        reward, terminated, following, weight = by_hand(held, age, env, 0.9, n)
        np.testing.assert_allclose(batch.reward[0], reward, rtol=1e-6)
        np.testing.assert_allclose(batch.discount[0], weight, rtol=1e-6)
        assert batch.terminated[0] == terminated
        assert batch.action[0] == held[age].action[env]
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), batch.next_observation, following)
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), batch.observation, first)


def test_rows_are_drawn_uniformly_from_what_is_held():
    replay = rp.init_replay(steps(np.random.default_rng(0), 6, 3), 10)
    rows = rp.sample_rows(KEY, replay, (6000, 3))
    counts = np.bincount(np.ravel(rows), minlength=30)
    assert counts[18:].sum() == 0
    assert stats.chisquare(counts[:18]).pvalue > 1e-3


def test_the_replay_is_written_in_place():
    """A million rows cost their bytes once: what comes out is the memory that went in, and there is no second copy."""
    row = jax.tree.map(jnp.asarray, steps(np.random.default_rng(0), 1, 1))

    def learn(replay, key, n=3):
        replay = rp.add(replay, row)
        return replay, rp.read(replay, rp.sample_rows(key, replay, (32,)), 0.99, n).reward.sum()

    def loop(replay, key, n=3):
        return jax.lax.scan(partial(learn, n=n), replay, jax.random.split(key, 4))

    def places(replay):
        return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(replay.rows)]

    replay = jax.jit(lambda: rp.init_replay(row, 10**6))()
    for function in (learn, loop, partial(loop, n=1)):
        with jax.debug_nans(False):  # it keeps what is donated, to look for the NaN
            program = jax.jit(function, donate_argnums=0).lower(replay, KEY).compile()
        assert program.memory_analysis().temp_size_in_bytes < 100e3
        before = places(replay)
        replay, _ = program(replay, KEY)
        assert places(replay) == before


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("name", ["dqn", "sac", "td3"])
def test_no_step_of_an_algorithm_copies_its_replay(name, num_steps):
    """A step's memory is the same beside 100,000 rows: XLA once fused the writing of one row into the reads."""
    spec = fill(name, "CartPole-v1" if name == "dqn" else "Pendulum-v1", {"hidden": [4], "num_steps": num_steps})
    algorithm = spec.build(spec.make_env())
    state = jax.eval_shape(algorithm.init, KEY)
    with jax.debug_nans(False):
        run = jax.jit(lambda state: jax.lax.scan(lambda s, _: algorithm.step(s), state, length=3), donate_argnums=0)
        memory = run.lower(state).compile().memory_analysis()
    assert state.replay.rows.reward.shape == (100_000, 1)
    assert memory.temp_size_in_bytes < 100e3


def test_the_tree_holds_sums_and_draws_by_share():
    rng = np.random.default_rng(0)
    replay = rp.init_replay(steps(rng, 5, 3), 7)  # 15 of 21 rows, a tree of 32 leaves
    priorities = rp.init_priorities(replay)
    expected = np.where(np.arange(32) < 15, 1.0, 0.0)
    for _ in range(4):
        rows, values = rng.permutation(15)[:6], rng.random(6).astype(np.float32) * 10
        priorities = jax.jit(rp.set_priorities)(priorities, rows, values)
        expected[rows] = values
    tree = np.asarray(priorities.tree)
    np.testing.assert_allclose(tree[32:], expected, rtol=1e-6)
    np.testing.assert_allclose(tree[1:32], tree[2::2] + tree[3::2], rtol=1e-6)

    draws = jax.vmap(lambda key: rp.sample_by_priority(key, priorities, 8))(jax.random.split(KEY, 2000))
    shares = expected / expected.sum()
    np.testing.assert_allclose(draws[1], shares[draws[0]], rtol=1e-5)
    counts = np.bincount(np.ravel(draws[0]), minlength=32)
    assert counts[15:].sum() == 0
    # stratified, a row's count varies by less than a multinomial's: within 4 of its deviations
    assert np.all(np.abs(counts[:15] - 16000 * shares[:15]) < 4 * np.sqrt(16000 * shares[:15]) + 1)


def test_new_rows_have_the_highest_priority_so_far():
    rng = np.random.default_rng(0)
    replay = rp.init_replay(steps(rng, 3, 2), 4)
    priorities = rp.set_priorities(rp.init_priorities(replay), jnp.array([0, 1]), jnp.array([5.0, 0.5]))
    priorities = rp.prioritize_new(priorities, replay, 2)  # they go to steps 3 and 0
    np.testing.assert_allclose(priorities.tree[8:], [5.0, 5.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0])


def test_importance_weights_by_hand():
    weights = rp.importance_weights(jnp.array([0.5, 0.125]), jnp.array(4), 0.5)  # (4 / 2)^-1/2, (4 / 8)^-1/2
    np.testing.assert_allclose(weights, [0.5, 1.0], rtol=1e-6)


def test_a_draw_costs_the_same_whatever_the_capacity():
    """A draw without replacement looks at all rows: B9."""

    def cost(capacity):
        row = jax.tree.map(jnp.asarray, steps(np.random.default_rng(0), 1, 1))
        like = jax.eval_shape(lambda: rp.init_replay(row, capacity))
        sample = jax.jit(lambda key, replay: rp.read(replay, rp.sample_rows(key, replay, (8,)), 0.99))
        return sample.lower(KEY, like).compile().cost_analysis()["flops"]

    assert cost(10**6) == cost(10**3) < 10**3


@pytest.mark.parametrize("env", [rlx.envs.MountainCarContinuous(max_steps=7), rlx.envs.gymnasium("Pendulum-v1")])
def test_a_prefill_holds_its_actions(env):
    """Blocks of one action each, which follow one another as steps of the same episodes."""
    envs = rlx.vectorize(env, 2)
    policy = rlx.uniform_policy(envs.action_space)
    run = lambda: rp.prefill(envs, policy, (), KEY, 24, 40, hold=4)  # noqa: E731
    state, replay = run() if envs.host else rlx.jit(run, once=True)()
    rows = jax.tree.map(lambda x: np.asarray(x)[:12], replay.rows)
    assert replay.size == 12
    action = rows.action.reshape(3, 4, 2)
    np.testing.assert_array_equal(action, action[:, :1].repeat(4, axis=1))
    assert len(np.unique(action)) == 6
    goes_on = ~(rows.terminated | rows.truncated)[:-1]
    np.testing.assert_array_equal(rows.next_observation[:-1][goes_on], rows.observation[1:][goes_on])
    np.testing.assert_array_equal(rows.next_observation[-1], state.observation)
