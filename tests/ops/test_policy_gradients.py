"""Policy and value losses against a pencil, verl's numbers and enumeration."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import Categorical, clipped_surrogate, clipped_value_loss, policy_gradient_loss, surrogate_loss


def test_policy_gradient_by_pencil():
    """Two actions of probability 1/4 and 3/4, the first drawn and worth 2: A grad log pi = 2 (1 - 1/4, -3/4)."""
    logits = jnp.log(jnp.array([0.25, 0.75]))
    loss = lambda logits: policy_gradient_loss(Categorical(logits).log_prob(jnp.int32(0)), jnp.float32(2.0))  # noqa: E731
    found, slope = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(found, -2 * np.log(0.25), rtol=1e-6)
    np.testing.assert_allclose(slope, [-1.5, 1.5], rtol=1e-6)
    assert jax.grad(policy_gradient_loss, 1)(jnp.float32(-1.0), jnp.float32(2.0)) == 0  # nothing through A


def test_policy_gradient_equals_rlax():
    data = json.loads((Path(__file__).parents[1] / "data" / "rlax_returns.json").read_text())["policy_gradient"]
    logits, action, advantage = (jnp.array(data[name]) for name in ("logits", "action", "advantage"))
    loss = lambda logits: policy_gradient_loss(Categorical(logits).log_prob(action), advantage).mean()  # noqa: E731
    found, slope = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(found, data["loss"], rtol=1e-5)
    np.testing.assert_allclose(slope, data["gradient"], rtol=1e-4, atol=1e-6)


def test_surrogate_loss_by_pencil():
    """Twice as probable as it was, and worth 3: -6, with a gradient of -6 in the log-probability and none elsewhere."""
    arguments = jnp.log(0.5), jnp.log(0.25), jnp.float32(3.0)
    found, slopes = jax.value_and_grad(surrogate_loss, (0, 1, 2))(*arguments)
    np.testing.assert_allclose(found, -6.0, rtol=1e-6)
    np.testing.assert_allclose(slopes, (-6.0, 0.0, 0.0), rtol=1e-6)
    np.testing.assert_allclose(surrogate_loss(*arguments), clipped_surrogate(*arguments, 10.0))


def test_policy_gradient_is_the_surrogates_at_ratio_one_and_a_baseline_leaves_its_mean():
    logits, reward = jnp.array([0.3, -1.0, 0.5]), jnp.array([1.0, 5.0, -2.0])
    probability, action = jax.nn.softmax(logits), jnp.arange(3)

    def mean_loss(logits, loss, advantage):
        return probability @ loss(Categorical(jnp.tile(logits, (3, 1))).log_prob(action), advantage)

    surrogate = lambda log_prob, advantage: clipped_surrogate(log_prob, jnp.log(probability), advantage, 0.2)  # noqa: E731
    slopes = [
        jax.grad(mean_loss)(logits, policy_gradient_loss, reward),
        jax.grad(mean_loss)(logits, surrogate, reward),
        jax.grad(mean_loss)(logits, policy_gradient_loss, reward - 7.0),
        -probability * (reward - probability @ reward),  # of the expected reward, by calculus
    ]
    for slope in slopes[1:]:
        np.testing.assert_allclose(slope, slopes[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),  # slope: d loss / d log_prob
    [
        (1.0, 2.0, -2.0, -2.0),  # the plain policy gradient: -A
        (1.0, -3.0, 3.0, 3.0),
        (1.1, 2.0, -2.2, -2.2),  # inside the range: -ratio A
        (1.5, 2.0, -2.4, 0.0),  # beyond it and better for it: clipped, no more to gain
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # beyond it and worse for it: moving back is never stopped
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_clipped_surrogate_by_pencil(ratio, advantage, loss, slope):
    log_prob, old = jnp.log(ratio) - 1.0, jnp.float32(-1.0)
    found, slopes = jax.value_and_grad(clipped_surrogate, (0, 1, 2))(log_prob, old, jnp.float32(advantage), 0.2)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    np.testing.assert_allclose(slopes, (slope, 0.0, 0.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope"),
    [
        (1.0, 1.0, 3.0, 2.0, -2.0),  # not moved: half the squared error
        (1.1, 1.0, 3.0, 0.5 * 1.9**2, -1.9),  # moved less than the clip
        (2.0, 1.0, 3.0, 0.5 * 1.8**2, 0.0),  # moved further: the error of 1.2 counts, which is fixed
        (0.0, 1.0, 3.0, 4.5, -3.0),  # moved away: its own error is the larger
    ],
)
def test_clipped_value_loss_by_pencil(value, old, target, loss, slope):
    found, slopes = jax.value_and_grad(clipped_value_loss, (0, 1, 2))(value, old, target, 0.2)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    np.testing.assert_allclose(slopes, (slope, 0.0, 0.0), rtol=1e-5, atol=1e-7)


def test_unbounded_value_clip_is_half_the_squared_error():
    value, old, target = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    found, slope = jax.value_and_grad(lambda v: clipped_value_loss(v, old, target, jnp.inf).sum())(value)
    np.testing.assert_allclose(found, 0.5 * np.square(value - target).sum(), rtol=1e-5)
    np.testing.assert_allclose(slope, value - target, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss", [lambda *rows: clipped_surrogate(*rows, 0.2), lambda *rows: clipped_value_loss(*rows, 1)]
)
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(AssertionError):
        loss(jnp.zeros((3, 1)), jnp.zeros((3, 1)), jnp.zeros(3))
