"""Bins, calibration error, temperature and intervals: by pencil, by loops, and on data whose truth is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import (
    binned_mean,
    bradley_terry_loss,
    calibration_error,
    fit_temperature,
    length_baseline,
    pair_confidence,
    wilson_interval,
    win_rate,
)


def test_bins_by_pencil():
    position, value = jnp.array([0.0, 0.5, 1.0, 2.5, 9.0, -3.0]), jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    bins = binned_mean(position, value, jnp.array([0.0, 1.0, 2.0, 2.2, 3.0]))
    np.testing.assert_array_equal(bins.count, [3, 1, 0, 2])  # -3 in the first, 9 in the last, an edge in the upper
    np.testing.assert_allclose(bins.mean, [1 / 3, 1, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(bins.position, [-2.5 / 3, 1, 0, 5.75], rtol=1e-6)


def test_accuracy_by_difference_of_length():
    """A model that only knows the length: right where the longer one was preferred, and no better than the baseline."""
    chosen, rejected = jnp.array([10, 12, 5, 7, 9]), jnp.array([4, 6, 9, 3, 9])
    correct = win_rate(chosen, rejected)
    bins = binned_mean(chosen - rejected, correct, jnp.array([-10, 0, 5, 10]))
    np.testing.assert_allclose(bins.mean, [0, 0.75, 1])
    np.testing.assert_allclose(correct.mean(), length_baseline(chosen, rejected))
    np.testing.assert_allclose(length_baseline(chosen, rejected), 0.7)
    np.testing.assert_allclose(length_baseline(rejected, chosen), 0.7)  # "the shorter one" is a rule too


def test_confidence_by_pencil():
    sure, correct = pair_confidence(jnp.array([1.0, 0.0, 2.0]), jnp.array([0.0, 2.0, 2.0]))
    np.testing.assert_allclose(sure, [0.7310586, 0.8807971, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(correct, [1, 0, 0.5])


def slow_ece(sure, correct, edges):
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (sure >= low) & ((sure < high) | (high == edges[-1]))
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - sure[inside].mean())
    return total


def test_calibration_error_by_a_loop():
    chosen, rejected = jax.random.normal(jax.random.key(0), (2, 500)) * 2
    sure, correct = pair_confidence(chosen, rejected)
    edges = jnp.linspace(0.5, 1.0, 11)
    found = calibration_error(binned_mean(sure, correct, edges))
    np.testing.assert_allclose(found, slow_ece(np.array(sure), np.array(correct), np.array(edges)), rtol=1e-4)
    always = calibration_error(binned_mean(jnp.full(4, 0.75), jnp.array([1.0, 1.0, 1.0, 0.0]), edges))
    np.testing.assert_allclose(always, 0.0, atol=1e-6)


def pairs(key, scale=1.0):
    """Scores whose differences, divided by `scale`, are the true logits of 20,000 preferences."""
    key, again = jax.random.split(key)
    margin = 1.5 * jax.random.normal(key, (20_000,))
    right = jax.random.uniform(again, margin.shape) < jax.nn.sigmoid(margin)
    margin = scale * jnp.where(right, margin, -margin)
    return margin, jnp.zeros_like(margin)


def test_temperature_recalibrates():
    edges = jnp.linspace(0.5, 1.0, 11)
    error = lambda chosen, rejected: calibration_error(binned_mean(*pair_confidence(chosen, rejected), edges))  # noqa: E731
    chosen, rejected = pairs(jax.random.key(0), scale=3.0)
    assert error(chosen, rejected) > 0.1  # overconfident
    temperature = fit_temperature(jnp.stack([chosen, rejected], -1), jnp.zeros(len(chosen), jnp.int32))
    np.testing.assert_allclose(temperature, 3.0, rtol=0.05)
    assert error(chosen / temperature, rejected / temperature) < 0.02
    fresh = pairs(jax.random.key(1), scale=3.0)
    assert error(fresh[0] / temperature, fresh[1] / temperature) < 0.02


def test_temperature_is_the_minimum():
    """Right by 1 three times in four: sigmoid(1 / T) = 3 / 4, T = 1 / log 3."""
    margin = jnp.array([1.0, 1.0, 1.0, -1.0])
    found = fit_temperature(jnp.stack([margin, jnp.zeros(4)], -1), jnp.zeros(4, jnp.int32))
    np.testing.assert_allclose(found, 1 / np.log(3), rtol=1e-5)
    logits, label = 2 * jax.random.normal(jax.random.key(2), (50, 4)), jnp.arange(50) % 4
    logits = logits + jax.nn.one_hot(label, 4)
    slope = jax.grad(lambda scale: -jnp.mean(jax.nn.log_softmax(scale * logits)[jnp.arange(50), label]))
    np.testing.assert_allclose(slope(1 / fit_temperature(logits, label)), 0.0, atol=1e-6)
    np.testing.assert_allclose(fit_temperature(5 * logits, label), 5 * fit_temperature(logits, label), rtol=1e-5)


def test_temperature_lowers_the_loss_of_pairs():
    chosen, rejected = pairs(jax.random.key(3), scale=0.2)
    found = fit_temperature(jnp.stack([chosen, rejected], -1), jnp.zeros(len(chosen), jnp.int32))
    least = bradley_terry_loss(chosen / found, rejected / found).mean()
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert least < bradley_terry_loss(factor * chosen / found, factor * rejected / found).mean()


def test_temperature_without_a_minimum():
    always = jnp.stack([jnp.ones(3), jnp.zeros(3)], -1)
    np.testing.assert_allclose(fit_temperature(always, jnp.zeros(3, jnp.int32)), 1e-4, rtol=1e-2)
    np.testing.assert_allclose(fit_temperature(always, jnp.ones(3, jnp.int32)), 1e4, rtol=1e-2)


def test_wilson_by_known_numbers():
    """8 of 10: 0.490 to 0.943; 0 of 10: 0 to 0.278."""
    np.testing.assert_allclose(wilson_interval(jnp.float32(0.8), 10), (0.4901625, 0.9433178), atol=1e-5)
    np.testing.assert_allclose(wilson_interval(jnp.float32(0.0), 10), (0.0, 0.2775328), atol=1e-5)
    np.testing.assert_allclose(wilson_interval(jnp.float32(1.0), 10), (0.7224672, 1.0), atol=1e-5)
    np.testing.assert_allclose(wilson_interval(jnp.float32(0.0), 0), (0.0, 1.0))


@pytest.mark.parametrize("truth", [0.05, 0.5, 0.9])
def test_wilson_covers(truth):
    right = jax.random.bernoulli(jax.random.key(4), truth, (4000, 60)).mean(1)
    low, high = wilson_interval(right, 60)
    covered = jnp.mean((low <= truth) & (truth <= high))
    assert 0.92 < covered < 0.99
