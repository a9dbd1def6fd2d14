"""Multilayer perceptrons whose parameters cost one random draw."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlx.ops.random import normal

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


Layers = dict[str, dict[str, jax.Array]]  # {"0": {"kernel": [in, out], "bias": [out]}, "1": ...}


def init_mlps(key: jax.Array, mlps: Mapping[str, tuple[Sequence[int], float]]) -> dict[str, Layers]:
    """Initialise several MLPs `{name: (sizes, gain of the last layer)}`; `sizes` are inputs, hidden widths, outputs.

    Kernels `[in, out]` are normal with the mean square of an orthogonal matrix, `gain^2 / max(in, out)`, where the gain
    is sqrt(2), or that of the last layer. They are nearly orthogonal and need no QR decomposition. Biases are 0. All
    kernels share one draw of random numbers: draws and decompositions are what takes long to compile.
    """
    shapes = {name: list(itertools.pairwise(sizes)) for name, (sizes, _) in mlps.items()}
    noise = normal(key, (sum(math.prod(shape) for layers in shapes.values() for shape in layers),))
    start, params = 0, {}
    for name, (_, gain) in mlps.items():
        gains = [math.sqrt(2.0)] * (len(shapes[name]) - 1) + [gain]
        params[name] = {}
        for index, (shape, factor) in enumerate(zip(shapes[name], gains, strict=True)):
            kernel = noise[start : start + math.prod(shape)].reshape(shape) * (factor / math.sqrt(max(shape)))
            start += math.prod(shape)
            params[name][str(index)] = {"kernel": kernel, "bias": jnp.zeros(shape[1])}
    return params


def apply_mlp(layers: Layers, x: jax.Array, activation: str) -> jax.Array:
    """Dense layers with an activation between them and none after the last: `[..., O] -> [..., outputs]`.

    Raises:
        ValueError: an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: use one of {', '.join(ACTIVATIONS)}")
    for index in range(len(layers)):
        if index:
            x = ACTIVATIONS[activation](x)
        x = x @ layers[str(index)]["kernel"] + layers[str(index)]["bias"]
    return x


def parameter(module: nn.Module, name: str, init: Callable[..., Any], *args: Any) -> Any:
    """`module.param`, but `init` is traced when it initialises alone: linen traces it in every `apply`, for a check."""
    return module.param(name, init, *args) if module.is_initializing() else module.get_variable("params", name)


class MLP(nn.Module):
    """Dense layers with an activation between them and none after the last: `[..., O] -> [..., outputs]`.

    Attributes:
        hidden: widths of the hidden layers.
        outputs: width of the last layer.
        activation: a name in `ACTIVATIONS`.
        gain: scale of the last layer: 0.01 makes a policy start near uniform, 1 suits a value.
    """

    hidden: Sequence[int]
    outputs: int
    activation: str = "tanh"
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layers to `[..., O]`."""
        sizes = (x.shape[-1], *self.hidden, self.outputs)
        layers = parameter(self, "layers", lambda key: init_mlps(key, {"mlp": (sizes, self.gain)})["mlp"])
        return apply_mlp(layers, x, self.activation)
