"""Prompts and responses: how they lie in memory, how they are sampled, and their log-probabilities.

Lengths are explicit and padding is never looked at, so any id may pad, the end's too, and prompts may hold an end.

Axes: B sequences, P prompt, T response, S = P + T both, G samples of one prompt, V vocabulary, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.core.config import require, require_counts, require_positive
from rlx.ops.distributions import Categorical
from rlx.ops.random import gumbel, words_at, words_of
from rlx.types import Key, PyTree


class Prompts(NamedTuple):
    """What is to be continued: an observation of language.

    Attributes:
        tokens: `[..., P]` int32, padded on the right.
        length: `[...]` int32, 1 or more: a text without a prompt begins with a token that says so.
    """

    tokens: jax.Array
    length: jax.Array


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    max_tokens: int  # T, of a response, its end included
    end: int  # id of the token that ends a response, which is part of it
    temperature: float = 1.0  # logits are divided by it, in sampling and in learning from samples; above 0
    top_k: int | None = None  # draw among the k most probable tokens only
    top_p: float | None = None  # draw among the most probable that have this much together (nucleus sampling)

    def __post_init__(self) -> None:
        require_counts(self, "max_tokens")
        require_positive(self, "temperature")
        require(self, self.end >= 0, "must be 0 or more", "end")
        require(self, self.top_k is None or self.top_k > 0, "must be above 0", "top_k")
        require(self, self.top_p is None or 0.0 < self.top_p <= 1.0, "must be above 0 and at most 1", "top_p")


class Sequences(NamedTuple):
    """B prompts, each followed by a response. What lies beyond a length is padding of any id, never looked at.

    Attributes:
        prompt: `[B, P]` int32, padded on the right.
        prompt_length: `[B]` int32, 1 or more: a text without a prompt has the beginning-of-text token as its prompt.
        response: `[B, T]` int32, padded on the right.
        response_length: `[B]` int32, 0 to T; the end-of-text token, where the response ended, is counted.
    """

    prompt: jax.Array
    prompt_length: jax.Array
    response: jax.Array
    response_length: jax.Array

    @property
    def mask(self) -> jax.Array:
        """`[B, T]` bool, whether there is a token of the response, the one that ended it included."""
        return jnp.arange(self.response.shape[-1]) < self.response_length[..., None]

    @property
    def size(self) -> int:
        """P + T, places in a row."""
        return self.prompt.shape[-1] + self.response.shape[-1]

    @property
    def prompts(self) -> Prompts:
        """The prompts alone."""
        return Prompts(self.prompt, self.prompt_length)

    def ended(self, end: int) -> jax.Array:
        """`[B]` bool, whether the response's last token is `end`."""
        last = jnp.take_along_axis(self.response, jnp.maximum(self.response_length - 1, 0)[..., None], axis=-1)
        return (last[..., 0] == end) & (self.response_length > 0)


def rows(sequences: Sequences) -> jax.Array:
    """Each prompt with its response behind it, padded on the right with 0: `[B, P + T]` int32."""
    prompt, prompt_length, response, response_length = sequences
    both = prompt.shape[1] + response.shape[1]
    place = jnp.arange(both) - prompt_length[:, None]  # in the response
    index = jnp.where(place < 0, jnp.arange(both), prompt.shape[1] + place)
    tokens = jnp.take_along_axis(jnp.concatenate([prompt, response], axis=1), index, axis=1, mode="clip")
    return jnp.where(place < response_length[:, None], tokens, 0)


def at_response(features: jax.Array, sequences: Sequences) -> jax.Array:
    """From what was made of every token, `[B, P + T, ...]`, what is known before each token of the response.

    Returns:
        `[B, T, ...]`; at `t` that of the token before the response's `t`: it predicts that token, or its value.
    """
    index = sequences.prompt_length[:, None] - 1 + jnp.arange(sequences.response.shape[1])
    index = index.reshape(*index.shape, *[1] * (features.ndim - 2))
    return jnp.take_along_axis(features, index, axis=1)


def response_logits(model: Any, params: PyTree, sequences: Sequences) -> jax.Array:
    """Logits `[B, T, V]` of each token of the response, given all before it."""
    features: Any = model.apply(params, rows(sequences), method="features")
    logits: Any = model.apply(params, at_response(features, sequences), method="logits")
    return logits


def response_values(model: Any, params: PyTree, sequences: Sequences) -> jax.Array:
    """Scores `[B, T]` of what stands before each token of the response: a critic's values."""
    features: Any = model.apply(params, rows(sequences), method="features")
    values: Any = model.apply(params, at_response(features, sequences), method="score")
    return values


def start_params(model: Any, key: Key, params: PyTree | None = None) -> PyTree:
    """Parameters to begin with: copies of those that are given, whole parts of a model, and the rest at random.

    So a critic may begin with the trunk of a policy, `{"params": {"transformer": ...}}`, and a head of its own.
    """
    fresh = model.init(key, jnp.zeros((1, 1), jnp.int32))
    given = {} if params is None else params["params"]
    if unknown := sorted(set(given) - set(fresh["params"])):
        raise ValueError(
            f"parameters {', '.join(unknown)} have no place in the model, which has {', '.join(fresh['params'])}"
        )
    return {"params": jax.tree.map(jnp.copy, fresh["params"] | given)}


def token_log_probs(logits: jax.Array, sequences: Sequences, temperature: float | jax.Array = 1.0) -> jax.Array:
    """Log-probabilities `[B, T]`, in nats, of the response's tokens by `logits` `[B, T, V]`; 0 beyond its length.

    Args:
        logits: as `response_logits` gives them.
        sequences: whose response it is.
        temperature: logits are divided by it, here as in sampling.
    """
    log_prob = Categorical(logits / temperature).log_prob(sequences.response)
    return jnp.where(sequences.mask, log_prob, 0.0)


class Samples(NamedTuple):
    """What was sampled: G responses for each of B prompts.

    Attributes:
        response: `[B, G, T]` int32; beyond the length are more ends.
        response_length: `[B, G]` int32, with the token that ended it.
        log_prob: `[B, G, T]` nats, of each token at the sampling temperature, over the whole vocabulary (also where
            top-k or top-p left some of it out); 0 beyond the length.
    """

    response: jax.Array
    response_length: jax.Array
    log_prob: jax.Array


def sample(
    model: Any, params: PyTree, key: Key | None, prompts: Prompts, sampling: Sampling, samples: int = 1
) -> Samples:
    """Continue prompts token by token, until each continuation has ended or has `max_tokens`.

    Every token is read once: keys and values are kept, those of a prompt once for all its samples. It is one loop
    within the compiled program, which stops when all have ended. (Nucleus sampling: Holtzman et al. 2019, arXiv
    1904.09751.)

    Args:
        model: a transformer with logits.
        params: its parameters.
        key: a typed key, or None: the most probable token each time.
        prompts: `[B, P]` tokens and `[B]` lengths.
        sampling: how.
        samples: G, of each prompt.
    """
    shape, tokens = (*prompts.length.shape, samples), sampling.max_tokens
    features, cache = model.apply(params, *prompts, samples, tokens, method="prefill")
    words = None if key is None else words_of(key)

    def draw(step: jax.Array, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits: Any = model.apply(params, features, method="logits")  # [B, G, V]
        logits = logits / sampling.temperature
        noise = 0.0 if words is None else gumbel(words_at(words, step), logits.shape)
        token = jnp.argmax(restrict(logits, sampling.top_k, sampling.top_p) + noise, axis=-1).astype(jnp.int32)
        return token, Categorical(logits).log_prob(token)

    def going(carry: tuple) -> jax.Array:
        step, ended, *_ = carry
        return (step < tokens) & ~jnp.all(ended)

    def advance(carry: tuple) -> tuple:
        step, ended, features, cache, drawn = carry
        token, log_prob = draw(step, features)
        drawn = Samples(
            drawn.response.at[..., step].set(jnp.where(ended, sampling.end, token)),
            drawn.response_length + ~ended,
            drawn.log_prob.at[..., step].set(jnp.where(ended, 0.0, log_prob)),
        )
        features, cache = model.apply(params, cache, token, step, method="decode")
        return step + 1, ended | (token == sampling.end), features, cache, drawn

    features = jnp.broadcast_to(features[:, None], (*shape, *features.shape[1:]))
    nothing = Samples(
        jnp.full((*shape, tokens), sampling.end, jnp.int32), jnp.zeros(shape, jnp.int32), jnp.zeros((*shape, tokens))
    )
    carry = (jnp.int32(0), jnp.zeros(shape, bool), features, cache, nothing)
    return jax.lax.while_loop(going, advance, carry)[-1]


def restrict(logits: jax.Array, top_k: int | None, top_p: float | None) -> jax.Array:
    """Leave the most probable tokens alone and give the others -inf: `[..., V]`. Of equals at the edge all stay."""
    if top_k is not None and top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if top_p is not None and top_p < 1.0:
        ordered = -jnp.sort(-logits, axis=-1)
        before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return logits


def sampled_sequences(prompts: Prompts, samples: Samples) -> Sequences:
    """Every sample with its prompt, those of one prompt in a row: `[B * G]` sequences."""
    count = samples.response.shape[1]
    tokens, length = (jnp.repeat(x, count, axis=0) for x in prompts)
    return Sequences(
        tokens, length, samples.response.reshape(-1, samples.response.shape[-1]), samples.response_length.reshape(-1)
    )


def complete(model: Any, params: PyTree, key: Key | None, prompts: Prompts, sampling: Sampling) -> jax.Array:
    """One response to each prompt, as a policy's action: `[..., T]` int32; after its end come more ends.

    Args:
        model: a transformer with logits.
        params: its parameters.
        key: a typed key, or None: the most probable token each time.
        prompts: with any leading axes.
        sampling: how.
    """
    leading = prompts.length.shape
    flat = Prompts(prompts.tokens.reshape(-1, prompts.tokens.shape[-1]), prompts.length.reshape(-1))
    return sample(model, params, key, flat, sampling).response.reshape(*leading, sampling.max_tokens)
