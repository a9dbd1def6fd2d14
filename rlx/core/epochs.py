"""Batches of a data set, each row once an epoch. Axes: N rows of the data, M rows of a batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx.core.learn import minibatches
from rlx.ops.random import uniform
from rlx.types import Key, PyTree


class Epochs(NamedTuple):
    """Where in which order of the rows one is.

    Attributes:
        order: `[N]` int32, the rows of this epoch.
        position: int32, how many of them were drawn.
    """

    order: jax.Array
    position: jax.Array


def start_epochs(num_rows: int) -> Epochs:
    """Stand at the end of an epoch: the first draw begins one."""
    return Epochs(jnp.arange(num_rows, dtype=jnp.int32), jnp.int32(num_rows))


def next_rows(key: Key, epochs: Epochs, batch_size: int) -> tuple[Epochs, jax.Array]:
    """Draw the next rows `[M]`; where fewer than M are left a new epoch begins, and those wait for another order.

    Args:
        key: used where an epoch begins.
        epochs: where one is.
        batch_size: M, at most N.

    Raises:
        ValueError: more rows than there are.
    """
    num_rows = epochs.order.shape[0]
    if batch_size > num_rows:
        raise ValueError(f"batch_size={batch_size}: there are {num_rows} rows in the data")
    over = epochs.position + batch_size > num_rows
    order = jax.lax.cond(over, lambda: minibatches(key, num_rows, 1, 1)[0], lambda: epochs.order)
    position = jnp.where(over, 0, epochs.position)
    rows = jax.lax.dynamic_slice(order, (position,), (batch_size,))
    return Epochs(order, position + batch_size), rows


def draw_rows(key: Key, data: PyTree, count: int) -> PyTree:
    """Draw `count` rows of a pytree of `[N, ...]`, each as likely as another."""
    number = jax.tree.leaves(data)[0].shape[0]
    rows = jnp.minimum(number * uniform(key, (count,)), number - 1).astype(jnp.int32)
    return jax.tree.map(lambda x: x[rows], data)
