"""Distributions against scipy, quadrature, enumeration and their own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlx.ops import Categorical, Normal

LOGITS = jnp.array([[0.3, -0.7, 1.1, 5.0], [3.0, 3.0, 3.0, 3.0]])
MASKED = jnp.array([0.5, -jnp.inf, 1.5, -jnp.inf])
MEAN, LOG_SCALE = jnp.array([[0.3, -2.0], [1.0, 0.0]]), jnp.array([-0.5, 0.7])
KEY = jax.random.key(0)


def probabilities(logits):
    return np.exp(np.array(Categorical(jnp.tile(logits, (4, 1))).log_prob(jnp.arange(4)), float))


@pytest.mark.parametrize("logits", [*LOGITS, MASKED], ids=["peaked", "even", "masked"])
def test_categorical_equals_enumeration(logits):
    p = np.exp(np.array(logits, float))
    p /= p.sum()
    distribution = Categorical(logits)
    every = probabilities(logits)
    np.testing.assert_allclose(every, p, rtol=1e-5)
    np.testing.assert_allclose(every.sum(), 1, rtol=1e-6)
    np.testing.assert_array_equal(every[p == 0], 0)
    np.testing.assert_allclose(distribution.entropy(), scipy.stats.entropy(p), rtol=1e-5)
    np.testing.assert_allclose(
        distribution.kl(Categorical(LOGITS[0])), scipy.stats.entropy(p, probabilities(LOGITS[0])), rtol=1e-5, atol=1e-7
    )
    assert distribution.mode() == np.argmax(p)
    assert distribution.mode().dtype == distribution.sample(KEY).dtype == jnp.int32


@pytest.mark.parametrize("logits", [*LOGITS, MASKED], ids=["peaked", "even", "masked"])
def test_categorical_samples_have_its_frequencies(logits):
    count = np.bincount(jax.vmap(Categorical(logits).sample)(jax.random.split(KEY, 4000)), minlength=4)
    p = probabilities(logits)
    assert not count[p == 0].any()
    expected = p[p > 0] / p.sum() * count.sum()
    assert scipy.stats.chisquare(count[p > 0], expected).pvalue > 0.01


def test_masked_categorical_has_finite_gradients():
    """Under debug_nans, so that no NaN hides in between either."""
    for function in (
        lambda logits: Categorical(logits).log_prob(jnp.int32(2)),
        lambda logits: Categorical(logits).entropy(),
        lambda logits: Categorical(logits).kl(Categorical(jnp.zeros(4))),
        lambda logits: Categorical(logits).kl(Categorical(MASKED + 1.0)),
        lambda logits: Categorical(MASKED).kl(Categorical(logits + jnp.arange(4.0))),
    ):
        slope = jax.jit(jax.grad(function))(MASKED)
        assert np.all(np.isfinite(slope))
        np.testing.assert_array_equal(slope[1::2], 0)
    assert Categorical(LOGITS[0]).kl(Categorical(jnp.array([0.0, 0, 0, -jnp.inf]))) == jnp.inf
    assert Categorical(MASKED).log_prob(jnp.int32(1)) == -jnp.inf


def test_a_certain_policy_has_entropy_zero_and_no_nan():
    """B12: a softmax underflows to 0 at a gap of 200, whose log is -inf; log_softmax does not. Under debug_nans."""
    logits = jnp.array([0.0, 200.0])
    certain = Categorical(logits)
    np.testing.assert_allclose(certain.log_prob(jnp.arange(2)), [-200, 0])
    for function in (lambda x: Categorical(x).entropy(), lambda x: Categorical(x).kl(Categorical(logits[::-1]))):
        value, slope = jax.value_and_grad(function)(logits)
        np.testing.assert_allclose(slope, [0, 0], atol=1e-6)
        assert value in (0, 200)
    assert jax.grad(lambda x: Categorical(x).log_prob(jnp.int32(0)))(logits)[0] == 1


def test_entropy_gradient_by_differences():
    slope = jax.grad(lambda logits: Categorical(logits).entropy())(LOGITS[0])
    for index, unit in enumerate(1e-2 * jnp.eye(4)):
        difference = Categorical(LOGITS[0] + unit).entropy() - Categorical(LOGITS[0] - unit).entropy()
        np.testing.assert_allclose(slope[index], difference / 2e-2, rtol=1e-2, atol=1e-4)


def test_normal_equals_scipy():
    distribution = Normal(MEAN, LOG_SCALE)
    reference = scipy.stats.norm(np.array(MEAN), np.exp(LOG_SCALE))
    action = distribution.sample(KEY)
    np.testing.assert_allclose(distribution.log_prob(action), reference.logpdf(action).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(distribution.entropy(), reference.entropy().sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(distribution.mode(), MEAN)
    assert distribution.entropy().shape == (2,)


def test_normal_integrates_to_one_and_kl_equals_quadrature():
    p, q = Normal(MEAN[0], LOG_SCALE), Normal(MEAN[1], jnp.zeros(2))
    x, width = np.linspace(-16, 16, 641, retstep=True)
    grid = jnp.stack(jnp.meshgrid(x, x), -1)
    density = jnp.exp(p.log_prob(grid)) * width**2
    np.testing.assert_allclose(density.sum(), 1, rtol=1e-4)
    np.testing.assert_allclose(p.kl(q), jnp.sum(density * (p.log_prob(grid) - q.log_prob(grid))), rtol=1e-3)
    np.testing.assert_allclose(p.entropy(), -jnp.sum(density * p.log_prob(grid)), rtol=1e-3)
    assert p.kl(p) == 0


def test_normal_samples_have_its_distribution():
    samples = jax.vmap(Normal(MEAN[0], LOG_SCALE).sample)(jax.random.split(KEY, 2000))
    standard = (np.array(samples) - MEAN[0]) / np.exp(LOG_SCALE)
    assert all(scipy.stats.kstest(column, "norm").pvalue > 0.01 for column in standard.T)
    assert abs(np.corrcoef(standard.T)[0, 1]) < 0.1


@pytest.mark.parametrize(
    "distribution", [Categorical(LOGITS), Normal(MEAN, jnp.stack([LOG_SCALE] * 2))], ids=["categorical", "normal"]
)
def test_leading_axes(distribution):
    wide = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, 5, *x.shape)), distribution)
    action = wide.sample(KEY)
    assert wide.log_prob(action).shape == wide.entropy().shape == wide.kl(wide).shape == (3, 5, 2)
    assert wide.mode().shape == action.shape
    np.testing.assert_allclose(wide.log_prob(action)[1, 2], distribution.log_prob(action[1, 2]), rtol=1e-6)
