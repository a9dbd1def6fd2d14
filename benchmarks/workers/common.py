"""What every worker shares: the work's settings, a stopwatch and the line it prints.

Only the standard library is imported here, as each peer lives in an environment of its own; what a worker imports is
part of what is timed.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PPO = {
    "env": "CartPole-v1",
    "num_envs": 4,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "updates": 976,
    "hidden": (64, 64),  # of two separate networks
    "activation": "tanh",
    "learning_rate": 2.5e-4,  # constant; Adam, eps 1e-8
    "discount": 0.99,
    "trace": 0.95,
    "clip": 0.2,  # of the ratio and of the value
    "value_coef": 0.5,
    "entropy_coef": 0.01,
    "max_grad_norm": 0.5,
    "eval_episodes": 128,  # sampled actions, only with --check
}

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "gymnax", "distrax", "rlx", "rejax")


class Stopwatch:
    """Seconds of named stages, by the clock on the wall and by the process's CPU time."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[stage], self.cpu[stage] = time.perf_counter() - wall, time.process_time() - cpu


def measure(watch: Stopwatch, prepare: Callable[..., Any], check: Callable[[Any], dict[str, Any]]) -> None:
    """Compile a run and do it once, then `--repeat` times more with other keys; print one JSON line.

    Args:
        watch: has timed the import and the building.
        prepare: `(key) -> run`, traces and compiles; `run(key)` is the whole training.
        check: what `run` returned -> facts that show the work was equal and learned; only asked with `--check`.
    """
    import jax

    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()

    key = jax.random.key(args.seed)
    with watch("compile"):
        program = prepare(key)
    with watch("run"):
        out = jax.block_until_ready(program(key))

    steady = Stopwatch()
    for index in range(args.repeat):
        key = jax.random.key(args.seed + 1 + index)
        with steady(str(index)):
            jax.block_until_ready(program(key))
    line = {
        "wall": watch.wall,
        "cpu": watch.cpu,
        "steady_wall": list(steady.wall.values()),
        "steady_cpu": list(steady.cpu.values()),
        "check": check(out) if args.check else {},
        "versions": versions(),
    }
    print(json.dumps(line))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if name in sys.modules:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:  # run from the checkout
                found[name] = getattr(sys.modules[name], "__version__", "unknown")
    return found
