"""Answers to a task's prompts as rows of tokens: said, scored against the perfect ones, spoilt, preferred. N rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from rlx.lm.data import Comparisons
from rlx.lm.sequences import Sequences
from rlx.types import Key

Rows = tuple[jax.Array, jax.Array]  # tokens [N, ...] int32, padded on the right, and their lengths [N]


def token_accuracy(response: Rows, perfect: Rows) -> jax.Array:
    """The share of right tokens: `matches / max(length, perfect length)`, `end` counted like any other.

    A token matches where the perfect answer has the same one at the same place. An answer without `end`, too short or
    too long cannot reach 1.

    Args:
        response: `[N, T]` and `[N]`.
        perfect: `[N, T']` and `[N]`, 1 token or more.

    Returns:
        `[N]` float32, 0 to 1.
    """
    matches, longer = matching(response, perfect)
    return matches / longer.astype(jnp.float32)


def exact_match(response: Rows, perfect: Rows) -> jax.Array:
    """1 where the answer is perfect, `end` included, else 0; arguments as of `token_accuracy`."""
    matches, longer = matching(response, perfect)
    return (matches == longer).astype(jnp.float32)


def matching(response: Rows, perfect: Rows) -> tuple[jax.Array, jax.Array]:
    """How many tokens are right, and how many there are in the longer one of two answers; `[N]` each."""
    width = max(response[0].shape[1], perfect[0].shape[1])
    position, shorter = jnp.arange(width), jnp.minimum(response[1], perfect[1])
    same = widen(response[0], width) == widen(perfect[0], width)
    return jnp.sum(same & (position < shorter[:, None]), axis=1), jnp.maximum(response[1], perfect[1])


def slip(key: Key, response: jax.Array, length: jax.Array, noise: float, symbols: int, end: int) -> Rows:
    """What a teacher says who means the perfect answer.

    Each symbol becomes a random one (the right one among them) with probability `noise`; and with probability `noise`
    the answer is one symbol too short or, as often, one too long.

    Args:
        key: of the slips.
        response: `[N, T]` perfect answers, with room for one symbol more.
        length: `[N]` with `end`, 1 or more.
        noise: 0 to 1.
        symbols: random ones are 0 to symbols - 1.
        end: the id that ends an answer.
    """
    num, width = response.shape
    draw = jax.random.uniform(key, (num, 2 * width + 1))  # all at once: draws are what takes long to compile
    wrong, random, slipped = draw[:, :width] < noise, jnp.floor(draw[:, width:-1] * symbols), draw[:, -1]
    beyond = jnp.arange(width) >= length[:, None] - 1
    change = jnp.where(slipped < noise / 2, -1, jnp.where(slipped >= 1 - noise / 2, 1, 0))
    return said(jnp.where(wrong | beyond, random, response), length - 1 + change, end)


def said(symbols: jax.Array, length: jax.Array, end: int) -> Rows:
    """An answer of the first `length` symbols of each row `[N, T]`, and `end`; for which there must be room."""
    position, length = jnp.arange(symbols.shape[1]), jnp.maximum(length, 0)[:, None]
    tokens = jnp.where(position < length, symbols, jnp.where(position == length, end, 0))
    return tokens.astype(jnp.int32), length[:, 0] + 1


def widen(tokens: jax.Array, width: int) -> jax.Array:
    """`[N, T]` as `[N, max(T, width)]`, padded with 0."""
    return jnp.pad(tokens, ((0, 0), (0, max(width - tokens.shape[1], 0))))


def prefer(
    key: Key, first: Sequences, second: Sequences, reward: Callable[[Sequences], jax.Array], scale: float | None
) -> Comparisons:
    """Call one answer to each prompt the chosen one, as `Task.comparisons` says."""
    num = len(first.prompt)
    rewards = reward(jax.tree.map(lambda one, other: jnp.concatenate([one, other]), first, second))
    gap = rewards[:num] - rewards[num:]
    if scale is None:
        swap, tie = gap < 0.0, gap == 0.0
    else:
        swap = jax.random.bernoulli(key, jax.nn.sigmoid(-scale * gap))
        tie = jnp.zeros_like(swap)
    return compared(first, second, swap, tie)


def compared(first: Sequences, second: Sequences, swap: jax.Array, tie: jax.Array) -> Comparisons:
    """Comparisons `[N]` of pairs, the first of each chosen, or the second where they are swapped; margins are 0."""

    def pick(swap: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(swap[:, None] if one.ndim == 2 else swap, other, one)

    chosen = jax.tree.map(partial(pick, swap), first, second)
    rejected = jax.tree.map(partial(pick, ~swap), first, second)
    return Comparisons(chosen, rejected, jnp.zeros(tie.shape), tie)
