"""Targets and errors against numbers worked out by hand, plain loops, and reductions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import ops


def test_td_target_by_hand():
    """A termination cuts the bootstrap; a truncation, which the target never sees, does not (B1)."""
    reward, terminated = jnp.array([1.0, 1.0, -2.0]), jnp.array([False, True, False])
    target = ops.td_target(reward, terminated, jnp.array([4.0, 4.0, 0.5]), 0.5)
    np.testing.assert_allclose(target, [3.0, 1.0, -1.75])
    quantiles = ops.td_target(reward[:2], terminated[:2], jnp.array([[2.0, 4.0], [2.0, 4.0]]), jnp.array([0.5, 0.25]))
    np.testing.assert_allclose(quantiles, [[2.0, 3.0], [1.0, 1.0]])


def test_targets_stop_gradients():
    gradient = jax.grad(lambda value: ops.td_target(jnp.ones(2), jnp.zeros(2, bool), value, 0.9).sum())(jnp.ones(2))
    np.testing.assert_array_equal(gradient, 0.0)


def test_select_action_takes_values_and_quantiles_and_leaves_impossible_actions_alone():
    values = jnp.array([[1.0, -jnp.inf, 3.0], [4.0, 5.0, -jnp.inf]])
    np.testing.assert_allclose(ops.select_action(values, jnp.array([2, 0])), [3.0, 4.0])
    gradient = jax.grad(lambda values: ops.select_action(values, jnp.array([2, 0])).sum())(values)
    np.testing.assert_array_equal(gradient, [[0, 0, 1], [1, 0, 0]])
    quantiles = ops.Quantiles(jnp.arange(12.0).reshape(2, 3, 2))
    np.testing.assert_allclose(ops.select_action(quantiles, jnp.array([2, 0])), [[4.0, 5.0], [6.0, 7.0]])
    np.testing.assert_allclose(ops.mean_values(quantiles), [[0.5, 2.5, 4.5], [6.5, 8.5, 10.5]])
    assert ops.mean_values(values) is values


def test_huber_by_hand_and_its_gradient_is_the_clipped_error():
    error = jnp.array([-3.0, -0.5, 0.0, 0.5, 2.0])
    np.testing.assert_allclose(ops.huber(error, 1.0), [2.5, 0.125, 0.0, 0.125, 1.5])
    np.testing.assert_allclose(ops.huber(error, 2.0), [4.0, 0.125, 0.0, 0.125, 2.0])
    np.testing.assert_allclose(ops.huber(error, None), [4.5, 0.125, 0.0, 0.125, 2.0])
    gradient = jax.vmap(jax.grad(lambda e: ops.huber(e, 1.0)))(error)
    np.testing.assert_allclose(gradient, error.clip(-1, 1))


def test_quantile_huber_equals_a_loop():
    rng = np.random.default_rng(0)
    quantiles, target = rng.normal(size=(3, 4)), rng.normal(size=(3, 5))
    for delta in (0.5, None):
        expected = np.zeros(3)
        for row in range(3):
            for i, theta in enumerate(quantiles[row]):
                for y in target[row]:
                    error = y - theta
                    square = 0.5 * error**2
                    loss = square if delta is None or abs(error) <= delta else delta * (abs(error) - 0.5 * delta)
                    expected[row] += abs((i + 0.5) / 4 - (error < 0)) * loss / 5
        np.testing.assert_allclose(
            ops.quantile_huber(jnp.array(quantiles), jnp.array(target), delta), expected, rtol=1e-5
        )


def test_one_quantile_is_half_the_huber_loss():
    value, target = jnp.array([[0.0], [3.0]]), jnp.array([[0.5], [0.0]])
    loss = ops.quantile_huber(value, target, 1.0)
    np.testing.assert_allclose(loss, 0.5 * ops.huber(target - value, 1.0)[:, 0], rtol=1e-6)


@pytest.mark.slow
def test_quantile_regression_finds_the_quantiles():
    """Of 0, 1, ..., 100: at (i + 1/2) / 4 they are 12.5, 37.5, 62.5, 87.5."""
    samples = jnp.arange(101.0)[None]
    loss = jax.jit(jax.grad(lambda q: ops.quantile_huber(q, samples, 0.01).sum()))
    quantiles = jnp.full((1, 4), 50.0)
    for _ in range(1000):
        quantiles -= 100.0 * loss(quantiles)
    np.testing.assert_allclose(quantiles[0], [12.5, 37.5, 62.5, 87.5], atol=1.5)


def test_epsilon_greedy_by_hand():
    values = jnp.array([[1.0, 3.0, 2.0, -jnp.inf], [0.0, -jnp.inf, -jnp.inf, -jnp.inf]])
    choice = ops.epsilon_greedy(values, 0.3)
    np.testing.assert_allclose(jnp.exp(choice.logits), [[0.1, 0.8, 0.1, 0.0], [1.0, 0.0, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_array_equal(choice.mode(), [1, 0])
    np.testing.assert_allclose(jnp.exp(ops.epsilon_greedy(values, 0.0).logits[0]), [0, 1, 0, 0])
