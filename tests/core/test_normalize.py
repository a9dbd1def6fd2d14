"""Running statistics against numpy over all that was seen. Axes: T time, B environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.core.normalize import (
    init_moments,
    init_reward_scaler,
    normalize,
    scale_reward,
    update_moments,
    update_reward_scaler,
)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_moments_equal_numpy_over_all_rows_and_the_prior(shape):
    rng = np.random.default_rng(0)
    chunks = [rng.normal(5.0, 3.0, (*leading, *shape)).astype(np.float32) for leading in [(4,), (7, 2), (1, 1)]]
    moments = init_moments(shape)
    for rows in chunks:
        moments = update_moments(moments, rows)
    rows = np.concatenate([rows.reshape(-1, *shape) for rows in chunks])
    # the prior weighs as one row of mean 0, with a variance of 1 about it
    mean = rows.sum(0) / (len(rows) + 1)
    second = (np.square(rows).sum(0) + 1) / (len(rows) + 1)
    assert moments.count == len(rows) + 1
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(moments.var, second - mean**2, rtol=1e-4)
    np.testing.assert_allclose(
        normalize(moments, rows), (rows - mean) / np.sqrt(second - mean**2), rtol=1e-3, atol=1e-4
    )


def test_moments_hold_at_a_large_mean():
    rows = 1000.0 + np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    moments = update_moments(init_moments(()), rows[0])
    for row in rows[1:]:
        moments = update_moments(moments, row)
    expected = (np.square(rows.astype(float)).sum() + 1) / 1001 - moments.mean.astype(float) ** 2
    np.testing.assert_allclose(moments.var, expected, rtol=1e-2)


def test_normalize_clips_and_bears_a_constant():
    moments = init_moments((1,))
    np.testing.assert_allclose(normalize(moments, jnp.array([[99.0], [-99.0], [0.5]])), [[10], [-10], [0.5]], rtol=1e-6)
    for _ in range(20):
        moments = update_moments(moments, jnp.full((1000, 1), 7.0))
    assert abs(normalize(moments, jnp.full((1,), 7.0))[0]) < 0.1


def test_reward_scaler_equals_a_slow_loop():
    """B15: a terminal reward counts in its own episode, then the sum starts anew; the sum goes on between rollouts."""
    rng = np.random.default_rng(0)
    reward, done = rng.normal(size=(2, 9, 3)).astype(np.float32), rng.random((2, 9, 3)) < 0.3
    scaler, seen = init_reward_scaler(3), [np.full(1, np.nan)]
    running = np.zeros(3)
    for half in range(2):
        scaler = jax.jit(update_reward_scaler)(scaler, reward[half], done[half], 0.9)
        for t in range(9):
            running = 0.9 * running + reward[half, t]
            seen.append(running.copy())
            running[done[half, t]] = 0.0
    seen = np.concatenate(seen[1:])
    mean = seen.sum() / (seen.size + 1)
    var = (np.square(seen).sum() + 1) / (seen.size + 1) - mean**2
    np.testing.assert_allclose(scaler.discounted, running, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((scaler.moments.mean, scaler.moments.var), (mean, var), rtol=1e-4)
    np.testing.assert_allclose(scale_reward(scaler, reward[0]), reward[0] / np.sqrt(var), rtol=1e-4)


def test_a_terminal_reward_alone_sets_the_scale():
    scaler = update_reward_scaler(init_reward_scaler(1), jnp.array([[0.0], [8.0]]), jnp.array([[False], [True]]), 0.9)
    assert scaler.discounted == 0
    np.testing.assert_allclose(scaler.moments.mean, 8 / 3, rtol=1e-6)
    assert scale_reward(scaler, jnp.array([0.0])) == 0
    assert scale_reward(scaler, jnp.array([1e6])) == 10
