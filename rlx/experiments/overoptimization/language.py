"""The language of the laboratory: a Markov chain with prompts and endings, made on the fly from a key.

Axes: N sequences, P prompt, T response, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from string import ascii_lowercase
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx.core.config import require, require_counts, require_positive
from rlx.lm.sequences import Prompts, Sampling, Sequences
from rlx.lm.tokenizer import CharacterTokenizer
from rlx.types import Key


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """What texts look like."""

    letters: int = 14  # of the alphabet, 2 to 26; beside them a token that begins texts and one that ends them
    prompt: int = 4  # P, tokens of a prompt, the one that begins it included; 2 or more
    response: int = 24  # T, tokens of a response at most, its end included
    concentration: float = 0.3  # of the Dirichlet distribution of what follows two letters: small is predictable
    ending: float = 0.05  # probability that a letter is followed by the end, on average

    def __post_init__(self) -> None:
        require_counts(self, "letters", "prompt", "response")
        require_positive(self, "concentration")
        require(self, 2 <= self.letters <= 26, "must be 2 to 26", "letters")
        require(self, self.prompt > 1, "must be 2 or more", "prompt")
        require(self, 0.0 < self.ending < 0.5, "must be above 0 and below 1/2", "ending")


class Language(NamedTuple):
    """A Markov chain of order 2 over letters.

    Attributes:
        table: `[V, V, V]` logits of the next token after two, the older one first; -inf is impossible.
        tokenizer: one id a letter, then `begin` and `end`.
        sampling: how responses are drawn.
        prompt: P.
    """

    table: jax.Array
    tokenizer: CharacterTokenizer
    sampling: Sampling
    prompt: int

    def prompts(self, key: Key, num: int) -> Prompts:
        """Draw beginnings of texts, `num` of them, none of which ends."""
        alive = self.table.at[..., self.tokenizer.end].set(-jnp.inf)
        begin = jnp.full((num, 2), self.tokenizer.begin, jnp.int32)
        tokens = jnp.concatenate([begin[:, 1:], walk(key, alive, begin, self.prompt - 1)], axis=1)
        return Prompts(tokens, jnp.full(num, self.prompt, jnp.int32))

    def continue_prompts(self, key: Key, prompts: Prompts) -> Sequences:
        """Continue prompts as the language does: what the policy is taught."""
        response = walk(key, self.table, prompts.tokens[:, -2:], self.sampling.max_tokens)
        ended = jnp.cumsum(response == self.sampling.end, axis=1) > 0
        length = jnp.minimum(jnp.sum(~ended, axis=1) + 1, self.sampling.max_tokens)
        return Sequences(*prompts, response, length.astype(jnp.int32))

    def texts(self, key: Key, num: int) -> Sequences:
        """Draw prompts and continue them."""
        prompt_key, response_key = jax.random.split(key)
        return self.continue_prompts(response_key, self.prompts(prompt_key, num))


def make_language(key: Key, config: LanguageConfig = LanguageConfig()) -> Language:
    """Draw a language: what follows each two letters from a Dirichlet distribution, how often each letter ends a text.

    Args:
        key: another key is another language.
        config: the settings.
    """
    letters_key, ending_key = jax.random.split(key)
    tokenizer = CharacterTokenizer(ascii_lowercase[: config.letters])
    size, letters = tokenizer.vocabulary, config.letters
    follows = jax.random.loggamma(letters_key, config.concentration, (size, size, letters))
    ends = config.ending * 2.0 * jax.random.uniform(ending_key, (size,))  # by the last letter
    log_alive = jax.nn.log_softmax(follows) + jnp.log1p(-ends)[None, :, None]
    table = jnp.full((size, size, size), -jnp.inf).at[..., :letters].set(log_alive)
    table = table.at[..., tokenizer.end].set(jnp.log(ends)[None, :])
    return Language(table, tokenizer, Sampling(config.response, tokenizer.end), config.prompt)


def walk(key: Key, table: jax.Array, last: jax.Array, steps: int) -> jax.Array:
    """Follow a chain `[V, V, V]` from its last two tokens `[N, 2]`: `[N, steps]` int32."""

    def one(last: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        token = jax.random.categorical(key, table[last[:, 0], last[:, 1]]).astype(jnp.int32)
        return jnp.stack([last[:, 1], token], axis=1), token

    return jax.lax.scan(one, last, jax.random.split(key, steps))[1].T
