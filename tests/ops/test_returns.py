"""Advantages against a slow twin, a pencil, their reductions and verl's numbers. Axes: T time, B environments."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import explained_variance, gae, mean_return, reward_to_go, standardize

T, B = 12, 16
JIT = jax.jit(gae)


def random_rollout(seed=0):
    """Reward, value, next_value, terminated, truncated `[T, B]`: all four pairs of flags occur."""
    rng = np.random.default_rng(seed)
    return (*rng.normal(size=(3, T, B)).astype(np.float32), *(rng.random((2, T, B)) < 0.25))


def slow_gae(reward, value, next_value, terminated, truncated, discount, trace):
    """Eq. 16 as the sum it is: each row looks ahead to the end of its episode."""
    advantage = np.zeros(reward.shape)
    for b in range(reward.shape[1]):
        for start in range(len(reward)):
            for t in range(start, len(reward)):
                future = 0.0 if terminated[t, b] else discount * next_value[t, b]
                weight = (discount * trace) ** (t - start)
                advantage[start, b] += weight * (reward[t, b] + future - value[t, b])
                if terminated[t, b] or truncated[t, b]:
                    break
    return advantage


@pytest.mark.parametrize(("discount", "trace"), [(0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.0, 1.0), (0.7, 0.3)])
def test_gae_equals_slow_twin(discount, trace):
    rows = random_rollout()
    assert len({*zip(rows[3].ravel(), rows[4].ravel(), strict=True)}) == 4
    np.testing.assert_allclose(JIT(*rows, discount, trace), slow_gae(*rows, discount, trace), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "advantage"),
    [
        (False, False, [1.59375, 2.375, 2.5]),  # deltas 1, 1.75, 2.5; each A = delta + 0.25 next A
        (True, False, [1.25, 1.0, 2.5]),  # delta_1 = 2 - 1: no bootstrap, no trace
        (False, True, [1.4375, 1.75, 2.5]),  # delta_1 as it was: bootstrap, no trace
        (True, True, [1.25, 1.0, 2.5]),  # termination wins
    ],
)
def test_gae_by_pencil(terminated, truncated, advantage):
    flags = [jnp.array([False, flag, False]) for flag in (terminated, truncated)]
    found = gae(jnp.array([1.0, 2, 3]), jnp.array([0.5, 1, 1.5]), jnp.array([1.0, 1.5, 2]), *flags, 0.5, 0.5)
    np.testing.assert_allclose(found, advantage, rtol=1e-6)


def test_trace_one_is_the_return_and_trace_zero_one_step():
    reward, value, next_value, terminated, truncated = rows = random_rollout(1)
    goes_on = ~(terminated | truncated)[:-1]
    next_value[:-1][goes_on] = value[1:][goes_on]  # as from one critic: then the deltas telescope
    returns = np.zeros((T + 1, B))
    for t in reversed(range(T)):
        beyond = np.where(truncated[t] | (t == T - 1), next_value[t], returns[t + 1])
        returns[t] = reward[t] + 0.9 * np.where(terminated[t], 0.0, beyond)
    np.testing.assert_allclose(JIT(*rows, 0.9, 1.0), returns[:T] - value, rtol=1e-5, atol=1e-5)
    one_step = reward + 0.9 * np.where(terminated, 0.0, next_value) - value
    np.testing.assert_allclose(JIT(*rows, 0.9, 0.0), one_step, rtol=1e-5, atol=1e-5)


def test_gae_takes_any_trailing_axes_and_no_gradients():
    rows = random_rollout()
    flat = jnp.stack([gae(*(column[:, b] for column in rows), 0.9, 0.8) for b in range(B)], axis=1)
    deep = gae(*(column.reshape(T, 4, 4) for column in rows), 0.9, 0.8)
    np.testing.assert_allclose(flat, deep.reshape(T, B), rtol=1e-5, atol=1e-6)
    slopes = jax.grad(lambda *floats: gae(*floats, *rows[3:], 0.9, 0.8).sum(), (0, 1, 2))(*rows[:3])
    assert not np.any(slopes)


def test_gae_refuses_shapes_that_differ():
    rows = random_rollout()
    with pytest.raises(AssertionError):
        gae(rows[0], rows[1], rows[2][:1], *rows[3:], 0.9, 0.8)  # would broadcast


def test_gae_equals_verl(vectors):
    """A completion is an episode that its last token terminates; rows past it are masked."""
    inputs, last = vectors["inputs"], np.array(vectors["inputs"]["last_index"], int)
    reward, value = np.array(vectors["token_rewards_k1_beta0.1"]).T, np.array(inputs["values"]).T
    next_value = np.concatenate([value[1:], np.full_like(value[:1], 99.0)])  # never looked at
    terminated = np.arange(len(value))[:, None] == last
    found = gae(reward, value, next_value, terminated, np.zeros_like(terminated), 1.0, 0.95)
    mask = np.array(inputs["mask"])
    np.testing.assert_allclose(found.T * mask, vectors["raw_gae_g1_l0.95"], atol=1e-6)


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        ([1.0, 2, 4], [1.0, 2, 4], 1.0),
        ([7.0, 7, 7], [1.0, 2, 4], 0.0),  # a constant explains nothing, wherever it is
        ([0.0, 1, 1], [0.0, 2, 4], 5 / 12),  # residuals 0, 1, 3: 1 - (14 / 9) / (8 / 3)
        ([-1.0, -2, -4], [1.0, 2, 4], -3.0),
        ([1.0, 2, 4], [3.0, 3, 3], 0.0),  # nothing to explain
    ],
)
def test_explained_variance(value, target, expected):
    np.testing.assert_allclose(explained_variance(jnp.array(value), jnp.array(target)), expected, atol=1e-6)


def test_standardize():
    np.testing.assert_allclose(standardize(jnp.array([1.0, 2, 6])), np.array([-2, -1, 3]) / np.sqrt(14 / 3), rtol=1e-6)
    np.testing.assert_allclose(standardize(jnp.array([[1.0, 3], [10.0, 30]]), axis=1), [[-1, 1], [-1, 1]], rtol=1e-6)
    np.testing.assert_array_equal(standardize(jnp.full(5, 3.0)), 0)  # nothing to tell apart, and no NaN


def test_reward_to_go_by_pencil():
    """Discount 1/2, rewards 1, 2, 4, 8; what is beyond a cut is worth 100, and only there."""
    reward, beyond = jnp.array([1.0, 2, 4, 8]), jnp.full(4, 100.0)
    flags = {"goes on": (None, None), "terminated": (1, None), "truncated": (None, 1), "both": (1, 1)}
    expected = {
        "goes on": [10.25, 18.5, 33.0, 58.0],
        "terminated": [2.0, 2.0, 33.0, 58.0],
        "truncated": [27.0, 52.0, 33.0, 58.0],
        "both": [2.0, 2.0, 33.0, 58.0],  # termination wins
    }
    for name, (end, cut) in flags.items():
        found = reward_to_go(reward, beyond, *(jnp.arange(4) == (-1 if t is None else t) for t in (end, cut)), 0.5)
        np.testing.assert_allclose(found, expected[name], err_msg=name)


def test_reward_to_go_is_gae_at_trace_one():
    reward, value, next_value, terminated, truncated = random_rollout(2)
    goes_on = ~(terminated | truncated)[:-1]
    next_value[:-1][goes_on] = value[1:][goes_on]
    returns = reward_to_go(reward, next_value, terminated, truncated, 0.9)
    advantage = gae(reward, value, next_value, terminated, truncated, 0.9, 1.0)
    np.testing.assert_allclose(returns, advantage + value, rtol=1e-5, atol=1e-5)
    assert not np.any(jax.grad(lambda r: reward_to_go(r, next_value, terminated, truncated, 0.9).sum())(reward))


def test_mean_return_agrees_with_itself():
    reward, _, _, terminated, truncated = random_rollout(3)
    c = mean_return(reward, terminated, truncated, 0.95)
    returns = reward_to_go(reward, jnp.full_like(reward, c), terminated, truncated, 0.95)
    np.testing.assert_allclose(returns.mean(), c, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_mean_return_of_a_task_without_end_does_not_depend_on_the_cut(steps):
    never, cut = jnp.zeros((steps, 2), bool), jnp.zeros((steps, 2), bool).at[steps // 2, 1].set(True)
    np.testing.assert_allclose(mean_return(jnp.ones((steps, 2)), never, cut, 0.9), 10.0, rtol=1e-5)
    assert mean_return(jnp.ones((steps, 2)), never, cut, 1.0) == 0  # nothing bounds it


def test_returns_equal_rlax():
    data = json.loads((Path(__file__).parents[1] / "data" / "rlax_returns.json").read_text())
    columns = {name: np.array(column, np.float32) for name, column in data["inputs"].items()}
    ends = columns["discount"] == 0
    cut = np.zeros_like(ends)
    found = reward_to_go(columns["reward"], columns["next_value"], ends, cut, 0.9)
    np.testing.assert_allclose(found, data["discounted_returns"], rtol=1e-5)
    advantage = gae(columns["reward"], columns["value"], columns["next_value"], ends, cut, 0.9, 0.8)
    np.testing.assert_allclose(advantage, data["truncated_generalized_advantage_estimation"], rtol=1e-4, atol=1e-6)
