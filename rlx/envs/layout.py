"""Observations of gymnasium's environments as arrays: laid out by their space, checked, of types that a device has.

Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import jax
import numpy as np

from rlx.nets.inputs import unsupported

ON_DEVICE = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}


class Misfit(ValueError):
    """An observation that does not fit its space: of which of several environments, and why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


class Layout:
    """Where the arrays of an observation are, and what they must be.

    Raises:
        ValueError: a space that is not made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple.
    """

    def __init__(self, space: gym.Space) -> None:
        nested = _leaves(space)
        self.space = space
        self.spaces: list[gym.Space] = jax.tree.leaves(nested)
        self.structure = jax.tree.structure(nested)
        self.shapes = [space.shape or () for space in self.spaces]
        self.dtypes = [ON_DEVICE.get(np.dtype(space.dtype), np.dtype(space.dtype)) for space in self.spaces]
        self.known = [{dtype, np.dtype(space.dtype)} for dtype, space in zip(self.dtypes, self.spaces, strict=True)]
        self.floats = [index for index, dtype in enumerate(self.dtypes) if dtype.kind == "f"]
        self.single = isinstance(nested, gym.Space)

    def leaves(self, observation: Any) -> list[Any]:
        """The arrays of an observation."""
        return [observation] if self.single else _parts(self.space, observation)

    def nest(self, leaves: Sequence[np.ndarray]) -> Any:
        """The observation of its arrays."""
        return leaves[0] if self.single else self.structure.unflatten(leaves)

    def stack(self, observations: Sequence[Any]) -> list[np.ndarray]:
        """Put observations of several environments side by side: arrays `[B, ...]`.

        Raises:
            Misfit: the first that does not fit the space.
        """
        if self.single:
            return [self._column(0, observations)]
        rows = []
        for index, observation in enumerate(observations):
            try:
                rows.append(self.leaves(observation))
            except (LookupError, TypeError) as error:
                raise Misfit(index, f"an observation that is not nested as its space: {error!r}") from error
        return [self._column(place, column) for place, column in enumerate(zip(*rows, strict=True))]

    def _column(self, place: int, column: Sequence[Any]) -> np.ndarray:
        try:
            array = np.array(column)
        except ValueError:  # their shapes differ
            array = np.empty(0)
        if array.shape != (len(column), *self.shapes[place]) or array.dtype not in self.known[place]:
            for index, leaf in enumerate(map(np.asarray, column)):
                self._admit(place, index, leaf)
        return array.astype(self.dtypes[place], copy=False)

    def _admit(self, place: int, index: int, leaf: np.ndarray) -> None:
        space, shape = self.spaces[place], self.shapes[place]
        if leaf.shape != shape:
            raise Misfit(index, f"an observation of shape {leaf.shape}, where its space says {shape}")
        if not np.can_cast(leaf.dtype, self.dtypes[place], "same_kind"):
            raise Misfit(index, f"an observation of type {leaf.dtype}, where its space says {space.dtype}")
        self.known[place].add(leaf.dtype)

    def broken(self, leaves: list[np.ndarray], reward: np.ndarray) -> tuple[str, int] | None:
        """Say what is not finite, and in which environment; None where all is well."""
        for name, array in [("reward", reward), *(("observation", leaves[place]) for place in self.floats)]:
            # The sum of squares is finite where all numbers are (or they are near overflow: then look at each).
            if not np.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
                return name, int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
        return None


def _leaves(space: gym.Space) -> Any:
    """The spaces that an observation is made of, nested as it is."""
    match space:
        case gym.spaces.Dict():
            return {name: _leaves(part) for name, part in space.spaces.items()}
        case gym.spaces.Tuple():
            return tuple(map(_leaves, space.spaces))
        case gym.spaces.Box() | gym.spaces.Discrete() | gym.spaces.MultiDiscrete() | gym.spaces.MultiBinary():
            return space
    raise unsupported(space)


def _parts(space: gym.Space, observation: Any) -> list[Any]:
    """The arrays of an observation, in the order of `jax.tree.leaves`."""
    match space:
        case gym.spaces.Dict():
            return [part for name in sorted(space.spaces) for part in _parts(space[name], observation[name])]
        case gym.spaces.Tuple():
            return [part for i, inner in enumerate(space.spaces) for part in _parts(inner, observation[i])]
    return [observation]
