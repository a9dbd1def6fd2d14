"""Reward models: scores of responses, learned from which of them were preferred; one, or an ensemble.

Axes: N comparisons or rankings in the data, B of them in a batch, K ranked responses, M ensemble members.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlx.core.config import require, require_counts, require_finite
from rlx.core.epochs import Epochs, next_rows, start_epochs
from rlx.core.learn import gradient_step, init_learner
from rlx.lm.data import Comparisons, Rankings
from rlx.lm.rewards import member_scores, over_members, score
from rlx.lm.sequences import Sequences
from rlx.nets.transformer import Transformer
from rlx.ops.reward_models import (
    bradley_terry_loss,
    centring_penalty,
    davidson_log_probs,
    plackett_luce_loss,
    ranking_loss,
)
from rlx.ops.sequences import length_mask, masked_mean
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree

ONE_TOKEN = np.zeros((1, 1), np.int32)  # what parameters are made for: their shapes do not depend on it
EACH, ALL = cast(jax.Array, 0), cast(jax.Array, None)
ALIKE = Epochs(
    order=EACH, position=ALL
)  # axes: members are equally far, so that orders are drawn at an epoch's end alone
LIKELIHOODS = {"pairs": ranking_loss, "plackett_luce": plackett_luce_loss}


@dataclasses.dataclass(frozen=True)
class RewardModelConfig:
    """Settings of reward models; a step is one gradient step of every member."""

    batch_size: int = 64  # B, comparisons or rankings a gradient step; each once an epoch, and one epoch is usual
    members: int = 1  # M, of the ensemble; each begins at random and reads the data in an order of its own
    bootstrap: bool = False  # each member learns from N draws of the data with replacement; it never sees 1 / e of them
    centring: float = 0.0  # weight of the penalty that keeps scores near a mean of 0; 0.01 is usual
    margin: float = 1.0  # of comparisons: what the data's margins are multiplied by; 0 leaves them out
    tie: float | None = None  # of comparisons: Davidson's nu, p(tie) / p(win) of equals; None: ties are half a win each
    ranking: str = "pairs"  # likelihood of rankings: "pairs" (the mean of all) or "plackett_luce" (choice after choice)

    def __post_init__(self) -> None:
        require_counts(self, "batch_size", "members")
        require_finite(self)
        require(self, self.centring >= 0, "must be 0 or more", "centring")
        require(self, self.margin >= 0, "must be 0 or more", "margin")
        require(self, self.tie is None or self.tie > 0, "must be above 0, or None", "tie")
        require(self, self.ranking in LIKELIHOODS, f"must be one of {', '.join(LIKELIHOODS)}", "ranking")


class RewardModelState(NamedTuple):
    """Everything that changes, and what was drawn at first.

    Attributes:
        key: typed PRNG key.
        learner: parameters and optimiser state `[M, ...]`.
        epochs: which rows of its sample each member reads next: order `[M, N]`, and the position of all.
        sample: `[M, N]` int32, rows of the data that a member learns from.
    """

    key: Key
    learner: Learner
    epochs: Epochs
    sample: jax.Array


def comparison_loss(
    params: PyTree,
    model: Transformer,
    comparisons: Comparisons,
    centring: float = 0.0,
    margin: float = 1.0,
    tie: float | None = None,
) -> tuple[jax.Array, Metrics]:
    """Minus the mean log-likelihood of comparisons: Bradley and Terry's, or with ties of their own Davidson's.

    Chosen and rejected go through the network in one pass.

    Args:
        params: of the model.
        model: a transformer with a score.
        comparisons: B of them.
        centring: weight of (r_w + r_l)^2.
        margin: what the data's margins are multiplied by.
        tie: Davidson's nu; None: a tie is half a win and half a loss.

    Returns:
        Nats a comparison, and its metrics: `accuracy`, the share of comparisons without ties whose chosen response has
        the greater score (1/2 where both have the same); `margin`, their mean r_w - r_l; `score`, the mean of all.
    """
    both = jax.tree.map(lambda *sides: jnp.stack(sides), comparisons.chosen, comparisons.rejected)
    scores = chosen, rejected = score(model, params, both)  # [2, B]
    shift = jnp.where(comparisons.tie, 0.0, margin * comparisons.margin)
    if tie is None:
        loss = bradley_terry_loss(chosen, rejected, shift, jnp.where(comparisons.tie, 0.5, 1.0))
    else:
        log_probs = davidson_log_probs(chosen - shift, rejected, jnp.log(tie))  # [B, 3]
        loss = -jnp.where(comparisons.tie, log_probs[:, 1], log_probs[:, 0])
    loss = jnp.mean(loss + centring * centring_penalty(chosen, rejected))
    return loss, order_metrics(chosen - rejected, ~comparisons.tie) | {"score": jnp.mean(jnp.stack(scores))}


def rankings_loss(
    params: PyTree, model: Transformer, rankings: Rankings, centring: float = 0.0, ranking: str = "pairs"
) -> tuple[jax.Array, Metrics]:
    """Minus the mean log-likelihood of rankings, each of which is one element of the batch.

    Args:
        params: of the model.
        model: a transformer with a score.
        rankings: B of them, of up to K responses.
        centring: weight of the mean of (r_i + r_j)^2 over a ranking's pairs.
        ranking: "pairs" or "plackett_luce".

    Returns:
        Nats (a pair, or a ranking), and its metrics: `accuracy`, `margin` and `score` of pairs as of comparisons.
    """
    mask = length_mask(rankings.count, rankings.response.shape[1])  # [B, K]
    scores = score(model, params, ranked_sequences(rankings))
    first, second = jnp.triu_indices(mask.shape[1], 1)  # of every pair, the better one first
    chosen, rejected, pair = scores[:, first], scores[:, second], mask[:, first] & mask[:, second]
    loss = LIKELIHOODS[ranking](scores, mask) + centring * masked_mean(centring_penalty(chosen, rejected), pair, axis=1)
    return jnp.mean(loss), order_metrics(chosen - rejected, pair) | {"score": masked_mean(scores, mask)}


def order_metrics(difference: jax.Array, counts: jax.Array) -> Metrics:
    """How often and by how much the better response has the greater score, among the pairs that count."""
    right = jnp.heaviside(difference, 0.5)
    return {"accuracy": masked_mean(right, counts), "margin": masked_mean(difference, counts)}


def ranked_sequences(rankings: Rankings) -> Sequences:
    """The responses of rankings as sequences `[B, K]`, each with its prompt."""
    shape = rankings.response_length.shape
    prompt = jnp.broadcast_to(rankings.prompt[:, None], (*shape, rankings.prompt.shape[-1]))
    prompt_length = jnp.broadcast_to(rankings.prompt_length[:, None], shape)
    return Sequences(prompt, prompt_length, rankings.response, rankings.response_length)


def scorer_params(model: Transformer, key: Key, params: PyTree) -> PyTree:
    """Parameters of a reward model that begins with a language model's trunk; its score begins at random.

    Args:
        model: a transformer with a score.
        key: of the score.
        params: of a language model of the same shape; its last layer, where that is free, is left out.

    Raises:
        ValueError: a parameter is missing or of another shape.
    """
    fresh = model.init(key, ONE_TOKEN)
    given = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def take(path: tuple, like: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if name == "['params']['score']":
            return like
        if name not in given or given[name].shape != like.shape:
            found = f"of shape {given[name].shape}" if name in given else "missing"
            raise ValueError(
                f"params{name} is {found}: the reward model needs {like.shape}, its config must be the same"
            )
        return jnp.array(given[name])

    return jax.tree_util.tree_map_with_path(take, fresh)


def reward_model(
    model: Transformer,
    data: Comparisons | Rankings,
    optimizer: optax.GradientTransformation,
    config: RewardModelConfig = RewardModelConfig(),
    params: PyTree | None = None,
) -> Algorithm:
    """Make the algorithm: maximum likelihood of comparisons or rankings, by every member of an ensemble.

    A member is a run of its own: it has a start, an order of batches and, on request, a sample of the data that no
    other has. Their states lie side by side, also where there is but one.

    Args:
        model: a transformer with a score, `Transformer(config, head="score")`.
        data: N comparisons or rankings.
        optimizer: optax's.
        config: the settings.
        params: of a language model, such as sft's: all members begin with its trunk, each with a score of its own (see
            `scorer_params`); None: at random.
    """
    data = jax.tree.map(jnp.asarray, data)
    num_rows = jax.tree.leaves(data)[0].shape[0]

    def loss(params: PyTree, batch: Comparisons | Rankings) -> tuple[jax.Array, Metrics]:
        if isinstance(batch, Rankings):
            return rankings_loss(params, model, batch, config.centring, config.ranking)
        return comparison_loss(params, model, batch, config.centring, config.margin, config.tie)

    def start(key: Key) -> tuple[Learner, jax.Array]:
        params_key, sample_key = jax.random.split(key)
        begin = model.init(params_key, ONE_TOKEN) if params is None else scorer_params(model, params_key, params)
        sample = jnp.arange(num_rows, dtype=jnp.int32)
        if config.bootstrap:
            sample = jax.random.choice(sample_key, sample, (num_rows,))
        return init_learner(begin, optimizer), sample

    def learn(learner: Learner, rows: jax.Array) -> tuple[Learner, Metrics]:
        return gradient_step(loss, optimizer, learner, jax.tree.map(lambda x: x[rows], data))

    def init(key: Key) -> RewardModelState:
        key, member_key = jax.random.split(key)
        learner, sample = jax.vmap(start)(jax.random.split(member_key, config.members))
        epochs = start_epochs(num_rows)
        epochs = epochs._replace(order=jnp.tile(epochs.order, (config.members, 1)))
        return RewardModelState(key, learner, epochs, sample)

    def step(state: RewardModelState) -> tuple[RewardModelState, Metrics]:
        key, epoch_key = jax.random.split(state.key)
        draw = jax.vmap(next_rows, in_axes=(0, ALIKE, None), out_axes=(ALIKE, 0))
        epochs, rows = draw(jax.random.split(epoch_key, config.members), state.epochs, config.batch_size)  # [M, B]
        learner, metrics = over_members(learn, state.learner, jnp.take_along_axis(state.sample, rows, axis=1))
        nothing = {"episodes": jnp.float32(0.0), "episode_return": jnp.float32(0.0)}
        return RewardModelState(key, learner, epochs, state.sample), jax.tree.map(jnp.mean, metrics) | nothing

    def act(state: RewardModelState, key: Key | None, sequences: Sequences) -> jax.Array:
        return jnp.mean(member_scores(model, state.learner.params, sequences), axis=0)

    return Algorithm(init, step, act)
