"""Policies over a table of action values that try things out. Axes: A actions, any others before.

Each is `(q [..., A], count [..., A], amount) -> Categorical`, so that an algorithm takes any of them.
"""

import chex
import jax
import jax.numpy as jnp

from rlx.ops.distributions import Categorical, epsilon_greedy


def epsilon_policy(q: jax.Array, count: jax.Array, epsilon: float) -> Categorical:
    """The best action, but with probability epsilon any: `epsilon_greedy`, which does not count.

    Args:
        q: `[..., A]` action values.
        count: `[..., A]` how often each was taken; not looked at.
        epsilon: 0 to 1.
    """
    return epsilon_greedy(q, epsilon)


def softmax_policy(q: jax.Array, count: jax.Array, temperature: float) -> Categorical:
    """Better actions more often: `pi(a) = exp(q(a) / temperature) / sum_b exp(q(b) / temperature)`.

    Of all policies it maximises `E[q] + temperature * entropy`. (Sutton 1990; Ziebart 2010, sec. 6.2)

    Args:
        q: `[..., A]` action values.
        count: `[..., A]` how often each was taken; not looked at.
        temperature: above 0, in units of q.
    """
    return Categorical(q / temperature)


def ucb_policy(q: jax.Array, count: jax.Array, bonus: float) -> Categorical:
    """The action that could be the best, given how little it was tried (UCB1, Auer et al. 2002, fig. 1).

        the largest q(a) + bonus * sqrt(log N / N(a)),   N = sum_a N(a)

    Actions that were never taken come first; several that are the largest share the probability.

    Args:
        q: `[..., A]` action values.
        count: `[..., A]` int, N(a): how often each was taken.
        bonus: 0 or more, in units of q; sqrt(2) times the range of the rewards is UCB1's.
    """
    chex.assert_equal_shape([q, count])
    total = jnp.sum(count, axis=-1, keepdims=True)
    width = jnp.sqrt(jnp.log(jnp.maximum(total, 1)) / jnp.maximum(count, 1))
    return epsilon_greedy(jnp.where(count == 0, jnp.inf, q + bonus * width), 0.0)
