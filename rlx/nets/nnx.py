"""A flax nnx module as a `Network`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax

from rlx.types import Key, Network, PyTree


def from_nnx(make: Callable[..., Any]) -> Network:
    """Make a network of a function (a class) `make(rngs) -> nnx.Module`; the module is called with an observation.

    Parameters are nested dicts of arrays, as linen's. The module is split and merged inside the caller's own program,
    as `nnx.jit` takes 1 to 2 ms a call.

    Raises:
        ValueError: on `init`, a module with variables other than parameters (batch statistics, dropout).
    """
    return _FromNNX(make)


class _FromNNX:
    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def init(self, key: Key, /, *inputs: PyTree) -> PyTree:
        """Parameters of a fresh module; the inputs are not needed, as nnx states its sizes."""
        from flax import nnx

        state = nnx.state(self.make(nnx.Rngs(key)))
        others = {type(variable).__name__ for _, variable in nnx.to_flat_state(state)} - {"Param"}
        if others:
            raise ValueError(f"the nnx module holds {', '.join(sorted(others))} beside its parameters: not supported")
        return nnx.to_pure_dict(state)

    def apply(self, params: PyTree, /, *inputs: PyTree) -> Any:
        """Call the module with these parameters."""
        from flax import nnx

        graph, state = self.structure
        state = jax.tree.map(lambda leaf: leaf, state)  # a copy: the values go in below
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)(*inputs)

    @cached_property
    def structure(self) -> tuple[Any, Any]:
        """The module without its numbers."""
        from flax import nnx

        return nnx.split(nnx.eval_shape(lambda: self.make(nnx.Rngs(0))))
