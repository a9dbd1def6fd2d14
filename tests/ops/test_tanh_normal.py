"""The tanh-Normal beside quadrature, a numpy twin and differences: a density on the box that stays finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlx.ops import Categorical, Normal, TanhNormal
from rlx.ops.random import normal

KEY = jax.random.key(0)
MEAN, LOG_SCALE = jnp.array([0.4, -1.1]), jnp.array([-0.7, 0.3])


def twin(mean, log_scale, action):
    """Log-density by the rule of change of variables, in float64."""
    mean, log_scale, action = (np.asarray(x, np.float64) for x in (mean, log_scale, action))
    normal = scipy.stats.norm(mean, np.exp(log_scale)).logpdf(np.arctanh(action))
    return np.sum(normal - np.log1p(-(action**2)), axis=-1)


def test_by_hand():
    """At the middle of the box a standard normal has 1 / sqrt(2 pi), and tanh has slope 1."""
    density = jnp.exp(TanhNormal(jnp.zeros(1), jnp.zeros(1)).log_prob(jnp.zeros(1)))
    np.testing.assert_allclose(density, 0.39894, rtol=1e-4)
    half = TanhNormal(jnp.zeros(1), jnp.zeros(1)).log_prob(jnp.array([0.5]))  # arctanh 0.5 = 0.54931
    np.testing.assert_allclose(half, -0.5 * 0.54931**2 - 0.91894 - np.log(0.75), rtol=1e-4)


def test_log_prob_equals_the_twin():
    distribution = TanhNormal(MEAN, LOG_SCALE)
    action = jnp.stack(jnp.meshgrid(*[jnp.linspace(-0.99, 0.99, 23)] * 2), -1)
    np.testing.assert_allclose(distribution.log_prob(action), twin(MEAN, LOG_SCALE, action), rtol=1e-4, atol=1e-4)
    drawn, log_prob = jax.vmap(distribution.sample_and_log_prob)(jax.random.split(KEY, 1000))
    np.testing.assert_allclose(log_prob, distribution.log_prob(drawn), rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(drawn, jax.vmap(distribution.sample)(jax.random.split(KEY, 1000)))


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (0.4, -2.0), (-1.5, 0.5)])
def test_it_integrates_to_one_over_the_box(mean, log_scale):
    """The midpoint rule over (-1, 1), finer towards the ends: substitute a = tanh(u)."""
    edges = np.tanh(np.linspace(-8, 8, 4001))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    density = np.exp(TanhNormal(jnp.array([mean]), jnp.array([log_scale])).log_prob(jnp.float32(middle)[:, None]))
    np.testing.assert_allclose(np.sum(density * width), 1.0, atol=2e-3)


def test_samples_have_its_distribution_and_no_nan_in_a_million():
    mean = jnp.repeat(jnp.array([[0.3], [-20.0], [20.0], [0.0]]), 250_000, axis=0)
    log_scale = jnp.repeat(jnp.array([[-0.5], [2.0], [-20.0], [2.0]]), 250_000, axis=0)
    action, log_prob = jax.jit(TanhNormal(mean, log_scale).sample_and_log_prob)(KEY)
    assert action.dtype == log_prob.dtype == jnp.float32
    assert np.all(np.abs(action) <= 1)
    assert np.all(np.isfinite(log_prob))
    u = np.arctanh(np.float64(action[:2000, 0]))
    assert scipy.stats.kstest(u, scipy.stats.norm(0.3, np.exp(-0.5)).cdf).pvalue > 0.01


@pytest.mark.parametrize("x", [-20.0, 20.0])
def test_gradients_are_finite_far_out(x):
    """tanh(20) is 1 in float32: densities and their gradients come from u itself."""

    def log_prob(mean, log_scale):
        return TanhNormal(mean, log_scale).sample_and_log_prob(KEY)[1]

    mean, log_scale = jnp.array([x]), jnp.array([-3.0])
    assert TanhNormal(mean, log_scale).sample(KEY) == np.sign(x)
    slopes = jax.jit(jax.grad(log_prob, (0, 1)))(mean, log_scale)
    np.testing.assert_allclose(slopes[0], 2 * np.sign(x), rtol=1e-5)  # -log(1 - tanh(u)^2) is about 2 |u|
    assert np.isfinite(slopes[1])
    given = jax.jit(jax.grad(lambda mean, action: TanhNormal(mean, log_scale).log_prob(action), (0, 1)))
    assert np.all(np.isfinite(given(mean, jnp.sign(mean))))


def test_reparameterised_gradients_equal_differences():
    def soft_value(mean, log_scale):
        action, log_prob = TanhNormal(mean, log_scale).sample_and_log_prob(KEY)
        return jnp.sum(jnp.sin(2 * action)) - 0.3 * log_prob

    def in_numpy(mean, log_scale):
        noise = np.asarray(normal(KEY, (2,)), np.float64)
        action = np.tanh(mean + np.exp(log_scale) * noise)
        return np.sum(np.sin(2 * action)) - 0.3 * twin(mean, log_scale, action)

    at = np.asarray(MEAN, np.float64), np.asarray(LOG_SCALE, np.float64)
    slopes = jax.grad(soft_value, (0, 1))(MEAN, LOG_SCALE)
    for index, unit in enumerate(1e-6 * np.eye(2)):
        np.testing.assert_allclose(
            slopes[0][index], (in_numpy(at[0] + unit, at[1]) - in_numpy(at[0] - unit, at[1])) / 2e-6, rtol=1e-4
        )
        np.testing.assert_allclose(
            slopes[1][index], (in_numpy(at[0], at[1] + unit) - in_numpy(at[0], at[1] - unit)) / 2e-6, rtol=1e-4
        )


def test_kl_equals_quadrature_and_mode_is_the_median():
    p, q = TanhNormal(MEAN[:1], LOG_SCALE[:1]), TanhNormal(MEAN[1:], LOG_SCALE[1:])
    edges = np.tanh(np.linspace(-5, 5, 4001))
    middle, width = jnp.float32((edges[1:] + edges[:-1]) / 2)[:, None], np.diff(edges)
    density = np.exp(p.log_prob(middle))
    np.testing.assert_allclose(p.kl(q), np.sum(density * (p.log_prob(middle) - q.log_prob(middle)) * width), rtol=1e-3)
    np.testing.assert_allclose(np.sum(np.where(middle[:, 0] < p.mode(), density * width, 0)), 0.5, atol=1e-3)
    np.testing.assert_allclose(p.kl(q), Normal(*p).kl(Normal(*q)))


def test_expectation_over_a_choice():
    """By hand; an impossible action adds nothing, be it worth -inf."""
    choice = Categorical(jnp.log(jnp.array([0.2, 0.0, 0.8])))
    np.testing.assert_allclose(choice.expectation(jnp.array([1.0, -jnp.inf, 2.0])), 1.8, rtol=1e-6)
    slope = jax.grad(lambda logits: Categorical(logits).expectation(jnp.array([1.0, jnp.nan, 2.0])))(choice.logits)
    np.testing.assert_allclose(slope, [-0.16, 0.0, 0.16], rtol=1e-5)  # p (1 - p) (v_i - v_j)
