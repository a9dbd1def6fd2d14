"""The drivers: a whole run as one function, or chunk by chunk with the host in between.

Axes: U algorithm steps, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr

from rlx.types import Algorithm, Key, Metrics, PyTree, TwoHalves


def jit(function: Callable, once: bool = False, **kwargs: Any) -> Callable:
    """`jax.jit` as rlx's drivers and command line use it: on a CPU, compiled sooner.

    Programs of many small kernels compile in 0.8 to 0.9 of the time with LLVM's first level of optimisation and run as
    fast. Rounding may differ in the last bit from `jax.jit`'s.

    Args:
        function: what to compile.
        once: it runs once, as an `init` does: compile it in a third to two thirds of the time, to run slower.
        **kwargs: those of `jax.jit`.
    """
    options: dict[str, Any] | None = None
    if jax.default_backend() == "cpu":
        options = {"xla_backend_optimization_level": 0 if once else 1}
        if once and jax.__version_info__ < (0, 11):  # later ones have no such option
            options["xla_cpu_use_fusion_emitters"] = False
    return jax.jit(function, compiler_options=options, **kwargs)


def train(algorithm: Algorithm, key: Key, num_steps: int) -> tuple[PyTree, Metrics]:
    """Run an algorithm from the start; jit it, vmap it over keys or over floats of a config.

    Args:
        algorithm: one that is not on the host.
        key: a typed PRNG key.
        num_steps: U, algorithm steps (updates).

    Returns:
        The last state, and every metric as `[U]`.

    Raises:
        ValueError: a host algorithm, which XLA cannot trace.
    """
    if algorithm.host:
        raise ValueError("a host algorithm cannot be traced: use `for state, metrics in rlx.chunks(...)`")
    return jax.lax.scan(lambda state, _: algorithm.step(state), algorithm.init(key), length=num_steps)


def chunks(algorithm: Algorithm, state: PyTree, num_steps: int, every: int) -> Iterator[tuple[PyTree, Metrics]]:
    """Run an algorithm `every` steps at a time, to print, save, evaluate or stop in between.

    The state that goes in is donated, as is each that comes out once the next chunk is asked for: read it at once or
    keep a copy (`jax.tree.map(jnp.copy, state)`).

    Args:
        algorithm: any; a host one is stepped from Python.
        state: where to begin, from `algorithm.init` or a checkpoint.
        num_steps: U, algorithm steps in all; the last chunk is shorter where `every` does not divide it.
        every: steps between two pauses.

    Yields:
        The state and every metric as `[steps of the chunk]`.
    """
    if every < 1:
        raise ValueError(f"every={every} must be 1 or more")
    compiled: dict[int, Callable] = {}
    for start in range(0, num_steps, every):
        length = min(every, num_steps - start)
        if length not in compiled:
            compiled[length] = compile_steps(algorithm, state, length)
        state, metrics = compiled[length](state)
        yield state, metrics


def compile_steps(algorithm: Algorithm, state: PyTree, num_steps: int) -> Callable[[PyTree], tuple[PyTree, Metrics]]:
    """Make one function of `num_steps` steps of the algorithm; it donates the state it is given.

    Arrays that the algorithm closes over (a data set, a reward model) become arguments of the program: as constants
    they would be compiled into it. (Those that a `jax.jit` inside of `step` closes over are constants all the same.)
    """
    if algorithm.host:

        def loop(state: PyTree) -> tuple[PyTree, Metrics]:
            rows = []
            for _ in range(num_steps):
                state, metrics = algorithm.step(state)
                rows.append(metrics)
            return state, jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(rows))

        return loop

    jaxpr, shape = jax.make_jaxpr(algorithm.step, return_shape=True)(state)
    structure = jax.tree.structure(shape)

    def scan(state: PyTree, consts: list) -> tuple[PyTree, Metrics]:
        def one(state: PyTree, _: None) -> tuple[PyTree, Metrics]:
            return structure.unflatten(eval_jaxpr(jaxpr.jaxpr, consts, *jax.tree.leaves(state)))

        return jax.lax.scan(one, state, length=num_steps)

    program = jit(scan, donate_argnums=0).lower(state, jaxpr.consts).compile()
    return lambda state: program(state, jaxpr.consts)


def over_seeds(algorithm: Algorithm) -> Algorithm:
    """Turn an algorithm into one that runs S seeds at once: `init` takes keys `[S]`, everything gains an axis S.

    They act side by side. They learn side by side too, or in turn where the step is cut in two, as products of many
    small matrices are slow on a core of a CPU.

    Raises:
        ValueError: a host algorithm, which cannot be vmapped.
    """
    if algorithm.host:
        raise ValueError("a host algorithm runs one seed: start one process a seed")

    def act(state: PyTree, key: Key | None, observation: PyTree) -> jax.Array:
        if key is None:
            return jax.vmap(lambda state, observation: algorithm.act(state, None, observation))(state, observation)
        seeds = jax.tree.leaves(observation)[0].shape[0]
        return jax.vmap(algorithm.act)(state, jax.random.split(key, seeds), observation)

    step = algorithm.step
    if not isinstance(step, TwoHalves):
        return Algorithm(jax.vmap(algorithm.init), jax.vmap(step), act)

    def learn(*collected: PyTree) -> tuple[PyTree, Metrics]:
        return jax.lax.map(lambda one: step.learn(*one), collected)

    return Algorithm(jax.vmap(algorithm.init), TwoHalves(jax.vmap(step.collect), learn), act)


def seed_keys(seeds: list[int]) -> Key:
    """Keys `[S]` of integer seeds, each the same as `jax.random.key(seed)`."""
    return jnp.stack([jax.random.key(seed) for seed in seeds])
