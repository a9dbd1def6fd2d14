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


def reward_to_go(
    reward: jax.Array, next_value: jax.Array, terminated: jax.Array, truncated: jax.Array, discount: float
) -> jax.Array:
    """Monte Carlo returns: the discounted rewards from each step to its episode's end (Sutton and Barto 2018, eq. 3.9).

        G_t = r_t + discount * (1 - terminated_t) * (V(s_{t+1}) if the rows of the episode end at t else G_{t+1})

    They end at t where the episode was truncated, and at the last row: what would have come after is unknown, and
    `next_value` stands for it. Where an episode terminates nothing comes after. `gae` at trace 1 is `G_t - V(s_t)`.

    Args:
        reward: `[T, ...]` r_t, of the action taken at t.
        next_value: `[T, ...]` an estimate of the return from s_{t+1} on; read at truncations and in the last row only.
        terminated: `[T, ...]` bool, whether s_{t+1} ends the task.
        truncated: `[T, ...]` bool, whether the episode was cut off after t.
        discount: gamma, 0 to 1.

    Returns:
        `[T, ...]` returns G_t, with gradients stopped.

    Raises:
        AssertionError: shapes differ.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])

    def backward(after: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        reward, next_value, terminated, truncated = row
        future = jnp.where(truncated, next_value, after)
        now = reward + discount * jnp.where(terminated, 0.0, future)
        return now, now

    _, returns = jax.lax.scan(backward, next_value[-1], (reward, next_value, terminated, truncated), reverse=True)
    return jax.lax.stop_gradient(returns)


def mean_return(reward: jax.Array, terminated: jax.Array, truncated: jax.Array, discount: float) -> jax.Array:
    """The mean of a rollout's returns, where what comes after a cut is worth that very mean.

    Returns are linear in the number c that stands for the unknown future, G_t(c) = G_t(0) + w_t c, where w_t is the
    discount up to the cut, or 0 where the episode terminates. The mean that agrees with itself is

        c = mean(G(0)) / (1 - mean(w))

    A task without end that pays 1 a step has c = 1 / (1 - discount), wherever it is cut.

    Args:
        reward: `[T, ...]` r_t.
        terminated: `[T, ...]` bool.
        truncated: `[T, ...]` bool.
        discount: gamma, 0 to 1.

    Returns:
        A scalar c, with gradients stopped; 0 where nothing bounds it (no discount and no termination).
    """
    nothing = jnp.zeros_like(reward)
    known = jnp.mean(reward_to_go(reward, nothing, terminated, truncated, discount))
    weight = jnp.mean(reward_to_go(nothing, nothing + 1.0, terminated, truncated, discount))
    bounded = weight < 1.0
    return jnp.where(bounded, known / jnp.where(bounded, 1.0 - weight, 1.0), 0.0)


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
