"""Sweeps: configurations that differ in floats, times seeds, as one algorithm and so in one program.

Axes: N configurations, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlx.core.train import over_seeds
from rlx.types import Algorithm, Key, PyTree, TwoHalves

Make = Callable[[PyTree], Algorithm]


def sweep(make: Make, values: PyTree) -> Algorithm:
    """Turn N configurations of an algorithm into one that runs them all, each with the same S seeds.

    Drive it as any other, with `train` or `chunks`: whatever the values, it is one program. `init` takes keys `[S]`;
    states and metrics have leading axes `[N, S]`, and so have the observations that `act` takes.

        make = lambda values: rlx.ppo(env, network, optax.adam(values["rate"]), rlx.PPOConfig(clip=values["clip"]))
        algorithm = rlx.sweep(make, {"rate": rates, "clip": clips})
        state, metrics = rlx.jit(lambda keys: rlx.train(algorithm, keys, 100))(jax.random.split(key, 4))

    Args:
        make: `(values of one configuration) -> Algorithm`; the values are tracers, so they can be any float of a
            config or an optimiser, and nothing that sets a shape.
        values: a pytree of arrays `[N]`; those of one configuration have the same index.

    Raises:
        ValueError: the arrays are not all `[N]`; from `init`: a host algorithm, which cannot be vmapped.
    """
    shapes = sorted({np.shape(leaf) for leaf in jax.tree.leaves(values)})
    if len(shapes) != 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise ValueError(f"values must be arrays [N] of one length, not of shapes {', '.join(map(str, shapes))}")
    values = jax.tree.map(jax.numpy.asarray, values)

    def init(keys: Key) -> PyTree:
        return jax.vmap(lambda values: over_seeds(make(values)).init(keys))(values)

    def step_of(values: PyTree) -> Any:
        return over_seeds(make(values)).step

    def step(state: PyTree) -> tuple[PyTree, dict]:
        if not isinstance(step_of(jax.tree.map(lambda leaf: leaf[0], values)), TwoHalves):
            return jax.vmap(lambda values, state: step_of(values)(state))(values, state)
        collected = jax.vmap(lambda values, state: step_of(values).collect(state))(values, state)
        return jax.lax.map(lambda one: step_of(one[0]).learn(*one[1]), (values, collected))

    def act(state: PyTree, key: Key | None, observation: PyTree) -> jax.Array:
        def one(values: PyTree, state: PyTree, key: Key | None, observation: PyTree) -> jax.Array:
            return over_seeds(make(values)).act(state, key, observation)

        keys = None if key is None else jax.random.split(key, shapes[0][0])
        return jax.vmap(one)(values, state, keys, observation)

    return Algorithm(init, step, act)


def select(make: Make, values: PyTree, state: PyTree, index: int, seed: int) -> tuple[Algorithm, PyTree]:
    """Take one agent out of a sweep: the algorithm with its own values as plain numbers, and its state.

    Args:
        make: as `sweep` had it.
        values: as `sweep` had them, `[N]`.
        state: of the sweep, `[N, S, ...]`.
        index: which configuration.
        seed: which of its seeds, from 0 to S - 1.
    """
    algorithm = make(jax.tree.map(lambda leaf: np.asarray(leaf)[index].item(), values))
    return algorithm, jax.tree.map(lambda leaf: leaf[index, seed], state)


def rank(returns: np.ndarray | jax.Array) -> list[int]:
    """Order configurations by what their seeds came to, best first.

    By the mean over seeds; configurations of which a seed failed (is not finite) come last, by the mean of the others.

    Args:
        returns: `[N, S]`, more is better.

    Returns:
        The N indices in order; of equals the first one comes first.
    """
    returns = np.asarray(returns, float)
    finite = np.isfinite(returns)
    mean = np.where(finite, returns, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    mean = np.where(finite.any(axis=1), mean, -np.inf)
    return np.lexsort((-mean, ~finite.all(axis=1))).tolist()
