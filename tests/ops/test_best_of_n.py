"""Best-of-n: one pool's curve against all subsets, exact KL against enumeration, the bound, the estimator."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import best_of_n as ops
from rlx.ops import (
    best_of_n_curve,
    best_of_n_kl_bound,
    best_of_n_kl_estimate,
    best_of_n_weights,
    win_rate,
)

# One program for a shape, whatever n is.
best_of_n_distribution, best_of_n_kl, best_of_n_win_rate = map(
    jax.jit, (ops.best_of_n_distribution, ops.best_of_n_kl, ops.best_of_n_win_rate)
)

PROB, REWARD = jnp.array([0.4, 0.3, 0.2, 0.1]), jnp.arange(4.0)
EXACT = {1: 0.0, 2: 0.157199242, 4: 0.587113667, 16: 1.676796586, 64: 2.292639327}


def slow_curve(proxy, score, n):
    """Mean over all subsets of n; among the best of a subset the pick is by chance."""
    found = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        found.append(np.mean([score[i] for i in subset if proxy[i] == best]))
    return np.mean(found)


def slow_distribution(prob, reward, n):
    """Enumerate all |Y|^n draws."""
    found = np.zeros(len(prob))
    for draws in itertools.product(range(len(prob)), repeat=n):
        best = [y for y in draws if reward[y] == max(reward[z] for z in draws)]
        for y in best:
            found[y] += np.prod([prob[z] for z in draws]) / len(best)
    return found


def test_weights_by_pencil():
    """Of 4 samples 2 are drawn: 6 pairs, the best is in 3 of them, the next in 2 as the better, the next in 1."""
    np.testing.assert_allclose(best_of_n_weights(4, 2), np.array([0, 1, 2, 3]) / 6, atol=1e-7)
    np.testing.assert_allclose(best_of_n_weights(4, 1), np.full(4, 0.25), rtol=1e-6)
    np.testing.assert_array_equal(best_of_n_weights(4, 4), [0, 0, 0, 1])
    np.testing.assert_array_equal(best_of_n_weights(1, 1), [1])


def test_weights_are_the_binomials():
    for size, n in [(6, 3), (9, 5), (40, 7)]:
        expected = [math.comb(i - 1, n - 1) / math.comb(size, n) for i in range(1, size + 1)]
        np.testing.assert_allclose(best_of_n_weights(size, n), expected, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 30, 1000, 30_000, 60_000])
def test_weights_of_a_large_pool(n):
    size = 60_000
    comb = lambda i, k: math.lgamma(i + 1) - math.lgamma(k + 1) - math.lgamma(i - k + 1)  # noqa: E731
    expected = [math.exp(comb(i - 1, n - 1) - comb(size, n)) if i >= n else 0.0 for i in range(1, size + 1)]
    np.testing.assert_allclose(best_of_n_weights(size, n), expected, rtol=1e-5, atol=1e-6 * max(expected))


def test_curve_of_six_samples():
    gold = jnp.array([0.3, -1.0, 0.5, 2.0, 0.1, 1.5])
    expected = [0.566667, 0.926667, 1.105, 1.16, 1.266667, 1.5]
    order = jnp.array([3, 0, 5, 1, 4, 2])  # in whatever order the samples come
    found = best_of_n_curve(jnp.arange(6.0)[order], gold[order], range(1, 7))
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_curve_is_the_mean_over_all_subsets_ties_included():
    proxy = np.array([1.0, 3.0, 3.0, 0.0, 3.0, 1.0, 2.0, 7.0])
    score = np.random.default_rng(0).normal(size=8)
    ns = [1, 2, 3, 5, 7, 8]
    expected = [slow_curve(proxy, score, n) for n in ns]
    np.testing.assert_allclose(best_of_n_curve(jnp.array(proxy), jnp.array(score), ns), expected, rtol=1e-5, atol=1e-6)
    same = best_of_n_curve(jnp.zeros(8), jnp.array(score), ns)
    np.testing.assert_allclose(same, np.full(6, score.mean()), rtol=1e-5, atol=1e-6)  # a proxy that knows nothing


def test_curve_by_monte_carlo():
    """The unbiased estimate from a pool, averaged over pools, is what drawing n afresh gives."""
    key, again = jax.random.split(jax.random.key(0))
    gold = jax.random.normal(key, (4000, 20))
    proxy = gold + jax.random.normal(again, gold.shape)
    found = jax.vmap(lambda proxy, gold: best_of_n_curve(proxy, gold, (1, 4, 16)))(proxy, gold).mean(0)
    naive = [gold[jnp.arange(4000), proxy[:, :n].argmax(1)].mean() for n in (1, 4, 16)]
    np.testing.assert_allclose(found, naive, atol=0.06)
    np.testing.assert_allclose(found[1], 1.0294 / np.sqrt(2), atol=0.02)  # E max of 4 normals, half of it gold's


@pytest.mark.parametrize(
    ("freedom", "expected"), [(None, None), (3, {64: 1.47, 4096: 0.46}), (2, {16: 1.13, 4096: 0.11})]
)
def test_a_proxy_with_heavy_tails_is_exploited(freedom, expected):
    """K5: gold is normal, the proxy has an error: normal, gold rises for ever; of few degrees of freedom, it falls."""
    ns = (1, 4, 16, 64, 512, 4096)

    @jax.jit
    @jax.vmap
    def curves(key):
        gold_key, error_key = jax.random.split(key)
        gold = jax.random.normal(gold_key, (30_000,))
        error = jax.random.normal(error_key, gold.shape) if freedom is None else student(error_key, gold.shape)
        proxy = gold + 0.5 * error
        return best_of_n_curve(proxy, gold, ns), best_of_n_curve(proxy, proxy, ns)

    def student(key, shape):
        normal_key, scale_key = jax.random.split(key)
        squares = jnp.sum(jnp.square(jax.random.normal(scale_key, (freedom, *shape))), axis=0)
        return jax.random.normal(normal_key, shape) * jnp.sqrt(freedom / squares)

    gold, proxy = (x.mean(axis=0) for x in curves(jax.random.split(jax.random.key(0), 40)))
    if freedom is None:
        np.testing.assert_allclose(gold, proxy / 1.25, atol=0.03)  # K1: the share of the proxy's variance that is gold
        assert np.all(np.diff(gold) > 0.3)
    else:
        for n, value in expected.items():
            np.testing.assert_allclose(gold[ns.index(n)], value, atol=0.1)
        assert int(np.argmax(gold)) == ns.index(min(expected))
        assert np.all(np.diff(proxy) > 0.3)


def test_curve_of_a_large_pool_and_several_prompts():
    """A uniform proxy of 60,000: n / (n + 1), for many n at once."""
    proxy, ns = jnp.linspace(0.0, 1.0, 60_000), (1, 2, 10, 100, 1000, 10_000, 60_000)
    found = best_of_n_curve(proxy, proxy, ns)
    np.testing.assert_allclose(found, [n / (n + 1) for n in ns], atol=3e-5)


def test_more_draws_than_samples_are_an_error():
    for ns in ([1, 4], [0]):
        with pytest.raises(ValueError, match="not all between 1 and the pool's 3"):
            best_of_n_curve(jnp.zeros(3), jnp.zeros(3), ns)


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
def test_exact_distribution_and_kl(n):
    distribution, below = best_of_n_distribution(PROB, REWARD, n), np.array([0, 0.4, 0.7, 0.9, 1.0])
    np.testing.assert_allclose(distribution, np.diff(below**n), rtol=2e-5, atol=1e-9)
    np.testing.assert_allclose(best_of_n_kl(PROB, REWARD, n), EXACT[n], atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_distribution_is_what_enumeration_gives_ties_included(n):
    prob, reward = np.array([0.15, 0.2, 0.05, 0.35, 0.25]), np.array([1.0, 0.0, 1.0, -2.0, 1.0])
    expected = slow_distribution(prob, reward, n)
    # By chance among the draws is by probability among the outcomes.
    np.testing.assert_allclose(best_of_n_distribution(jnp.array(prob), jnp.array(reward), n), expected, rtol=1e-5)
    kl = np.sum(expected * np.log(expected / prob))
    np.testing.assert_allclose(best_of_n_kl(jnp.array(prob), jnp.array(reward), n), kl, atol=1e-6)


def test_exact_kl_of_the_uniform_distribution():
    """16 outcomes, 64 draws: 2.689; 4096 outcomes: the bound of 3.1745."""
    for size, expected, atol in [(16, 2.689, 6e-4), (4096, 3.1745, 1e-4)]:
        found = best_of_n_kl(jnp.full(size, 1 / size), jnp.arange(size), 64)
        np.testing.assert_allclose(found, expected, atol=atol)
    two = best_of_n_kl(jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0]), 3)  # log 2 - h(2^-n)
    np.testing.assert_allclose(two, np.log(2) + 1 / 8 * np.log(1 / 8) + 7 / 8 * np.log(7 / 8), rtol=1e-5)


def test_probabilities_at_their_limits():
    """Outcomes without probability stay without; a best outcome of 1e-6 is found by a million draws."""
    prob, reward = jnp.array([0.0, 0.5, 0.5, 0.0]), jnp.array([-1.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(best_of_n_distribution(prob, reward, 2), [0, 0.25, 0.75, 0], rtol=1e-6)
    assert np.isfinite(best_of_n_kl(prob, reward, 1000))
    rare = jnp.array([1 - 1e-6, 1e-6])
    np.testing.assert_allclose(best_of_n_distribution(rare, jnp.arange(2), 1_000_000)[1], 1 - np.exp(-1), rtol=1e-4)
    assert best_of_n_kl(jnp.array([1.0]), jnp.array([3.0]), 8) == 0


def test_exact_is_below_the_estimate_and_that_below_the_bound():
    """J1 and J2 of 20 prompts with 30 outcomes each; ties bring the exact one down."""
    prob = jax.nn.softmax(1.5 * jax.random.normal(jax.random.key(0), (20, 30)))
    reward = jax.random.normal(jax.random.key(1), (20, 30))

    @jax.jit
    def both(reward, n):
        chosen = jax.vmap(best_of_n_distribution, (0, 0, None))(prob, reward, n)
        estimate = jnp.sum(chosen * best_of_n_kl_estimate(jnp.log(prob), n), -1)
        return jax.vmap(best_of_n_kl, (0, 0, None))(prob, reward, n), estimate

    for n in (2, 4, 16, 64, 1024):
        kl, estimate = both(reward, n)
        tied, tied_estimate = both(jnp.round(reward), n)
        assert np.all(kl <= estimate + 1e-5)
        assert np.all(tied <= tied_estimate + 1e-5)
        assert np.all(jnp.maximum(estimate, tied_estimate) <= best_of_n_kl_bound(n) + 1e-5)
        assert np.all(tied <= kl + 1e-5)
        assert jnp.mean(tied) < 0.98 * jnp.mean(kl)


def test_estimate_is_exact_where_all_but_the_best_are_without_weight():
    prob = jnp.append(jnp.full(200_000, 0.7 / 200_000), 0.3)
    exact = best_of_n_kl(prob, jnp.arange(200_001), 5)
    np.testing.assert_allclose(best_of_n_kl_estimate(jnp.log(0.3), 5), exact, rtol=1e-3)
    e, n = 0.3, 5
    b = 1 - (1 - e) ** n
    by_hand = (1 - e) ** n * (np.log(n) + (n - 1) * np.log(1 - e) - (n - 1) / n) + b * np.log(b / e)
    np.testing.assert_allclose(best_of_n_kl_estimate(jnp.log(0.3), 5), by_hand, rtol=1e-5)
    np.testing.assert_allclose(best_of_n_kl_estimate(jnp.float32(-500.0), 64), best_of_n_kl_bound(64), rtol=1e-5)
    np.testing.assert_allclose(best_of_n_kl_estimate(jnp.float32(0.0), 64), 0.0, atol=1e-6)  # nothing else can come


def test_win_rates():
    """J3: at most n / (n + 1), which fine distributions reach; one draw wins half the time."""
    for n in (1, 2, 8, 100):
        assert best_of_n_win_rate(PROB, REWARD, n) <= n / (n + 1) + 1e-6
        fine = best_of_n_win_rate(jnp.full(5000, 1 / 5000), jnp.arange(5000), n)
        np.testing.assert_allclose(fine, n / (n + 1), atol=1e-3)
    np.testing.assert_allclose(best_of_n_win_rate(PROB, REWARD, 1), 0.5, rtol=1e-6)
    np.testing.assert_allclose(best_of_n_win_rate(PROB, jnp.zeros(4), 9), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(win_rate(jnp.array([1.0, 2.0, 0.0]), jnp.array([0.0, 2.0, 3.0])), [1, 0.5, 0])


@pytest.mark.parametrize("n", [2, 4, 16])
def test_tilting_gains_more_at_the_same_kl(n):
    """J4: of all policies at that KL p exp(r / beta) / Z has the greatest reward; best-of-n, 5 to 10 percent less.

    K3: tilting a normal reward gains sqrt(2 KL).
    """
    reward = np.linspace(-6, 6, 6001)  # a normal reward, finely cut
    prob = np.exp(-(reward**2) / 2) / np.exp(-(reward**2) / 2).sum()
    chosen = np.array(best_of_n_distribution(jnp.array(prob), jnp.array(reward), n), np.float64)
    some = chosen > 0
    kl, low, high = np.sum(chosen[some] * np.log(chosen[some] / prob[some])), 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        tilt = prob * np.exp(middle * reward - np.log(np.sum(prob * np.exp(middle * reward))))
        low, high = (middle, high) if np.sum(tilt * np.log(tilt / prob)) < kl else (low, middle)
    np.testing.assert_allclose(tilt @ reward, np.sqrt(2 * kl), rtol=1e-3)
    share = (chosen @ reward) / (tilt @ reward)
    np.testing.assert_allclose(share, {2: 0.908, 4: 0.913, 16: 0.922}[n], atol=2e-3)
