"""Losses of comparisons by pencil, by loops over pairs and choices, and against OpenRLHF's and other numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import (
    bradley_terry_loss,
    centring_penalty,
    choice_loss,
    davidson_log_probs,
    ensemble_score,
    lapse_loss,
    plackett_luce_loss,
    ranking_loss,
)

SCORES = jnp.array([1.2, 0.4, 0.3, -0.9])


def test_bradley_terry_by_pencil():
    """Equal: log 2. Ahead by 0.5, behind by 0.7, equal, ahead by 200: a mean of 0.5676."""
    chosen, rejected = jnp.array([1, 0.2, -3, 100]), jnp.array([0.5, 0.9, -3, -100])
    np.testing.assert_allclose(bradley_terry_loss(chosen, rejected).mean(), 0.5676025, rtol=1e-6)
    np.testing.assert_allclose(bradley_terry_loss(chosen, rejected, 0.5).mean(), 0.7826267, rtol=1e-6)
    found = jax.value_and_grad(bradley_terry_loss)(jnp.float32(-100.0), jnp.float32(100.0))
    np.testing.assert_allclose(found, (200.0, -1.0))  # finite in float32
    half = jax.value_and_grad(bradley_terry_loss)(jnp.float32(0.0), jnp.float32(0.0), 0.0, 0.5)
    np.testing.assert_allclose(half, (np.log(2), 0.0), rtol=1e-6)  # two that are equally good stay so
    settled = jax.grad(bradley_terry_loss)(jnp.log(9.0), jnp.float32(0.0), 0.0, 0.9)
    np.testing.assert_allclose(settled, 0.0, atol=1e-6)


def test_lapses_bound_what_a_wrong_label_weighs():
    """K9: behind by 6, one answer in ten at random: loss 2.95 for 6.00, gradient -0.0425 for -0.9975."""
    behind = jnp.float32(-6.0), jnp.float32(0.0)
    np.testing.assert_allclose(jax.value_and_grad(lapse_loss)(*behind), (2.9522, -0.0425), atol=1e-4)
    np.testing.assert_allclose(jax.value_and_grad(bradley_terry_loss)(*behind), (6.0025, -0.9975), atol=1e-4)


def test_davidson():
    first, second = jax.random.normal(jax.random.key(0), (2, 5)) * 3
    log_probs = davidson_log_probs(first, second, 0.3)
    np.testing.assert_allclose(jnp.exp(log_probs).sum(-1), 1.0, rtol=1e-6)
    weights = np.stack([np.exp(first), np.exp(0.3) * np.exp((first + second) / 2), np.exp(second)], -1)
    np.testing.assert_allclose(jnp.exp(log_probs), weights / weights.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(davidson_log_probs(second, first, 0.3), log_probs[:, ::-1], rtol=1e-5)
    no_ties = davidson_log_probs(first, second, -jnp.inf)
    np.testing.assert_allclose(-no_ties[:, 0], bradley_terry_loss(first, second), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        jnp.exp(davidson_log_probs(jnp.ones(1), jnp.ones(1), 0.0)), np.full((1, 3), 1 / 3), rtol=1e-6
    )
    ahead = jnp.float32(2.0), jnp.float32(-1.0)
    slope = jax.grad(lambda first: -davidson_log_probs(first, ahead[1], 0.0)[1])(ahead[0])
    assert slope > 0  # a tie draws the two together


def test_centring_by_pencil():
    np.testing.assert_allclose(centring_penalty(jnp.array([1.0, 2.0]), jnp.array([3.0, -2.0])), [16.0, 0.0])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_rankings_are_loops_over_pairs_and_choices(size):
    """E1: values and gradients of all pairs, of rankings padded to four."""
    mask = np.arange(4) < size
    scores = np.where(mask, SCORES, np.nan).astype(np.float32)

    def pairs(score):
        losses = [bradley_terry_loss(score[i], score[j]) for i, j in itertools.combinations(range(size), 2)]
        return jnp.mean(jnp.array(losses)) if losses else 0.0 * score[0]

    def choices(score):
        rest = [jax.nn.logsumexp(score[k:size]) - score[k] for k in range(size)]
        return jnp.sum(jnp.array(rest)) if rest else 0.0 * score[0]

    with jax.debug_nans(False):
        for loss, naive in [(ranking_loss, pairs), (plackett_luce_loss, choices)]:
            found, expected = (
                jax.jit(jax.value_and_grad(loss))(scores, mask),
                jax.jit(jax.value_and_grad(naive))(SCORES),
            )
            np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)


def test_rankings_by_pencil():
    everything = jnp.ones(4, bool)
    np.testing.assert_allclose(ranking_loss(SCORES, everything), 0.3294103, rtol=1e-6)
    np.testing.assert_allclose(plackett_luce_loss(SCORES, everything), 1.7236655, rtol=1e-6)
    two = plackett_luce_loss(SCORES[:2], everything[:2])
    np.testing.assert_allclose(two, bradley_terry_loss(SCORES[0], SCORES[1]), rtol=1e-6)
    batch = ranking_loss(jnp.stack([SCORES, -SCORES]), jnp.ones((2, 4)))
    np.testing.assert_allclose(batch[0], ranking_loss(SCORES, everything), rtol=1e-6)


def test_plackett_luce_probabilities_of_all_orders_sum_to_one():
    orders = SCORES[jnp.array(list(itertools.permutations(range(4))))]
    np.testing.assert_allclose(jnp.exp(-plackett_luce_loss(orders, jnp.ones_like(orders))).sum(), 1.0, rtol=1e-5)


def test_choice_by_pencil():
    """Of weights 1, 2, 5: the last in 5 cases of 8, the first in 1; of two it is Bradley-Terry."""
    score = jnp.log(jnp.array([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))
    np.testing.assert_allclose(choice_loss(score, jnp.array([2, 0])), [np.log(8 / 5), np.log(8)], rtol=1e-5)
    two = choice_loss(jnp.array([0.3, -0.4]), jnp.array(1))
    np.testing.assert_allclose(two, bradley_terry_loss(jnp.float32(-0.4), jnp.float32(0.3)), rtol=1e-6)
    np.testing.assert_allclose(choice_loss(jnp.array([0.0, 0.0, -jnp.inf]), jnp.array(0)), np.log(2), rtol=1e-6)
    first = choice_loss(SCORES, jnp.array(0))  # the first of Plackett and Luce's choices
    rest = plackett_luce_loss(SCORES[1:], jnp.ones(3))
    np.testing.assert_allclose(first + rest, plackett_luce_loss(SCORES, jnp.ones(4)), rtol=1e-6)


def test_ensembles_by_pencil():
    score = jnp.array([[0.2, 1.0], [1.0, 1.0], [-0.4, 1.0], [0.6, 1.0]])  # [M, N]
    np.testing.assert_allclose(ensemble_score(score, "mean"), [0.35, 1.0], rtol=1e-6)
    np.testing.assert_allclose(ensemble_score(score, "min"), [-0.4, 1.0], rtol=1e-6)
    np.testing.assert_allclose(ensemble_score(score, "uncertainty", 0.5), [0.21625, 1.0], rtol=1e-6)
    np.testing.assert_allclose(ensemble_score(score, "uncertainty", 0.5, 1), [0.1716667, 1.0], rtol=1e-6)
    np.testing.assert_allclose(ensemble_score(score, "uncertainty", 0.0), [0.35, 1.0], rtol=1e-6)  # 0 is 0
    np.testing.assert_allclose(ensemble_score(score, "quantile", 0.0), [-0.4, 1.0], rtol=1e-6)
    np.testing.assert_allclose(ensemble_score(score, "quantile", 0.5), [0.4, 1.0], rtol=1e-6)


def test_ensembles_refuse():
    for how, words in [("uncertainty", "needs an amount"), ("quantile", "needs an amount"), ("max", "is none of")]:
        with pytest.raises(ValueError, match=words):
            ensemble_score(jnp.zeros((3, 2)), how)
    with pytest.raises(ValueError, match=r"'quantile' needs an amount of 0 to 1, not 1\.5"):
        ensemble_score(jnp.zeros((3, 2)), "quantile", 1.5)
    with pytest.raises(ValueError, match="1 members have no variance"):
        ensemble_score(jnp.zeros((1, 2)), "uncertainty", 0.5, 1)
