"""The exact tilt: the listed language's optima, a slope of sqrt(2 Var r), and nobody above it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.experiments.laws import BEST_OF_N, fit
from rlx.experiments.tilt import best_of_n_path, initial_slope, normal_gain, strength_at, tilt_path
from rlx.lm.enumerable import Language, TabularModel, divergence, frontier, optimal_policy, string_log_probs
from rlx.ops import best_of_n_kl_bound

LANGUAGE = Language(vocabulary=4, max_tokens=4)
MODEL = TabularModel(LANGUAGE)
LOG_PROB = string_log_probs(MODEL, MODEL.init(jax.random.key(0), LANGUAGE.prompts.tokens), LANGUAGE)
PROXY, NOISE = jax.random.normal(jax.random.key(1), (2, *LOG_PROB.shape))
GOLD = PROXY + NOISE
Z = np.linspace(-9, 9, 9001)  # a normal reward, finely cut


def test_a_coin_by_pencil():
    """p = 1/2, reward 0 or 1, strength log 3: pi = (1/4, 3/4), gain 1/4, KL = log 2 - h(1/4)."""
    path = tilt_path(np.log([0.5, 0.5]), [0.0, 1.0], [2.0, -2.0], [0.0, np.log(3)])
    np.testing.assert_allclose(path.proxy, [0, 0.25], atol=1e-12)
    np.testing.assert_allclose(path.gold, [0, -1], atol=1e-12)
    np.testing.assert_allclose(path.kl, [0, np.log(2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)], atol=1e-12)
    np.testing.assert_allclose(path.d, np.sqrt(path.kl))
    np.testing.assert_allclose(initial_slope(np.log([0.5, 0.5]), [0.0, 1.0]), np.sqrt(2 * 0.25))


def test_the_tilt_is_the_listed_languages_optimal_policy():
    strengths = np.array([0.1, 1.0, 5.0])
    path = tilt_path(LOG_PROB, PROXY, GOLD, strengths)
    p = jnp.exp(LOG_PROB)
    for index, strength in enumerate(strengths):
        log_best = optimal_policy(LOG_PROB, PROXY, 1 / strength)
        best = jnp.exp(log_best)
        np.testing.assert_allclose(path.kl[index], divergence(log_best, LOG_PROB), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(path.proxy[index], jnp.sum((best - p) * PROXY), rtol=1e-4)
        np.testing.assert_allclose(path.gold[index], jnp.sum((best - p) * GOLD), rtol=1e-4)
    line = frontier(LOG_PROB, PROXY)
    np.testing.assert_allclose(path.proxy, line.at(jnp.array(path.kl)) - jnp.sum(p * PROXY), atol=3e-3)


def test_impossible_outcomes_stay_impossible():
    path = tilt_path([np.log(0.5), np.log(0.5), -np.inf], [0.0, 1.0, 99.0], [0.0, 1.0, 99.0], [1.0, 300.0])
    np.testing.assert_allclose(path.proxy, [np.e / (1 + np.e) - 0.5, 0.5])
    np.testing.assert_allclose(path.kl[1], np.log(2))


@pytest.mark.parametrize("kl", [1e-6, 0.01, 0.5, 2.0])
def test_strength_at_a_kl(kl):
    strength = strength_at(LOG_PROB, PROXY, [kl, kl / 2])
    np.testing.assert_allclose(tilt_path(LOG_PROB, PROXY, GOLD, strength).kl, [kl, kl / 2], rtol=1e-6)


def test_a_kl_that_no_tilt_has():
    with pytest.raises(ValueError, match=r"less than 0\.693147"):
        strength_at(np.log([0.5, 0.5]), [0.0, 1.0], [np.log(2)])


def test_the_slope_at_the_start_is_sqrt_2_var():
    """K4: within 0.2 percent at a strength of 0.001; and that of gold, by its covariance with the proxy."""
    path = tilt_path(LOG_PROB, PROXY, GOLD, [1e-3, 1e-2])
    proxy, gold = initial_slope(LOG_PROB, PROXY), initial_slope(LOG_PROB, PROXY, GOLD)
    p = np.exp(np.asarray(LOG_PROB, float))
    np.testing.assert_allclose(proxy, np.sqrt(2 * np.cov(PROXY, aweights=p, ddof=0)), rtol=1e-5)
    assert np.all(np.abs(path.proxy / path.d / proxy - 1) < [2e-3, 5e-3])
    np.testing.assert_allclose(path.gold / path.d, gold, rtol=1e-2)
    tiny = tilt_path(LOG_PROB, PROXY, GOLD, [1e-5])
    np.testing.assert_allclose([tiny.proxy / tiny.d, tiny.gold / tiny.d], [[proxy], [gold]], rtol=1e-4)


def test_the_slope_is_the_natural_gradients():
    """K4: sqrt(2 g^T F^-1 g) of a softmax, F by autodiff as the Hessian of the KL."""
    logits = LOG_PROB[:12]
    log_prob, reward = jax.nn.log_softmax(logits), PROXY[:12]
    g = np.asarray(jax.grad(lambda x: jax.nn.softmax(x) @ reward)(logits), float)
    fisher = np.asarray(jax.hessian(lambda x: divergence(jax.nn.log_softmax(x), log_prob))(logits), float)
    slope = np.sqrt(2 * g @ np.linalg.pinv(fisher, rcond=1e-5) @ g)
    np.testing.assert_allclose(slope, initial_slope(log_prob, reward), rtol=1e-3)
    # Any other direction is less steep: the plain gradient's, say
    assert g @ g / np.sqrt(g @ fisher @ g / 2) < slope


def test_a_normal_reward_never_bends():
    """K3: gain = sigma sqrt(2 KL), and that is the bound of every policy."""
    log_prob = -(Z**2) / 2
    path = tilt_path(log_prob, 0.7 * Z + 3, Z, np.linspace(0.1, 4, 9))
    np.testing.assert_allclose(path.proxy, normal_gain(path.kl, 0.7), rtol=1e-6)
    np.testing.assert_allclose(initial_slope(log_prob, 0.7 * Z), 0.7 * np.sqrt(2), rtol=1e-6)
    for shift, width in ((1.0, 1.0), (1.0, 0.5), (0.3, 2.0)):  # N(shift, width^2)
        kl = (shift**2 + width**2 - 1) / 2 - np.log(width)
        assert shift <= normal_gain(kl) + 1e-9
    bounded = np.sign(Z)  # sub-Gaussian with sigma 1
    path = tilt_path(log_prob, bounded, bounded, np.linspace(0.1, 4, 9))
    assert np.all(path.proxy < normal_gain(path.kl))


NS = (2, 4, 16, 64)


@pytest.mark.parametrize("tied", [False, True], ids=["no ties", "ties"])
def test_best_of_n_never_beats_the_tilt_at_its_own_kl(tied):
    """J4 on the listed language, J1 with it: the exact KL is below log n - (n - 1) / n, and ties take it down."""
    proxy = jnp.round(PROXY) if tied else PROXY
    best = best_of_n_path(LOG_PROB, proxy, GOLD, NS)
    tilt = tilt_path(LOG_PROB, proxy, GOLD, strength_at(LOG_PROB, proxy, best.kl))
    assert np.all(best.proxy < tilt.proxy - 1e-4)
    assert np.all(best.proxy > 0.6 * tilt.proxy)  # the greatest of a few strings has weight: far from a normal reward
    assert np.all(best.kl < best_of_n_kl_bound(jnp.array(NS)) - 1e-3)
    if tied:
        assert np.all(best.kl < best_of_n_path(LOG_PROB, PROXY, GOLD, NS).kl)


def test_nobody_beats_the_tilt():
    """Random policies and those near the tilt."""
    rng = np.random.default_rng(0)
    p = np.exp(np.asarray(LOG_PROB, float))
    p /= p.sum()
    best = p * np.exp(np.asarray(PROXY, float))
    for spread, start in ((1.0, p), (0.3, best), (0.01, best)):
        for _ in range(20):
            q = start * np.exp(spread * rng.normal(size=p.shape))
            q /= q.sum()
            kl = np.sum(q * np.log(q / p))
            tilt = tilt_path(LOG_PROB, PROXY, GOLD, strength_at(LOG_PROB, PROXY, [kl]))
            assert (q - p) @ np.asarray(PROXY, float) < tilt.proxy[0]


def test_best_of_n_of_a_normal_reward_is_some_percent_below():
    """J: E max / sqrt(2 KL) = .908, .913, .922, .930."""
    best = best_of_n_path(-(Z**2) / 2, Z, Z, NS)
    np.testing.assert_allclose(best.proxy / normal_gain(best.kl), [0.908, 0.913, 0.922, 0.930], atol=1e-3)
    np.testing.assert_allclose(best.kl, best_of_n_kl_bound(jnp.array(NS)), rtol=2e-3)


def test_the_slope_is_the_alpha_of_a_fit_near_the_start():
    path = tilt_path(LOG_PROB, PROXY, GOLD, np.linspace(0.001, 0.05, 20))
    found = fit(BEST_OF_N, path.d, path.gold)
    np.testing.assert_allclose(found.alpha, initial_slope(LOG_PROB, PROXY, GOLD), rtol=5e-3)
