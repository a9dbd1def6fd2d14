"""Rewards of texts: scores of reward models, and rewards that are written in Python.

A reward is a function of sequences with any leading axes: `[...]` floats. One made by `reward_of` is a JAX function;
one written in Python on texts is a `TextReward`, which tells so by `host = True`.

Axes: M members of an ensemble, N sequences, D width.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.lm.sequences import Sequences, rows
from rlx.lm.tokenizer import Tokenizer
from rlx.nets.transformer import Transformer
from rlx.ops.reward_models import check_ensemble, ensemble_score
from rlx.ops.sequences import last_token
from rlx.types import PyTree

Reward = Callable[[Sequences], Any]
LARGEST = float(np.finfo(np.float32).max)


class RewardError(ValueError):
    """A reward written in Python gave something that is no reward."""


def score(model: Transformer, params: PyTree, sequences: Sequences) -> jax.Array:
    """Score of each sequence, read at its last token: the response's, or the prompt's where the response is empty.

    Args:
        model: a transformer with a score, `Transformer(config, head="score")`.
        params: its parameters.
        sequences: with any leading axes.

    Returns:
        `[...]` float32.

    Raises:
        ValueError: the model has no score, or more than one.
    """
    if model.head != "score":
        raise ValueError(f'a reward model is Transformer(config, head="score"), not head={model.head!r}')
    leading = sequences.prompt_length.shape
    flat = jax.tree.map(lambda x: x.reshape(math.prod(leading), *x.shape[len(leading) :]), sequences)
    features: Any = model.apply(params, rows(flat), method="features")  # [N, P + T, D]
    last = last_token(features, flat.prompt_length + flat.response_length)
    scores: Any = model.apply(params, last, method="read")
    return scores.reshape(leading)


def over_members(function: Callable, *args: PyTree) -> PyTree:
    """Call a function for each of M members by `vmap`; on a CPU, slow at many small products, one after the other."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda member: function(*member), args)
    return jax.vmap(function)(*args)


def member_scores(model: Transformer, params: PyTree, sequences: Sequences, batch_size: int | None = None) -> jax.Array:
    """Scores `[M, ...]` of each member of an ensemble.

    Args:
        model: a transformer with a score.
        params: `[M, ...]`, as a reward model's learner has them.
        sequences: with any leading axes.
        batch_size: how many sequences are scored at once, by all members; None: all of them. Of 100,000 sequences the
            activations do not fit into memory.
    """

    def members(sequences: Sequences) -> jax.Array:
        return over_members(lambda member: score(model, member, sequences), params)

    if batch_size is None:
        return members(sequences)
    leading = sequences.prompt_length.shape
    flat = jax.tree.map(lambda x: x.reshape(math.prod(leading), *x.shape[len(leading) :]), sequences)
    scores = jax.lax.map(members, flat, batch_size=batch_size)  # [N, M]
    return scores.T.reshape(-1, *leading)


class Normalization(NamedTuple):
    """What makes of scores such as have mean 0 and standard deviation 1: `(score - shift) / scale`.

    Attributes:
        shift: a scalar, or `[M]`, one for each member.
        scale: likewise, above 0.
    """

    shift: jax.Array | float
    scale: jax.Array | float

    def apply(self, scores: jax.Array) -> jax.Array:
        """Normalise `[M, ...]`, or `[...]` by scalars."""
        shift, scale = jnp.asarray(self.shift), jnp.asarray(self.scale)
        ones = [1] * (scores.ndim - shift.ndim)
        return (scores - shift.reshape(*shift.shape, *ones)) / scale.reshape(*scale.shape, *ones)


def normalize_reward(reward: Reward, sequences: Sequences) -> Normalization:
    """Find what gives a reward mean 0 and standard deviation 1 on samples of the policy that training starts from.

    Comparisons tell a score's differences within a prompt alone: its zero is by chance (Ziegler et al. 2019, arXiv
    1909.08593, sec. 2.1; Gao et al. 2022, arXiv 2210.10760, sec. 2.2).

    Args:
        reward: of sequences; or members' scores, `lambda s: member_scores(model, params, s)`, each then on a scale of
            its own (Christiano et al. 2017, arXiv 1706.03741, sec. 2.2.3).
        sequences: `[N]`, sampled from that policy.

    Returns:
        Scalars, or `[M]`. A reward that is the same everywhere has scale 1.
    """
    scores = jnp.asarray(reward(sequences))
    shift, scale = jnp.mean(scores, axis=-1), jnp.std(scores, axis=-1)
    return Normalization(shift, jnp.where(scale > 0.0, scale, 1.0))


def reward_of(
    model: Transformer,
    params: PyTree,
    how: str = "mean",
    amount: float | None = None,
    ddof: int = 0,
    normalization: Normalization = Normalization(0.0, 1.0),  # noqa: B008
    batch_size: int | None = None,
) -> Callable[[Sequences], jax.Array]:
    """Make a reward of a trained reward model: a JAX function that closes over its parameters.

    Args:
        model: a transformer with a score.
        params: `[M, ...]`, as a reward model's learner has them; one model is an ensemble of one.
        how: what becomes of the members' scores, as `rlx.ops.ensemble_score` has it: "mean", "min", "uncertainty" or
            "quantile".
        amount: of the last two.
        ddof: of the variance.
        normalization: of each member's scores, before they become one.
        batch_size: how many sequences are scored at once; None: all.

    Returns:
        `(sequences) -> [...]` float32.

    Raises:
        ValueError: as `rlx.ops.ensemble_score`, now and not when it is called.
    """
    check_ensemble(how, amount, ddof, len(jax.tree.leaves(params)[0]))

    def reward(sequences: Sequences) -> jax.Array:
        scores = member_scores(model, params, sequences, batch_size)
        return ensemble_score(normalization.apply(scores), how, amount, ddof)

    return reward


@dataclasses.dataclass(frozen=True)
class TextReward:
    """A reward written in Python: a function of texts, called on the host, as no part of a compiled program.

    Attributes:
        function: `(prompts, responses) -> rewards`, lists of as many texts, and a number for each.
        tokenizer: whose ids the sequences are. Its special tokens are not in the texts.
    """

    function: Callable[[list[str], list[str]], Any]
    tokenizer: Tokenizer

    host: ClassVar[bool] = True

    def __call__(self, sequences: Sequences) -> np.ndarray:
        """Rewards `[...]` float32 of sequences.

        Raises:
            RewardError: there are not as many rewards as responses, or one is no finite number.
        """
        prompts = self._texts(sequences.prompt, sequences.prompt_length)
        responses = self._texts(sequences.response, sequences.response_length)
        found = checked_rewards(self.function(prompts, responses), responses, name_of(self.function))
        return found.reshape(np.shape(sequences.prompt_length))

    def _texts(self, tokens: jax.Array, length: jax.Array) -> list[str]:
        flat = np.asarray(tokens).reshape(-1, tokens.shape[-1])
        return [self.tokenizer.decode(row[:size]) for row, size in zip(flat, np.ravel(length), strict=True)]


def name_of(function: Callable) -> str:
    """What to call a function in a message."""
    return getattr(function, "__name__", type(function).__name__)


def checked_rewards(rewards: Any, responses: list[str], name: str) -> np.ndarray:
    """Rewards of responses as `[N]` float32.

    Raises:
        RewardError: in one line, which of them is no reward, and why.
    """
    try:
        rewards = list(rewards)
    except TypeError:
        got = type(rewards).__name__
        raise RewardError(f"the reward {name} gave {got}: must be a list of {len(responses)} numbers") from None
    if len(rewards) != len(responses):
        raise RewardError(f"the reward {name} gave {len(rewards)} numbers for {len(responses)} responses: one each")
    found = np.zeros(len(rewards), np.float32)
    for index, (value, response) in enumerate(zip(rewards, responses, strict=True)):
        number = as_number(value)
        if number is None or not abs(number) <= LARGEST:
            where = f"response {index} of {len(responses)}, {shortened(response)!r}"
            raise RewardError(f"the reward {name} gave {shortened(str(value))} for {where}: must be a finite number")
        found[index] = number
    return found


def as_number(value: Any) -> float | None:
    """A number of Python's, numpy's or JAX's as a float; None for anything else."""
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    scalar = isinstance(value, np.ndarray | jax.Array) and not value.shape
    return float(value) if scalar and np.asarray(value).dtype.kind in "biuf" else None


def shortened(text: str, most: int = 40) -> str:
    """The beginning of a text."""
    return text if len(text) <= most else text[:most] + "..."
