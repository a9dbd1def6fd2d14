"""Group relative policy optimization: GRPO, Dr. GRPO, DAPO, GSPO and RLOO as settings of one function.

Axes: N prompts of a step, G responses to one prompt, B = N G responses, T tokens of a response, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.core.learn import gradient_step, init_learner, minibatches
from rlx.lm.generate_and_learn import Generated, generate_and_learn
from rlx.lm.sequences import Prompts, Sampling, Sequences, response_logits, start_params, token_log_probs
from rlx.ops.distributions import Categorical
from rlx.ops.groups import effective_groups, group_advantage, importance_log_ratio, overlong_penalty, varied_groups
from rlx.ops.kl import check_kl, exact_kl, kl_loss, kl_reward
from rlx.ops.policy_gradients import clipped_surrogate
from rlx.ops.sequences import token_weights, weighted_mean
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """Settings of GRPO, each choice apart from the others; `GRPO_PRESETS` has those of the papers."""

    num_prompts: int = 16  # N, prompts a step
    samples: int = 8  # G, responses to each
    num_epochs: int = 1  # passes over a step's responses
    num_minibatches: int = 1  # gradient steps a pass; divides N G
    baseline: str = "mean"  # what is taken off a reward: "none", its group's "mean", or "leave_one_out"
    scale: str = "group"  # what it is divided by: "none", the std of its "group", or of the whole "batch"
    scale_eps: float = 1e-4  # added to that std, in units of reward
    aggregation: str = "sequence"  # what a token weighs: "token", "sequence", "sequence_sum" or "constant"
    clip: float = 0.2  # how far below 1 the ratio goes; above 0
    clip_high: float | None = None  # how far above 1 it goes; None: as far
    level: str = "token"  # of the ratio: "token", "sequence" (GSPO) or "sequence_token"
    kl_coef: float = 0.04  # beta, nats of KL cost that much reward; 0 or more
    kl_form: str = "ratio_k3"  # estimate of KL(policy || reference): see rlx.ops.kl
    kl_where: str = "loss"  # "loss", or "reward": the sum over a response taken off its score
    missing_end_penalty: float = 0.0  # taken off the score of a response that did not end
    overlong_buffer: int = 0  # tokens before the longest over which a penalty grows to 1 (DAPO); 0: none
    dynamic_sampling: int = 0  # draw so many times N prompts and keep N whose rewards vary, if there are; 0: keep all

    def __post_init__(self) -> None:
        require_counts(self, "num_prompts", "samples", "num_epochs", "num_minibatches")
        require_positive(self, "clip", "scale_eps")
        require(self, self.clip_high is None or self.clip_high > 0, "must be above 0", "clip_high")
        require(self, self.kl_coef >= 0, "must be 0 or more", "kl_coef")
        rows = self.num_prompts * self.samples
        require(self, rows % self.num_minibatches == 0, "responses must divide into minibatches", "num_minibatches")
        require(self, self.overlong_buffer >= 0, "must be 0 or more", "overlong_buffer")
        require(self, self.dynamic_sampling >= 0, "must be 0 or more", "dynamic_sampling")
        for name, choices in CHOICES.items():
            require(self, getattr(self, name) in choices, f"must be one of {', '.join(choices)}", name)
        lonely = self.samples < 2 and (self.baseline != "none" or self.scale == "group")
        require(self, not lonely, "a group needs 2 or more", "samples", "baseline", "scale")
        require_finite(self)


CHOICES = {
    "baseline": ("none", "mean", "leave_one_out"),
    "scale": ("none", "group", "batch"),
    "aggregation": ("token", "sequence", "sequence_sum", "constant"),
    "level": ("token", "sequence", "sequence_token"),
    "kl_where": ("loss", "reward"),
}
GRPO_PRESETS = {
    "grpo": GRPOConfig(kl_form="k3"),  # Shao et al. 2024, arXiv 2402.03300
    "dr_grpo": GRPOConfig(scale="none", aggregation="constant", kl_coef=0.0),  # Liu et al. 2025, arXiv 2503.20783
    "dapo": GRPOConfig(  # Yu et al. 2025, arXiv 2503.14476
        aggregation="token", clip_high=0.28, kl_coef=0.0, dynamic_sampling=2, overlong_buffer=8
    ),
    "gspo": GRPOConfig(level="sequence", clip=3e-4, clip_high=4e-4, kl_coef=0.0),  # Zheng et al. 2025, arXiv 2507.18071
    "rloo": GRPOConfig(  # Ahmadian et al. 2024, arXiv 2402.14740
        baseline="leave_one_out", scale="none", aggregation="sequence_sum", kl_form="k1", kl_where="reward"
    ),
}


class GRPOState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: typed PRNG key.
        learner: the policy's parameters and optimiser state.
    """

    key: Key
    learner: Learner


class GRPOBatch(NamedTuple):
    """What the loss takes, rows of responses.

    Attributes:
        sequences: `[B]`.
        old_log_prob: `[B, T]` nats, by the policy that drew them.
        ref_log_prob: `[B, T]` nats, by the reference.
        advantage: `[B]`.
        weight: `[B, T]`, of each token's loss; the mean over rows of their sums is the loss.
    """

    sequences: Sequences
    old_log_prob: jax.Array
    ref_log_prob: jax.Array
    advantage: jax.Array
    weight: jax.Array


Penalty = Callable[[jax.Array, jax.Array, GRPOBatch], jax.Array]  # (logits, log_prob, batch) -> [B, T] of the loss


def grpo_loss(
    params: PyTree,
    model: Any,
    temperature: float,
    clip: float,
    clip_high: float | None,
    level: str,
    penalty: Penalty | None,
    batch: GRPOBatch,
) -> tuple[jax.Array, Metrics]:
    """Clipped surrogate of responses, with a KL penalty (arXiv 2402.03300, eq. 3).

        loss = sum_{i,t} w_it (-min(rho_it A_i, clip(rho_it, 1 - clip, 1 + clip_high) A_i) + beta KL_it)

    Args:
        params: of the policy that learns.
        model: a transformer with logits.
        temperature: at which responses were drawn.
        clip: how far below 1 the ratio goes.
        clip_high: how far above 1 it goes; None: as far.
        level: of the ratio, see `rlx.ops.importance_log_ratio`.
        penalty: gives beta KL of each token; None: there is none in the loss.
        batch: rows; loss and metrics are means over them.
    """
    mask = batch.sequences.mask
    logits = response_logits(model, params, batch.sequences) / temperature
    log_prob = token_log_probs(logits, batch.sequences)
    log_ratio = importance_log_ratio(log_prob, batch.old_log_prob, mask, level)
    advantage = jnp.broadcast_to(batch.advantage[:, None], mask.shape)
    loss = clipped_surrogate(log_ratio, jnp.zeros_like(log_ratio), advantage, clip, clip_high)
    if penalty is not None:
        loss += penalty(logits, log_prob, batch)
    ratio, high = jnp.exp(log_ratio), clip if clip_high is None else clip_high
    measured = {
        "clip_fraction": ((ratio < 1.0 - clip) | (ratio > 1.0 + high)).astype(jnp.float32),
        "entropy": Categorical(logits).entropy(),
        "approx_kl": jnp.expm1(log_ratio) - log_ratio,
    }
    metrics = {name: weighted_mean(x, batch.weight) for name, x in measured.items()}
    return weighted_mean(loss, batch.weight), jax.lax.stop_gradient(metrics)


def loss_penalty(model: Any, ref_params: PyTree, temperature: float, config: GRPOConfig) -> Penalty | None:
    """Give beta KL(policy || reference) of tokens as the config has it; None where it is in the reward."""
    if config.kl_where == "reward":
        return None

    def penalty(logits: jax.Array, log_prob: jax.Array, batch: GRPOBatch) -> jax.Array:
        if config.kl_form == "exact":
            return config.kl_coef * exact_kl(logits, response_logits(model, ref_params, batch.sequences) / temperature)
        return config.kl_coef * kl_loss(config.kl_form, log_prob, batch.ref_log_prob, batch.old_log_prob)

    return penalty


def group_batch(
    generated: Generated, ref_log_prob: jax.Array, sampling: Sampling, config: GRPOConfig
) -> tuple[GRPOBatch, Metrics]:
    """From judged responses to rows of the loss: penalties, advantages within groups, weights.

    Args:
        generated: `[B]` responses, groups in a row; of `dynamic_sampling` times as many prompts.
        ref_log_prob: `[B, T]` nats, by the reference.
        sampling: how they were drawn.
        config: the settings.
    """
    sequences, old_log_prob, score = generated
    mask = sequences.mask
    score = score - config.missing_end_penalty * ~sequences.ended(sampling.end)
    if config.overlong_buffer:
        score += overlong_penalty(sequences.response_length, sampling.max_tokens, config.overlong_buffer)
    log_ratio = jnp.sum(old_log_prob - ref_log_prob, axis=1)  # [B], nats a response
    if config.kl_where == "reward":
        score -= config.kl_coef * jnp.sum(kl_reward(config.kl_form, old_log_prob, ref_log_prob), axis=1)
    reward = score.reshape(-1, config.samples)  # [N, G]
    advantage = group_advantage(reward, config.baseline, config.scale, config.scale_eps).reshape(-1)
    metrics = {"kl": jnp.mean(log_ratio), "effective_groups": effective_groups(reward)}
    rows = GRPOBatch(sequences, old_log_prob, ref_log_prob, advantage, jnp.zeros_like(old_log_prob))
    if config.dynamic_sampling:
        varied = jnp.repeat(varied_groups(reward), config.samples)
        kept = jnp.argsort(~varied, stable=True)[: config.num_prompts * config.samples]  # groups stay together
        mask &= varied[:, None]
        rows, mask = jax.tree.map(lambda x: x[kept], (rows, mask))
    weight = mask.shape[0] * token_weights(mask, config.aggregation, sampling.max_tokens)
    return rows._replace(weight=weight), metrics


def grpo(
    model: Any,
    prompts: Prompts,
    reward: Callable[[Sequences], Any],
    optimizer: optax.GradientTransformation,
    sampling: Sampling,
    config: GRPOConfig = GRPOConfig(),
    params: PyTree | None = None,
) -> Algorithm:
    """Make the algorithm: several responses to each prompt, the others of its group as a response's baseline.

    Args:
        model: a transformer with logits.
        prompts: `[...]` what is drawn from.
        reward: `(sequences) -> [B]`, a JAX function, or one on the host (see `generate_and_learn`).
        optimizer: optax's.
        sampling: how responses are drawn.
        config: the settings. A KL penalty whose gradient is not the reverse KL's warns.
        params: where learning begins, and the reference; None: the reference is a policy drawn with key 0.
    """
    if isinstance(config.kl_coef, jax.Array) or config.kl_coef:
        check_kl(config.kl_form, config.kl_where)
    ref_params = start_params(model, jax.random.key(0)) if params is None else params
    penalty = loss_penalty(model, ref_params, sampling.temperature, config)
    settings = (model, sampling.temperature, config.clip, config.clip_high, config.level, penalty)

    def init(key: Key) -> GRPOState:
        key, params_key = jax.random.split(key)
        return GRPOState(key, init_learner(start_params(model, params_key, params), optimizer))

    def learn(state: GRPOState, generated: Generated, key: Key) -> tuple[GRPOState, Metrics]:
        logits = response_logits(model, ref_params, generated.sequences)
        ref_log_prob = token_log_probs(logits, generated.sequences, sampling.temperature)
        batch, measured = group_batch(generated, ref_log_prob, sampling, config)
        order = minibatches(key, batch.advantage.shape[0], config.num_epochs, config.num_minibatches)

        def one(learner: Learner, rows: jax.Array) -> tuple[Learner, Metrics]:
            minibatch = jax.tree.map(lambda x: x[rows], batch)
            size = minibatch.sequences.size
            return gradient_step(grpo_loss, optimizer, learner, *settings, rows=minibatch, row_size=size)

        learner, metrics = jax.lax.scan(one, state.learner, order)
        return state._replace(learner=learner), jax.tree.map(jnp.mean, metrics) | measured

    count = config.num_prompts * max(config.dynamic_sampling, 1)
    return generate_and_learn(
        init, lambda state: state.learner.params, model, prompts, reward, learn, sampling, count, config.samples
    )
