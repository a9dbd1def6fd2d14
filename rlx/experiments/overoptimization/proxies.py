"""Proxy reward models: learned from comparisons that the gold labels, then recalibrated by one scalar.

Axes: S seeds, M members of an ensemble, N sequences or comparisons.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.algorithms.reward_model import RewardModelConfig, reward_model
from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.core.train import jit, train
from rlx.experiments.overoptimization.scorers import WindowScorer
from rlx.experiments.overoptimization.world import World
from rlx.lm.answers import compared
from rlx.lm.best_of_n import pool_scores
from rlx.lm.data import Comparisons
from rlx.lm.rewards import Normalization, Reward, member_scores, over_members
from rlx.lm.sequences import Sequences
from rlx.nets.transformer import Transformer, TransformerConfig
from rlx.ops.reward_models import check_ensemble, ensemble_score
from rlx.types import Key, PyTree

KINDS = ("window", "transformer")


@dataclasses.dataclass(frozen=True)
class ProxyConfig:
    """A reward model, and what it learns from."""

    kind: str = "window"  # "window" (sums over windows of three tokens, of any size) or "transformer"
    width: int = 16  # of it: its size
    layers: int = 1  # of a transformer
    comparisons: int = 30_000  # that it learns from, drawn anew for each seed
    epochs: int = 1  # passes over them
    flips: float = 0.0  # share of labels that are swapped
    sampled: bool = False  # labels are drawn as Bradley and Terry have it; else the response of greater gold is chosen
    members: int = 1  # M, of an ensemble
    objective: str = "mean"  # of its scores: "mean", "min", "uncertainty" (mean - amount * variance), "quantile"
    amount: float = 0.5  # of the last two
    learning_rate: float = 1e-2  # at most: up in 5 % of the steps, then down by a cosine
    batch_size: int = 32  # comparisons a gradient step

    def __post_init__(self) -> None:
        require_counts(self, "width", "layers", "comparisons", "epochs", "members", "batch_size")
        require_positive(self, "learning_rate")
        require(self, self.kind in KINDS, f"must be one of {', '.join(KINDS)}", "kind")
        require(self, 0.0 <= self.flips <= 0.5, "must be 0 to 1/2", "flips")
        require(self, self.batch_size <= self.comparisons, "must be at most the comparisons", "batch_size")
        require_finite(self)
        check_ensemble(self.objective, self.amount, 0, self.members)


class Proxy(NamedTuple):
    """Reward models of S seeds, and what makes of their scores rewards on the gold's scale.

    Attributes:
        params: `[S, M, ...]`.
        shift: `[S, M]`, each member's mean score under the first policy.
        scale: `[S, M]`, by which differences of its scores become the gold's log-odds.
        offset: `[S]`, the mean on the pool of what all members come to.
        accuracy: `[S]` on held-out comparisons, of labels that are not swapped.
        correlation: `[S]` with the gold, on responses of the first policy.
        loss: `[S]` nats a held-out comparison, recalibrated.
    """

    params: PyTree
    shift: jax.Array
    scale: jax.Array
    offset: jax.Array
    accuracy: jax.Array
    correlation: jax.Array
    loss: jax.Array


def scorer_of(world: World, config: ProxyConfig) -> Any:
    """The network of a proxy."""
    vocabulary = world.language.tokenizer.vocabulary
    if config.kind == "window":
        return WindowScorer(vocabulary, config.width)
    heads = max(1, config.width // 16)
    return Transformer(TransformerConfig(vocabulary, config.width, config.layers, heads), head="score")


def proxy_reward(world: World, config: ProxyConfig, proxy: Proxy) -> Reward:
    """Reward of one seed's proxy, whose leaves have no axis S: recalibrated, of mean 0 on the pool."""
    scorer, scale = scorer_of(world, config), Normalization(proxy.shift, 1.0 / proxy.scale)

    def reward(sequences: Sequences) -> jax.Array:
        scores = scale.apply(member_scores(scorer, proxy.params, sequences))
        return ensemble_score(scores, config.objective, config.amount) - proxy.offset

    return reward


def label(key: Key, world: World, config: ProxyConfig) -> Comparisons:
    """Draw comparisons for one seed, and which response of each is preferred; none of those held out.

    Raises:
        ValueError: the world has fewer of them.
    """
    require(config, config.comparisons <= world.config.comparisons, "the world has fewer", "comparisons")
    row_key, label_key, flip_key = jax.random.split(key, 3)
    rows = jax.random.permutation(row_key, world.config.comparisons)[: config.comparisons]
    pairs, gold = jax.tree.map(lambda x: x[rows], (world.pairs, world.pair_gold))
    difference = gold[:, 0] - gold[:, 1]
    drawn = jax.random.uniform(label_key, difference.shape) < jax.nn.sigmoid(difference)
    first = drawn if config.sampled else difference >= 0
    first ^= jax.random.uniform(flip_key, first.shape) < config.flips
    one, other = (jax.tree.map(lambda x, side=side: x[:, side], pairs) for side in (0, 1))
    return compared(one, other, ~first, jnp.zeros(config.comparisons, bool))


def recalibrate(difference: jax.Array, gold_difference: jax.Array) -> jax.Array:
    """Find the scalar that makes score differences `[N]` the best log-odds: least cross-entropy with soft labels.

        scale = argmin mean CE(sigmoid(gold difference), sigmoid(scale * difference))

    (Gao et al. 2022, arXiv 2210.10760, sec. 2.2.) It is convex in the scale; the slope's zero is found by halving.
    """
    soft = jax.nn.sigmoid(gold_difference)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = 0.5 * (ends[0] + ends[1])
        beyond = jnp.mean((jax.nn.sigmoid(jnp.exp(middle) * difference) - soft) * difference) > 0
        return jnp.where(beyond, ends[0], middle), jnp.where(beyond, middle, ends[1])

    low, high = jax.lax.fori_loop(0, 40, halve, (jnp.float32(-7.0), jnp.float32(7.0)))
    return jnp.exp(0.5 * (low + high))


def train_proxy(world: World, config: ProxyConfig, key: Key) -> Proxy:
    """Train the reward model of one seed; a JAX function."""
    label_key, train_key = jax.random.split(key)
    comparisons, scorer = label(label_key, world, config), scorer_of(world, config)
    steps = config.epochs * config.comparisons // config.batch_size
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, steps // 20, steps, 0.05 * config.learning_rate
    )
    optimizer = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.98)))
    settings = RewardModelConfig(batch_size=config.batch_size, members=config.members)
    algorithm = reward_model(scorer, comparisons, optimizer, settings)
    params = train(algorithm, train_key, steps)[0].learner.params

    held, gold = jax.tree.map(lambda x: x[-world.config.held_out :], (world.pairs, world.pair_gold))  # [N, 2]
    scores = member_scores(scorer, params, held)  # [M, N, 2]
    differences, gold_difference = scores[..., 0] - scores[..., 1], gold[:, 0] - gold[:, 1]
    scale = jax.vmap(recalibrate, in_axes=(0, None))(differences, gold_difference)
    nothing = jnp.float32(0.0)
    proxy = Proxy(params, jnp.mean(scores, axis=(1, 2)), scale, nothing, nothing, nothing, nothing)
    reward = proxy_reward(world, config, proxy)(held)
    margin = (reward[:, 0] - reward[:, 1]) * jnp.where(gold_difference >= 0, 1.0, -1.0)
    return proxy._replace(
        offset=jnp.mean(pool_scores(proxy_reward(world, config, proxy), world.pool)),
        accuracy=jnp.mean(jnp.heaviside(margin, 0.5)),
        correlation=jnp.corrcoef(reward.ravel(), gold.ravel())[0, 1],
        loss=jnp.mean(jax.nn.softplus(-margin)),
    )


def train_proxies(world: World, config: ProxyConfig, seeds: int) -> Proxy:
    """Train the reward models of all seeds, in one program."""
    keys = jax.random.split(jax.random.fold_in(world.key, 2), seeds)
    return jit(lambda keys: over_members(lambda key: train_proxy(world, config, key), keys))(keys)
