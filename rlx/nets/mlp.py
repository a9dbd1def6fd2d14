"""A multilayer perceptron whose parameters cost one random draw."""

import itertools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


def unit_columns(key: jax.Array, sizes: Sequence[int], gains: Sequence[float]) -> dict[str, dict[str, jax.Array]]:
    """Dense layers `sizes[0] -> sizes[1] -> ...` whose units have weight vectors of a fixed norm; biases are 0.

    Each column of a kernel is a random direction of length `gains[i]`: nearly orthogonal columns of exactly the norm
    that an orthogonal matrix would give them, without a QR decomposition a layer, which compiles slowly (OpenAI
    baselines' `normc_initializer`). All layers share one draw, as every draw costs compile time.

    Returns:
        `{"0": {"kernel": [in, out], "bias": [out]}, "1": ...}`.
    """
    shapes = list(itertools.pairwise(sizes))
    noise = jax.random.normal(key, (sum(math.prod(shape) for shape in shapes),))
    layers, start = {}, 0
    for index, (shape, gain) in enumerate(zip(shapes, gains, strict=True)):
        kernel = noise[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
        kernel = kernel * (gain * jax.lax.rsqrt(jnp.sum(jnp.square(kernel), axis=0, keepdims=True)))
        layers[str(index)] = {"kernel": kernel, "bias": jnp.zeros(shape[1])}
    return layers


class MLP(nn.Module):
    """Dense layers with an activation between them and none after the last: `[..., O] -> [..., outputs]`.

    Attributes:
        hidden: widths of the hidden layers.
        outputs: width of the last layer.
        activation: a name in `ACTIVATIONS`.
        gain: norm of the last layer's weight vectors: 0.01 makes a policy start near uniform, 1 suits a value.
    """

    hidden: Sequence[int]
    outputs: int
    activation: str = "tanh"
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layers to `[..., O]`."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}: use one of {', '.join(ACTIVATIONS)}")
        sizes = (x.shape[-1], *self.hidden, self.outputs)
        gains = (math.sqrt(2.0),) * len(self.hidden) + (self.gain,)
        layers = self.param("layers", unit_columns, sizes, gains)
        activation = ACTIVATIONS[self.activation]
        for index in range(len(sizes) - 1):
            layer = layers[str(index)]
            x = x @ layer["kernel"] + layer["bias"]
            if index < len(self.hidden):
                x = activation(x)
        return x
