"""Cosine and sine beside numpy's in float64, and how evenly the starts are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.envs.elementwise import cos_sin, uniform

COUNT = 1 << 16


@pytest.mark.parametrize("high", [0.5, np.pi, 30, 2000 * np.pi])
def test_cosine_and_sine(high):
    angle = np.linspace(-high, high, 100_001).astype(np.float32)
    cos, sin = jax.jit(cos_sin)(angle)
    np.testing.assert_allclose(cos, np.cos(angle.astype(np.float64)), rtol=0, atol=3e-7)
    np.testing.assert_allclose(sin, np.sin(angle.astype(np.float64)), rtol=0, atol=3e-7)


def test_derivatives():
    for angle in (-4.0, -1.5, 0.0, 0.3, 2.0):
        cos, sin = jax.jacobian(cos_sin)(angle)
        np.testing.assert_allclose((cos, sin), (-np.sin(angle), np.cos(angle)), atol=1e-5)


@pytest.mark.parametrize(
    "keys",
    [jax.random.split(jax.random.key(0), COUNT), jax.vmap(jax.random.key)(jnp.arange(COUNT))],
    ids=["split", "seeds"],
)
def test_draws_are_uniform_and_independent(keys):
    draws = np.stack(jax.jit(jax.vmap(lambda key: uniform(key, 5)))(keys))  # [5, COUNT]
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    error = 1 / np.sqrt(COUNT)  # standard error of a correlation; of the mean it is 0.29 of this
    np.testing.assert_allclose(draws.mean(1), 0.5, atol=4 * 0.29 * error)
    counts = np.stack([np.bincount((64 * row).astype(int), minlength=64) for row in draws])
    statistic = np.sum((counts - COUNT / 64) ** 2 / (COUNT / 64), 1)  # chi-squared with 63 degrees of freedom
    assert np.all(statistic < 63 + 4.5 * np.sqrt(2 * 63))
    neighbours = np.concatenate([draws[:, 1:], draws[:, :-1]])  # of one key, and of keys side by side
    assert np.abs(np.corrcoef(neighbours) - np.eye(10)).max() < 5 * error
    assert np.abs(np.corrcoef((draws - 0.5) ** 2) - np.eye(5)).max() < 5 * error


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_kind_of_key_will_do(impl):
    draws = np.stack(jax.vmap(lambda key: uniform(key, 2))(jax.random.split(jax.random.key(0, impl=impl), 4096)))
    np.testing.assert_allclose(draws.mean(1), 0.5, atol=0.02)
    assert len(np.unique(draws)) > 8180


@pytest.mark.parametrize("second", [lambda key: uniform(key, 1), jax.random.split], ids=["uniform", "split"])
def test_a_key_that_is_used_twice_is_noticed(second):
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: uniform(key, 2))(jax.random.key(0))
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key: (uniform(key, 1), second(key)))(jax.random.key(0))
