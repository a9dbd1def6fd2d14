"""Between JAX and what gymnasium's tools want: seeds, observations and actions."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from rlx.types import Key, PyTree


def draw_seed(generator: np.random.Generator) -> np.ndarray:
    """Draw the two words of a key's seed."""
    return generator.integers(2**32, size=2, dtype=np.uint32)


def make_key(seed: jax.Array) -> Key:
    """Make a key from two words, as `jax.random.key` takes only one."""
    return jax.random.fold_in(jax.random.key(seed[0]), seed[1])


def to_host(space: gymnasium.Space, value: PyTree) -> Any:
    """Bring an observation to NumPy in the types of its space; the arrays are the caller's to change."""
    if isinstance(space, spaces.Dict):
        return {name: to_host(part, value[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(to_host(part, item) for part, item in zip(space, value, strict=True))
    array = np.array(value, space.dtype)
    return array[()] if isinstance(space, spaces.Discrete) else array


def to_action(space: gymnasium.Space, action: Any) -> Any:
    """Bring an action to NumPy in the types of its space; boxes are not clipped, as some environments do that."""
    if isinstance(space, spaces.Dict):
        return {name: to_action(part, action[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(to_action(part, item) for part, item in zip(space, action, strict=True))
    array = np.asarray(action)
    fits = array.shape == space.shape if isinstance(space, spaces.Box) else space.contains(array)
    if not fits:
        raise ValueError(f"action {action!r} is not in {space}")
    return array.astype(space.dtype)
