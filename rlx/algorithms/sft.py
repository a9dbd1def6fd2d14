"""Supervised fine-tuning: a language model learns responses by heart; of bare texts, language itself.

Axes: B sequences of a batch, T tokens of a response, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require_counts
from rlx.core.epochs import Epochs, next_rows, start_epochs
from rlx.core.learn import gradient_step, init_learner
from rlx.lm.sequences import Prompts, Sampling, Sequences, complete, response_logits, start_params, token_log_probs
from rlx.ops.sequences import token_weights, weighted_mean
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """Settings of supervised fine-tuning; a step is one gradient step."""

    batch_size: int = 64  # B, sequences a gradient step; each sequence once an epoch

    def __post_init__(self) -> None:
        require_counts(self, "batch_size")


class SFTState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: typed PRNG key.
        learner: the model's parameters and optimiser state.
        epochs: which sequences come next.
    """

    key: Key
    learner: Learner
    epochs: Epochs


def sft_loss(params: PyTree, model: Any, batch: tuple[Sequences, jax.Array]) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the responses' tokens given all before them, ends included, prompts not.

        loss = - mean_i sum_t w_it log pi(y_it | x_i, y_i,<t)

    Args:
        params: of the model.
        model: a transformer with logits.
        batch: B prompts with responses, and each token's weight `[B, T]`: B / (tokens of the batch) for their mean.

    Returns:
        Nats a token, and its metrics: `accuracy`, the share of tokens that the model finds most probable.
    """
    sequences, weight = batch
    logits = response_logits(model, params, sequences)
    loss = -weighted_mean(token_log_probs(logits, sequences), weight)
    right = jnp.argmax(logits, axis=-1) == sequences.response
    return loss, {"accuracy": weighted_mean(right.astype(jnp.float32), weight)}


def sft(
    model: Any,
    data: Sequences,
    optimizer: optax.GradientTransformation,
    sampling: Sampling,
    config: SFTConfig = SFTConfig(),
    params: PyTree | None = None,
) -> Algorithm:
    """Make the algorithm: maximum likelihood of responses, epoch by epoch.

    Args:
        model: a transformer with logits.
        data: `[N]` sequences; bare texts have a begin-of-text token as their prompt.
        optimizer: optax's.
        sampling: how `act` draws responses.
        config: the settings.
        params: where to begin, such as a pretrained model's; None: at random.
    """

    def init(key: Key) -> SFTState:
        key, params_key = jax.random.split(key)
        learner = init_learner(start_params(model, params_key, params), optimizer)
        return SFTState(key, learner, start_epochs(data.prompt.shape[0]))

    def step(state: SFTState) -> tuple[SFTState, Metrics]:
        key, epoch_key = jax.random.split(state.key)
        epochs, rows = next_rows(epoch_key, state.epochs, config.batch_size)
        batch = jax.tree.map(lambda x: x[rows], data)
        weight = config.batch_size * token_weights(batch.mask, "token")
        learner, metrics = gradient_step(
            sft_loss, optimizer, state.learner, model, rows=(batch, weight), row_size=batch.size
        )
        nothing = {"episodes": jnp.float32(0.0), "episode_return": jnp.float32(0.0)}
        return SFTState(key, learner, epochs), metrics | nothing

    def act(state: SFTState, key: Key | None, prompts: Prompts) -> jax.Array:
        return complete(model, state.learner.params, key, prompts, sampling)

    return Algorithm(init, step, act)
