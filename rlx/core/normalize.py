"""Running statistics of observations and returns; they live in the algorithm's state and are saved with it.

Axes: T time, B environments, O observation.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from rlx.types import PyTree


class Moments(NamedTuple):
    """Mean and variance of what has been seen.

    Attributes:
        count: scalar, weight of what has been seen.
        mean: `[...]` of one row.
        var: `[...]` of one row.
    """

    count: jax.Array
    mean: jax.Array
    var: jax.Array


def init_moments(shape: tuple[int, ...]) -> Moments:
    """Start at mean 0 and variance 1 with the weight of one row, so that a few alike rows do not blow up the scale."""
    return Moments(jnp.ones(()), jnp.zeros(shape), jnp.ones(shape))


def update_moments(moments: Moments, rows: jax.Array) -> Moments:
    """Take in rows by the parallel form of Welford's update (Chan et al. 1979).

    Args:
        moments: statistics of what came before.
        rows: `[..., *shape]`, any leading axes.
    """
    chex.assert_shape(moments.mean, rows.shape[rows.ndim - moments.mean.ndim :])
    axes = tuple(range(rows.ndim - moments.mean.ndim))
    rows_mean, rows_var = jnp.mean(rows, axes), jnp.var(rows, axes)
    rows_count = rows.size // max(moments.mean.size, 1)
    count = moments.count + rows_count
    share = rows_count / count
    delta = rows_mean - moments.mean
    mean = moments.mean + share * delta
    var = (1.0 - share) * moments.var + share * rows_var + share * (1.0 - share) * jnp.square(delta)
    return Moments(count, mean, var)


def normalize(moments: Moments, x: jax.Array, clip: float = 10.0) -> jax.Array:
    """`(x - mean) / std`, clipped to +-`clip` standard deviations; x is `[..., *shape]`."""
    return jnp.clip((x - moments.mean) * jax.lax.rsqrt(moments.var + 1e-8), -clip, clip)


def init_observation_moments(observation: PyTree) -> PyTree:
    """Moments for every array of floats in an observation `[B, ...]`, having seen it; None for whole numbers.

    Raises:
        ValueError: there is no array of floats.
    """
    floats = jax.tree.map(lambda x: jnp.issubdtype(x.dtype, jnp.floating), observation)
    if not any(jax.tree.leaves(floats)):
        raise ValueError("normalize_observation: observations have no floats to normalise, set it to False")
    moments = jax.tree.map(lambda x, is_float: init_moments(x.shape[1:]) if is_float else None, observation, floats)
    return update_observation_moments(moments, observation)


def update_observation_moments(moments: PyTree, observation: PyTree) -> PyTree:
    """Take in observations with any leading axes."""
    return jax.tree.map(
        lambda m, x: None if m is None else update_moments(m, x), moments, observation, is_leaf=_is_moments
    )


def normalize_observation(moments: PyTree, observation: PyTree) -> PyTree:
    """Bring raw observations to what the network takes; as they are where `moments` is None."""
    if moments is None:
        return observation
    return jax.tree.map(lambda m, x: x if m is None else normalize(m, x), moments, observation, is_leaf=_is_moments)


def _is_moments(node: PyTree) -> bool:
    return node is None or isinstance(node, Moments)


class RewardScaler(NamedTuple):
    """Running scale of the discounted return (Engstrom et al. 2020, arXiv 2005.12729, appendix A.2).

    Attributes:
        discounted: `[B]` discounted sum of the running episode's rewards.
        moments: scalar statistics of it.
    """

    discounted: jax.Array
    moments: Moments


def init_reward_scaler(num_envs: int) -> RewardScaler:
    """Start with no reward seen."""
    return RewardScaler(jnp.zeros(num_envs), init_moments(()))


def update_reward_scaler(scaler: RewardScaler, reward: jax.Array, done: jax.Array, discount: float) -> RewardScaler:
    """Take in a rollout: `[T, B]` raw rewards and `[T, B]` bool, whether the episode ended with that reward.

    The sum is put back to 0 after a last reward has been added, so that a terminal reward counts in the episode that
    earned it and in no other.
    """
    chex.assert_equal_shape([reward, done])

    def forward(discounted: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, done = row
        discounted = discount * discounted + reward
        return jnp.where(done, 0.0, discounted), discounted

    discounted, seen = jax.lax.scan(forward, scaler.discounted, (reward, done))
    return RewardScaler(discounted, update_moments(scaler.moments, seen))


def scale_reward(scaler: RewardScaler, reward: jax.Array, clip: float = 10.0) -> jax.Array:
    """`reward / std of the discounted return`, clipped; its sign and zero stay, as no mean is taken off."""
    return jnp.clip(reward * jax.lax.rsqrt(scaler.moments.var + 1e-8), -clip, clip)
