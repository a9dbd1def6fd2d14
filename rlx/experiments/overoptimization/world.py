"""A world: a language, a first policy that learnt it, a gold reward, and what is drawn from the first policy once.

Axes: N responses, B prompts that everything is judged on, G responses to each.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import optax

from rlx.algorithms.sft import SFTConfig, sft
from rlx.core.config import require, require_counts, require_positive
from rlx.core.train import jit, train
from rlx.experiments.overoptimization.golds import GOLDS, Gold, normalized
from rlx.experiments.overoptimization.language import Language, LanguageConfig, make_language
from rlx.lm.best_of_n import Pool, pool, pool_scores
from rlx.lm.rewards import Reward
from rlx.lm.sequences import Prompts, Sequences
from rlx.nets.transformer import Transformer, TransformerConfig
from rlx.types import Key, PyTree


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What a world is made of."""

    seed: int = 0  # of everything in it: language, policy, gold
    gold: str = "extremal"  # which gold: extremal, plain (the same without what turns), teacher
    language: LanguageConfig = LanguageConfig()  # what texts look like
    width: int = 32  # of the policy, a transformer
    layers: int = 1  # of it
    heads: int = 2  # of it
    texts: int = 32768  # texts of the language that the policy learns
    sft_steps: int = 500  # gradient steps of it
    sft_learning_rate: float = 1e-2  # at first, by a cosine to 0
    prompts: int = 32  # B, that everything is judged on
    samples: int = 2048  # G, the pool of best-of-n: as many responses to each
    comparisons: int = 32768  # pairs of responses that reward models may learn from
    held_out: int = 2048  # more pairs: for accuracy and recalibration

    def __post_init__(self) -> None:
        names = ("width", "layers", "heads", "texts", "sft_steps", "prompts", "samples", "comparisons", "held_out")
        require_counts(self, *names)
        require_positive(self, "sft_learning_rate")
        require(self, self.gold in GOLDS, f"must be one of {', '.join(GOLDS)}", "gold")


class World(NamedTuple):
    """A world, made.

    Attributes:
        config: the settings.
        language: what texts look like.
        model: the policy's transformer, with logits and a value, `head="both"`: any optimiser can take it.
        params: of the first policy, `{"params": {"transformer": ...}}`.
        gold: the gold reward.
        pool: `[B, G]` responses of the first policy, with what is judged on as prompts.
        pool_gold: `[B, G]` their gold rewards.
        pairs: `[N, 2]` other responses of it, two to each of N prompts; the last `held_out` are never learned from.
        pair_gold: `[N, 2]` their gold rewards.
        key: of everything that happens in it.
    """

    config: WorldConfig
    language: Language
    model: Transformer
    params: PyTree
    gold: Reward
    pool: Pool
    pool_gold: jax.Array
    pairs: Sequences
    pair_gold: jax.Array
    key: Key

    @property
    def prompts(self) -> Prompts:
        """Prompts `[B]` that everything is judged on."""
        return self.pool.prompts

    def fresh_prompts(self, num: int) -> Prompts:
        """Other prompts, to learn from."""
        return self.language.prompts(jax.random.fold_in(self.key, 1), num)


def world_keys(config: WorldConfig) -> dict[str, Key]:
    """Keys of a world's parts, by name. Golds of one seed share all but the gold."""
    names = ("language", "texts", "policy", "gold", "prompts", "pool", "pairs", "rest")
    return dict(zip(names, jax.random.split(jax.random.key(config.seed), len(names)), strict=True))


def policy_model(config: WorldConfig, language: Language, head: str = "both") -> Transformer:
    """The transformer that is the policy."""
    shape = TransformerConfig(
        language.tokenizer.vocabulary, width=config.width, layers=config.layers, heads=config.heads
    )
    return Transformer(shape, head=head, score_gain=0.0)


def first_policy(config: WorldConfig) -> PyTree:
    """Parameters of the first policy: a transformer that learnt texts of the language by SFT."""
    keys = world_keys(config)
    language = make_language(keys["language"], config.language)
    rate = optax.cosine_decay_schedule(config.sft_learning_rate, config.sft_steps)
    optimizer = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)))

    @jit
    def learn() -> PyTree:
        texts = language.texts(keys["texts"], config.texts)
        model = policy_model(config, language, "logits")
        algorithm = sft(model, texts, optimizer, language.sampling, SFTConfig(batch_size=128))
        return train(algorithm, keys["policy"], config.sft_steps)[0].learner.params

    return learn()


def make_world(config: WorldConfig, params: PyTree, gold: Reward | None = None, make_gold: Gold | None = None) -> World:
    """Make a world round its first policy.

    Args:
        config: the settings.
        params: of `first_policy`, or of one's own of the same shape.
        gold: one's own reward, as it is; None: one that is made, with mean 0 and variance 1 on the pool.
        make_gold: what makes it, such as `preferred("comparisons.jsonl")`; None: what the config names.
    """
    keys = world_keys(config)
    language = make_language(keys["language"], config.language)
    model = policy_model(config, language)

    @functools.partial(jit, static_argnames="samples")
    def draw(key: Key, prompts: Prompts, samples: int) -> Pool:
        return pool(model, params, key, prompts, language.sampling, samples, at_once=8192)

    prompt_key, other_key = jax.random.split(keys["prompts"])
    number = config.comparisons + config.held_out
    judged = draw(keys["pool"], language.prompts(prompt_key, config.prompts), config.samples)
    two = draw(keys["pairs"], language.prompts(other_key, number), 2).sequences
    if gold is None:
        made = (make_gold or GOLDS[config.gold])(keys["gold"], language, two)
        gold = normalized(made, judged.sequences)
    pairs = jax.tree.map(lambda x: x.reshape(number, 2, *x.shape[1:]), two)
    of_pool, of_pairs = jit(lambda: (pool_scores(gold, judged), gold(pairs)))()
    return World(config, language, model, params, gold, judged, of_pool, pairs, of_pairs, keys["rest"])
