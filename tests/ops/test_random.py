"""Draws by hashing a key: even, independent of one another and of those of other keys. Axes: K keys, N draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlx.ops import random

KEY = jax.random.key(0)
COUNT = 1 << 16


def test_bits_by_hand():
    def mix(word):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            word = (word ^ word >> shift) * factor % 2**32
        return word ^ word >> 16

    key = jax.random.wrap_key_data(jnp.array([123, 456], jnp.uint32))
    expected = [mix(456 ^ mix((123 + number * 0x9E3779B9) % 2**32)) for number in range(1, 101)]
    for shape in ((), (3, 2), (100,)):
        drawn = random.bits(key, shape)
        assert drawn.shape == shape
        np.testing.assert_array_equal(np.ravel(drawn), expected[: drawn.size])


@pytest.mark.parametrize(
    ("draw", "exact"), [(random.uniform, stats.uniform), (random.normal, stats.norm), (random.gumbel, stats.gumbel_r)]
)
def test_draws_follow_their_distribution(draw, exact):
    many = np.asarray(draw(KEY, (COUNT,)))
    across = np.asarray(jax.vmap(lambda key: draw(key, ()))(jax.random.split(KEY, COUNT)))
    for drawn in (many, across):
        assert drawn.dtype == np.float32
        assert stats.kstest(drawn, exact.cdf).pvalue > 1e-3


def test_the_ends_of_the_uniform_draw_are_finite_everywhere(monkeypatch):
    for word in (0, 2**32 - 1):
        monkeypatch.setattr(random, "mix", lambda x, word=word: jnp.full(jnp.shape(x), word, jnp.uint32))
        assert 0 < random.uniform(KEY, ()) < 1
        assert np.isfinite(random.normal(KEY, ()))
        assert np.isfinite(random.gumbel(KEY, ()))


def test_draws_are_independent_within_a_key_and_across_keys():
    drawn = np.asarray(jax.vmap(lambda key: random.uniform(key, (6,)))(jax.random.split(KEY, COUNT)))  # [K, N]
    columns = np.concatenate([drawn[1:], drawn[:-1]], axis=1)  # keys side by side too
    error = 1 / np.sqrt(COUNT)  # standard error of a correlation
    assert np.abs(np.corrcoef(columns.T) - np.eye(12)).max() < 5 * error
    assert np.abs(np.corrcoef(((drawn - 0.5) ** 2).T) - np.eye(6)).max() < 5 * error


def test_several_keys_are_refused():
    with pytest.raises(ValueError, match=r"not keys of shape \(2,\)"):
        random.bits(jax.random.split(KEY), ())


@pytest.mark.parametrize("second", [lambda key: random.bits(key, ()), jax.random.split], ids=["bits", "split"])
def test_a_key_that_is_used_twice_is_noticed(second):
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: random.bits(key, (3,)))(jax.random.key(0))
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda key: (random.bits(key, (2,)), second(key)))(jax.random.key(1))


def test_words_of_steps_are_as_of_other_keys():
    """A loop's draws, step by step: uniform, and no step's like another's or like those of the key itself."""
    words = random.words_of(KEY)
    draws = np.stack([random.uniform(random.words_at(words, jnp.int32(step)), (1000,)) for step in range(200)])
    assert len(np.unique(draws)) > 0.98 * draws.size  # of 2^23 numbers
    assert abs(draws.mean() - 0.5) < 4 / np.sqrt(12 * draws.size)
    columns = np.corrcoef(draws) - np.eye(200)
    assert np.abs(columns).max() < 0.2  # 4.7 standard deviations of 1000 pairs are 0.15
    assert not np.isin(
        np.asarray(random.bits(KEY, (1000,))), np.asarray(random.bits(random.words_at(words, jnp.int32(0)), (1000,)))
    ).any()
