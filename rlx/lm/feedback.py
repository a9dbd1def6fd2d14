"""From judged responses to what a policy and a critic learn from: scores, rewards of tokens, advantages.

Axes: B responses, T tokens of a response, G responses to one prompt.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rlx.lm.sequences import Sequences, response_logits, token_log_probs
from rlx.ops.groups import group_advantage
from rlx.ops.sequences import at_end, length_mask, masked_mean, masked_standardize, token_gae
from rlx.types import PyTree


def shape_scores(
    score: jax.Array, ended: jax.Array, missing_end_penalty: float, clip: float | None = None, whiten: bool = False
) -> jax.Array:
    """Scores as they are learnt from: divided by their standard deviation, clipped, less the penalty for no end.

    Args:
        score: `[B]`, by the reward.
        ended: `[B]` bool, whether the response has its end.
        missing_end_penalty: taken off where it has not.
        clip: scores beyond this, either way, count as this; None: as they are.
        whiten: whether to divide. Nothing is taken off: a positive score stays one.

    Returns:
        `[B]`.
    """
    if whiten:
        score = score / (jnp.std(score) + 1e-8)
    if clip is not None:
        score = jnp.clip(score, -clip, clip)
    return score - missing_end_penalty * ~ended


def token_rewards(score: jax.Array, penalty: jax.Array, length: jax.Array, kl_coef: float | jax.Array) -> jax.Array:
    """Reward of every token: the KL penalty of each, and the score at the last (arXiv 1909.08593, eq. 2).

        r_t = -beta (log pi(y_t) - log ref(y_t)) + score 1[t is the last]

    Args:
        score: `[B]`.
        penalty: `[B, T]` nats, 0 beyond the lengths.
        length: `[B]` tokens of the responses, their ends included.
        kl_coef: beta.

    Returns:
        `[B, T]`.
    """
    return at_end(score, length, penalty.shape[1]) - kl_coef * penalty


def response_advantages(reward: jax.Array, length: jax.Array, baseline: str, samples: int) -> jax.Array:
    """Without a critic every token has its response's advantage: its reward, less a mean of others' (REINFORCE, RLOO).

    Args:
        reward: `[B, T]`, of tokens; their sum is the response's.
        length: `[B]`.
        baseline: "mean" of all responses, or "leave_one_out": the mean of the others to the same prompt.
        samples: G; those to one prompt stand in a row.

    Returns:
        `[B, T]`, 0 beyond the lengths.
    """
    mask = length_mask(length, reward.shape[1])
    total = jnp.sum(reward, axis=1, where=mask)
    groups = total.reshape(-1, samples) if baseline == "leave_one_out" else total[None]
    baseline = baseline if groups.shape[1] > 1 else "none"
    return jnp.where(mask, group_advantage(groups, baseline).reshape(-1, 1), 0.0)


def token_advantages(
    reward: jax.Array,
    value: jax.Array,
    length: jax.Array,
    kind: str,
    discount: float,
    trace: float,
    samples: int,
    whiten: bool,
) -> tuple[jax.Array, jax.Array]:
    """Advantages and the critic's targets, by a critic or without.

    Args:
        reward: `[B, T]`, of tokens.
        value: `[B, T]`, of what stands before each.
        length: `[B]`.
        kind: "gae", or a baseline of `response_advantages`.
        discount: gamma.
        trace: lambda.
        samples: G.
        whiten: whether advantages get mean 0 and variance 1 over all tokens.

    Returns:
        Two of `[B, T]`, 0 beyond the lengths; without a critic targets are 0.
    """
    if kind == "gae":
        advantage, target = token_gae(reward, value, length, discount, trace)
    else:
        advantage, target = response_advantages(reward, length, kind, samples), jnp.zeros_like(value)
    return (masked_standardize(advantage, length_mask(length, reward.shape[1])) if whiten else advantage), target


def ptx_loss(params: PyTree, model: Any, text: Sequences) -> jax.Array:
    """Cross-entropy of pretraining text, nats a token: keeps what the policy knew (arXiv 2203.02155, eq. 2)."""
    log_prob = token_log_probs(response_logits(model, params, text), text)
    return -masked_mean(log_prob, text.mask)
