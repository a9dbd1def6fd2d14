"""Gold rewards: what is truly wanted, by which comparisons are labelled and optimisers are judged.

A gold is made by a function `(key, language, sample) -> reward`, with a sample of the first policy's responses. Axes:
N sequences, T response, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.algorithms.reward_model import RewardModelConfig, reward_model
from rlx.core.train import jit, train
from rlx.experiments.overoptimization.language import Language
from rlx.experiments.overoptimization.scorers import WindowScorer
from rlx.lm.data import load_comparisons
from rlx.lm.jsonl import Paths
from rlx.lm.rewards import Reward, member_scores, normalize_reward, score
from rlx.lm.sequences import Sequences
from rlx.nets.transformer import Transformer, TransformerConfig
from rlx.types import Key, PyTree

Gold = Callable[[Key, Language, Sequences], Reward]


class Ingredients(NamedTuple):
    """What a response has, each with mean 0 and variance 1 on the first policy's responses.

    Attributes:
        surface: `[N]` how many letters of a favoured class there are; so long responses have more. Easily learned.
        substance: `[N]` how well its letters follow one another and suit the prompt. Hard to learn.
    """

    surface: jax.Array
    substance: jax.Array


def make_ingredients(key: Key, language: Language, sample: Sequences) -> Callable[[Sequences], Ingredients]:
    """Draw which letters are favoured and what goes well with what; standardised on a sample of the first policy."""
    class_key, left_key, right_key, prompt_key = jax.random.split(key, 4)
    size, letters = language.tokenizer.vocabulary, len(language.tokenizer.characters)
    favoured = jnp.zeros(size).at[jax.random.permutation(class_key, letters)[: letters // 3 + 1]].set(1.0)
    follows = jax.random.normal(left_key, (size, 6)) @ jax.random.normal(right_key, (6, size)) / 6**0.5
    suits = jax.random.normal(prompt_key, (size, size))  # to the prompt's first letter

    def raw(sequences: Sequences) -> Ingredients:
        prompt, length, response, _ = sequences
        last = jnp.take_along_axis(prompt, length[..., None] - 1, axis=-1)
        previous = jnp.concatenate([last, response[..., :-1]], axis=-1)
        fit = follows[previous, response] + 0.5 * suits[prompt[..., 1:2], response]
        counts = sequences.mask & (response < letters)
        return Ingredients(*(jnp.sum(jnp.where(counts, x, 0.0), axis=-1) for x in (favoured[response], fit)))

    found = raw(sample)
    mean, std = jax.tree.map(jnp.mean, found), jax.tree.map(jnp.std, found)
    return lambda sequences: jax.tree.map(lambda x, m, s: (x - m) / s, raw(sequences), mean, std)


def bend(x: jax.Array, knee: float = 4.0) -> jax.Array:
    """What is far from 0: `x^2` near it, then ever more nearly `2 knee |x|`."""
    return 2.0 * knee**2 * (jnp.sqrt(1.0 + jnp.square(x / knee)) - 1.0)


def extremal(excess: float = 0.2, pretence: float = 0.34, share: float = 1.2) -> Gold:
    """Make a gold with an extremal ingredient: it turns beyond what the first policy shows.

        gold = y - excess bend(y) - pretence bend(u)
        y = (share surface + substance) / n,   u = (surface - share substance) / n,   n = sqrt(share^2 + 1)

    Surface and substance both pay, too much does not, and surface without substance is punished. Near 0, where the
    first policy is, all of it is nearly `y`: a proxy that knows of the surface alone goes along `u`.

    Args:
        excess: how much is taken off what is far out along y.
        pretence: and along u; 0 both: the gold without the extremal ingredient, a negative control.
        share: of the surface in y.
    """

    def make(key: Key, language: Language, sample: Sequences) -> Reward:
        ingredients, n = make_ingredients(key, language, sample), (share**2 + 1.0) ** 0.5

        def reward(sequences: Sequences) -> jax.Array:
            surface, substance = ingredients(sequences)
            y, u = (share * surface + substance) / n, (surface - share * substance) / n
            return y - excess * bend(y) - pretence * bend(u)

        return reward

    return make


def teacher(width: int = 64, layers: int = 2, gain: float = 3.0) -> Gold:
    """Make a gold of a transformer with random weights, larger than the proxies that learn it.

    Args:
        width: of it.
        layers: of it.
        gain: what its layers' matrices are multiplied by: the more, the less linear.
    """

    def make(key: Key, language: Language, sample: Sequences) -> Reward:
        config = TransformerConfig(language.tokenizer.vocabulary, width=width, layers=layers)
        model = Transformer(config, head="score")
        params = jax.tree.map(lambda x: gain * x if x.ndim > 2 else x, model.init(key, sample.prompt[:1]))
        return lambda sequences: score(model, params, sequences)

    return make


def learnt(model: Transformer, params: PyTree) -> Gold:
    """Make a gold of a reward model that is there already.

    Args:
        model: with a score.
        params: of one member.
    """
    return lambda key, language, sample: lambda sequences: score(model, params, sequences)


def preferred(
    paths: Paths, width: int = 32, epochs: int = 1, learning_rate: float = 1e-2, batch_size: int = 32
) -> Gold:
    """Make a gold that is learnt from a user's own comparisons: what they prefer is what is truly wanted.

    Args:
        paths: JSONL of `{"prompt", "chosen", "rejected"}`, as `rlx.lm.load_comparisons` reads it, in the language's
            letters; what is too long for the language is cut.
        width: of the reward model, a `WindowScorer`; to be larger than the proxies.
        epochs: passes over the comparisons.
        learning_rate: of Adam, by a cosine to 0.
        batch_size: comparisons a gradient step; all of them where there are fewer.

    Raises:
        rlx.lm.DataError: when it is made: a file is missing, or a line is no comparison in the language's letters.
    """

    def make(key: Key, language: Language, sample: Sequences) -> Reward:
        lengths = language.prompt, language.sampling.max_tokens
        comparisons, _ = load_comparisons(paths, language.tokenizer, *lengths, too_long="truncate")
        number = len(comparisons.tie)
        batch = min(batch_size, number)
        steps = epochs * number // batch
        optimizer = optax.flatten(optax.adam(optax.cosine_decay_schedule(learning_rate, steps)))
        model: Any = WindowScorer(language.tokenizer.vocabulary, width)
        algorithm = reward_model(model, comparisons, optimizer, RewardModelConfig(batch_size=batch))
        params = jit(lambda key: train(algorithm, key, steps)[0].learner.params)(key)
        return lambda sequences: member_scores(model, params, sequences)[0]

    return make


def normalized(reward: Reward, sample: Sequences) -> Reward:
    """Give a reward mean 0 and variance 1 on a sample of the first policy."""
    found = normalize_reward(reward, sample)
    return lambda sequences: found.apply(reward(sequences))


GOLDS: dict[str, Gold] = {"extremal": extremal(), "plain": extremal(0.0, 0.0), "teacher": teacher()}
