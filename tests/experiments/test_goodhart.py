"""Goodhart's kinds, each against its exact numbers and against samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.experiments.goodhart import (
    AnalyticWorld,
    causal,
    extremal,
    moments_of_greatest,
    normal_noise,
    regressional,
    regressional_mean,
    student_noise,
)
from rlx.experiments.laws import BEST_OF_N, fit
from rlx.experiments.tilt import normal_gain, tilt_path

W, H = np.array([0.6, 0.8, 0.0]), np.array([0.5, 0.1, 0.7])
WORLD = AnalyticWorld(W, H, 0.6)
NS = (2, 4, 16, 64, 1024, 60_000)


def test_regressional_by_pencil_and_by_monte_carlo():
    """Equal variances: half of what the proxy is above its mean. 24 bins within 4 standard errors of the line."""
    np.testing.assert_allclose(
        regressional_mean([0.0, 3.0], mean=1, variance=2, noise_mean=1, noise_variance=2), [0, 1.5]
    )
    found = regressional(jax.random.key(0), noise=0.7)
    assert np.all(np.abs(found.gold - found.exact) < 4 * found.error)
    assert np.all(found.error < 0.05)
    slope = np.polyfit(found.proxy, found.gold, 1)[0]
    np.testing.assert_allclose(slope, 1 / 1.49, rtol=0.02)
    assert np.all(np.diff(found.gold) > 0)  # it never falls


def test_light_tails_never_turn_over():
    """K5: gold is the proxy's share 1 / (1 + 0.5^2), and at n = 2048 as the normal's greatest says."""
    ns = (1, 2, 8, 32, 128, 512, 2048)
    found = extremal(jax.random.key(0), normal_noise(0.5), ns, size=4096, pools=32)
    expected = moments_of_greatest(ns)[0] / np.sqrt(1.25)
    assert np.all(np.abs(found.gold - expected) < 4 * found.error + 1e-3)
    assert np.all(np.diff(found.gold) > 0)
    np.testing.assert_allclose(found.gold[1:] / found.proxy[1:], 1 / 1.25, atol=0.03)
    np.testing.assert_allclose(found.d**2, np.log(ns) - 1 + 1 / np.array(ns), atol=1e-6)


@pytest.mark.parametrize(
    ("degrees", "peak_n", "peak_gold", "last"), [(3.0, 64, 1.47, 0.46), (2.0, 16, 1.13, 0.11)], ids=["t(3)", "t(2)"]
)
def test_heavy_tails_turn_over(degrees, peak_n, peak_gold, last):
    """K5: the proxy rises for ever, gold comes back. No law of d (alpha - beta d): R^2 is below 0.95."""
    ns = (1, 4, 16, 64, 256, 1024, 4096)
    found = extremal(jax.random.key(0), student_noise(degrees, 0.5), ns, size=8192, pools=32)
    assert found.n[np.argmax(found.gold)] == peak_n
    np.testing.assert_allclose(np.max(found.gold), peak_gold, atol=0.02)
    np.testing.assert_allclose(found.gold[-1], last, atol=4 * found.error[-1])
    assert np.all(np.diff(found.proxy) > 0)
    assert fit(BEST_OF_N, found.d[1:], found.gold[1:]).r2 < 0.95


def test_the_greatest_of_normal_draws():
    """Of 2 draws 1 / sqrt(pi), of 3 3 / (2 sqrt(pi)); and J's shares of sqrt(2 KL)."""
    first, second = moments_of_greatest([1, 2, 3])
    np.testing.assert_allclose(first, [0, 1 / np.sqrt(np.pi), 1.5 / np.sqrt(np.pi)], atol=1e-9)
    np.testing.assert_allclose(second[:2], [1, 1], atol=1e-9)
    np.testing.assert_allclose(WORLD.best_of_n([1000, 60_000]).d ** 2, [5.909, 10.002], atol=1e-3)  # A1
    shares = moments_of_greatest(NS)[0] / normal_gain(WORLD.best_of_n(NS).d ** 2)
    np.testing.assert_allclose(shares, [0.908, 0.913, 0.922, 0.930, 0.943, 0.955], atol=6e-4)


def test_the_analytic_worlds_rewards_are_what_its_samples_have():
    features = jax.random.normal(jax.random.key(0), (400_000, 3))
    np.testing.assert_allclose(jnp.mean(WORLD.gold(features)), 0.0, atol=0.01)
    np.testing.assert_allclose(jnp.mean(WORLD.proxy(features)), 0.0, atol=0.01)
    for d in (0.5, 2.0):
        mean = np.sqrt(2) * d * W
        path = WORLD.path(mean)
        np.testing.assert_allclose(jnp.mean(WORLD.gold(features + mean)), path.gold, atol=0.015)
        np.testing.assert_allclose(jnp.mean(WORLD.proxy(features + mean)), path.proxy, atol=0.01)
        np.testing.assert_allclose(path.kl, d**2)  # |mean|^2 / 2


def test_the_analytic_world_is_the_law():
    """K6, of directions of any length too; the exact tilt of a listed world agrees."""
    d = np.linspace(0, 5, 30)
    for scale in (1.0, 2.5):
        world = AnalyticWorld(scale * W, H, 0.3)
        path = world.tilt(d)
        np.testing.assert_allclose(path.d, d, atol=1e-12)
        np.testing.assert_allclose(path.gold, d * (world.alpha - world.beta * d), atol=1e-12)
        np.testing.assert_allclose(path.proxy, normal_gain(path.kl, scale), atol=1e-12)
    np.testing.assert_allclose([WORLD.alpha, WORLD.beta], [np.sqrt(2), 2 * 0.6 * 0.38**2])
    z = np.linspace(-12, 12, 2001)  # a world of one feature, listed
    world = AnalyticWorld(np.array([1.0]), np.array([0.4]), 0.6)
    listed = tilt_path(-(z**2) / 2, world.proxy(z[:, None]), world.gold(z[:, None]), np.sqrt(2) * d[:20])
    np.testing.assert_allclose(listed.gold, world.tilt(d[:20]).gold, atol=1e-6)
    np.testing.assert_allclose(listed.d, d[:20], atol=1e-6)


def test_best_of_n_in_the_analytic_world():
    """Exact against pools of samples; the proxy below the tilt's (J4); the law fits it too, with other numbers."""
    features = jax.random.normal(jax.random.key(1), (32, 4096, 3))
    ns = (1, 4, 32, 256)
    curves = jax.vmap(lambda proxy, gold: rlx.ops.best_of_n_curve(proxy, gold, ns))
    pools = np.asarray(curves(WORLD.proxy(features), WORLD.gold(features)))
    exact = WORLD.best_of_n(ns)
    assert np.all(np.abs(pools.mean(0) - exact.gold) < 4 * pools.std(0) / np.sqrt(32) + 1e-3)
    exact = WORLD.best_of_n([2**k for k in range(1, 17)])
    assert np.all(exact.proxy < WORLD.tilt(exact.d).proxy)
    found = fit(BEST_OF_N, exact.d, exact.gold)
    assert found.r2 > 0.999
    assert found.alpha < WORLD.alpha


def test_an_optimiser_with_a_penalty_ends_on_the_tilt():
    """Gradient steps on E[proxy] - b KL, of samples with their gradient, end at the mean w / b."""
    penalty, features = 0.4, jax.random.normal(jax.random.key(0), (8, 3))

    @jax.jit
    @jax.grad
    def gradient(mean):
        return jnp.mean(WORLD.proxy(features + mean)) - penalty * mean @ mean / 2

    mean = jnp.zeros(3)
    for _ in range(30):
        mean = mean + gradient(mean)
    np.testing.assert_allclose(mean, W / penalty, rtol=1e-4)
    path = WORLD.path(mean)
    np.testing.assert_allclose(path.gold, path.d * (WORLD.alpha - WORLD.beta * path.d), rtol=1e-5)


def test_causal_by_monte_carlo():
    """Choosing by a feature that goes along with gold gains gold, pushing the feature gains none."""
    correlation = 0.8
    gold_key, rest_key = jax.random.split(jax.random.key(0))
    gold = jax.random.normal(gold_key, (32, 4096))
    feature = correlation * gold + jnp.sqrt(1 - correlation**2) * jax.random.normal(rest_key, gold.shape)
    proxy = correlation * feature
    curves = jax.vmap(lambda proxy, score: rlx.ops.best_of_n_curve(proxy, score, (64,)))
    chosen_proxy, chosen_gold = (jnp.mean(curves(proxy, score)) for score in (proxy, gold))
    exact = causal([float(chosen_proxy) / correlation], correlation)
    np.testing.assert_allclose(exact.proxy, chosen_proxy, rtol=1e-5)
    np.testing.assert_allclose(exact.gold_selected, chosen_gold, atol=0.03)
    assert chosen_gold > 1.3
    assert exact.kl_selected < np.log(64) - 63 / 64  # J4
    # A policy that adds to the feature: gold is what it was, and the KL that of the feature given gold
    pushed = feature + exact.proxy[0] / correlation
    np.testing.assert_allclose(jnp.mean(correlation * pushed), exact.proxy[0], atol=0.01)
    np.testing.assert_allclose(jnp.mean(gold), exact.gold_pushed[0], atol=0.01)
    log_ratio = ((pushed - exact.proxy[0] / correlation - correlation * gold) ** 2) - (pushed - correlation * gold) ** 2
    np.testing.assert_allclose(jnp.mean(-log_ratio / (2 * (1 - correlation**2))), exact.kl_pushed[0], rtol=0.02)


def test_causal_by_pencil():
    found = causal([0.0, 2.0], 0.6)
    expected = [[0, 1.2], [0, 1.2], [0, 0], [0, 2], [0, 2 / 0.64]]
    np.testing.assert_allclose(found, expected)
    with pytest.raises(ValueError, match="correlation"):
        causal([1.0], 1.0)
