"""The drivers, over a counter that keeps a walk of random numbers, and over PPO where it matters."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.core.train import compile_steps, seed_keys
from rlx.types import TwoHalves

KEY = jax.random.key(0)


def walk(data=None):
    """A key, a count, a sum of draws; `data` is an array to close over."""

    def init(key):
        return {"key": key, "count": jnp.int32(0), "sum": jnp.zeros(3)}

    def step(state):
        key, draw_key = jax.random.split(state["key"])
        draw = jax.random.normal(draw_key, (3,))
        if data is not None:
            draw += jnp.asarray(data)[state["count"]]
        state = {"key": key, "count": state["count"] + 1, "sum": state["sum"] + draw}
        return state, {"count": state["count"], "draw": draw[0]}

    return rlx.Algorithm(init, step, lambda state, key, observation: observation + state["sum"][0])


def ppo(env=None, num_steps=4):
    env = env or rlx.envs.CartPole(max_steps=5)
    network = rlx.nets.ActorCritic(rlx.nets.CategoricalHead(2), (4,))
    return rlx.ppo(env, network, optax.adam(1e-2), rlx.PPOConfig(2, num_steps, 2, 2))


def assert_equal(x, y):
    jax.tree.map(np.testing.assert_array_equal, plain(x), plain(y))


def plain(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


@pytest.mark.parametrize("make", [walk, ppo])
def test_train_equals_chunks_bit_for_bit(make):
    algorithm = make()
    state, metrics = rlx.jit(lambda key: rlx.train(algorithm, key, 5))(KEY)
    rows = []
    for after, row in rlx.chunks(algorithm, rlx.jit(algorithm.init)(KEY), 5, every=2):
        last = after
        rows.append(jax.device_get(row))
    assert [len(jax.tree.leaves(row)[0]) for row in rows] == [2, 2, 1]
    assert_equal(state, last)
    assert_equal(metrics, jax.tree.map(lambda *parts: np.concatenate(parts), *rows))


def test_chunks_stop_and_pause_where_they_should():
    assert [int(state["count"]) for state, _ in rlx.chunks(walk(), walk().init(KEY), 7, every=3)] == [3, 6, 7]
    assert [int(state["count"]) for state, _ in rlx.chunks(walk(), walk().init(KEY), 2, every=9)] == [2]
    assert list(rlx.chunks(walk(), walk().init(KEY), 0, every=1)) == []
    with pytest.raises(ValueError, match="every=0"):
        next(rlx.chunks(walk(), walk().init(KEY), 2, every=0))


def test_states_are_donated():
    first = ppo().init(KEY)
    copy = jax.tree.map(jnp.copy, first)
    with jax.debug_nans(False):  # which would keep the inputs, to run again op by op
        seen = [state for state, _ in rlx.chunks(ppo(), first, 2, every=1)]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((first, seen[0])))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((copy, seen[1])))


@pytest.mark.parametrize("xp", [np, jnp])
def test_closed_over_arrays_become_arguments(xp):
    data = xp.ones((100_000, 3), xp.float32)
    algorithm = walk(data)
    run = compile_steps(algorithm, algorithm.init(KEY), 2)
    program = inspect.getclosurevars(run).nonlocals["program"]
    assert program.memory_analysis().argument_size_in_bytes > data.nbytes
    assert program.memory_analysis().generated_code_size_in_bytes < data.nbytes / 10
    _, metrics = run(algorithm.init(KEY))
    _, without = rlx.train(walk(), KEY, 2)
    np.testing.assert_allclose(metrics["draw"], without["draw"] + 1, rtol=1e-6)


@pytest.mark.parametrize("num_steps", [4, 50])  # of 2 environments: too few rows to learn one after another, and enough
def test_over_seeds_equals_a_loop(num_steps):
    algorithm, keys = ppo(num_steps=num_steps), seed_keys([3, 8])
    assert isinstance(algorithm.step, TwoHalves) == (num_steps == 50)
    assert_equal(keys[1], jax.random.key(8))
    seeds = rlx.over_seeds(algorithm)
    state, metrics = jax.jit(lambda keys: rlx.train(seeds, keys, 2))(keys)
    one = jax.jit(lambda key: rlx.train(algorithm, key, 2))
    alone = [one(key) for key in keys]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *map(plain, alone))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), plain(state), together[0])
    assert metrics["loss"].shape == (2, 2)  # [U, S]
    np.testing.assert_allclose(metrics["loss"].T, together[1]["loss"], rtol=1e-4)

    observation = jax.random.normal(KEY, (2, 5, 4))  # [S, E, O]
    greedy = seeds.act(state, None, observation)
    np.testing.assert_array_equal(
        greedy, [algorithm.act(s, None, o) for (s, _), o in zip(alone, observation, strict=True)]
    )
    flip = jax.random.normal(KEY, (40, 4))
    sampled = seeds.act(jax.tree.map(lambda x: jnp.stack([x, x]), alone[0][0]), KEY, jnp.stack([flip, flip]))
    assert not np.array_equal(*sampled)  # each seed draws for itself


def test_a_step_in_two_halves_is_a_step_like_any_other():
    algorithm = ppo(num_steps=50)
    state = algorithm.init(KEY)
    _, metrics = jax.jit(algorithm.step)(state)
    assert_equal(metrics["episodes"], jax.jit(lambda state: algorithm.step(state))(state)[1]["episodes"])
    mine = algorithm._replace(step=lambda state: (state, {"mine": jnp.ones(())}))
    assert rlx.over_seeds(mine).step(jax.vmap(algorithm.init)(seed_keys([0, 1])))[1]["mine"].shape == (2,)


def test_host_algorithms_are_refused_where_they_cannot_go():
    algorithm = walk()._replace(host=True)
    with pytest.raises(ValueError, match="chunks"):
        rlx.train(algorithm, KEY, 2)
    with pytest.raises(ValueError, match="one seed"):
        rlx.over_seeds(algorithm)


def test_host_algorithms_run_in_chunks():
    expected = [row["draw"] for _, row in rlx.chunks(walk(), walk().init(KEY), 5, every=2)]
    found = [row for _, row in rlx.chunks(walk()._replace(host=True), walk().init(KEY), 5, every=2)]
    np.testing.assert_allclose(np.concatenate([row["draw"] for row in found]), np.concatenate(expected), rtol=1e-6)
    assert [row["count"].tolist() for row in found] == [[1, 2], [3, 4], [5]]
