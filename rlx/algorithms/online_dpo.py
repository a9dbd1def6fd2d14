"""Online Direct Preference Optimization: the policy's own responses are judged as they are drawn.

Guo et al. 2024, arXiv 2402.04792. Axes: N prompts of the data, B of a batch, G samples of one prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.core.epochs import Epochs, next_rows, start_epochs
from rlx.core.learn import gradient_step, init_learner
from rlx.lm.data import Comparisons
from rlx.lm.pairs import DPO, preference_loss
from rlx.lm.sequences import (
    Prompts,
    Sampling,
    Sequences,
    complete,
    response_logits,
    sample,
    sampled_sequences,
    token_log_probs,
)
from rlx.ops.preferences import PairLoss
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class OnlineDPOConfig:
    """Settings of online Direct Preference Optimization; a step samples, judges and takes one gradient step."""

    batch_size: int = 64  # B, prompts a step; each prompt once an epoch
    group_size: int = 2  # G, responses drawn to each prompt, 2 or more; the best and the worst make the pair
    beta: float = 0.1  # strength of the KL penalty that the optimum has, reward a nat; 0.05 to 0.5 is usual
    label_noise: float = 0.0  # units of reward: the better wins with probability sigmoid(difference / noise); 0: always

    def __post_init__(self) -> None:
        require_counts(self, "batch_size", "group_size")
        require(self, self.group_size >= 2, "a pair takes 2 or more", "group_size")
        require_positive(self, "beta")
        require(self, self.label_noise >= 0, "must be 0 or more", "label_noise")
        require_finite(self)


class OnlineDPOState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: typed PRNG key.
        learner: the policy's parameters and optimiser state.
        epochs: which prompts come next.
    """

    key: Key
    learner: Learner
    epochs: Epochs


def best_and_worst(sequences: Sequences, reward: jax.Array) -> tuple[Comparisons, jax.Array]:
    """Of the responses to each prompt the one of most and the one of least reward.

    Args:
        sequences: `[B * G]`, those of one prompt in a row.
        reward: `[B, G]`.

    Returns:
        B pairs, a tie where all rewards of a prompt are equal, and the places of both sides among the sequences,
        `[2, B]`.
    """
    first = jnp.arange(reward.shape[0]) * reward.shape[1]
    places = jnp.stack([first + jnp.argmax(reward, axis=1), first + jnp.argmin(reward, axis=1)])
    chosen, rejected = (jax.tree.map(lambda x, rows=rows: x[rows], sequences) for rows in places)
    gap = jnp.max(reward, axis=1) - jnp.min(reward, axis=1)
    return Comparisons(chosen, rejected, gap, gap == 0.0), places


def online_dpo(
    model: Any,
    prompts: Prompts,
    reward: Callable[[Sequences], jax.Array],
    optimizer: optax.GradientTransformation,
    sampling: Sampling,
    config: OnlineDPOConfig,
    params: PyTree,
    loss: PairLoss = DPO,
) -> Algorithm:
    """Make the algorithm: draw responses, let the reward choose between two of each prompt, take one step.

    With `label_noise` the loss is its expectation over labels drawn by Bradley and Terry's model, so nothing is drawn,
    and the optimum is known: `pi_ref exp(r / (beta noise)) / Z`. Without, the better response always wins; then no
    margin is enough for DPO's loss, whatever beta (IPO's has one).

    Metrics: those of `rlx.dpo`, `kl` (nats a response, an unbiased estimate of KL(pi || ref) before the step), and
    `tie`, the share of prompts whose responses have equal rewards and so teach nothing. An episode is a response.

    Args:
        model: a transformer with logits.
        prompts: `[N]` of them.
        reward: a JAX function of sequences `[B * G]`, to `[B * G]` rewards.
        optimizer: optax's.
        sampling: how responses are drawn; log-probabilities are at its temperature.
        config: the settings.
        params: where to begin, and the reference.
        loss: of a pair's log-ratios, `(chosen, rejected, beta) -> loss` per pair; see `rlx.dpo`.
    """
    prompts = jax.tree.map(jnp.asarray, prompts)

    def init(key: Key) -> OnlineDPOState:
        key, epoch_key = jax.random.split(key)
        learner = init_learner(jax.tree.map(jnp.copy, params), optimizer)
        return OnlineDPOState(key, learner, start_epochs(epoch_key, prompts.length.shape[0]))

    def step(state: OnlineDPOState) -> tuple[OnlineDPOState, Metrics]:
        key, epoch_key, sample_key = jax.random.split(state.key, 3)
        epochs, rows = next_rows(epoch_key, state.epochs, config.batch_size)
        batch = Prompts(prompts.tokens[rows], prompts.length[rows])
        samples = sample(model, state.learner.params, sample_key, batch, sampling, config.group_size)
        sequences = sampled_sequences(batch, samples)
        rewards = reward(sequences).astype(jnp.float32)
        logits = response_logits(model, params, sequences)
        reference = jnp.sum(token_log_probs(logits, sequences, sampling.temperature), axis=-1)  # [B * G]
        pairs, places = best_and_worst(sequences, rewards.reshape(config.batch_size, config.group_size))
        wrong = jax.nn.sigmoid(-pairs.margin / jnp.maximum(config.label_noise, 1e-9))  # 0 without noise

        def objective(params: PyTree) -> tuple[jax.Array, Metrics]:
            of_pairs = model, pairs, (reference[places[0]], reference[places[1]]), loss, config.beta
            return preference_loss(params, *of_pairs, wrong, temperature=sampling.temperature)

        learner, metrics = gradient_step(objective, optimizer, state.learner)
        metrics |= {
            "episodes": jnp.float32(rewards.size),
            "episode_return": jnp.mean(rewards),
            "kl": jnp.mean(jnp.sum(samples.log_prob, axis=-1).ravel() - reference),
            "tie": jnp.mean(pairs.tie.astype(jnp.float32)),
        }
        return OnlineDPOState(key, learner, epochs), metrics

    def act(state: OnlineDPOState, key: Key | None, prompts: Prompts) -> jax.Array:
        return complete(model, state.learner.params, key, prompts, sampling)

    return Algorithm(init, step, act)
