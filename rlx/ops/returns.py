"""Returns and advantages from a rollout. Axes: T time, then any others (B environments)."""

import chex
import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float,
    trace: float,
) -> jax.Array:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 11 and 16).

        delta_t = r_t + discount * (1 - terminated_t) * V(s_{t+1}) - V(s_t)
        A_t     = delta_t + discount * trace * (1 - (terminated_t | truncated_t)) * A_{t+1}

    A termination cuts the bootstrap: nothing follows. A truncation does not, as the episode would have gone on, but it
    cuts the trace, as the row after it belongs to another episode. Where both are set, termination wins. At trace = 1
    `A + V` is the discounted return, at trace = 0 the one-step target.

    Args:
        reward: `[T, ...]` r_t, of the action taken at t.
        value: `[T, ...]` V(s_t).
        next_value: `[T, ...]` V(s_{t+1}) of the true successor, not of a new episode's first observation.
        terminated: `[T, ...]` bool, whether s_{t+1} ends the task.
        truncated: `[T, ...]` bool, whether the episode was cut off after t.
        discount: gamma, 0 to 1.
        trace: lambda, 0 to 1.

    Returns:
        `[T, ...]` advantages A_t, with gradients stopped. The critic's target is `A_t + V(s_t)`.

    Raises:
        AssertionError: shapes differ.
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    decay = jnp.where(terminated | truncated, 0.0, discount * trace)

    def backward(advantage: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = row
        advantage = delta + decay * advantage
        return advantage, advantage

    _, advantage = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    return jax.lax.stop_gradient(advantage)


def standardize(advantage: jax.Array, axis: int | None = None) -> jax.Array:
    """Give advantages mean 0 and variance 1: `(A - mean) / (std + 1e-8)`.

    The step no longer depends on the reward's unit, and half of the actions are pushed up and half down. Where all are
    alike, all become 0.

    Args:
        advantage: `[...]`.
        axis: along which rows belong together; None: all do.

    Returns:
        Of the same shape.
    """
    deviation = advantage - jnp.mean(advantage, axis=axis, keepdims=True)
    return deviation / (jnp.std(advantage, axis=axis, keepdims=True) + 1e-8)


def explained_variance(value: jax.Array, target: jax.Array) -> jax.Array:
    """Share of the targets' variance that the critic explains: `1 - Var(target - value) / Var(target)`.

    1 is a perfect critic, 0 one that is no better than a constant, below 0 one that is worse. 0 where the targets do
    not vary.

    Args:
        value: `[...]` V(s).
        target: `[...]` what V(s) should be.

    Returns:
        A scalar.
    """
    chex.assert_equal_shape([value, target])
    variance = jnp.var(target)
    safe = jnp.where(variance > 0.0, variance, 1.0)
    return jnp.where(variance > 0.0, 1.0 - jnp.var(target - value) / safe, 0.0)
