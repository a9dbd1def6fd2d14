"""Means, weights and places of tokens in padded responses. Axes: B sequences, T response tokens.

A mask comes from the lengths, never from the tokens: an end-of-text token counts as a token of its response, and
whatever stands behind it, infinite and NaN values included, changes nothing.
"""

import chex
import jax
import jax.numpy as jnp

from rlx.ops.returns import gae


def length_mask(length: jax.Array, size: int) -> jax.Array:
    """Mark the first `length` places of each row: `mask[b, t] = t < length[b]`.

    Args:
        length: `[...]` int, tokens of a response, the end-of-text token included; 0 to `size`.
        size: T, places in a row.

    Returns:
        `[..., T]` bool.
    """
    return jnp.arange(size) < length[..., None]


def masked_mean(x: jax.Array, mask: jax.Array, axis: int | None = None) -> jax.Array:
    """Mean of the entries that count; 0 where none does.

    Args:
        x: `[...]`.
        mask: `[...]` bool or 0 and 1, whether an entry counts.
        axis: along which the mean is taken; None: along all.

    Returns:
        A scalar, or `x`'s shape without `axis`.
    """
    chex.assert_equal_shape([x, mask])
    mask = mask.astype(bool)
    return jnp.sum(x, axis=axis, where=mask) / jnp.maximum(jnp.sum(mask, axis=axis), 1)


def masked_standardize(x: jax.Array, mask: jax.Array, shift_mean: bool = True, ddof: int = 1) -> jax.Array:
    """Give the entries that count mean 0 and variance 1 ("whitening"); the others become 0.

        x' = (x - mean) / sqrt(variance + 1e-8),   variance = sum (x - mean)^2 / (count - ddof)

    Of the public systems TRL, verl and tunix divide by count - 1, OpenAI's code of 2019 and OpenRLHF by count. OpenAI's
    whitens rewards with their mean added again, so that a positive reward stays one.

    Args:
        x: `[...]`.
        mask: `[...]` bool or 0 and 1, whether an entry counts.
        shift_mean: whether the mean becomes 0; else it stays as it was.
        ddof: what is taken off the count, 0 or 1.

    Returns:
        Of the same shape. Where the entries are all alike, or only one counts, 0 (or their mean).
    """
    mean = masked_mean(x, mask)
    deviation = jnp.where(mask.astype(bool), x - mean, 0.0)
    variance = jnp.sum(jnp.square(deviation)) / jnp.maximum(jnp.sum(mask.astype(bool)) - ddof, 1)
    white = deviation * jax.lax.rsqrt(variance + 1e-8)
    return white if shift_mean else jnp.where(mask.astype(bool), white + mean, 0.0)


def token_weights(mask: jax.Array, aggregation: str, max_tokens: int | None = None) -> jax.Array:
    """What each token's loss is multiplied by, so that the plain sum over tokens is the batch's loss.

        "token"         1 / tokens of the batch: every token counts alike (DAPO, arXiv 2503.14476, eq. 8)
        "sequence"      1 / (its sequence's tokens * sequences): the mean of means (GRPO, arXiv 2402.03300, eq. 3)
        "sequence_sum"  1 / sequences: the mean of sums, the policy gradient of whole sequences
        "constant"      1 / (B * max_tokens): the same up to a factor that is fixed (Dr. GRPO, arXiv 2503.20783)

    "sequence" makes tokens of long responses count less: long wrong ones are punished too little. Under "token" and
    "sequence" the step's size depends on the lengths drawn, under "constant" it does not.

    Weights are made once, of the whole batch. Its micro-batches take their rows of them and add up their losses and
    gradients: the sum is the same however the batch is split.

    Args:
        mask: `[B, T]` bool or 0 and 1, whether a token counts.
        aggregation: one of the four.
        max_tokens: the longest response that may be drawn, a constant of the run and not the width of this batch;
            read under "constant", and needed there.

    Returns:
        `[B, T]` weights, 0 where the mask is. Sequences without tokens are not counted, but under "constant".

    Raises:
        ValueError: the aggregation is unknown, or "constant" without `max_tokens`.
    """
    chex.assert_rank(mask, 2)
    weight = mask.astype(float)
    tokens = jnp.sum(weight, axis=1, keepdims=True)  # [B, 1]
    sequences = jnp.maximum(jnp.sum(tokens > 0), 1)
    if aggregation == "token":
        return weight / jnp.maximum(jnp.sum(tokens), 1)
    if aggregation == "sequence":
        return weight / (jnp.maximum(tokens, 1) * sequences)
    if aggregation == "sequence_sum":
        return weight / sequences
    if aggregation != "constant":
        raise ValueError(f"aggregation: {aggregation!r} is none of 'token', 'sequence', 'sequence_sum', 'constant'")
    if max_tokens is None:
        raise ValueError("aggregation 'constant' divides by the longest response: give max_tokens")
    return weight / (len(mask) * max_tokens)


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean over sequences of the weighted sums over their tokens: a loss from `B * token_weights(...)`.

    It is a mean over rows, so that the mean of those of micro-batches, which take their rows of the weights, is that of
    the batch.

    Args:
        x: `[B, T]`; where the weight is 0 it is not looked at.
        weight: `[B, T]`.

    Returns:
        A scalar.
    """
    chex.assert_equal_shape([x, weight])
    return jnp.mean(jnp.sum(weight * jnp.where(weight != 0.0, x, 0.0), axis=-1))


def last_token(x: jax.Array, length: jax.Array) -> jax.Array:
    """What stands at the last real token: `x[b, length[b] - 1]`.

    Args:
        x: `[B, T, ...]`, such as scores or hidden states.
        length: `[B]` int, 0 to T.

    Returns:
        `[B, ...]`; 0 where the length is.
    """
    chex.assert_equal_shape_prefix([x, length], 1)
    found = x[jnp.arange(len(x)), jnp.maximum(length - 1, 0)]
    return jnp.where(length.reshape(-1, *[1] * (x.ndim - 2)) > 0, found, 0)


def at_end(score: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Put a response's score on its last real token, the end-of-text token where it has one; all else is 0.

    Args:
        score: `[B]`, of any dtype; it comes back as floats, nothing is rounded.
        length: `[B]` int, 0 to T. A response without tokens has no place for a score, and loses it.
        size: T.

    Returns:
        `[B, T]` float rewards.
    """
    chex.assert_equal_shape([score, length])
    return jnp.where(jnp.arange(size) == length[:, None] - 1, score[:, None], 0.0)


def token_gae(
    reward: jax.Array, value: jax.Array, length: jax.Array, discount: float, trace: float
) -> tuple[jax.Array, jax.Array]:
    """Advantages and returns of tokens: `rlx.ops.gae` of episodes that end with their last token.

    The last token terminates, also that of a response that was cut off at T: no value stands for the rest of it.

    Args:
        reward: `[B, T]` r_t, of the token written at t.
        value: `[B, T]` V_t of the text before token t.
        length: `[B]` int, 0 to T.
        discount: gamma, usually 1.
        trace: lambda, usually 0.95 to 1.

    Returns:
        Advantages `[B, T]` and the critic's targets A_t + V_t `[B, T]`, both 0 behind the end, not whitened, with
        gradients stopped.
    """
    chex.assert_equal_shape([reward, value])
    mask = length_mask(length, reward.shape[1])
    reward, value = jnp.where(mask, reward, 0.0), jnp.where(mask, value, 0.0)
    last = jnp.arange(reward.shape[1]) == length[:, None] - 1
    next_value = jnp.roll(value, -1, axis=1)  # the last row's is another's, and not looked at: it terminates
    never = jnp.zeros_like(last.T)
    advantage = gae(reward.T, value.T, next_value.T, last.T, never, discount, trace).T
    advantage = jnp.where(mask, advantage, 0.0)
    return advantage, jax.lax.stop_gradient(jnp.where(mask, advantage + value, 0.0))
