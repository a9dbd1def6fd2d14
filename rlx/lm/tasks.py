"""Synthetic tasks by name: small languages whose gold reward is a program, made on the fly from a key.

A prompt is `begin`, some symbols and "="; the one perfect answer follows from it, and ends with `end`. The teacher
knows it and slips, so that imitating the teacher teaches the language, and leaves something for the reward to improve.
All functions are JAX's: jit them with `num` static, vmap them over keys. Axes: N rows, B sequences, P prompt, T
response tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_lowercase
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from rlx.lm.answers import Rows, exact_match, prefer, said, slip, token_accuracy, widen
from rlx.lm.data import Comparisons
from rlx.lm.sequences import Sequences
from rlx.lm.tokenizer import CharacterTokenizer
from rlx.types import Key


class Compare(Protocol):
    """The type of `Task.comparisons`."""

    def __call__(self, key: Key, num: int, scale: float | None = None) -> Comparisons:
        """Two answers of the teacher to each of `num` prompts, one of them preferred."""
        ...


class Task(NamedTuple):
    """A language to learn, with its gold reward.

    Attributes:
        tokenizer: one id a symbol; its `vocabulary`, `begin` and `end` are the task's.
        max_prompt: P of its prompts.
        max_response: T that any answer of the teacher fits into, one wrong token too many and `end` included.
        prompts: `(key, num) -> (prompt [N, P], prompt_length [N])`.
        answer: `(prompt, prompt_length) -> (response [N, T], response_length [N])`, perfect.
        reward: `(sequences) -> [B]` float32, 0 to 1; 1 for the perfect answer alone. Padding is never looked at.
        demonstrations: `(key, num) -> Sequences`, prompts answered by the teacher.
        comparisons: `(key, num, scale=None) -> Comparisons`, two answers of the teacher to each prompt. None: the one
            of the higher reward is chosen, and equal rewards tie. A number: the first is chosen with probability
            `sigmoid(scale * (its reward - the other's))` (Bradley and Terry 1952), and nothing ties. Margins are 0.
    """

    tokenizer: CharacterTokenizer
    max_prompt: int
    max_response: int
    prompts: Callable[[Key, int], Rows]
    answer: Callable[[jax.Array, jax.Array], Rows]
    reward: Callable[[Sequences], jax.Array]
    demonstrations: Callable[[Key, int], Sequences]
    comparisons: Compare


def copy(longest: int = 8, letters: int = 8, noise: float = 0.2) -> Task:
    """Say again what the prompt said: "cab=" is answered "cab". The reward is `token_accuracy`.

    The teacher's mean reward is 0.79 at the default noise, and 0.37 of its answers are perfect.

    Args:
        longest: letters of a prompt at most; each number from 1 up is as likely.
        letters: of the alphabet, 2 to 26.
        noise: how often the teacher slips, 0 to 1; see `slip`.
    """

    def answer(prompt: jax.Array, prompt_length: jax.Array) -> Rows:
        return said(prompt[:, 1:], prompt_length - 2, alphabet.end)

    alphabet, prompts = words(longest, letters)
    return make_task(alphabet, longest + 2, longest + 2, prompts, answer, token_accuracy, letters, noise)


def sort(longest: int = 8, letters: int = 8, noise: float = 0.2) -> Task:
    """Say the prompt's letters in order: "cab=" is answered "abc". The reward is `token_accuracy`.

    The teacher's mean reward is 0.79 at the default noise, and 0.37 of its answers are perfect.

    Args:
        longest: letters of a prompt at most; each number from 1 up is as likely.
        letters: of the alphabet, 2 to 26.
        noise: how often the teacher slips, 0 to 1; see `slip`.
    """

    def answer(prompt: jax.Array, prompt_length: jax.Array) -> Rows:
        length = prompt_length - 2
        inside = jnp.arange(prompt.shape[1] - 1) < length[:, None]
        ordered = jnp.sort(jnp.where(inside, prompt[:, 1:], alphabet.vocabulary), axis=1)
        return said(ordered, length, alphabet.end)

    alphabet, prompts = words(longest, letters)
    return make_task(alphabet, longest + 2, longest + 2, prompts, answer, token_accuracy, letters, noise)


def add(digits: int = 1, noise: float = 0.2) -> Task:
    """Add two numbers: "7+8=" is answered "15". The reward is `exact_match`: 1 for the sum, else 0.

    The teacher's mean reward is 0.6 at the default noise and one digit, 0.49 with two.

    Args:
        digits: of each number at most, 1 to 8; each number of so many is as likely.
        noise: how often the teacher slips, 0 to 1; see `slip`.
    """

    def prompts(key: Key, num: int) -> Rows:
        first, second = jnp.moveaxis(jax.random.randint(key, (num, 2), 0, 10**digits), 1, 0)
        return sum_prompt(alphabet, digits, first, second)

    def answer(prompt: jax.Array, prompt_length: jax.Array) -> Rows:
        position = jnp.arange(prompt.shape[1])
        plus = jnp.argmax(prompt == alphabet.encode("+")[0], axis=1)
        first = number(prompt, (position > 0) & (position < plus[:, None]))
        second = number(prompt, (position > plus[:, None]) & (position < prompt_length[:, None] - 1))
        return said(*decimal(first + second, digits + 1), alphabet.end)

    if not 1 <= digits <= 8:
        raise ValueError(f"digits={digits} must be 1 to 8")
    alphabet = CharacterTokenizer("0123456789+=")
    return make_task(alphabet, 2 * digits + 3, digits + 3, prompts, answer, exact_match, 10, noise)


TASKS: dict[str, Callable[..., Task]] = {"copy": copy, "sort": sort, "add": add}


def make_task(
    tokenizer: CharacterTokenizer,
    max_prompt: int,
    max_response: int,
    prompts: Callable[[Key, int], Rows],
    answer: Callable[[jax.Array, jax.Array], Rows],
    score: Callable[[Rows, Rows], jax.Array],
    symbols: int,
    noise: float,
) -> Task:
    """Put a task together from its prompts, its perfect answer and how an answer is scored against that.

    Args:
        tokenizer: the alphabet.
        max_prompt: P.
        max_response: T, with room for one symbol too many and `end`.
        prompts: as in `Task`.
        answer: as in `Task`, of any width.
        score: `(response and length, perfect one and length) -> [N]`, as `token_accuracy` or `exact_match`.
        symbols: the teacher's slips are of the ids 0 to symbols - 1.
        noise: as in `slip`.
    """
    if not isinstance(noise, Tracer) and not 0 <= noise <= 1:
        raise ValueError(f"noise={noise} must be from 0 to 1")

    def fitted(prompt: jax.Array, prompt_length: jax.Array) -> Rows:
        response, length = answer(prompt, prompt_length)
        return widen(response, max_response), length

    def reward(sequences: Sequences) -> jax.Array:
        perfect = fitted(sequences.prompt, sequences.prompt_length)
        return score((sequences.response, sequences.response_length), perfect)

    def teach(key: Key, prompt: Rows) -> Sequences:
        return Sequences(*prompt, *slip(key, *fitted(*prompt), noise, symbols, tokenizer.end))

    def demonstrations(key: Key, num: int) -> Sequences:
        prompt_key, teacher_key = jax.random.split(key)
        return teach(teacher_key, prompts(prompt_key, num))

    def comparisons(key: Key, num: int, scale: float | None = None) -> Comparisons:
        prompt_key, teacher_key, label_key = jax.random.split(key, 3)
        prompt = prompts(prompt_key, num)
        both = teach(teacher_key, jax.tree.map(lambda x: jnp.concatenate([x, x]), prompt))
        first, second = (jax.tree.map(lambda x, half=half: x[half], both) for half in (slice(num), slice(num, None)))
        return prefer(label_key, first, second, reward, scale)

    return Task(tokenizer, max_prompt, max_response, prompts, fitted, reward, demonstrations, comparisons)


def words(longest: int, letters: int) -> tuple[CharacterTokenizer, Callable[[Key, int], Rows]]:
    """An alphabet with "=", and prompts that are random words of it."""
    if longest < 1:
        raise ValueError(f"longest={longest} must be 1 or more")
    if not 2 <= letters <= 26:
        raise ValueError(f"letters={letters} must be 2 to 26")
    alphabet = CharacterTokenizer(ascii_lowercase[:letters] + "=")

    def prompts(key: Key, num: int) -> Rows:
        draw = jax.random.uniform(key, (num, longest + 3))
        length = 1 + jnp.floor(draw[:, :1] * longest).astype(jnp.int32)
        letter = jnp.floor(draw[:, 1:] * letters).astype(jnp.int32)
        position = jnp.arange(longest + 2)
        parts = {alphabet.begin: position == 0, alphabet.encode("=")[0]: position == length + 1}
        prompt = jnp.where(position <= length, letter, 0)
        for token, here in parts.items():
            prompt = jnp.where(here, token, prompt)
        return prompt, length[:, 0] + 2

    return alphabet, prompts


def sum_prompt(alphabet: CharacterTokenizer, digits: int, first: jax.Array, second: jax.Array) -> Rows:
    """`begin`, the first number `[N]`, "+", the second one, "="."""
    (first, m), (second, n) = decimal(first, digits), decimal(second, digits)
    position, m, n = jnp.arange(2 * digits + 3)[None], m[:, None], n[:, None]
    plus, equals = alphabet.encode("+=")
    prompt = jnp.select(
        [position == 0, position <= m, position == m + 1, position <= m + n + 1, position == m + n + 2],
        [
            jnp.int32(alphabet.begin),
            jnp.take_along_axis(first, position - 1, 1, mode="clip"),
            jnp.int32(plus),
            jnp.take_along_axis(second, position - m - 2, 1, mode="clip"),
            jnp.int32(equals),
        ],
        0,
    )
    return prompt, (m + n + 3)[:, 0]


def decimal(value: jax.Array, width: int) -> Rows:
    """Numbers `[N]` as digits from the left, `[N, width + 1]`, and how many each has."""
    place = 10 ** jnp.arange(width - 1, -1, -1)
    length = jnp.maximum(jnp.sum(value[:, None] >= place, axis=1), 1)
    index = jnp.arange(width + 1) + width - length[:, None]  # leading zeros are left out
    return jnp.take_along_axis(value[:, None] // place % 10, index, 1, mode="clip"), length


def number(tokens: jax.Array, inside: jax.Array) -> jax.Array:
    """The number that the digits inside a span of each row `[N, P]` spell."""
    after = jnp.sum(inside, axis=1, keepdims=True) - jnp.cumsum(inside, axis=1)  # digits to the right of each
    return jnp.sum(jnp.where(inside, tokens * 10**after, 0), axis=1)
