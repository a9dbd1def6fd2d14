"""A doctor for Direct Preference Optimization and its kin: what training on pairs did to a policy, in plain words.

Losses of the margin see the difference of two log-probabilities and nothing else: accuracy and margin rise while both
log-probabilities fall, and what the two responses lose goes to third ones that nobody judged.

Axes: N pairs, B of a batch, T tokens of a response, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.core.train import jit
from rlx.lm.data import Comparisons
from rlx.lm.pairs import batched, both, check_pairs, pair_log_probs
from rlx.lm.sequences import Sampling, at_response, response_logits, rows, sample, sampled_sequences, token_log_probs
from rlx.ops.preferences import ches_score
from rlx.types import Key, PyTree


class Diagnosis(NamedTuple):
    """What a policy became, beside its reference, on pairs that it was not trained on. Means over pairs, in nats.

    Attributes:
        pairs: how many; ties are left out.
        chosen_log_prob: of the chosen responses, summed over tokens.
        rejected_log_prob: of the rejected ones.
        ref_chosen_log_prob: of the chosen ones, by the reference.
        ref_rejected_log_prob: of the rejected ones, by the reference.
        chosen_nll: negative log-likelihood of a token of the chosen responses, mean over all their tokens.
        rejected_nll: of the rejected ones.
        ref_chosen_nll: of the chosen ones, by the reference.
        ref_rejected_nll: of the rejected ones, by the reference.
        chosen_error: standard error of the chosen responses' mean log-ratio.
        rejected_error: of the rejected ones'.
        accuracy: share of pairs whose chosen response has the larger log-ratio; equal ones count half.
        length_accuracy: of the rule that one of "longer is better" and "shorter is better" which fits these pairs.
        accuracy_error: standard error of the difference of the two.
        displaced: of the probability that the reference gives a pair's two responses, the share which the policy gives
            to others; 0 where it gives the two more. Exact, as a share of something however small.
        displaced_mass: the same as a probability, which only in a small language is one to speak of.
        kl: KL(policy || reference), an estimate from one response to each prompt.
        sampled_length: mean tokens of those responses.
        ref_sampled_length: of the reference's.
        ches: mean length-normalised CHES by the reference: above 0, the pairs look alike to it.
        ches_correlation: of each pair's CHES with the change of its chosen log-probability a token; -1 to 1.
    """

    pairs: int
    chosen_log_prob: float
    rejected_log_prob: float
    ref_chosen_log_prob: float
    ref_rejected_log_prob: float
    chosen_nll: float
    rejected_nll: float
    ref_chosen_nll: float
    ref_rejected_nll: float
    chosen_error: float
    rejected_error: float
    accuracy: float
    length_accuracy: float
    accuracy_error: float
    displaced: float
    displaced_mass: float
    kl: float
    sampled_length: float
    ref_sampled_length: float
    ches: float
    ches_correlation: float

    @property
    def chosen_change(self) -> float:
        """Mean log-ratio of the chosen responses."""
        return self.chosen_log_prob - self.ref_chosen_log_prob

    @property
    def rejected_change(self) -> float:
        """Mean log-ratio of the rejected responses."""
        return self.rejected_log_prob - self.ref_rejected_log_prob

    def __str__(self) -> str:
        """A table and the warnings."""
        return report(self)


def ches_scores(model: Any, params: PyTree, pairs: Comparisons, batch_size: int = 64) -> jax.Array:
    """Length-normalised CHES of each pair: the larger, the likelier training on it makes its chosen response fall.

    Leave the pairs of largest score out (Razin et al. 2024, arXiv 2410.08847, sec. 6). Hidden states are those from
    which a response's tokens are predicted, by the policy before training. A table's contexts count as vectors that
    are all at right angles.

    Args:
        model: a transformer with logits.
        params: of the policy before training.
        pairs: `[N]`.
        batch_size: pairs of one forward pass.

    Returns:
        `[N]`.
    """
    return batched(lambda pairs: ches_score(*mean_states(model, params, pairs)), pairs, batch_size)


def mean_states(model: Any, params: PyTree, pairs: Comparisons) -> tuple[jax.Array, jax.Array]:
    """Mean hidden states `[B, D]` of the chosen and of the rejected responses."""
    sequences = both(pairs)
    features: Any = model.apply(params, rows(sequences), method="features")
    states = at_response(features, sequences)
    if states.ndim == 2:  # numbers of contexts: one-hot among those of the pair
        contexts = jnp.tile(jnp.concatenate(jnp.split(states, 2), axis=1), (2, 1))  # [2 B, 2 T]
        place = jnp.argmax(states[:, :, None] == contexts[:, None], axis=-1)
        states = jax.nn.one_hot(place, contexts.shape[1])
    total = jnp.sum(jnp.where(sequences.mask[..., None], states, 0.0), axis=1)
    chosen, rejected = jnp.split(total / jnp.maximum(sequences.response_length, 1)[:, None], 2)
    return chosen, rejected


def diagnose(
    model: Any,
    params: PyTree,
    ref_params: PyTree,
    held_out: Comparisons,
    sampling: Sampling,
    key: Key,
    batch_size: int = 64,
) -> Diagnosis:
    """Compare a policy with its reference on pairs that it was not trained on.

    Args:
        model: a transformer with logits.
        params: of the policy.
        ref_params: of the reference, from which training began.
        held_out: `[N]` pairs; ties are left out.
        sampling: how responses are drawn, for the divergence and the lengths.
        key: a typed key, for those.
        batch_size: pairs of one forward pass.

    Raises:
        ValueError: fewer than two pairs that are not ties.
    """
    check_pairs(held_out)
    kept = np.flatnonzero(~np.asarray(held_out.tie))
    if len(kept) < 2:
        raise ValueError(f"diagnose: {len(kept)} pairs that are not ties: it takes 2 or more")
    held_out = jax.tree.map(lambda x: jnp.asarray(x)[kept], held_out)

    def run(params: PyTree, ref_params: PyTree, pairs: Comparisons, key: Key) -> Measured:
        return measure(model, params, ref_params, pairs, key, sampling, batch_size)

    measured = jit(run, once=True)(params, ref_params, held_out, key)
    return summarize(held_out, jax.tree.map(lambda x: np.asarray(x, np.float64), measured))


class Measured(NamedTuple):
    """What is known of each pair, all `[N]`: log-probabilities in nats, and one response of each policy.

    Attributes:
        log_prob: chosen and rejected, by the policy.
        ref_log_prob: by the reference.
        ches: length-normalised, by the reference.
        log_ratio: of a response that the policy drew.
        length: of that.
        ref_length: of one that the reference drew.
    """

    log_prob: Any
    ref_log_prob: Any
    ches: Any
    log_ratio: Any
    length: Any
    ref_length: Any


def measure(
    model: Any, params: PyTree, ref_params: PyTree, pairs: Comparisons, key: Key, sampling: Sampling, batch_size: int
) -> Measured:
    """Ask both policies about `[N]` pairs, and draw a response of each to every prompt."""
    sampling = dataclasses.replace(sampling, top_k=None, top_p=None)  # the policies' own responses

    def one(batch: tuple[Comparisons, Key]) -> Measured:
        pairs, keys = batch
        key, ref_key = jax.random.split(keys[0])
        prompts = pairs.chosen.prompts
        drawn = sample(model, params, key, prompts, sampling)
        ref_drawn = sample(model, ref_params, ref_key, prompts, sampling)
        sequences = sampled_sequences(prompts, drawn)
        ref_logits = response_logits(model, ref_params, sequences)
        ref_tokens = token_log_probs(ref_logits, sequences, sampling.temperature)
        return Measured(
            pair_log_probs(model, params, pairs),
            pair_log_probs(model, ref_params, pairs),
            ches_score(*mean_states(model, ref_params, pairs)),
            jnp.sum(drawn.log_prob[:, 0] - ref_tokens, axis=-1),
            drawn.response_length[:, 0],
            ref_drawn.response_length[:, 0],
        )

    return batched(one, (pairs, jax.random.split(key, pairs.tie.shape[0])), batch_size)


def summarize(pairs: Comparisons, measured: Measured) -> Diagnosis:
    """Means over pairs, with their errors."""
    length = np.stack([np.asarray(side.response_length) for side in (pairs.chosen, pairs.rejected)]).astype(float)
    log_prob, ref = np.stack(measured.log_prob), np.stack(measured.ref_log_prob)  # [2, N]
    ratio = log_prob - ref
    right = np.heaviside(ratio[0] - ratio[1], 0.5)
    longer = np.heaviside(length[0] - length[1], 0.5)
    by_length = longer if longer.mean() >= 0.5 else 1.0 - longer
    left = np.logaddexp(*log_prob) - np.logaddexp(*ref)  # logarithm of the share of the reference's probability
    displaced = np.maximum(-np.expm1(np.minimum(left, 0.0)), 0.0)
    tokens = np.maximum(length.sum(axis=1), 1.0)
    nll, ref_nll = -log_prob.sum(axis=1) / tokens, -ref.sum(axis=1) / tokens
    found = {
        "chosen_log_prob": log_prob[0].mean(),
        "rejected_log_prob": log_prob[1].mean(),
        "ref_chosen_log_prob": ref[0].mean(),
        "ref_rejected_log_prob": ref[1].mean(),
        "chosen_nll": nll[0],
        "rejected_nll": nll[1],
        "ref_chosen_nll": ref_nll[0],
        "ref_rejected_nll": ref_nll[1],
        "chosen_error": standard_error(ratio[0]),
        "rejected_error": standard_error(ratio[1]),
        "accuracy": right.mean(),
        "length_accuracy": by_length.mean(),
        "accuracy_error": standard_error(right - by_length),
        "displaced": displaced.mean(),
        "displaced_mass": (displaced * np.exp(np.logaddexp(*ref))).mean(),
        "kl": measured.log_ratio.mean(),
        "sampled_length": measured.length.mean(),
        "ref_sampled_length": measured.ref_length.mean(),
        "ches": measured.ches.mean(),
        "ches_correlation": correlation(measured.ches, ratio[0] / np.maximum(length[0], 1.0)),
    }
    return Diagnosis(pairs=len(right), **{name: float(value) for name, value in found.items()})


def standard_error(x: np.ndarray) -> float:
    """Standard error of the mean of `[N]` numbers."""
    return float(x.std(ddof=1) / np.sqrt(len(x)))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; 0 where either does not vary."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / scale) if scale > 1e-12 else 0.0


def warnings_of(d: Diagnosis) -> list[str]:
    """What a diagnosis gives to worry about, in plain words; changes within two standard errors do not count."""
    warnings = []
    if d.chosen_change < -2.0 * d.chosen_error and d.rejected_change < -2.0 * d.rejected_error:
        warnings.append(
            f"Both log-probabilities fell: the chosen responses' by {-d.chosen_change:.2f} nats, the rejected ones' by "
            f"{-d.rejected_change:.2f}. The loss sees only that the margin grew, by "
            f"{d.chosen_change - d.rejected_change:.2f}. Of the probability that the two had, {d.displaced:.0%} went "
            "to third responses, of which the pair says nothing: they may be better or worse, so draw some and score "
            "them. To keep the chosen probable: sft_coef, rlx.ops.dpop_loss, or a loss that has an end (IPO)."
        )
        if d.ches_correlation < -0.3:
            warnings.append(
                f"The more alike the two responses of a pair, the more the chosen one fell (correlation with CHES "
                f"{d.ches_correlation:.2f}): leave out the pairs of largest rlx.lm.ches_scores."
            )
    elif d.chosen_change < -2.0 * d.chosen_error:
        warnings.append(f"The chosen responses' log-probability fell, by {-d.chosen_change:.2f} nats.")
    if d.accuracy - d.length_accuracy <= 2.0 * d.accuracy_error:
        warnings.append(
            f"The policy tells chosen from rejected no better than their lengths do: {d.accuracy:.1%} of "
            f"{d.pairs} pairs against {d.length_accuracy:.1%}. It may have learned length, or nothing."
        )
    if d.sampled_length > 1.5 * d.ref_sampled_length:
        warnings.append(
            f"Responses grew from {d.ref_sampled_length:.1f} to {d.sampled_length:.1f} tokens: length may be what "
            "the pairs taught; try length_average."
        )
    return warnings


def report(d: Diagnosis) -> str:
    """A diagnosis as a table, and its warnings."""
    lines = [f"{d.pairs} pairs{'':25}{'reference':>10}{'policy':>10}{'change':>10}"]
    for name, before, after in (
        ("chosen, nats a response", d.ref_chosen_log_prob, d.chosen_log_prob),
        ("rejected, nats a response", d.ref_rejected_log_prob, d.rejected_log_prob),
        ("chosen, NLL a token", d.ref_chosen_nll, d.chosen_nll),
        ("rejected, NLL a token", d.ref_rejected_nll, d.rejected_nll),
        ("tokens of a sampled response", d.ref_sampled_length, d.sampled_length),
    ):
        lines.append(f"{name:<{len(str(d.pairs)) + 31}}{before:10.3f}{after:10.3f}{after - before:+10.3f}")
    lines += [
        f"accuracy {d.accuracy:.3f}, by length alone {d.length_accuracy:.3f} (difference +- {d.accuracy_error:.3f})",
        f"displaced {d.displaced:.3f} of what the pair had, a probability of {d.displaced_mass:.2g}",
        f"KL(policy || reference) {d.kl:.3f} nats; CHES {d.ches:.3g}, correlation with change {d.ches_correlation:.2f}",
    ]
    return "\n".join(lines + [f"WARNING: {warning}" for warning in warnings_of(d)])
