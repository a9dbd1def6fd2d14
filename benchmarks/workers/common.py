"""What every worker shares: the work's settings, a stopwatch and the line it prints.

Only the standard library is imported here, as each peer lives in an environment of its own; what a worker imports is
part of what is timed.
"""

import argparse
import importlib.metadata
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
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

ENVS = {  # random actions, auto-reset; keys and actions drawn ahead for a rollout of `num_steps`
    "ids": ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "Catch-bsuite", "Breakout-MinAtar"),
    "steps": {1: 32_768, 64: 4096, 1024: 512, 8192: 224},  # num_envs: steps of each environment
    "num_steps": 32,
    "continuous": ("Pendulum-v1",),  # action uniform in [-1, 1], as a fraction of the bound; else one of:
    "num_actions": {"CartPole-v1": 2, "Acrobot-v1": 3, "MountainCar-v0": 3, "Catch-bsuite": 3, "Breakout-MinAtar": 3},
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


def measure_envs(build: Callable[[str, int], tuple[Any, ...]]) -> None:
    """Step environments under random actions in every number of `ENVS`; print one JSON line.

    Both libraries do the same: the observation is carried from step to step, as a policy would read it, and rewards and
    ends of episodes are summed, so that none of them is left out of the program.

    Args:
        build: `(env_id, num_envs) -> (draw_keys, reset, step)`: `draw_keys(key, T)` for T steps,
            `reset(key) -> (state, observation)`, `step(keys, state, action) -> (state, observation, reward, done)`.
    """
    import jax
    import jax.numpy as jnp

    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    num_steps, nanoseconds, episode_length = ENVS["num_steps"], {}, {}

    def program(env_id: str, num_envs: int, steps: int) -> Callable[[Any], Any]:
        draw_keys, reset, step = build(env_id, num_envs)

        def draw_actions(key: Any) -> Any:
            u = jax.random.uniform(key, (num_steps, num_envs))
            return 2 * u - 1 if env_id in ENVS["continuous"] else (ENVS["num_actions"][env_id] * u).astype(jnp.int32)

        def one(carry: Any, keys_and_action: Any) -> tuple[Any, None]:
            state, _, rewards, episodes = carry
            state, observation, reward, done = step(keys_and_action[0], state, keys_and_action[1])
            return (state, observation, rewards + reward, episodes + done), None

        def rollout(carry: Any, key: Any) -> tuple[Any, None]:
            env_key, action_key = jax.random.split(key)
            return jax.lax.scan(one, carry, (draw_keys(env_key, num_steps), draw_actions(action_key)))[0], None

        def run(key: Any) -> Any:
            reset_key, rollout_key = jax.random.split(key)
            start = (*reset(reset_key), jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32))
            return jax.lax.scan(rollout, start, jax.random.split(rollout_key, steps // num_steps))[0][1:]

        return jax.jit(run).lower(jax.random.key(0)).compile()

    total = Stopwatch()
    with total("run"):
        for env_id, (num_envs, steps) in itertools.product(ENVS["ids"], ENVS["steps"].items()):
            run, watch, name = program(env_id, num_envs, steps), Stopwatch(), f"{env_id} x {num_envs}"
            _, _, episodes = jax.block_until_ready(run(jax.random.key(0)))
            for index in range(args.repeat):
                with watch(str(index)):
                    jax.block_until_ready(run(jax.random.key(1 + index)))
            nanoseconds[name] = median(watch.cpu.values()) / (num_envs * steps) * 1e9
            episode_length[name] = num_envs * steps / max(int(episodes.sum()), 1)
    line = {"wall": total.wall, "cpu": total.cpu, "nanoseconds": nanoseconds, "episode_length": episode_length}
    print(json.dumps(line | {"versions": versions()}))


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
