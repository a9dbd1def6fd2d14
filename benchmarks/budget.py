"""What one step of each algorithm costs: kernels, arithmetic, and the time it would take if it were arithmetic alone.

    python -m benchmarks.budget --core 0

writes benchmarks/results/budget.json. Every algorithm runs by its defaults on one small environment. `kernels` are the
operations that the compiled step executes, those in loops as often as the loops run; tests/test_budget.py holds them to
what is written there. `bound` is the time that its matrix products take at least, at the rate of large ones; above it
is overhead: random bits, elementwise arithmetic, and some 0.3 to 1 us for each kernel.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters.partial_eval import dce_jaxpr

import rlx
from benchmarks.compare import provenance
from rlx.cli.spec import fill

FILE = Path(__file__).parent / "results" / "budget.json"
ENVS = {
    "dqn": "CartPole-v1",
    "reinforce": "CartPole-v1",
    "a2c": "CartPole-v1",
    "ppo": "CartPole-v1",
    "trpo": "CartPole-v1",
    "sac": "Pendulum-v1",
    "td3": "Pendulum-v1",
    "ddpg": "Pendulum-v1",
    "q_learning": "Taxi-v4",
}
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "while", "call", "conditional", "after-all"}


def matrix_flops(function: Callable, *args: Any) -> float:
    """Floating-point operations of a function's matrix products, at least: two for each multiplication and addition.

    What nothing depends on does not count, of a condition's branches the cheapest does, a `while` counts once and a
    scan as often as it runs.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return _flops(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * depth * equation.outvars[0].aval.size
            continue
        inner = [_flops(part) for value in equation.params.values() for part in _jaxprs(value)]
        if equation.primitive.name == "cond":
            total += min(inner, default=0.0)
        else:
            total += sum(inner) * equation.params.get("length", 1)
    return total


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [part for each in value for part in _jaxprs(each)] if isinstance(value, (tuple, list)) else []


def kernels(text: str) -> int:
    """Operations that a compiled program executes, from its HLO text.

    Loops of a known length count as often as they run and others once, of a condition's branches the longest counts.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = head[2]
            bodies[name] = []
            entry = name if head[1] else entry
        elif name and " = " in line:
            bodies[name].append(line)

    def count(name: str) -> int:
        total = 0
        for line in bodies[name]:
            operation = re.search(r"[\]})] ([a-z][\w\-]*)\(", line)
            kind = operation[1] if operation else ""
            total += kind not in FREE
            if kind == "while":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                total += (int(trips[1]) if trips else 1) * sum(
                    map(count, re.findall(r"(?:body|condition)=%?([\w.\-]+)", line))
                )
            elif kind == "call":  # a small one is compiled into one kernel, loop and all
                small = "xla_cpu_small_call" in line
                total += 1 if small else sum(map(count, re.findall(r"to_apply=%?([\w.\-]+)", line)))
            elif kind == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", line)
                names = (
                    branches[1].replace("%", "").split(", ")
                    if branches
                    else re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)
                )
                total += 1 + max(map(count, names))
        return total

    return count(entry)


def algorithm_of(name: str) -> rlx.Algorithm:
    """Make an algorithm by the command line's defaults."""
    spec = fill(name, ENVS[name], {})
    return spec.build(spec.make_env())


def matrix_peak(size: int = 1024, repeat: int = 20) -> float:
    """Floating-point operations per second of a product of two square float32 matrices, the fastest of `repeat`."""
    x = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def kernels_of(algorithm: rlx.Algorithm) -> int:
    """Operations that one compiled step executes."""
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    return kernels(rlx.jit(algorithm.step, donate_argnums=0).lower(state).compile().as_text())


def measure(name: str, peak: float, seconds: float = 1.0) -> dict[str, float]:
    """What one step of an algorithm costs."""
    algorithm = algorithm_of(name)
    state = rlx.jit(algorithm.init, once=True)(jax.random.key(0))
    flops = matrix_flops(algorithm.step, state)
    steps = 20
    run = rlx.compile_steps(algorithm, state, steps)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.process_time()
        state, _ = jax.block_until_ready(run(state))
        times.append((time.process_time() - start) / steps)
    return {
        "kernels": kernels_of(algorithm),
        "matrix_mflop": round(flops / 1e6, 3),
        "microseconds": round(median(times) * 1e6, 1),
        "bound_microseconds": round(flops / peak * 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, default=None, help="pin the process to it")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    peak = matrix_peak()
    rows = {}
    for name in ENVS:
        rows[name] = measure(name, peak)
        print(name, rows[name], flush=True)
    about = {"provenance": provenance("budget"), "versions": {"rlx": {"jax": jax.__version__}}}
    FILE.write_text(json.dumps(about | {"peak_gflop_per_s": round(peak / 1e9, 1), "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
