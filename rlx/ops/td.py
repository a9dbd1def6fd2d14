"""Temporal-difference targets and the errors that are made small. Axes: N rows, A actions, Q quantiles."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Quantiles(NamedTuple):
    """Values of actions as distributions of the return, each by Q equally likely quantiles.

    Attributes:
        values: `[..., A, Q]`.
    """

    values: jax.Array


def mean_values(values: jax.Array | Quantiles) -> jax.Array:
    """Values `[..., A]`: as they are, or the means of the distributions."""
    return values.values.mean(axis=-1) if isinstance(values, Quantiles) else values


def td_target(
    reward: jax.Array, terminated: jax.Array, next_value: jax.Array, discount: float | jax.Array
) -> jax.Array:
    """What the value of (s, a) should be, by one look ahead (Watkins 1989; Mnih et al. 2015, eq. 2).

        y = r + discount * (1 - terminated) * V(s')

    DQN: V(s') = max_a Q(s', a). Double DQN: Q(s', argmax_a Q_online(s', a)). SAC: E_a[Q(s', a) - alpha log pi(a|s')].
    A truncated row bootstraps like any other: the episode would have gone on.

    Args:
        reward: `[N]` r, or the discounted sum of several.
        terminated: `[N]` bool, whether s' ends the task.
        next_value: `[N]` V(s') of the true successor, or `[N, Q]` quantiles of the return from there.
        discount: gamma, or `[N]` gamma to the number of steps between s and s'.

    Returns:
        `[N]` or `[N, Q]`, with gradients stopped.
    """
    chex.assert_equal_shape([reward, terminated])
    weight = discount * jnp.where(terminated, 0.0, jnp.ones_like(reward))
    beyond = (..., *(None,) * (next_value.ndim - reward.ndim))
    return jax.lax.stop_gradient(reward[beyond] + weight[beyond] * next_value)


def select_action(values: jax.Array | Quantiles, action: jax.Array) -> jax.Array:
    """Q(s, a) of the action taken: values `[N, A]` and action int `[N]` -> `[N]`, or the quantiles `[N, Q]`."""
    chosen = jnp.arange(mean_values(values).shape[-1]) == action[..., None]
    # A comparison, not a gather: its gradient is elementwise, where a gather's is a scatter, slow on CPU.
    if isinstance(values, Quantiles):
        return jnp.sum(jnp.where(chosen[..., None], values.values, 0.0), axis=-2)
    return jnp.sum(jnp.where(chosen, values, 0.0), axis=-1)


def huber(error: jax.Array, delta: float | None) -> jax.Array:
    """Half the square up to `delta`, a straight line beyond it (Huber 1964); with None half the square everywhere.

        loss = 1/2 e^2 where |e| <= delta, else delta (|e| - 1/2 delta)

    Its gradient is the error clipped to +-delta, as in Mnih et al. 2015.
    """
    if delta is None:
        return 0.5 * jnp.square(error)
    inside = jnp.clip(error, -delta, delta)
    return inside * (error - 0.5 * inside)


def quantile_huber(quantiles: jax.Array, target: jax.Array, delta: float | None) -> jax.Array:
    """Quantile regression of a return's distribution (Dabney et al. 2017, arXiv 1710.10044, eq. 9 and 10).

        loss = sum_i mean_j |tau_i - 1{y_j < theta_i}| * huber(y_j - theta_i),   tau_i = (i + 1/2) / Q

    Args:
        quantiles: `[N, Q]` theta, of the network that learns.
        target: `[N, Q']` y, samples of (or quantiles of) the target's distribution; no gradient passes.
        delta: where the Huber loss becomes linear, in units of the return; None: squared errors, whose minimum are
            expectiles and no longer quantiles.

    Returns:
        `[N]`.
    """
    chex.assert_equal_shape_prefix([quantiles, target], quantiles.ndim - 1)
    error = jax.lax.stop_gradient(target)[..., None, :] - quantiles[..., :, None]  # [N, Q, Q']
    tau = ((jnp.arange(quantiles.shape[-1]) + 0.5) / quantiles.shape[-1])[:, None]
    weight = jnp.where(error < 0.0, 1.0 - tau, tau)
    return jnp.sum(jnp.mean(weight * huber(error, delta), axis=-1), axis=-1)
