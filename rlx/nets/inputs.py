"""From observations of any space to what layers take: numbers flat, choices one-hot, images through a CNN.

Axes: F features; H, W, C height, width and channels of an image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

MASK = {"observation", "action_mask"}  # keys of an observation that says which actions are allowed


class Input(NamedTuple):
    """One array of an observation.

    Attributes:
        kind: numbers, choices (each a one-hot vector), or one image.
        shape: of the array in one observation.
        sizes: how many values each number of a choice has.
        starts: the least value of each number of a choice.
        scale: factor on numbers and images.
    """

    kind: Literal["numbers", "choices", "image"]
    shape: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    scale: float = 1.0


def network_inputs(space: gymnasium.Space) -> tuple[Input, ...]:
    """Describe the arrays of an observation, in the order of `jax.tree.leaves`; an action mask is not one of them.

    A Box of uint8 with two or three dimensions is an image, `[H, W]`, `[H, W, C]` or `[C, H, W]`.

    Raises:
        ValueError: a space that is not made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple.
    """
    match space:
        case spaces.Dict() if set(space.spaces) == MASK:
            return network_inputs(space["observation"])
        case spaces.Dict():
            return tuple(itertools.chain(*(network_inputs(space[name]) for name in sorted(space.spaces))))
        case spaces.Tuple():
            return tuple(itertools.chain(*map(network_inputs, space.spaces)))
        case spaces.Discrete():
            return (Input("choices", (), (int(space.n),), (int(space.start),)),)
        case spaces.MultiDiscrete():
            sizes, starts = (tuple(np.ravel(x).tolist()) for x in (space.nvec, space.start))
            return (Input("choices", space.shape, sizes, starts),)
        case spaces.MultiBinary():
            return (Input("numbers", space.shape),)
        case spaces.Box():
            scale = 1.0 / 255.0 if space.dtype == np.uint8 and np.all(space.high == 255) else 1.0
            image = space.dtype == np.uint8 and len(space.shape) in (2, 3)
            return (Input("image" if image else "numbers", space.shape, scale=scale),)
    raise unsupported(space)


def unsupported(space: gymnasium.Space) -> ValueError:
    """The error about an observation space that has no arrays of fixed shape."""
    return ValueError(
        f"observation space {space} is not supported: use Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or "
        "Tuple of them"
    )


def split_mask(observation: Any) -> tuple[Any, jax.Array | None]:
    """Take the action mask off an observation `{"observation", "action_mask"}`; None where there is none."""
    if isinstance(observation, dict) and set(observation) == MASK:
        return observation["observation"], observation["action_mask"]
    return observation, None


class CNN(nn.Module):
    """Convolutions without padding, relu after each: `[..., H, W, C] -> [..., F]`.

    Kernels are normal with the mean square of orthogonal matrices, as those of `rlx.nets.MLP`.

    Attributes:
        convolutions: (features, width of the kernel, stride) of each; `convolutions_for` gives usual ones.
    """

    convolutions: Sequence[tuple[int, int, int]]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the convolutions to `[..., H, W, C]`."""
        for index, (features, width, stride) in enumerate(self.convolutions):
            shape = (width, width, x.shape[-1], features)
            scale = math.sqrt(2.0 / max(math.prod(shape[:3]), features))
            kernel = self.param(f"kernel_{index}", nn.initializers.normal(scale), shape)
            bias = self.param(f"bias_{index}", nn.initializers.zeros, (features,))
            x = jax.nn.relu(convolve(x, kernel, stride) + bias)
        return x.reshape(*x.shape[:-3], -1)


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Images `[..., H, W, C]` by a kernel `[h, w, C, F]`, without padding.

    On a CPU as one product of matrices over patches: XLA's own convolutions have a gradient that is some 15 times
    slower inside of a loop, and grouped ones under vmap.
    """

    def by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
        height, width, channels, features = kernel.shape
        rows, columns = (x.shape[-3] - height) // stride + 1, (x.shape[-2] - width) // stride + 1
        patches = [
            x[..., i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride, :]
            for i in range(height)
            for j in range(width)
        ]
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(height * width * channels, features)

    def by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        flat = x.reshape(-1, *x.shape[-3:])
        out = jax.lax.conv_general_dilated(
            flat, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    return jax.lax.platform_dependent(x, kernel, cpu=by_patches, default=by_xla)


def convolutions_for(height: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Give the convolutions of DQN (Mnih et al. 2015) for images from 36 pixels on, those of MinAtar below.

    MinAtar: Young and Tian 2019, arXiv 1903.03176.
    """
    return ((32, 8, 4), (64, 4, 2), (64, 3, 1)) if min(height, width) >= 36 else ((16, min(3, height, width), 1),)


class Features(nn.Module):
    """One vector of all that an observation holds: `[..., F]`.

    Attributes:
        inputs: its arrays, from `network_inputs(env.observation_space)`.
    """

    inputs: tuple[Input, ...]

    @nn.compact
    def __call__(self, observation: Any) -> jax.Array:
        """Take an observation with any leading axes, without its action mask."""
        arrays = zip(self.inputs, jax.tree.leaves(observation), strict=True)
        return jnp.concatenate([self._vector(spec, x, index) for index, (spec, x) in enumerate(arrays)], axis=-1)

    def _vector(self, spec: Input, x: jax.Array, index: int) -> jax.Array:
        leading = x.shape[: x.ndim - len(spec.shape)]
        if spec.kind == "image":
            x = _channels_last(spec, x).astype(jnp.float32) * spec.scale
            return CNN(convolutions_for(*x.shape[-3:-1]), name=f"cnn_{index}")(x)
        x = x.reshape(*leading, -1)
        if spec.kind == "numbers":
            return x.astype(jnp.float32) * spec.scale
        columns = zip(spec.sizes, spec.starts, strict=True)
        return jnp.concatenate([jax.nn.one_hot(x[..., i] - start, n) for i, (n, start) in enumerate(columns)], axis=-1)


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image is `[C, H, W]`: of three sizes the least comes first."""
    return len(shape) == 3 and shape[0] < min(shape[1:])


def _channels_last(spec: Input, x: jax.Array) -> jax.Array:
    """Bring an image to `[..., H, W, C]`."""
    if len(spec.shape) == 2:
        return x[..., None]
    return jnp.moveaxis(x, -3, -1) if channels_first(spec.shape) else x
