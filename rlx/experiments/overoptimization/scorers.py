"""A reward model smaller than a transformer: sums over windows of tokens, as few parameters as one likes.

Axes: N sequences, S tokens of a sequence, V vocabulary, W width.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlx.nets.mlp import parameter
from rlx.ops.random import normal

PLACES = 4  # the text's first letter, and the last three tokens


class WindowScorer(nn.Module):
    """A score of a text from its windows of three tokens, with its first letter beside each.

        score = v . s + MLP(s),   s = 1/10 sum_t relu(b + sum_place E_place[token])

    It has the methods of `rlx.nets.Transformer` with a score: features of a text's last token are sums over all of it.

    Attributes:
        vocabulary: V.
        width: W, from 1 up.
    """

    vocabulary: int
    width: int
    head: str = "score"

    def setup(self) -> None:
        """Take the parameters, or make them."""
        self.weights: dict[str, jax.Array] = parameter(self, "window", _init, self.vocabulary, self.width)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens `[N, S]` int -> scores `[N, S]` of the texts up to each."""
        return self.read(self.features(tokens))

    def features(self, tokens: jax.Array) -> jax.Array:
        """Sums `[N, S, W]` over the windows up to each token of `[N, S]`."""
        before = [jnp.pad(tokens[:, : tokens.shape[1] - back], ((0, 0), (back, 0))) for back in range(PLACES - 1)]
        topic = jnp.broadcast_to(tokens[:, 1:2], tokens.shape) if tokens.shape[1] > 1 else tokens
        tables = self.weights["embedding"]  # [places, V, W]
        window = sum(tables[place][token] for place, token in enumerate([topic, *before]))
        active = jax.nn.relu(window + self.weights["bias"])
        return jnp.cumsum(active, axis=1) / 10.0  # of texts that are some tens of tokens long

    def read(self, features: jax.Array) -> jax.Array:
        """Scores `[...]` of sums `[..., W]`."""
        w = self.weights
        hidden = jax.nn.gelu(features @ w["in"] + w["in_bias"])
        return features @ w["skip"] + hidden @ w["out"]


def _init(key: jax.Array, vocabulary: int, width: int) -> dict[str, Any]:
    shapes = {
        "embedding": ((PLACES, vocabulary, width), PLACES**-0.5),
        "bias": ((width,), 0.0),
        "in": ((width, 2 * width), width**-0.5),
        "in_bias": ((2 * width,), 0.0),
        "skip": ((width,), width**-0.5),
        "out": ((2 * width,), (2 * width) ** -0.5),
    }
    noise = normal(key, (sum(math.prod(shape) for shape, _ in shapes.values()),))
    params, start = {}, 0
    for name, (shape, std) in shapes.items():
        params[name] = std * noise[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return params
