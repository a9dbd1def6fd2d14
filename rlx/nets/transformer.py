"""A decoder-only transformer of the Llama kind: the policy, the reward model and the critic of language.

Axes: B sequences, S tokens of a sequence, P tokens of a prompt, G samples of one prompt, T tokens of a response,
V vocabulary, D width, L layers, K heads of keys and values, R query heads that share one, H head width, F hidden width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlx.nets.mlp import parameter
from rlx.ops.random import normal

Params = dict[str, Any]


class LayerCache(NamedTuple):
    """What one layer keeps of what was read: prompts, once each, and the samples that continue them.

    Tokens are the last axis of keys: so scores are sums over the head's width that a CPU takes many tokens at a time.

    Attributes:
        params: of the layer, cut out of the stack once and not at every step.
        prompt_key: `[B, K, H, P]`.
        prompt_value: `[B, K, P, H]`.
        key: `[B G K, H, T]`; one leading axis, as a product over several would have XLA copy the cache at every step.
        value: `[B G K, T, H]`.
    """

    params: Params
    prompt_key: jax.Array
    prompt_value: jax.Array
    key: jax.Array
    value: jax.Array


class Cache(NamedTuple):
    """Keys and values of what was read.

    Attributes:
        prompt_length: `[B]`, tokens of each prompt; what lies beyond is not attended to.
        layers: L of them, apart: a step in a loop writes into each in place.
    """

    prompt_length: jax.Array
    layers: tuple[LayerCache, ...]


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of a transformer; `parameter_count` tells its size, 1e4 to 1e8 and beyond."""

    vocabulary: int  # V, token ids from 0
    width: int = 128  # D, of the residual stream
    layers: int = 4  # L
    heads: int = 4  # query heads
    kv_heads: int | None = None  # K, heads of keys and values (grouped-query attention); None: as many as query heads
    head_width: int | None = None  # H, even; None: width / heads
    hidden: int | None = None  # F, of SwiGLU; None: 8/3 of the width, to the next multiple of 16
    tied: bool = True  # the last layer is the embedding's transpose; False: one of its own
    rope_base: float = 10_000.0  # of the rotary positions; larger for longer texts
    rope_scaling: tuple[float, float, float, int] | None = None  # Llama 3.1's (factor, low, high, original length)
    norm_eps: float = 1e-6  # of RMSNorm
    qkv_bias: bool = False  # as Qwen2 has
    qk_norm: bool = False  # RMSNorm of every head's query and key, as Qwen3 has
    dtype: str = "float32"  # of products and activations, "bfloat16" on accelerators; logits and softmax are float32
    remat: bool = False  # compute a layer's activations again in the backward pass: less memory, a third more time

    def __post_init__(self) -> None:
        counts = ("vocabulary", "width", "layers", "heads", "groups", "head", "ffn")
        sizes = (self.vocabulary, self.width, self.layers, self.heads, self.groups, self.head, self.ffn)
        for name, size in zip(counts, sizes, strict=True):
            if size < 1:
                raise ValueError(f"TransformerConfig: {name}={size}: must be 1 or more")
        if self.heads % self.groups:
            raise ValueError(f"TransformerConfig: heads={self.heads}: must be a multiple of kv_heads={self.groups}")
        if self.head % 2:
            raise ValueError(f"TransformerConfig: a head of width {self.head}: must be even, as positions rotate pairs")
        if self.dtype not in ("float32", "bfloat16", "float16", "float64"):
            raise ValueError(f"TransformerConfig: dtype={self.dtype!r}: use float32 or bfloat16")

    @property
    def groups(self) -> int:
        """K."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head(self) -> int:
        """H."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def ffn(self) -> int:
        """F."""
        return -(-8 * self.width // 48) * 16 if self.hidden is None else self.hidden

    @property
    def parameter_count(self) -> int:
        """Numbers in the parameters, without a scalar head."""
        return sum(math.prod(shape) for shape, _ in jax.tree.leaves(self.shapes(), is_leaf=_is_shape))

    def shapes(self) -> Params:
        """Shape and standard deviation at first of every parameter; None: all ones, as the gains of norms."""
        c, out = self, 1.0 / math.sqrt(2 * self.layers)  # what adds to the residual stream begins smaller
        layers = {
            "attention_norm": ((c.layers, c.width), None),
            "query": ((c.layers, c.width, c.heads * c.head), c.width**-0.5),
            "key": ((c.layers, c.width, c.groups * c.head), c.width**-0.5),
            "value": ((c.layers, c.width, c.groups * c.head), c.width**-0.5),
            "attention_out": ((c.layers, c.heads * c.head, c.width), out * (c.heads * c.head) ** -0.5),
            "ffn_norm": ((c.layers, c.width), None),
            "gate": ((c.layers, c.width, c.ffn), c.width**-0.5),
            "up": ((c.layers, c.width, c.ffn), c.width**-0.5),
            "down": ((c.layers, c.ffn, c.width), out * c.ffn**-0.5),
        }
        if c.qkv_bias:
            widths = {"query": c.heads, "key": c.groups, "value": c.groups}
            layers |= {f"{name}_bias": ((c.layers, heads * c.head), 0.0) for name, heads in widths.items()}
        if c.qk_norm:
            layers |= {f"{name}_norm": ((c.layers, c.head), None) for name in ("query", "key")}
        top = {"embedding": ((c.vocabulary, c.width), c.width**-0.5), "norm": ((c.width,), None)}
        free = {} if c.tied else {"unembedding": ((c.width, c.vocabulary), c.width**-0.5)}
        return {"layers": layers} | top | free


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple)


def init_transformer(key: jax.Array, config: TransformerConfig) -> Params:
    """Parameters in float32, of one draw of random numbers."""
    leaves, structure = jax.tree.flatten(config.shapes(), is_leaf=_is_shape)
    sizes = [math.prod(shape) if std else 0 for shape, std in leaves]
    noise, start, params = normal(key, (sum(sizes),)), 0, []
    for (shape, std), size in zip(leaves, sizes, strict=True):
        if std is None:
            params.append(jnp.ones(shape))
        else:
            params.append(std * noise[start : start + size].reshape(shape) if std else jnp.zeros(shape))
        start += size
    return structure.unflatten(params)


def rms_norm(x: jax.Array, gain: jax.Array, eps: float) -> jax.Array:
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467): `x / sqrt(mean(x^2) + eps) * gain`.

    Args:
        x: `[..., D]`; the mean is taken in float32.
        gain: `[D]`.
        eps: keeps what is all zeros finite.
    """
    x32 = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (x32 * scale * gain).astype(x.dtype)


def rotation(config: TransformerConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine `[..., H / 2]` of the angles by which rotary positions turn a head's pairs.

        angle_i = position * base^(-2 i / H)                     (Su et al. 2021, arXiv 2104.09864, eq. 15)

    Args:
        config: the base, and how it was scaled for long texts.
        positions: `[...]` int, from 0.
    """
    frequency = config.rope_base ** (-jnp.arange(0, config.head, 2) / config.head)
    if config.rope_scaling is not None:  # slow turns are slowed, fast ones are not, those between are in between
        factor, low, high, length = config.rope_scaling
        turns = length * frequency / (2 * math.pi)
        share = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = frequency * (share + (1.0 - share) / factor)
    angle = positions[..., None] * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turn the pairs (x_i, x_{i + H/2}) of `[..., H]` by the angles of `cos` and `sin` `[..., H / 2]`."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def qkv(config: TransformerConfig, layer: Params, x: jax.Array, cos: jax.Array, sin: jax.Array) -> tuple:
    """Queries `[..., K, R, H]`, keys and values `[..., K, H]` of activations `[..., D]`; positions are turned in."""
    flat = rms_norm(x, layer["attention_norm"], config.norm_eps).reshape(-1, config.width)

    def project(name: str, heads: int) -> jax.Array:
        y = flat @ layer[name].astype(x.dtype)
        y = y + layer[f"{name}_bias"].astype(x.dtype) if config.qkv_bias else y
        y = y.reshape(*x.shape[:-1], heads, config.head)
        return rms_norm(y, layer[f"{name}_norm"], config.norm_eps) if config.qk_norm and name != "value" else y

    cos, sin = cos[..., None, :], sin[..., None, :]  # the same for every head
    query = rotate(project("query", config.heads), cos, sin)
    key = rotate(project("key", config.groups), cos, sin)
    return query.reshape(*x.shape[:-1], config.groups, -1, config.head), key, project("value", config.groups)


def ffn(config: TransformerConfig, layer: Params, x: jax.Array) -> jax.Array:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202, eq. 6) of activations `[..., D]`, to be added to them."""
    shape = x.shape
    x = rms_norm(x, layer["ffn_norm"], config.norm_eps).reshape(-1, shape[-1])
    gate, up, down = (layer[name].astype(x.dtype) for name in ("gate", "up", "down"))
    return ((jax.nn.silu(x @ gate) * (x @ up)) @ down).reshape(shape)


def causal_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention of each token to itself and those before: `[B, S, K, R, H]`, `[B, S, K, H]` twice -> like the query.

    Heads come first and share one axis with the sequences: products over several axes are slow on a CPU.
    """
    batch, length, groups, queries, width = query.shape
    q = jnp.transpose(query, (0, 2, 3, 1, 4)).reshape(batch * groups, queries * length, width)
    k, v = (jnp.transpose(x, (0, 2, 1, 3)).reshape(batch * groups, length, width) for x in (key, value))
    unseen = jnp.tile(jnp.triu(jnp.full((length, length), -jnp.inf), 1), (queries, 1))  # [R S, S]
    scores = jnp.einsum("nsh,nth->nst", q * width**-0.5, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + unseen, axis=-1)
    attended = jnp.einsum("nst,nth->nsh", weights.astype(v.dtype), v)
    return jnp.transpose(attended.reshape(batch, groups, queries, length, width), (0, 3, 1, 2, 4))


def cached_attention(query: jax.Array, layer: LayerCache, prompt_length: jax.Array, step: jax.Array) -> jax.Array:
    """Attention of each sample's newest token to its prompt and to its own tokens up to it.

    Args:
        query: `[B, G, K, R, H]`.
        layer: it holds the newest token too.
        prompt_length: `[B]`.
        step: t, the newest token's place in the response.

    Returns:
        `[B, G, K, R, H]`.
    """
    prompts, tokens = layer.prompt_key.shape[-1], layer.key.shape[-1]
    flat = query.reshape(-1, *query.shape[3:])  # [B G K, R, H]
    in_prompt = jnp.arange(prompts) < prompt_length[:, None]  # [B, P]
    before = jnp.einsum("bgkrh,bkhp->bgkrp", query, layer.prompt_key, preferred_element_type=jnp.float32)
    since = jnp.einsum("nrh,nht->nrt", flat, layer.key, preferred_element_type=jnp.float32)
    before = jnp.where(in_prompt[:, None, None, None], before, -jnp.inf)
    since = jnp.where(jnp.arange(tokens) <= step, since, -jnp.inf).reshape(*before.shape[:-1], tokens)
    scores = jnp.concatenate([before, since], axis=-1) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    of_prompt = jnp.einsum("bgkrp,bkph->bgkrh", weights[..., :prompts], layer.prompt_value)
    of_response = jnp.einsum("nrt,nth->nrh", weights[..., prompts:].reshape(*flat.shape[:2], tokens), layer.value)
    return of_prompt + of_response.reshape(query.shape)


def add_attention(layer: Params, x: jax.Array, attended: jax.Array) -> jax.Array:
    """Add what was attended to, `[..., K, R, H]`, to activations `[..., D]`."""
    weights = layer["attention_out"].astype(x.dtype)
    return x + (attended.reshape(-1, weights.shape[0]) @ weights).reshape(x.shape)


class Transformer(nn.Module):
    """A causal transformer over rows of tokens that begin at position 0: what follows a token never changes its output.

    So rows are padded on the right, with any id, and need no mask.

    Attributes:
        config: its shape.
        head: "logits" of the next token, a scalar "score" (a reward, a value), or "both" over one trunk.
        score_gain: size of the score's first outputs; 0 suits a value.
    """

    config: TransformerConfig
    head: str = "logits"
    score_gain: float = 1.0

    def setup(self) -> None:
        """Take the parameters, or make them."""
        if self.head not in ("logits", "score", "both"):
            raise ValueError(f"Transformer: head={self.head!r}: use logits, score or both")
        config = self.config if self.head != "score" else dataclasses.replace(self.config, tied=True)
        self.weights: Params = parameter(self, "transformer", init_transformer, config)
        if self.head != "logits":
            std = self.score_gain / math.sqrt(config.width + 1)
            self.score_kernel: jax.Array = parameter(self, "score", nn.initializers.normal(std), (config.width,))

    def __call__(self, tokens: jax.Array) -> Any:
        """Tokens `[B, S]` int -> logits `[B, S, V]`, scores `[B, S]`, or both, all float32."""
        return self.read(self.features(tokens))

    def read(self, features: jax.Array) -> Any:
        """What the heads make of features `[..., D]`: logits `[..., V]`, scores `[...]`, or both, all float32."""
        outputs = {"logits": (self.logits,), "score": (self.score,), "both": (self.logits, self.score)}[self.head]
        found = tuple(output(features) for output in outputs)
        return found if self.head == "both" else found[0]

    def logits(self, features: jax.Array) -> jax.Array:
        """Logits of the next token `[..., V]`, in float32."""
        weights = self.weights["embedding"].T if self.config.tied else self.weights["unembedding"]
        weights = weights.astype(features.dtype)
        return jnp.matmul(features, weights, preferred_element_type=jnp.promote_types(features.dtype, jnp.float32))

    def score(self, features: jax.Array) -> jax.Array:
        """Scores `[...]`, in float32."""
        return features.astype(jnp.float32) @ self.score_kernel

    def features(self, tokens: jax.Array) -> jax.Array:
        """Last activations `[B, S, D]`, normalised, of tokens `[B, S]`."""
        return self._forward(tokens, keep=False)[0]

    def prefill(self, prompt: jax.Array, prompt_length: jax.Array, samples: int, tokens: int) -> tuple:
        """Read prompts `[B, P]` of `prompt_length` `[B]`, to continue each `samples` times by up to `tokens` tokens.

        Returns:
            Features `[B, D]` of each prompt's last token, and the cache.
        """
        features, (key, value) = self._forward(prompt, keep=True)  # [L, B, P, K, H]
        last = jnp.take_along_axis(features, prompt_length[:, None, None] - 1, axis=1)[:, 0]
        batch, _, heads, width = key.shape[1:]
        empty = jnp.zeros((batch * samples * heads, width, tokens), key.dtype)
        layers = [
            LayerCache(
                jax.tree.map(lambda leaf, index=index: leaf[index], self.weights["layers"]),
                jnp.transpose(key[index], (0, 2, 3, 1)),
                jnp.transpose(value[index], (0, 2, 1, 3)),
                empty,
                jnp.swapaxes(empty, -1, -2),
            )
            for index in range(self.config.layers)
        ]
        return last, Cache(prompt_length, tuple(layers))

    def decode(self, cache: Cache, token: jax.Array, step: jax.Array) -> tuple[jax.Array, Cache]:
        """Read one more token of each sample, `token` `[B, G]`, that is the response's at place `step`.

        Returns:
            Features `[B, G, D]`, and the cache with the token in it.
        """
        c = self.config
        cos, sin = rotation(c, (cache.prompt_length + step)[:, None])
        x, layers = self._embed(token), []
        for layer in cache.layers:
            query, key, value = qkv(c, layer.params, x, cos, sin)
            keys = jax.lax.dynamic_update_slice_in_dim(layer.key, key.reshape(-1, c.head, 1), step, axis=2)
            values = jax.lax.dynamic_update_slice_in_dim(layer.value, value.reshape(-1, 1, c.head), step, axis=1)
            layers.append(layer._replace(key=keys, value=values))
            x = add_attention(layer.params, x, cached_attention(query, layers[-1], cache.prompt_length, step))
            x = x + ffn(c, layer.params, x)
        return rms_norm(x, self.weights["norm"], c.norm_eps), cache._replace(layers=tuple(layers))

    def _embed(self, tokens: jax.Array) -> jax.Array:
        return self.weights["embedding"].astype(self.config.dtype)[tokens]

    def _forward(self, tokens: jax.Array, keep: bool) -> tuple[jax.Array, Any]:
        c = self.config
        cos, sin = rotation(c, jnp.arange(tokens.shape[1]))

        def block(x: jax.Array, layer: Params) -> tuple[jax.Array, Any]:
            query, key, value = qkv(c, layer, x, cos, sin)
            x = add_attention(layer, x, causal_attention(query, key, value))
            return x + ffn(c, layer, x), (key, value) if keep else None

        body: Callable = jax.checkpoint(block) if c.remat else block
        x, kept = jax.lax.scan(body, self._embed(tokens), self.weights["layers"])
        return rms_norm(x, self.weights["norm"], c.norm_eps), kept
