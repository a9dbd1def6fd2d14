"""From a loss to a step of the optimiser, and from a batch to minibatches.

Axes: N rows, M rows of one minibatch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rlx.ops.random import bits
from rlx.types import Key, Learner, Metrics, PyTree

Loss = Callable[..., tuple[jax.Array, Metrics]]
BLOCK = 1024  # rows


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
    loss: Loss,
    optimizer: optax.GradientTransformation,
    learner: Learner,
    *args: PyTree,
    rows: PyTree = None,
    row_size: int = 1,
) -> tuple[Learner, Metrics]:
    """Take one optimiser step on `loss(params, *args) -> (loss, metrics)`.

    Args:
        loss: what to descend.
        optimizer: optax's.
        learner: the parameters, and the optimiser's state.
        *args: of the loss.
        rows: `[N, ...]`, the last argument of a loss that is, with its metrics, a mean over them: many are taken block
            by block (see `mean_over_rows`).
        row_size: tokens in a row; 1 where it is one observation.

    Returns:
        The learner, and the loss's metrics with `loss` and `gradient_norm` (before any clipping).
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if rows is None:
        (value, metrics), gradients = differentiate(learner.params, *args)
    else:
        (value, metrics), gradients = mean_over_rows(
            lambda rows: differentiate(learner.params, *args, rows), rows, row_size
        )
    updates, opt_state = optimizer.update(gradients, learner.opt_state, learner.params)
    params = optax.apply_updates(learner.params, updates)
    gradient_norm = jnp.linalg.norm(ravel_pytree(gradients)[0])  # one reduction in place of one a leaf
    return Learner(params, opt_state), metrics | {"loss": value, "gradient_norm": gradient_norm}


def block_size(num_rows: int, row_size: int = 1) -> int:
    """Rows of `row_size` tokens to take at once: on a CPU what its cache holds of a small network, elsewhere all.

    Blocks are alike, so it is a divisor of `num_rows`, unless that has none near.
    """
    if jax.default_backend() != "cpu":
        return num_rows
    most = max(1, BLOCK // row_size)
    largest = max(size for size in range(1, min(num_rows, most) + 1) if num_rows % size == 0)
    return largest if 4 * largest >= most else num_rows


def mean_over_rows(function: Callable[[PyTree], PyTree], rows: PyTree, row_size: int = 1) -> PyTree:
    """Ask a function for means over rows `[N, ...]`, block by block: the same numbers, up to rounding, as all at once.

    A network's activations of one block stay in the CPU's cache, where those of all rows go through memory: PPO with
    minibatches of 32,768 rows takes two thirds of the time on one core.

    Raises:
        TypeError: something other than floats comes back, which has no mean.
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    size = block_size(num_rows, row_size)
    if size == num_rows:
        return function(rows)
    blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), rows)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], blocks))
    if others := {str(x.dtype) for x in jax.tree.leaves(shapes) if not jnp.issubdtype(x.dtype, jnp.floating)}:
        raise TypeError(f"a loss and its metrics over rows must be floats, means over them, not {', '.join(others)}")
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), shapes)

    def add(total: PyTree, block: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(block)), None

    total, _ = jax.lax.scan(add, zeros, blocks)
    return jax.tree.map(lambda x, like: (x * (size / num_rows)).astype(like.dtype), total, shapes)


def minibatches(key: Key, num_rows: int, num_epochs: int, num_minibatches: int) -> jax.Array:
    """Indices `[num_epochs * num_minibatches, M]` that visit every row once an epoch, each epoch in a new order.

    The order comes from sorting integers whose high bits are random and whose low bits are the index: one operand,
    where `jax.random.permutation` sorts two and takes 10 times as long on CPU at 100,000 rows.
    """
    if num_rows % num_minibatches:
        raise ValueError(f"{num_rows} rows do not divide into {num_minibatches} minibatches")
    drawn = bits(key, (num_epochs, num_rows))
    with jax.enable_x64(True):
        index = jnp.arange(num_rows, dtype=jnp.uint64)
        packed = (drawn.astype(jnp.uint64) << 32) | index
        order = (jnp.sort(packed, axis=-1) & 0xFFFFFFFF).astype(jnp.int32)
    return order.reshape(num_epochs * num_minibatches, num_rows // num_minibatches)
