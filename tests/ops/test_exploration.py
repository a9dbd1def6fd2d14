"""Policies over action values."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx.ops import epsilon_greedy, epsilon_policy, softmax_policy, ucb_policy

Q = jnp.array([1.0, 3.0, 3.0, 0.0])
N = jnp.array([10, 10, 10, 10])


def probability(distribution):
    return jax.nn.softmax(distribution.logits)


def test_epsilon_greedy_by_hand_shares_ties():
    np.testing.assert_allclose(probability(epsilon_greedy(Q, 0.2)), [0.05, 0.45, 0.45, 0.05], rtol=1e-6)
    np.testing.assert_allclose(probability(epsilon_greedy(Q, 1.0)), 0.25)
    many = probability(epsilon_greedy(jnp.stack([Q, -Q]), 0.0))
    np.testing.assert_allclose(many, [[0, 0.5, 0.5, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(epsilon_policy(Q, N, 0.2).logits, epsilon_greedy(Q, 0.2).logits)


def test_epsilon_greedy_never_takes_what_is_not_allowed():
    masked = Q.at[1].set(-jnp.inf)
    np.testing.assert_allclose(probability(epsilon_greedy(masked, 0.3)), [0.1, 0.0, 0.8, 0.1], rtol=1e-6)


def test_softmax_is_the_best_trade_of_value_and_entropy():
    p = probability(softmax_policy(Q, N, 2.0))
    np.testing.assert_allclose(p[1] / p[0], np.exp(1.0), rtol=1e-6)

    def soft(p):
        return jnp.sum(p * Q) - 2.0 * jnp.sum(p * jnp.log(p))

    np.testing.assert_allclose(soft(p), 2.0 * jax.nn.logsumexp(Q / 2.0), rtol=1e-6)
    others = jax.random.dirichlet(jax.random.key(0), jnp.ones(4), (100,))
    assert np.all(jax.vmap(soft)(others) < soft(p))


def test_ucb_by_hand():
    count = jnp.array([100, 10, 1, 5])
    index = Q + 2.0 * np.sqrt(np.log(116) / np.array([100, 10, 1, 5]))
    assert np.argmax(index) == 2
    np.testing.assert_allclose(probability(ucb_policy(Q, count, 2.0)), [0, 0, 1, 0])
    np.testing.assert_allclose(probability(ucb_policy(Q, jnp.array([100, 10, 10_000, 5]), 2.0)), [0, 1, 0, 0])
    np.testing.assert_allclose(probability(ucb_policy(Q, count, 0.0)), [0, 0.5, 0.5, 0])
    untried = probability(ucb_policy(Q, jnp.array([9, 0, 9, 0]), 2.0))
    np.testing.assert_allclose(untried, [0, 0.5, 0, 0.5])
    np.testing.assert_allclose(probability(ucb_policy(Q, jnp.zeros(4, jnp.int32), 2.0)), 0.25)
