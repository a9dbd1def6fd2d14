"""How lean the loop over gymnasium's environments is: `python -m benchmarks.host_loop --core 0`.

Environment steps per second at 8 CartPoles, in alternation in one process: rlx's rollout with a jitted 64-64 network, a
loop over gymnasium's SyncVectorEnv whose policy is the same network in NumPy, and both sets of environments without a
policy. Writes benchmarks/results/host_loop.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import jax
import numpy as np

import rlx
from benchmarks.compare import provenance

NUM_ENVS, STEPS = 8, 2000
Run = Callable[[], Any]


def sync() -> gymnasium.vector.SyncVectorEnv:
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    return gymnasium.vector.SyncVectorEnv([partial(gymnasium.make, "CartPole-v1")] * NUM_ENVS, autoreset_mode=mode)


def numpy_policy() -> Run:
    envs, generator = sync(), np.random.default_rng(0)
    sizes = [(4, 64), (64, 64), (64, 2)]
    kernels = [generator.normal(size=size).astype(np.float32) * 0.1 for size in sizes]
    biases = [np.zeros(size[1], np.float32) for size in sizes]
    observation, _ = envs.reset(seed=0)

    def run() -> list:
        nonlocal observation
        rows = []
        for _ in range(STEPS):
            x = observation
            for layer in range(2):
                x = np.tanh(x @ kernels[layer] + biases[layer])
            logits = x @ kernels[2] + biases[2]
            action = np.argmax(logits + generator.gumbel(size=logits.shape), axis=-1)
            after, reward, terminated, truncated, _ = envs.step(action)
            rows.append((observation, action, reward, terminated, truncated))
            observation = after
        return rows

    return run


def rlx_rollout() -> Run:
    recipe = rlx.envs.gymnasium("CartPole-v1")
    envs, network, key = rlx.vectorize(recipe, NUM_ENVS), rlx.nets.actor_critic(recipe), jax.random.key(0)
    state = rlx.start_rollout(envs, key)
    params = network.init(key, state.observation)

    def policy(params: Any, key: Any, observation: Any) -> Any:
        return network.apply(params, observation)[0].sample(key)

    def run() -> Any:
        nonlocal state
        state, rows, _ = rlx.rollout(envs, policy, params, state, key, STEPS)
        return rows

    return run


def no_policy(step: Callable[[np.ndarray], Any]) -> Run:
    generator = np.random.default_rng(0)

    def run() -> None:
        for _ in range(STEPS):
            step(generator.integers(0, 2, NUM_ENVS))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, default=None, help="pin the process to it")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "host_loop.json")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    theirs, ours = sync(), rlx.envs.gymnasium("CartPole-v1").build(NUM_ENVS)
    theirs.reset(seed=0)
    ours.reset([*range(NUM_ENVS)])
    runs = {
        "rlx": rlx_rollout(),
        "numpy": numpy_policy(),
        "rlx, no policy": no_policy(ours.step),
        "gymnasium, no policy": no_policy(theirs.step),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            rates[name].append(NUM_ENVS * STEPS / (time.perf_counter() - start))
    rates = {name: values[1:] for name, values in rates.items()}  # the first round compiles
    result = {
        "provenance": provenance("host_loop"),
        "steps_per_s": {
            name: {"median": round(median(values)), "min": round(min(values)), "max": round(max(values))}
            for name, values in rates.items()
        },
        "rlx_over_numpy": round(median(a / b for a, b in zip(rates["rlx"], rates["numpy"], strict=True)), 3),
        "target": 0.8,
    }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
