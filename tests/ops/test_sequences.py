"""Masked means, weights of tokens and their advantages, by pencil, by loops and against verl's and OpenAI's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import (
    at_end,
    gae,
    last_token,
    length_mask,
    masked_mean,
    masked_standardize,
    token_gae,
    token_weights,
    weighted_mean,
)

LENGTH = jnp.array([5, 3, 1])
AGGREGATIONS = ["token", "sequence", "sequence_sum", "constant"]


def test_masks_come_from_lengths():
    np.testing.assert_array_equal(length_mask(jnp.array([0, 2, 3]), 3), [[0, 0, 0], [1, 1, 0], [1, 1, 1]])


def test_masked_mean_by_pencil():
    """Whatever stands behind the end, changes nothing, to values or gradients."""
    x = jnp.array([[1.0, 3.0, jnp.inf], [5.0, jnp.inf, -jnp.inf], [jnp.inf, jnp.inf, 7.0]])
    mask = length_mask(jnp.array([2, 1, 0]), 3)
    assert masked_mean(x, mask) == 3.0
    np.testing.assert_array_equal(masked_mean(x, mask, axis=1), [2.0, 5.0, 0.0])  # an empty row: 0
    np.testing.assert_array_equal(masked_mean(x, mask.astype(jnp.int32), axis=1), [2.0, 5.0, 0.0])
    assert masked_mean(x, jnp.zeros_like(mask)) == 0.0
    np.testing.assert_allclose(jax.grad(masked_mean)(x, mask), np.array(mask) / 3)


@pytest.mark.parametrize("ddof", [0, 1])
def test_masked_standardize_by_numpy(ddof):
    x, mask = jax.random.normal(jax.random.key(0), (4, 6)), length_mask(jnp.array([6, 2, 0, 3]), 6)
    kept = np.array(x, np.float64)[np.array(mask)]
    found = np.array(masked_standardize(x.at[2].set(jnp.inf), mask, ddof=ddof))
    np.testing.assert_allclose(found[np.array(mask)], (kept - kept.mean()) / kept.std(ddof=ddof), rtol=1e-5)
    assert not found[~np.array(mask)].any()
    unshifted = np.array(masked_standardize(x, mask, shift_mean=False, ddof=ddof))
    np.testing.assert_allclose((unshifted - found)[np.array(mask)], kept.mean(), rtol=1e-4)
    assert not unshifted[~np.array(mask)].any()


def test_nothing_that_varies_is_nothing_to_whiten():
    alike = jnp.full((2, 2), 3.0)
    np.testing.assert_array_equal(masked_standardize(alike, jnp.ones((2, 2))), np.zeros((2, 2)))
    np.testing.assert_array_equal(masked_standardize(alike, jnp.array([[1, 0], [0, 0]])), np.zeros((2, 2)))
    np.testing.assert_array_equal(masked_standardize(alike, jnp.zeros((2, 2))), np.zeros((2, 2)))


def test_whitening_by_pencil():
    """1, 2, 3: variance 1 by n - 1, 2/3 by n."""
    x, mask = jnp.array([1.0, 2.0, 3.0, 50.0]), jnp.array([1, 1, 1, 0])
    np.testing.assert_allclose(masked_standardize(x, mask), [-1, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(masked_standardize(x, mask, ddof=0), np.sqrt([1.5, 0, 1.5, 0]) * [-1, 0, 1, 0])
    np.testing.assert_allclose(masked_standardize(x, mask, shift_mean=False), [1, 2, 3, 0], atol=1e-6)


def test_token_weights_by_pencil():
    """Losses 1, 3 | 5 | none: token mean 3, mean of means 3.5, mean of sums 4.5, over B * max_tokens 9 / 30."""
    loss, mask = jnp.array([[1.0, 3.0], [5.0, 9.0], [9.0, 9.0]]), length_mask(jnp.array([2, 1, 0]), 2)
    for aggregation, expected in zip(AGGREGATIONS, [3.0, 3.5, 4.5, 0.3], strict=True):
        weights = token_weights(mask, aggregation, max_tokens=10)
        np.testing.assert_allclose(jnp.sum(weights * loss), expected, rtol=1e-6)
        assert not np.any(np.array(weights)[~np.array(mask)])
    assert not np.any(token_weights(jnp.zeros((2, 3)), "sequence"))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_the_loss_is_the_same_however_the_batch_is_split(aggregation, rows):
    x, parameter = jax.random.normal(jax.random.key(1), (6, 4)), jnp.float32(0.3)
    mask = length_mask(jnp.array([4, 1, 0, 3, 2, 4]), 4)
    weights = token_weights(mask, aggregation, max_tokens=7)
    slope = jax.value_and_grad(lambda parameter, x, weights: jnp.sum(weights * jnp.tanh(parameter * x)))
    whole = slope(parameter, x, weights)
    parts = [slope(parameter, x[i : i + rows], weights[i : i + rows]) for i in range(0, 6, rows)]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-5)


def test_constant_is_no_width_of_a_batch():
    mask = length_mask(jnp.array([2, 1]), 3)
    wider = length_mask(jnp.array([2, 1]), 9)
    assert token_weights(mask, "constant", 12).sum() == token_weights(wider, "constant", 12).sum()
    with pytest.raises(ValueError, match="max_tokens"):
        token_weights(mask, "constant")
    with pytest.raises(ValueError, match="'mean' is none of"):
        token_weights(mask, "mean")


def test_ends_are_found():
    x, length = jnp.arange(6.0).reshape(2, 3) + 1, jnp.array([2, 3])
    np.testing.assert_array_equal(last_token(x, length), [2, 6])
    np.testing.assert_array_equal(last_token(x, jnp.array([0, 1])), [0, 4])
    np.testing.assert_array_equal(last_token(jnp.stack([x, -x], -1), jnp.array([0, 1])), [[0, 0], [4, -4]])
    np.testing.assert_array_equal(last_token(at_end(x[:, 0], length, 3), length), x[:, 0])


def test_a_score_stands_on_the_last_token_alone_and_is_not_rounded():
    score = at_end(jnp.array([0.7, -1.9, 3.0]), jnp.array([3, 1, 0]), 3)
    np.testing.assert_allclose(score, [[0, 0, 0.7], [-1.9, 0, 0], [0, 0, 0]])
    assert at_end(jnp.array([1, 2]), jnp.array([1, 1]), 2).dtype == jnp.float32


def test_token_gae_by_pencil():
    """Reward 1 at the second of two tokens, values 0.5 and 0.25: delta (-0.25, 0.75)."""
    reward, value = jnp.array([[0.0, 1.0, 9.0]]), jnp.array([[0.5, 0.25, 9.0]])
    advantage, target = token_gae(reward, value, jnp.array([2]), 1.0, 0.5)
    np.testing.assert_allclose(advantage, [[-0.25 + 0.5 * 0.75, 0.75, 0.0]])
    np.testing.assert_allclose(target, [[0.625, 1.0, 0.0]])
    assert not np.any(token_gae(reward, value, jnp.array([0]), 1.0, 0.5)[0])


def test_token_gae_is_the_other_gae_row_by_row():
    reward, value = jax.random.normal(jax.random.key(2), (2, 3, 5))
    advantage, target = token_gae(reward, value, LENGTH, 0.9, 0.8)
    for row, length in enumerate(LENGTH):
        r, v = reward[row, :length], value[row, :length]
        last = jnp.arange(length) == length - 1
        expected = jax.jit(gae)(r, v, jnp.append(v[1:], 99.0), last, jnp.zeros_like(last), 0.9, 0.8)
        np.testing.assert_allclose(advantage[row, :length], expected, rtol=1e-5)
        np.testing.assert_allclose(target[row, :length], expected + v, rtol=1e-5)
        assert not np.any(advantage[row, length:])


def test_weighted_mean_is_a_mean_over_rows_of_weighted_sums():
    weight = jnp.array([[2.0, 1.0, 0.0], [0.5, 0.0, 0.0]])
    with jax.debug_nans(False):
        x = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.inf, 5.0]])
        assert weighted_mean(x, weight) == (4.0 + 2.0) / 2
    mask = jnp.array([[1, 1, 0], [1, 0, 0]], bool)
    values = jnp.arange(6.0).reshape(2, 3)
    assert weighted_mean(values, 2 * token_weights(mask, "token")) == pytest.approx((0 + 1 + 3) / 3)
