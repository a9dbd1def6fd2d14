"""Likelihoods of comparisons under scores: pairs, ties, rankings, choices; and what an ensemble of scores says.

Per comparison; the caller takes the mean. Scores of one prompt matter through their differences alone, so that any
constant may be added to them: `centring_penalty` or a normalisation fixes it. Axes: N comparisons, K ranked responses,
M ensemble members.
"""

import chex
import jax
import jax.numpy as jnp

_LOW = -1e30  # a score of what is not there: finite, as differences of infinities are NaN


def bradley_terry_loss(
    chosen: jax.Array, rejected: jax.Array, margin: float | jax.Array = 0.0, label: float | jax.Array = 1.0
) -> jax.Array:
    """Minus the log-likelihood of a preference (Bradley and Terry 1952; InstructGPT, arXiv 2203.02155, eq. 1).

        h    = r_w - r_l - margin
        loss = -label * log sigmoid(h) - (1 - label) * log sigmoid(-h)

    Finite for every finite score: log(1 + exp(-h)), written out, is infinite in float32 from h = -89 on.

    Args:
        chosen: `[...]` r_w, score of the response that was preferred.
        rejected: `[...]` r_l.
        margin: `[...]` by how much r_w has to be greater, more where the preference is clear (Llama 2); 0 is usual.
        label: `[...]` probability that the preference is the right way round; 1/2 for two that are equally good.

    Returns:
        `[...]` nats.
    """
    chex.assert_equal_shape([chosen, rejected])
    h = chosen - rejected - margin
    return label * jax.nn.softplus(-h) + (1.0 - label) * jax.nn.softplus(h)


def lapse_loss(chosen: jax.Array, rejected: jax.Array, lapse: float = 0.1) -> jax.Array:
    """Bradley-Terry where a rater answers at random with a fixed probability (Christiano et al. 2017, sec. 2.2.3).

        loss = -log((1 - lapse) * sigmoid(r_w - r_l) + lapse / 2)

    A wrong label costs at most log(2 / lapse), and one far off has no gradient left.

    Args:
        chosen: `[...]` r_w.
        rejected: `[...]` r_l.
        lapse: probability of an answer at random, above 0 and below 1.

    Returns:
        `[...]` nats.
    """
    chex.assert_equal_shape([chosen, rejected])
    return -jnp.log((1.0 - lapse) * jax.nn.sigmoid(chosen - rejected) + 0.5 * lapse)


def davidson_log_probs(first: jax.Array, second: jax.Array, log_tie: float | jax.Array) -> jax.Array:
    """Log-probabilities of win, tie and loss (Davidson 1970, On extending the Bradley-Terry model).

        p(win) : p(tie) : p(loss) = exp(r_1) : tie * exp((r_1 + r_2) / 2) : exp(r_2)

    With no ties, log_tie = -inf, it is Bradley-Terry. Between equals a tie is `tie` times as probable as a win. A
    comparison's loss is minus the entry of its outcome.

    Args:
        first: `[...]` r_1.
        second: `[...]` r_2.
        log_tie: log of `tie`, one number for all comparisons, to be learned with the scores.

    Returns:
        `[..., 3]`, whose exponentials sum to 1: the first is better, they are equal, the second is better.
    """
    chex.assert_equal_shape([first, second])
    half = 0.5 * (first - second)
    return jax.nn.log_softmax(jnp.stack([half, jnp.broadcast_to(log_tie, half.shape), -half], axis=-1))


def centring_penalty(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Draw the scores of a pair towards a mean of 0: (r_w + r_l)^2 (Eisenstein et al. 2023, arXiv 2312.09244).

    Args:
        chosen: `[...]` r_w.
        rejected: `[...]` r_l.

    Returns:
        `[...]`, to be added to the loss with a small weight: 0.01 is usual.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jnp.square(chosen + rejected)


def ranking_loss(score: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean Bradley-Terry loss of all pairs of a ranking (InstructGPT, arXiv 2203.02155, eq. 1).

        loss = 1 / C(K, 2) sum_{i < j} -log sigmoid(r_i - r_j)

    One ranking is one element of the batch: its pairs are not independent, and spread over batches they are learned by
    heart within one epoch.

    Args:
        score: `[..., K]` best response first.
        mask: `[..., K]` bool, which responses there are; rankings may be of different lengths.

    Returns:
        `[...]` nats; 0 for fewer than two responses.
    """
    chex.assert_equal_shape([score, mask])
    mask = mask.astype(bool)
    score = jnp.where(mask, score, 0.0)
    pair = mask[..., :, None] & mask[..., None, :] & jnp.triu(jnp.ones((score.shape[-1],) * 2, bool), 1)
    loss = jax.nn.softplus(score[..., None, :] - score[..., :, None])  # [..., i, j], i ranked before j
    return jnp.sum(loss, (-2, -1), where=pair) / jnp.maximum(jnp.sum(pair, (-2, -1)), 1)


def plackett_luce_loss(score: jax.Array, mask: jax.Array) -> jax.Array:
    """Minus the log-likelihood of a ranking (Plackett 1975): the best is chosen, then the best of the rest, and so on.

        loss = sum_k [log sum_{j >= k} exp(r_j) - r_k]

    Of two responses it is Bradley-Terry. A sum over the ranking, not a mean.

    Args:
        score: `[..., K]` best response first.
        mask: `[..., K]` bool, which responses there are; rankings may be of different lengths.

    Returns:
        `[...]` nats; 0 for fewer than two responses.
    """
    chex.assert_equal_shape([score, mask])
    mask = mask.astype(bool)
    score = jnp.where(mask, score, _LOW)
    rest = jax.lax.cumlogsumexp(score, axis=score.ndim - 1, reverse=True)
    return jnp.sum(jnp.where(mask, rest - score, 0.0), axis=-1)


def choice_loss(score: jax.Array, best: jax.Array) -> jax.Array:
    """Minus the log-likelihood of choosing one among K (Ziegler et al. 2019, arXiv 1909.08593, eq. 1).

        loss = -log softmax(r)[best]

    Args:
        score: `[..., K]`, -inf for one that is not there.
        best: `[...]` int, which one was chosen.

    Returns:
        `[...]` nats.
    """
    return -jnp.take_along_axis(jax.nn.log_softmax(score), best[..., None], axis=-1)[..., 0]


def ensemble_score(score: jax.Array, how: str, amount: float | None = None, ddof: int = 0) -> jax.Array:
    """One score of several reward models' (Coste et al. 2023, arXiv 2310.02743).

        "mean"         their mean
        "min"          the least: worst-case optimisation
        "uncertainty"  mean - amount * variance: uncertainty-weighted optimisation
        "quantile"     the amount-quantile: 0 is "min", 1/2 the median

    Args:
        score: `[M, ...]`, one row a member, on one scale: normalise each member first.
        how: one of the four.
        amount: of the last two. 0 is 0: nothing is taken off.
        ddof: the variance divides by M - ddof. The paper's own best-of-n has 0, its PPO 1, which is a larger amount by
            M / (M - 1).

    Returns:
        `[...]`.

    Raises:
        ValueError: as `check_ensemble`.
    """
    check_ensemble(how, amount, ddof, len(score))
    if how == "mean":
        return jnp.mean(score, axis=0)
    if how == "min":
        return jnp.min(score, axis=0)
    if how == "quantile":
        return jnp.quantile(score, jnp.asarray(amount), axis=0)
    assert amount is not None
    return jnp.mean(score, axis=0) - amount * jnp.var(score, axis=0, ddof=ddof)


def check_ensemble(how: str, amount: float | None, ddof: int, members: int) -> None:
    """Raise a ValueError where `ensemble_score` has no answer, for a reward to be refused when it is made.

    Args:
        how: as there.
        amount: as there; a tracer passes.
        ddof: as there.
        members: M.

    Raises:
        ValueError: `how` is unknown, its amount is missing, a quantile is beyond 0 to 1, or there are no more members
            than `ddof`.
    """
    if how not in ("mean", "min", "uncertainty", "quantile"):
        raise ValueError(f"ensemble_score by {how!r} is none of 'mean', 'min', 'uncertainty', 'quantile'")
    if how in ("uncertainty", "quantile") and amount is None:
        raise ValueError(f"ensemble_score by {how!r} needs an amount")
    if how == "quantile" and isinstance(amount, int | float) and not 0.0 <= amount <= 1.0:
        raise ValueError(f"ensemble_score by 'quantile' needs an amount of 0 to 1, not {amount}")
    if how == "uncertainty" and members <= ddof:
        raise ValueError(f"{members} members have no variance with ddof {ddof}")
