"""From a loss to a step of the optimiser, and from a batch to minibatches.

Axes: N rows, M rows of one minibatch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rlx.types import Key, Learner, Metrics, PyTree

Loss = Callable[..., tuple[jax.Array, Metrics]]


def init_learner(params: PyTree, optimizer: optax.GradientTransformation) -> Learner:
    """Pair parameters with a fresh optimiser state.

    Raises:
        ValueError: the network keeps collections beside its parameters (batch statistics).
    """
    if isinstance(params, dict) and "params" in params and len(params) > 1:
        extra = ", ".join(sorted(set(params) - {"params"}))
        raise ValueError(f"the network has mutable collections ({extra}), which are not supported: use LayerNorm")
    return Learner(params, optimizer.init(params))


def gradient_step(
    loss: Loss, optimizer: optax.GradientTransformation, learner: Learner, *args: PyTree
) -> tuple[Learner, Metrics]:
    """Take one optimiser step on `loss(params, *args) -> (loss, metrics)`.

    Returns:
        The learner, and the loss's metrics with `loss` and `gradient_norm` (before any clipping).
    """
    (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(learner.params, *args)
    updates, opt_state = optimizer.update(gradients, learner.opt_state, learner.params)
    params = optax.apply_updates(learner.params, updates)
    gradient_norm = jnp.linalg.norm(ravel_pytree(gradients)[0])  # one reduction in place of one a leaf
    return Learner(params, opt_state), metrics | {"loss": value, "gradient_norm": gradient_norm}


def minibatches(key: Key, num_rows: int, num_epochs: int, num_minibatches: int) -> jax.Array:
    """Indices `[num_epochs * num_minibatches, M]` that visit every row once an epoch, each epoch in a new order.

    The order comes from sorting integers whose high bits are random and whose low bits are the index: one operand,
    where `jax.random.permutation` sorts two and takes 10 times as long on CPU at 100,000 rows.
    """
    if num_rows % num_minibatches:
        raise ValueError(f"{num_rows} rows do not divide into {num_minibatches} minibatches")
    bits = jax.random.bits(key, (num_epochs * num_rows,), jnp.uint32).reshape(num_epochs, num_rows)
    with jax.enable_x64(True):
        index = jnp.arange(num_rows, dtype=jnp.uint64)
        packed = (bits.astype(jnp.uint64) << 32) | index
        order = (jnp.sort(packed, axis=-1) & 0xFFFFFFFF).astype(jnp.int32)
    return order.reshape(num_epochs * num_minibatches, num_rows // num_minibatches)
