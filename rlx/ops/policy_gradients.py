"""Losses that move a policy, and the critic beside it: per element, the caller takes the (masked) mean."""

import chex
import jax
import jax.numpy as jnp


def policy_gradient_loss(log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
    """Loss whose gradient is the policy gradient, negated (Williams 1992; Sutton et al. 2000, theorem 1).

        loss = -A log pi(a|s),   so that   -grad loss = A grad log pi(a|s)

    Its value means nothing, only its gradient does, and only for rows that the policy itself drew. Any number that does
    not depend on the action may be taken off A: the expected gradient stays, its variance does not.

    Args:
        log_prob: `[...]` log pi(a|s).
        advantage: `[...]` how much better than expected the action turned out, or its return.

    Returns:
        `[...]` loss, with gradients through `log_prob` alone.
    """
    chex.assert_equal_shape([log_prob, advantage])
    return -jax.lax.stop_gradient(advantage) * log_prob


def surrogate_loss(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
    """The advantage of a policy under another's states, as a loss (Schulman et al. 2015, arXiv 1502.05477, eq. 14).

        ratio = exp(log pi(a|s) - log pi_old(a|s))
        loss  = -ratio * A

    At pi = pi_old its gradient is the policy gradient; far away it lies, so that something else has to say how far.

    Args:
        log_prob: `[...]` log pi(a|s) of the policy that learns.
        old_log_prob: `[...]` log pi_old(a|s) of the policy that acted.
        advantage: `[...]` A(s, a).

    Returns:
        `[...]` loss, with gradients through `log_prob` alone.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, advantage])
    old_log_prob, advantage = jax.lax.stop_gradient((old_log_prob, advantage))
    return -jnp.exp(log_prob - old_log_prob) * advantage


def clipped_surrogate(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip: float) -> jax.Array:
    """PPO's clipped surrogate as a loss (Schulman et al. 2017, arXiv 1707.06347, eq. 7, negated).

        ratio = exp(log pi(a|s) - log pi_old(a|s))
        loss  = -min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)

    The minimum makes it pessimistic: moving the ratio beyond the range gains nothing, moving it back is never stopped.

    Args:
        log_prob: `[...]` log pi(a|s) of the policy that learns.
        old_log_prob: `[...]` log pi_old(a|s) of the policy that acted.
        advantage: `[...]` A(s, a).
        clip: half width of the ratio's range, above 0; 0.1 to 0.3 is usual.

    Returns:
        `[...]` loss, with gradients through `log_prob` alone.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, advantage])
    old_log_prob, advantage = jax.lax.stop_gradient((old_log_prob, advantage))
    ratio = jnp.exp(log_prob - old_log_prob)
    # The minimum, as a choice: beyond the limit on the side that pays, the ratio is the limit. min() and clip() have
    # gradients that split ties, which costs as much again as the rest.
    good = advantage > 0.0
    limit = jnp.where(good, 1.0 + clip, 1.0 - clip)
    beyond = jnp.where(good, ratio > limit, ratio < limit)
    return -advantage * jnp.where(beyond, limit, ratio)


def clipped_value_loss(value: jax.Array, old_value: jax.Array, target: jax.Array, clip: float) -> jax.Array:
    """Half squared error of a critic that may not move far at once (baselines' PPO; Engstrom et al. 2020, sec. 3).

        loss = 1/2 max((V - target)^2, (V_old + clip(V - V_old, -clip, clip) - target)^2)

    Args:
        value: `[...]` V(s) of the critic that learns.
        old_value: `[...]` V(s) from before the update.
        target: `[...]` what V(s) should be.
        clip: how far V may move from V_old, in units of the (normalised) return.

    Returns:
        `[...]` loss, with gradients through `value` alone.
    """
    chex.assert_equal_shape([value, old_value, target])
    old_value, target = jax.lax.stop_gradient((old_value, target))
    clipped = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(clipped - target))
