"""Prompts and responses: how they lie in memory, how they are sampled, and their log-probabilities.

Lengths are explicit and padding is never looked at, so any id may pad, the end's too, and prompts may hold an end.

Axes: B sequences, P prompt, T response, S = P + T both, G samples of one prompt, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.nets.transformer import Transformer
from rlx.ops.distributions import Categorical
from rlx.ops.random import gumbel
from rlx.types import Key, PyTree


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


def response_logits(model: Transformer, params: PyTree, sequences: Sequences) -> jax.Array:
    """Logits `[B, T, V]` of each token of the response, given all before it."""
    features: Any = model.apply(params, rows(sequences), method="features")
    logits: Any = model.apply(params, at_response(features, sequences), method="logits")
    return logits


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
        response: `[B, G, T]` int32; what lies beyond the length is 0.
        response_length: `[B, G]` int32, with the token that ended it.
        log_prob: `[B, G, T]` nats, of each token at the sampling temperature, over the whole vocabulary (also where
            top-k or top-p left some of it out); 0 beyond the length.
    """

    response: jax.Array
    response_length: jax.Array
    log_prob: jax.Array


def sample(
    model: Transformer,
    params: PyTree,
    key: Key | None,
    prompt: jax.Array,
    prompt_length: jax.Array,
    max_tokens: int,
    end: int,
    samples: int = 1,
    temperature: float | jax.Array = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Samples:
    """Continue prompts token by token, until each continuation has ended or has `max_tokens`.

    Every token is read once: keys and values are kept, those of a prompt once for all its samples. It is one loop
    within the compiled program, which stops when all have ended.

    Args:
        model: a transformer with logits.
        params: its parameters.
        key: a typed key, or None: the most probable token each time.
        prompt: `[B, P]` int.
        prompt_length: `[B]` int, 1 or more.
        max_tokens: T.
        end: id of the token that ends a response, which is part of it.
        samples: G, of each prompt.
        temperature: logits are divided by it; above 0.
        top_k: draw among the k most probable tokens only.
        top_p: draw among the most probable tokens that together have at least this probability (nucleus sampling,
            Holtzman et al. 2019, arXiv 1904.09751).

    Raises:
        ValueError: no tokens or samples to draw, or `top_k` or `top_p` out of range.
    """
    check_sampling(max_tokens, samples, top_k, top_p)
    features, cache = model.apply(params, prompt, prompt_length, samples, max_tokens, method="prefill")
    noise_keys = None if key is None else jax.random.split(key, max_tokens)
    shape = (*prompt.shape[:1], samples)

    def draw(step: jax.Array, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits: Any = model.apply(params, features, method="logits")  # [B, G, V]
        logits = logits / temperature
        kept = restrict(logits, top_k, top_p)
        noise = 0.0 if noise_keys is None else gumbel(noise_keys[step], logits.shape)
        token = jnp.argmax(kept + noise, axis=-1).astype(jnp.int32)
        return token, Categorical(logits).log_prob(token)

    def going(carry: tuple) -> jax.Array:
        step, ended, *_ = carry
        return (step < max_tokens) & ~jnp.all(ended)

    def advance(carry: tuple) -> tuple:
        step, ended, features, cache, drawn = carry
        token, log_prob = draw(step, features)
        token, log_prob = jnp.where(ended, 0, token), jnp.where(ended, 0.0, log_prob)
        drawn = Samples(
            drawn.response.at[..., step].set(token),
            drawn.response_length + ~ended,
            drawn.log_prob.at[..., step].set(log_prob),
        )
        features, cache = model.apply(params, cache, token, step, method="decode")
        return step + 1, ended | (token == end), features, cache, drawn

    features = jnp.broadcast_to(features[:, None], (*shape, features.shape[-1]))
    nothing = Samples(
        jnp.zeros((*shape, max_tokens), jnp.int32), jnp.zeros(shape, jnp.int32), jnp.zeros((*shape, max_tokens))
    )
    carry = (jnp.int32(0), jnp.zeros(shape, bool), features, cache, nothing)
    return jax.lax.while_loop(going, advance, carry)[-1]


def check_sampling(max_tokens: int, samples: int, top_k: int | None, top_p: float | None) -> None:
    """Raise a ValueError that names what is out of range."""
    for name, count in (("max_tokens", max_tokens), ("samples", samples), ("top_k", top_k)):
        if count is not None and count < 1:
            raise ValueError(f"sample: {name}={count}: must be 1 or more")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise ValueError(f"sample: top_p={top_p}: must be above 0 and at most 1")


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


def sampled_sequences(prompt: jax.Array, prompt_length: jax.Array, samples: Samples) -> Sequences:
    """Every sample with its prompt, those of one prompt in a row: `[B * G]` sequences."""
    count = samples.response.shape[1]
    flat: Callable[[jax.Array], jax.Array] = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    repeated = jnp.repeat(prompt, count, axis=0), jnp.repeat(prompt_length, count, axis=0)
    return Sequences(*repeated, flat(samples.response), flat(samples.response_length))
