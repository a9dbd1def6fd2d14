"""A language small enough to list: exact probabilities, divergences, gradients and optima, to judge all else by.

Axes: V vocabulary, T tokens at most, N strings (all there are), C contexts (beginnings of strings).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlx.core.config import require
from rlx.lm.sequences import Prompts, Sequences, response_logits, token_log_probs
from rlx.types import PyTree


@dataclasses.dataclass(frozen=True)
class Language:
    """Every string of up to T tokens: those that end with `end`, and those of T tokens that have no end."""

    vocabulary: int = 4  # V, 2 to 8, the end included
    max_tokens: int = 4  # T, 1 to 6
    end: int = 0

    def __post_init__(self) -> None:
        require(self, 2 <= self.vocabulary <= 8, "must be 2 to 8", "vocabulary")
        require(self, 1 <= self.max_tokens <= 6, "must be 1 to 6", "max_tokens")
        require(self, 0 <= self.end < self.vocabulary, "must be a token of the vocabulary", "end", "vocabulary")

    @property
    def strings(self) -> Sequences:
        """All N strings, shortest first, as responses to a prompt of one token, 0."""
        letters = [token for token in range(self.vocabulary) if token != self.end]
        open_strings, strings = [()], []
        for _ in range(self.max_tokens):
            strings += [(*string, self.end) for string in open_strings]
            open_strings = [(*string, letter) for string in open_strings for letter in letters]
        strings += open_strings
        response = np.full((len(strings), self.max_tokens), self.end, np.int32)
        for row, string in zip(response, strings, strict=True):
            row[: len(string)] = string
        lengths = np.array([len(string) for string in strings], np.int32)
        prompt = jnp.zeros((len(strings), 1), jnp.int32)
        return Sequences(prompt, jnp.ones(len(strings), jnp.int32), jnp.asarray(response), jnp.asarray(lengths))

    @property
    def prompts(self) -> Prompts:
        """The one prompt there is."""
        return Prompts(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))

    def index(self, sequences: Sequences) -> jax.Array:
        """Place `[B]` of each response among the strings."""
        same = jnp.all(sequences.response[:, None] == self.strings.response, axis=-1)
        length = sequences.response_length[:, None] == self.strings.response_length
        return jnp.argmax(same & length, axis=-1)


class TabularCache(NamedTuple):
    """Where each sample is: the number of its context."""

    context: jax.Array  # [B, G] int32


class TabularModel(nn.Module):
    """A language model that is a table: logits of its own for every context. It can be any distribution over strings.

    It has a transformer's methods, for responses to a prompt of one token.

    Attributes:
        language: whose strings.
        head: "logits", or "both" with a table of scores beside it.
    """

    language: Language
    head: str = "logits"

    def setup(self) -> None:
        """Take the table `[C, V]`, at first drawn from a normal distribution, and that of scores `[C]`, at first 0."""
        size, depth = self.language.vocabulary, self.language.max_tokens
        contexts = (size**depth - 1) // (size - 1)
        self.table: jax.Array = self.param("table", nn.initializers.normal(1.0), (contexts, size))
        if self.head == "both":
            self.scores: jax.Array = self.param("scores", nn.initializers.zeros, (contexts,))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens `[B, S]` -> logits of the next one `[B, S, V]`."""
        return self.logits(self.features(tokens))

    def score(self, features: jax.Array) -> jax.Array:
        """Scores `[...]` of contexts `[...]`."""
        return self.scores[jnp.minimum(features, self.scores.shape[0] - 1)]

    def features(self, tokens: jax.Array) -> jax.Array:
        """Number `[B, S]` of the context that ends with each token: the first, a prompt, is the root, 0."""
        contexts = [jnp.zeros(tokens.shape[0], jnp.int32)]
        for token in tokens.T[1:]:
            contexts.append(self._child(contexts[-1], token))
        return jnp.stack(contexts, axis=1)

    def logits(self, features: jax.Array) -> jax.Array:
        """Logits `[..., V]` in contexts `[...]`; beyond the last token they mean nothing."""
        return self.table[jnp.minimum(features, self.table.shape[0] - 1)]

    def prefill(self, prompt: jax.Array, prompt_length: jax.Array, samples: int, tokens: int) -> tuple:
        """Begin at the root."""
        root = jnp.zeros(prompt_length.shape, jnp.int32)
        return root, TabularCache(jnp.zeros((*prompt_length.shape, samples), jnp.int32))

    def decode(self, cache: TabularCache, token: jax.Array, step: jax.Array) -> tuple[jax.Array, TabularCache]:
        """Go on by one token."""
        context = self._child(cache.context, token)
        return context, TabularCache(context)

    def _child(self, context: jax.Array, token: jax.Array) -> jax.Array:
        return jnp.minimum(context * self.language.vocabulary + token + 1, self.table.shape[0])  # no overflow


def string_log_probs(model: Any, params: PyTree, language: Language, temperature: float = 1.0) -> jax.Array:
    """Log-probability `[N]`, in nats, of every string; differentiable."""
    strings = language.strings
    logits = response_logits(model, params, strings)
    return jnp.sum(token_log_probs(logits, strings, temperature), axis=-1)


def divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) in nats, of log-probabilities `[N]`; what has no probability adds 0."""
    possible = log_p > -jnp.inf
    p, difference = jnp.exp(log_p), jnp.where(possible, log_p, 0.0) - jnp.where(possible, log_q, 0.0)
    return jnp.sum(jnp.where(possible, p * difference, 0.0))


def total_variation(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """Half the sum of the differences of two distributions' probabilities: 0 to 1."""
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)))


def optimal_policy(ref_log_prob: jax.Array, reward: jax.Array, beta: float | jax.Array) -> jax.Array:
    """Log-probabilities `[N]` of the policy that maximises `E[r] - beta KL(pi || ref)`.

        pi*(y) = ref(y) exp(r(y) / beta) / Z                 (Ziegler et al. 2019; Rafailov et al. 2023, eq. 4)

    Args:
        ref_log_prob: `[N]` of the reference.
        reward: `[N]` of each string.
        beta: nats cost that much reward; above 0.
    """
    return jax.nn.log_softmax(ref_log_prob + reward / beta)


def objective(log_prob: jax.Array, ref_log_prob: jax.Array, reward: jax.Array, beta: float | jax.Array) -> jax.Array:
    """What `optimal_policy` maximises, `E[r] - beta KL(pi || ref)`, exactly; at the optimum it is `beta log Z`."""
    return jnp.sum(jnp.exp(log_prob) * reward) - beta * divergence(log_prob, ref_log_prob)


def exact_gradient(
    model: Any, params: PyTree, language: Language, ref_log_prob: jax.Array, reward: jax.Array, beta: float
) -> PyTree:
    """Gradient of the objective over all strings: what every estimator's mean is compared with."""

    def value(params: PyTree) -> jax.Array:
        return objective(string_log_probs(model, params, language), ref_log_prob, reward, beta)

    return jax.grad(value)(params)


class Frontier(NamedTuple):
    """The most reward that any policy can have at a divergence from the reference.

    Attributes:
        kl: `[K]` nats, growing.
        reward: `[K]`.
    """

    kl: jax.Array
    reward: jax.Array

    def at(self, kl: jax.Array) -> jax.Array:
        """Reward on the frontier at these divergences; between points a line, which is never above it."""
        return jnp.interp(kl, self.kl, self.reward)


def frontier(ref_log_prob: jax.Array, reward: jax.Array, points: int = 512) -> Frontier:
    """Trace the optimal policies from the reference (beta infinite) to the best string (beta near 0)."""
    scale = jnp.std(reward) + 1e-9
    betas = scale * jnp.logspace(3, -2.5, points)

    def one(beta: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_prob = optimal_policy(ref_log_prob, reward, beta)
        return divergence(log_prob, ref_log_prob), jnp.sum(jnp.exp(log_prob) * reward)

    return Frontier(*jax.lax.map(one, betas))


def string_rewards(reward: Callable[[Sequences], jax.Array], language: Language) -> jax.Array:
    """Reward `[N]` of every string, by a function of sequences."""
    return reward(language.strings)
