"""Direct alignment: losses of a policy on pairs, without a reward model. Per pair; the caller takes the mean.

Throughout, for one response of a pair

    log-ratio = log pi(y|x) - log pi_ref(y|x)       summed over the response's tokens, the end-of-text token included
    margin    = log-ratio of the chosen - log-ratio of the rejected

so that `beta * log-ratio` is a response's implicit reward. Losses of the margin alone do not care if both log-ratios
fall, and both do; those of each log-ratio do. Where a paper wants means over tokens in place of sums (TRL's IPO, Tulu's
DPO, SimPO, ORPO), pass means. Direct Preference Optimization is meant, whatever else is called DPO. N: pairs.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

PairLoss = Callable[[jax.Array, jax.Array, float | jax.Array], jax.Array]  # (chosen, rejected, beta) -> loss, per pair


def of_margin(loss: Callable[[jax.Array, float], jax.Array]) -> PairLoss:
    """A loss of the margin, `(margin, beta)`, as one of the two log-ratios, `(chosen, rejected, beta)`."""

    def pair_loss(chosen, rejected, beta):
        return loss(chosen - rejected, beta)

    return pair_loss


def implicit_reward(log_prob: jax.Array, ref_log_prob: jax.Array, beta: float) -> jax.Array:
    """Reward that a policy would be the optimum of, up to a constant of the prompt (DPO, arXiv 2305.18290, eq. 5).

        r = beta * (log pi(y|x) - log pi_ref(y|x)) + beta * log Z(x)

    Args:
        log_prob: `[...]` log pi of whole responses.
        ref_log_prob: `[...]` log pi_ref.
        beta: strength of the KL penalty that the policy would be optimal under.

    Returns:
        `[...]` r without the constant. How often the chosen's is the greater is the implicit accuracy.
    """
    chex.assert_equal_shape([log_prob, ref_log_prob])
    return beta * (log_prob - ref_log_prob)


def dpo_loss(margin: jax.Array, beta: float, label_smoothing: float | jax.Array = 0.0) -> jax.Array:
    """Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), conservative on request.

        loss  = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)
        dloss = -beta (sigmoid(-beta h) - e) dh

    The weight sigmoid(-beta h) is large where the implicit rewards are the wrong way round. With e above 0 (cDPO,
    Mitchell 2023) a pair is done at beta h = log((1 - e) / e) and not at infinity.

    Args:
        margin: `[...]` h. The chosen's log-probability minus the rejected's, without a reference, is legal too.
        beta: strength of the KL penalty; 0.1 is usual, 0.05 to 0.5.
        label_smoothing: e, probability that a label is the wrong way round, below 1/2; 1/2 for a tie.

    Returns:
        `[...]` nats.
    """
    h = beta * margin
    return (1.0 - label_smoothing) * jax.nn.softplus(-h) + label_smoothing * jax.nn.softplus(h)


def robust_dpo_loss(margin: jax.Array, beta: float, label_smoothing: float) -> jax.Array:
    """DPO without the bias of labels that are wrong with a known probability (Chowdhury et al. 2024, arXiv 2403.00409).

        loss = [(1 - e) (-log sigmoid(beta h)) - e (-log sigmoid(-beta h))] / (1 - 2 e)

    Its mean over the noise is DPO's loss on clean labels. It has no lower bound.

    Args:
        margin: `[...]` h.
        beta: strength of the KL penalty.
        label_smoothing: e, probability that a label is the wrong way round, below 1/2.

    Returns:
        `[...]`.
    """
    h, e = beta * margin, label_smoothing
    return ((1.0 - e) * jax.nn.softplus(-h) - e * jax.nn.softplus(h)) / (1.0 - 2.0 * e)


def ipo_loss(margin: jax.Array, beta: float) -> jax.Array:
    """Identity Preference Optimization (Azar et al. 2023, arXiv 2310.12036, eq. 17): a margin to reach, not to pass.

        loss = (h - 1 / (2 beta))^2

    It stays near the reference also where preferences are certain and DPO forgets beta. The paper's log-probabilities
    are sums over tokens; TRL passes means, on its authors' advice, which makes another beta of it.

    Args:
        margin: `[...]` h.
        beta: the paper's tau.

    Returns:
        `[...]`.
    """
    return jnp.square(margin - 1.0 / (2.0 * beta))


def slic_loss(margin: jax.Array, beta: float) -> jax.Array:
    """Hinge loss (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425; with a reference: RSO, arXiv 2309.06657).

        loss = max(0, 1 - beta h)

    Args:
        margin: `[...]` h.
        beta: one over the margin that is enough.

    Returns:
        `[...]`.
    """
    return jax.nn.relu(1.0 - beta * margin)


def exo_loss(margin: jax.Array, beta: float, label_smoothing: float) -> jax.Array:
    """Efficient Exact Optimization: the reverse KL from the pair's labels (Ji et al. 2024, arXiv 2402.00856).

        loss = KL(sigmoid(beta h) || 1 - e), two-valued

    Args:
        margin: `[...]` h.
        beta: strength of the KL penalty.
        label_smoothing: e, probability that a label is the wrong way round, above 0; 1e-3 is usual.

    Returns:
        `[...]` nats.
    """
    h, e = beta * margin, label_smoothing
    right = jax.nn.sigmoid(h) * (jax.nn.log_sigmoid(h) - jnp.log(1.0 - e))
    return right + jax.nn.sigmoid(-h) * (jax.nn.log_sigmoid(-h) - jnp.log(e))


def dpop_loss(chosen: jax.Array, rejected: jax.Array, beta: float, penalty: float) -> jax.Array:
    """DPO-Positive: DPO that may not make the chosen response less probable (Pal et al. 2024, arXiv 2402.13228).

        loss = -log sigmoid(beta (h - penalty * max(0, -chosen)))

    Args:
        chosen: `[...]` log-ratio of the chosen.
        rejected: `[...]` log-ratio of the rejected.
        beta: strength of the KL penalty.
        penalty: above 1 it costs more to let the chosen fall than the margin gains by it; 5 to 500 in the paper.

    Returns:
        `[...]` nats.
    """
    chex.assert_equal_shape([chosen, rejected])
    return dpo_loss(chosen - rejected - penalty * jax.nn.relu(-chosen), beta)


def nca_loss(chosen: jax.Array, rejected: jax.Array, beta: float) -> jax.Array:
    """Noise Contrastive Alignment: absolute rewards, so that the chosen does not fall (arXiv 2402.05369, pairwise).

        loss = -log sigmoid(beta chosen) - 1/2 log sigmoid(-beta chosen) - 1/2 log sigmoid(-beta rejected)

    Args:
        chosen: `[...]` log-ratio of the chosen.
        rejected: `[...]` log-ratio of the rejected.
        beta: strength of the KL penalty.

    Returns:
        `[...]` nats.
    """
    chex.assert_equal_shape([chosen, rejected])
    chosen, rejected = beta * chosen, beta * rejected
    return jax.nn.softplus(-chosen) + 0.5 * jax.nn.softplus(chosen) + 0.5 * jax.nn.softplus(rejected)


def sppo_loss(chosen: jax.Array, rejected: jax.Array, beta: float) -> jax.Array:
    """Self-Play Preference Optimization with certain labels (Wu et al. 2024, arXiv 2405.00675): a place for each.

        loss = (chosen - 1 / (2 beta))^2 + (rejected + 1 / (2 beta))^2

    Args:
        chosen: `[...]` log-ratio of the chosen.
        rejected: `[...]` log-ratio of the rejected.
        beta: one over the margin aimed at.

    Returns:
        `[...]`.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jnp.square(chosen - 0.5 / beta) + jnp.square(rejected + 0.5 / beta)


def apo_zero_loss(chosen: jax.Array, rejected: jax.Array, beta: float) -> jax.Array:
    """Anchored: the chosen up, the rejected down, for a policy worse than its pairs (APO, arXiv 2408.06266).

        loss = 1 - sigmoid(beta chosen) + sigmoid(beta rejected)

    Args:
        chosen: `[...]` log-ratio of the chosen.
        rejected: `[...]` log-ratio of the rejected.
        beta: strength of the KL penalty.

    Returns:
        `[...]`, 0 to 2.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jax.nn.sigmoid(-beta * chosen) + jax.nn.sigmoid(beta * rejected)


def apo_down_loss(chosen: jax.Array, rejected: jax.Array, beta: float) -> jax.Array:
    """Anchored: both down, the rejected more, for a policy better than its pairs (APO, arXiv 2408.06266).

        loss = sigmoid(beta chosen) + 1 - sigmoid(beta (chosen - rejected))

    Args:
        chosen: `[...]` log-ratio of the chosen.
        rejected: `[...]` log-ratio of the rejected.
        beta: strength of the KL penalty.

    Returns:
        `[...]`, 0 to 2.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jax.nn.sigmoid(beta * chosen) + jax.nn.sigmoid(-beta * (chosen - rejected))


def simpo_loss(chosen: jax.Array, rejected: jax.Array, beta: float, target: float) -> jax.Array:
    """DPO of mean log-probabilities with a target margin and no reference (SimPO, arXiv 2405.14734, eq. 6).

        loss = -log sigmoid(beta (chosen - rejected) - target)

    Args:
        chosen: `[...]` log pi of the chosen, mean over its tokens.
        rejected: `[...]` of the rejected.
        beta: 2 to 10 in the paper.
        target: the paper's gamma, in units of beta times nats a token.

    Returns:
        `[...]` nats.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jax.nn.softplus(target - beta * (chosen - rejected))


def log_odds_ratio(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Log-odds of the chosen minus those of the rejected (ORPO, Hong et al. 2024, arXiv 2403.07691, sec. 4).

        log(p_w / (1 - p_w)) - log(p_l / (1 - p_l)),   p = exp(mean log-probability of a token)

    ORPO adds `-log sigmoid` of it, which is `dpo_loss(log_odds_ratio(...), 1.0)`, with a weight of some 0.1 to the mean
    negative log-likelihood of the chosen.

    Args:
        chosen: `[...]` log pi of the chosen, mean over its tokens.
        rejected: `[...]` of the rejected.

    Returns:
        `[...]` nats, finite: a probability of 1 counts as the next one below.
    """
    chex.assert_equal_shape([chosen, rejected])

    def log_odds(log_prob):
        log_prob = jnp.minimum(log_prob, -jnp.finfo(log_prob.dtype).eps)
        return log_prob - jnp.log(-jnp.expm1(log_prob))

    return log_odds(chosen) - log_odds(rejected)


def ches_score(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """How much training on a pair lets its chosen response fall (Razin et al. 2024, arXiv 2410.08847, def. 2).

        CHES = <sum_t h_t(chosen), sum_t h_t(rejected)> - |sum_t h_t(chosen)|^2

    The greater, the more alike the two look to the policy, and the further the chosen falls: leave the pairs of the
    greatest scores out. Of means over tokens it is the length-normalised one, for pairs of different lengths.

    Args:
        chosen: `[..., D]` last hidden states of the chosen, summed (or averaged) over its tokens.
        rejected: `[..., D]` of the rejected.

    Returns:
        `[...]`.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jnp.sum(chosen * rejected, axis=-1) - jnp.sum(jnp.square(chosen), axis=-1)
