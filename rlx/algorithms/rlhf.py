"""PPO for language with a critic and a penalty on leaving a reference: the classic loop of RLHF, stage by stage.

Generate; values, reference log-probabilities and rewards; advantages; updates of critic and actor (Ziegler et al. 2019,
arXiv 1909.08593; Ouyang et al. 2022, arXiv 2203.02155). REINFORCE and RLOO are the same with another advantage.

Axes: N prompts of a step, G responses to one prompt, B = N G responses, T tokens of a response, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require, require_counts, require_finite, require_fraction, require_positive
from rlx.core.epochs import draw_rows
from rlx.core.learn import gradient_step, init_learner, minibatches
from rlx.lm.feedback import ptx_loss, shape_scores, token_advantages, token_rewards
from rlx.lm.generate_and_learn import Generated, generate_and_learn
from rlx.lm.sequences import (
    Prompts,
    Sampling,
    Sequences,
    at_response,
    response_logits,
    response_values,
    rows,
    start_params,
    token_log_probs,
)
from rlx.ops.distributions import Categorical
from rlx.ops.kl import adaptive_kl, check_kl, exact_kl, k3, kl_reward
from rlx.ops.policy_gradients import clipped_surrogate, clipped_value_loss
from rlx.ops.returns import explained_variance
from rlx.ops.sequences import token_weights, weighted_mean
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class RLHFConfig:
    """Settings of PPO for language; in brackets what InstructGPT used, where it differs."""

    num_prompts: int = 64  # N, prompts a step (512)
    samples: int = 1  # G, responses to each
    num_epochs: int = 4  # passes over a step's responses (1)
    num_minibatches: int = 4  # gradient steps a pass; divides N G (8)
    advantage: str = "gae"  # "gae" of a critic; of whole responses "mean" (REINFORCE), or "leave_one_out" of a group
    discount: float = 1.0  # gamma; a response is one episode
    trace: float = 0.95  # lambda
    whiten: bool = True  # advantages get mean 0 and variance 1 over a step's tokens
    clip: float = 0.2  # half width of the ratio's range; 0.1 to 0.3
    value_clip: float | None = 0.2  # how far a value moves in one step, in units of reward; None: any
    value_coef: float = 0.1  # weight of the critic's loss where it shares the policy's trunk
    entropy_coef: float = 0.0  # weight of the entropy, nats a token
    kl_coef: float = 0.05  # beta, nats of KL cost that much reward, at first (0.02)
    kl_form: str = "k1"  # estimate of the KL in the reward, or "exact", also in the loss: see rlx.ops.kl
    kl_target: float | None = None  # nats a response that beta is steered to; None: beta stays
    kl_horizon: float = 10_000.0  # responses over which beta may change by a fifth
    score_clip: float | None = None  # scores beyond this, either way, count as this; None: as they are
    whiten_score: bool = False  # a step's scores are divided by their standard deviation
    missing_end_penalty: float = 0.0  # taken off the score of a response that did not end
    ptx_coef: float = 0.0  # weight of the loss on pretraining text (PPO-ptx: 27.8)
    ptx_batch_size: int = 0  # sequences of it in a gradient step; 0: as many as responses

    def __post_init__(self) -> None:
        require_counts(self, "num_prompts", "samples", "num_epochs", "num_minibatches")
        require_positive(self, "clip", "kl_horizon")
        require_fraction(self, "discount", "trace")
        for name in ("value_clip", "kl_target", "score_clip"):
            value = getattr(self, name)
            require(self, value is None or value > 0, "must be above 0, or None", name)
        for name in ("kl_coef", "ptx_coef", "value_coef", "entropy_coef", "ptx_batch_size"):
            require(self, getattr(self, name) >= 0, "must be 0 or more", name)
        divides = self.num_prompts * self.samples % self.num_minibatches == 0
        require(self, divides, "responses must divide into minibatches", "num_minibatches")
        known = ("gae", "mean", "leave_one_out")
        require(self, self.advantage in known, f"must be one of {', '.join(known)}", "advantage")
        grouped = self.advantage != "leave_one_out" or self.samples > 1
        require(self, grouped, "a group needs 2 responses or more", "advantage", "samples")
        require_finite(self)


class RLHFState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: typed PRNG key.
        learner: the policy's parameters, with the critic's where they share a trunk, and optimiser state.
        critic: a critic's of its own; None where there is none.
        kl_coef: beta as it is by now.
    """

    key: Key
    learner: Learner
    critic: Learner | None
    kl_coef: jax.Array


class RLHFBatch(NamedTuple):
    """What the losses take, rows of responses, all but the first `[B, T]`.

    Attributes:
        sequences: `[B]`.
        old_log_prob: nats, by the policy that drew them.
        advantage: of each token.
        target: what the critic should have said before each token.
        old_value: what it said.
        weight: of each token's loss: those of a minibatch make the mean over its tokens.
    """

    sequences: Sequences
    old_log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array
    old_value: jax.Array
    weight: jax.Array


def actor_loss(
    logits: jax.Array,
    ref_logits: jax.Array | None,
    batch: RLHFBatch,
    temperature: float,
    clip: float,
    entropy_coef: float,
    kl_coef: float | jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Clipped surrogate, entropy and, where it is exact, the KL: means over tokens, as the weights have it.

    Args:
        logits: `[B, T, V]` of the policy that learns.
        ref_logits: `[B, T, V]` of the reference, for the exact KL; else None.
        batch: rows.
        temperature: at which responses were drawn.
        clip: half width of the ratio's range.
        entropy_coef: weight of the entropy.
        kl_coef: beta.
    """
    log_prob = token_log_probs(logits, batch.sequences, temperature)
    loss = clipped_surrogate(log_prob, batch.old_log_prob, batch.advantage, clip)
    entropy = Categorical(logits / temperature).entropy()
    loss -= entropy_coef * entropy
    if ref_logits is not None:
        loss += kl_coef * exact_kl(logits / temperature, ref_logits / temperature)
    outside = jnp.abs(jnp.exp(log_prob - batch.old_log_prob) - 1.0) > clip
    measured = {
        "entropy": entropy,
        "approx_kl": k3(batch.old_log_prob, log_prob),
        "clip_fraction": outside.astype(jnp.float32),
    }
    return weighted_mean(loss, batch.weight), {name: weighted_mean(x, batch.weight) for name, x in measured.items()}


def critic_loss(value: jax.Array, batch: RLHFBatch, value_clip: float | None) -> jax.Array:
    """Half squared error of values `[B, T]` that move no further than `value_clip`: the mean over tokens."""
    clip = jnp.inf if value_clip is None else value_clip
    return weighted_mean(clipped_value_loss(value, batch.old_value, batch.target, clip), batch.weight)


def check_parts(config: RLHFConfig, model: Any, critic: Any, ptx: Sequences | None) -> None:
    """Raise a ValueError where what `rlhf` is given does not fit its config."""
    if config.advantage == "gae" and critic is None and getattr(model, "head", "both") != "both":
        raise ValueError('rlhf: GAE needs a critic: give one, or a model with head="both", or another advantage')
    if critic is not None and config.advantage != "gae":
        raise ValueError(f"rlhf: advantage={config.advantage!r} needs no critic")
    if ptx is None and not isinstance(config.ptx_coef, jax.Array) and config.ptx_coef:
        raise ValueError(f"rlhf: ptx_coef={config.ptx_coef} needs text: give ptx")


def judge(
    state: RLHFState,
    generated: Generated,
    model: Any,
    critic: Any,
    ref_params: PyTree,
    sampling: Sampling,
    config: RLHFConfig,
) -> tuple[RLHFBatch, Metrics]:
    """From judged responses to rows of the losses: KL penalties, rewards of tokens, values, advantages, targets."""
    sequences, log_prob, score = generated
    temperature, length = sampling.temperature, sequences.response_length
    ref_logits = response_logits(model, ref_params, sequences)
    ref_log_prob = token_log_probs(ref_logits, sequences, temperature)
    if config.kl_form == "exact":
        logits = response_logits(model, state.learner.params, sequences)
        penalty = jnp.where(sequences.mask, exact_kl(logits / temperature, ref_logits / temperature), 0.0)
    else:
        penalty = kl_reward(config.kl_form, log_prob, ref_log_prob)
    ended = sequences.ended(sampling.end)
    score = shape_scores(score, ended, config.missing_end_penalty, config.score_clip, config.whiten_score)
    received = token_rewards(score, penalty, length, state.kl_coef)
    if state.critic is not None:
        value = response_values(critic, state.critic.params, sequences)
    elif config.advantage == "gae":
        value = response_values(model, state.learner.params, sequences)
    else:
        value = jnp.zeros_like(log_prob)
    how = (config.advantage, config.discount, config.trace, config.samples, config.whiten)
    advantage, target = token_advantages(received, value, length, *how)
    batch = RLHFBatch(sequences, log_prob, advantage, target, value, jnp.zeros_like(value))
    kl = jnp.mean(jnp.sum(log_prob - ref_log_prob, axis=1))
    explained = explained_variance(value * sequences.mask, target)
    return batch, {"kl": kl, "kl_coef": state.kl_coef, "explained_variance": explained}


def policy_loss(
    params: PyTree,
    model: Any,
    ref_params: PyTree,
    temperature: float,
    config: RLHFConfig,
    shared: bool,
    text: Sequences | None,
    kl_coef: jax.Array,
    batch: RLHFBatch,
) -> tuple[jax.Array, Metrics]:
    """All that moves the policy's parameters: the actor's loss, the critic's where it shares them, that of text."""
    features: Any = model.apply(params, rows(batch.sequences), method="features")
    features = at_response(features, batch.sequences)
    logits: Any = model.apply(params, features, method="logits")
    ref_logits = response_logits(model, ref_params, batch.sequences) if config.kl_form == "exact" else None
    loss, metrics = actor_loss(logits, ref_logits, batch, temperature, config.clip, config.entropy_coef, kl_coef)
    if shared:
        value: Any = model.apply(params, features, method="score")
        metrics["value_loss"] = critic_loss(value, batch, config.value_clip)
        loss += config.value_coef * metrics["value_loss"]
    if text is not None:
        metrics["ptx_loss"] = ptx_loss(params, model, text)
        loss += config.ptx_coef * metrics["ptx_loss"]
    return loss, metrics


def rlhf(
    model: Any,
    prompts: Prompts,
    reward: Callable[[Sequences], Any],
    optimizer: optax.GradientTransformation,
    sampling: Sampling,
    config: RLHFConfig = RLHFConfig(),
    params: PyTree | None = None,
    critic: Any = None,
    critic_params: PyTree | None = None,
    ptx: Sequences | None = None,
) -> Algorithm:
    """Make the algorithm.

    Args:
        model: a transformer with logits, or with "both": then the critic shares its trunk.
        prompts: what is drawn from.
        reward: `(sequences) -> [B]`, a JAX function, or one on the host (see `generate_and_learn`).
        optimizer: optax's; actor and critic each have its state.
        sampling: how responses are drawn.
        config: the settings. A KL penalty whose gradient is not the reverse KL's warns.
        params: where learning begins, and the reference; None: the reference is a policy drawn with key 0.
        critic: a transformer with a score, of a trunk of its own; None where `model` has both, or none is needed.
        critic_params: where it begins, whole or in part: those of the reward model, or its trunk alone.
        ptx: pretraining text, for `ptx_coef`.

    Raises:
        ValueError: GAE without a critic, a critic without GAE, or `ptx_coef` without `ptx`.
    """
    check_kl(config.kl_form, "both" if config.kl_form == "exact" else "reward")
    check_parts(config, model, critic, ptx)
    ref_params = start_params(model, jax.random.key(0), params)

    shared = config.advantage == "gae" and critic is None
    settings = (model, ref_params, sampling.temperature, config, shared)

    def init(key: Key) -> RLHFState:
        key, params_key, critic_key = jax.random.split(key, 3)
        learner = init_learner(start_params(model, params_key, params), optimizer)
        own = None if critic is None else init_learner(start_params(critic, critic_key, critic_params), optimizer)
        return RLHFState(key, learner, own, jnp.float32(config.kl_coef))

    def value_loss(params: PyTree, batch: RLHFBatch) -> tuple[jax.Array, Metrics]:
        return critic_loss(response_values(critic, params, batch.sequences), batch, config.value_clip), {}

    def learn(state: RLHFState, generated: Generated, key: Key) -> tuple[RLHFState, Metrics]:
        order_key, text_key = jax.random.split(key)
        batch, measured = judge(state, generated, model, critic, ref_params, sampling, config)
        order = minibatches(order_key, len(generated.score), config.num_epochs, config.num_minibatches)

        def one(carry: tuple[Learner, Learner | None], x: tuple[jax.Array, Key]) -> tuple[tuple, Metrics]:
            (learner, own), (index, key) = carry, x
            minibatch = jax.tree.map(lambda x: x[index], batch)
            count, size = index.shape[0], minibatch.sequences.size
            minibatch = minibatch._replace(weight=count * token_weights(minibatch.sequences.mask, "token"))
            text = None if ptx is None else draw_rows(key, ptx, config.ptx_batch_size or count)
            learner, metrics = gradient_step(
                policy_loss,
                optimizer,
                learner,
                *settings,
                text,
                state.kl_coef,
                rows=minibatch,
                row_size=size if text is None else 1,  # all at once: blocks would each read the whole text
            )
            if own is not None:
                own, found = gradient_step(value_loss, optimizer, own, rows=minibatch, row_size=size)
                metrics |= {"value_loss": found["loss"]}
            return (learner, own), metrics

        text_keys = jax.random.split(text_key, order.shape[0])
        (learner, judged), metrics = jax.lax.scan(one, (state.learner, state.critic), (order, text_keys))
        kl_coef = state.kl_coef
        if config.kl_target is not None:
            kl_coef = adaptive_kl(kl_coef, measured["kl"], config.kl_target, config.kl_horizon, len(generated.score))
        state = state._replace(learner=learner, critic=judged, kl_coef=kl_coef)
        return state, jax.tree.map(jnp.mean, metrics) | measured

    return generate_and_learn(
        init,
        lambda state: state.learner.params,
        model,
        prompts,
        reward,
        learn,
        sampling,
        config.num_prompts,
        config.samples,
    )
