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


def clipped_surrogate(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantage: jax.Array,
    clip: float,
    clip_high: float | None = None,
) -> jax.Array:
    """PPO's clipped surrogate as a loss (Schulman et al. 2017, arXiv 1707.06347, eq. 7, negated).

        ratio = exp(log pi(a|s) - log pi_old(a|s))
        loss  = -min(ratio * A, clip(ratio, 1 - clip, 1 + clip_high) * A)

    The minimum makes it pessimistic: moving the ratio beyond the range gains nothing, moving it back is never stopped.
    A wider range above ("clip-higher", DAPO, arXiv 2503.14476, eq. 10: 0.2 and 0.28) lets rare actions gain more.

    Args:
        log_prob: `[...]` log pi(a|s) of the policy that learns.
        old_log_prob: `[...]` log pi_old(a|s) of the policy that acted.
        advantage: `[...]` A(s, a).
        clip: how far below 1 the ratio's range goes, above 0; 0.1 to 0.3 is usual.
        clip_high: how far above 1 it goes; None: as far.

    Returns:
        `[...]` loss, with gradients through `log_prob` alone.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, advantage])
    old_log_prob, advantage = jax.lax.stop_gradient((old_log_prob, advantage))
    clip_high = clip if clip_high is None else clip_high
    ratio = jnp.exp(log_prob - old_log_prob)
    # The minimum, as a choice: beyond the limit on the side that pays, the ratio is the limit. min() and clip() have
    # gradients that split ties, which costs as much again as the rest.
    good = advantage > 0.0
    limit = jnp.where(good, 1.0 + clip_high, 1.0 - clip)
    beyond = jnp.where(good, ratio > limit, ratio < limit)
    return -advantage * jnp.where(beyond, limit, ratio)


def dual_clip(loss: jax.Array, advantage: jax.Array, limit: float) -> jax.Array:
    """Bound what one bad action may weigh in a clipped surrogate (Ye et al. 2020, arXiv 1912.09729, as a loss).

        loss' = min(loss, -limit * A)  where A < 0

    A large ratio of a bad action is else unbounded. Beyond the limit such an action has no gradient.

    Args:
        loss: `[...]` of `clipped_surrogate`.
        advantage: `[...]` A(s, a).
        limit: greatest ratio that counts where A < 0; above 1 + clip, 3 is usual.

    Returns:
        `[...]` loss, with gradients through `loss` alone.
    """
    chex.assert_equal_shape([loss, advantage])
    advantage = jax.lax.stop_gradient(advantage)
    return jnp.where((advantage < 0.0) & (loss > -limit * advantage), -limit * advantage, loss)


def cispo_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantage: jax.Array,
    clip: float,
    clip_high: float | None = None,
) -> jax.Array:
    """Policy gradient with clipped importance weights, CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4, negated).

        loss = -stop_gradient(clip(ratio, 1 - clip, 1 + clip_high)) * A * log pi(a|s)

    No action loses its gradient: beyond the range its weight stops growing instead. Its value means nothing.

    Args:
        log_prob: `[...]` log pi(a|s) of the policy that learns.
        old_log_prob: `[...]` log pi_old(a|s) of the policy that acted.
        advantage: `[...]` A(s, a).
        clip: how far below 1 the weights go; 1 leaves them free below, as in the paper.
        clip_high: how far above 1 they go; None: as far.

    Returns:
        `[...]` loss, with gradients through `log_prob` alone.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, advantage])
    clip_high = clip if clip_high is None else clip_high
    weight = jnp.clip(jnp.exp(log_prob - old_log_prob), 1.0 - clip, 1.0 + clip_high)
    return policy_gradient_loss(log_prob, weight * advantage)


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
