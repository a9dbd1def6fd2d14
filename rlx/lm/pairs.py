"""What a policy says of pairs of responses, and the loss of that.

Axes: N pairs of the data, B pairs of a batch, T tokens of a response, D width.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rlx.lm.data import Comparisons
from rlx.lm.sequences import Sequences, response_logits, token_log_probs
from rlx.ops.preferences import PairLoss, dpo_loss, of_margin
from rlx.ops.sequences import masked_mean
from rlx.types import Metrics, PyTree

DPO: PairLoss = of_margin(dpo_loss)


def both(pairs: Comparisons) -> Sequences:
    """The chosen responses, then the rejected ones, with their prompts: `[2 B]` sequences for one forward pass."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), pairs.chosen, pairs.rejected)


def pair_log_probs(
    model: Any, params: PyTree, pairs: Comparisons, temperature: float | jax.Array = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of the chosen and of the rejected responses, summed over their tokens, ends included.

    Args:
        model: a transformer with logits.
        params: its parameters.
        pairs: B of them.
        temperature: logits are divided by it.

    Returns:
        Two `[B]`, in nats.
    """
    sequences = both(pairs)
    log_prob = token_log_probs(response_logits(model, params, sequences), sequences, temperature)
    chosen, rejected = jnp.split(jnp.sum(log_prob, axis=-1), 2)
    return chosen, rejected


def batched(function: Any, data: PyTree, batch_size: int) -> PyTree:
    """Apply a function of `[B, ...]` rows to all `[N, ...]`, batch by batch: what it gives, `[N, ...]`.

    Args:
        function: from rows to a pytree of `[B, ...]`, row by row.
        data: a pytree of `[N, ...]`.
        batch_size: B; of the last batch some rows are taken twice where it does not divide N.
    """
    num_rows = jax.tree.leaves(data)[0].shape[0]
    size = min(batch_size, num_rows)
    rows = jnp.arange(-(-num_rows // size) * size) % num_rows
    found = jax.lax.map(lambda rows: function(jax.tree.map(lambda x: x[rows], data)), rows.reshape(-1, size))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_rows], found)


def check_pairs(pairs: Comparisons) -> None:
    """Raise a ValueError unless the two sides are arrays of the same shapes."""
    shapes = [[x.shape for x in side] for side in (pairs.chosen, pairs.rejected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"chosen and rejected sequences differ in shape, {shapes[0]} and {shapes[1]}: pad them alike")


def preference_loss(
    params: PyTree,
    model: Any,
    pairs: Comparisons,
    reference: tuple[jax.Array, jax.Array],
    loss: PairLoss,
    beta: float | jax.Array,
    label_smoothing: float | jax.Array = 0.0,
    sft_coef: float | jax.Array = 0.0,
    length_average: bool = False,
    temperature: float = 1.0,
) -> tuple[jax.Array, Metrics]:
    """Mean over pairs of a loss of their two log-ratios; ties weigh nothing.

        log-ratio = log pi(y|x) - log pi_ref(y|x)
        (1 - e) loss(chosen, rejected) + e loss(rejected, chosen) - sft_coef log pi(chosen) / |chosen|

    Smoothing is the expectation over labels of which a share e is wrong: with DPO's loss it is conservative DPO. The
    last term is that of Iterative RPO (Pang et al. 2024, arXiv 2404.19733).

    Args:
        params: of the model.
        model: a transformer with logits.
        pairs: B of them; `margin` is not read.
        reference: two `[B]`, nats, log-probabilities by the reference.
        loss: `(chosen, rejected, beta) -> [B]`, of log-ratios.
        beta: of the loss.
        label_smoothing: e, or one for each pair, `[B]`.
        sft_coef: of the chosen responses' cross-entropy.
        length_average: log-ratios are means over tokens.
        temperature: logits are divided by it.

    Returns:
        The loss, and its metrics: see `dpo`.
    """
    log_prob = pair_log_probs(model, params, pairs, temperature)
    lengths = [jnp.maximum(side.response_length, 1) for side in (pairs.chosen, pairs.rejected)]
    chosen, rejected = (
        (new - old) / (length if length_average else 1)
        for new, old, length in zip(log_prob, reference, lengths, strict=True)
    )
    losses = (1.0 - label_smoothing) * loss(chosen, rejected, beta) + label_smoothing * loss(rejected, chosen, beta)
    losses = losses - sft_coef * log_prob[0] / lengths[0]
    rows = {
        "accuracy": jnp.heaviside(chosen - rejected, 0.5),
        "margin": chosen - rejected,
        "chosen_reward": beta * chosen,
        "rejected_reward": beta * rejected,
        "chosen_log_prob": log_prob[0],
        "rejected_log_prob": log_prob[1],
        "chosen_token_log_prob": log_prob[0] / lengths[0],
        "rejected_token_log_prob": log_prob[1] / lengths[1],
    }
    return masked_mean(losses, ~pairs.tie), {name: masked_mean(row, ~pairs.tie) for name, row in rows.items()}
