"""What every worker shares: the settings of each piece of work, a stopwatch and the line it prints.

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
from typing import Any, NamedTuple

PPO = {
    "env": "CartPole-v1",
    "num_envs": 4,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "updates": 976,
    "check_updates": 976,  # with --check
    "num_seeds": 1,  # trained side by side
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

DQN = {  # the sizes of Stable-Baselines3's defaults
    "env": "CartPole-v1",
    "num_envs": 4,
    "updates": 50_000,  # each of one step in every environment and one gradient step
    "batch_size": 32,
    "replay_size": 10_000,
    "prefill": 10_000,
    "hidden": (64, 64),
    "activation": "relu",
    "learning_rate": 2.5e-4,  # constant; Adam
    "discount": 0.99,
    "target_every": 50,  # gradient steps between two copies
    "epsilon_start": 1.0,
    "epsilon_end": 0.05,
    "epsilon_steps": 100_000,
    "max_grad_norm": 10.0,
    "eval_episodes": 128,  # greedy, only with --check
}

SAC = {
    "env": "Pendulum-v1",
    "updates": 2_000,  # each of one environment step and one gradient step
    "check_updates": 10_000,  # with --check
    "batch_size": 256,
    "replay_size": 50_000,
    "prefill": 500,
    "hidden": (256, 256),  # of the actor and of two critics, relu
    "learning_rate": 1e-3,  # constant; Adam
    "discount": 0.99,
    "tau": 0.005,
    "eval_episodes": 20,  # greedy, only with --check
}

REPLAY = {  # steps of `added` environments that go in, `batch_size` rows that come out
    "batch_size": 256,
    "rounds": 20_000,
    "cases": {"10,000 rows": 10_000, "200,000 rows": 200_000, "1,000,000 rows": 1_000_000},
    "added": 16,
    "observation": 4,
}

ENVS = {  # random actions, auto-reset; keys and actions drawn ahead for a rollout of `num_steps`
    "ids": ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "Catch-bsuite", "Breakout-MinAtar"),
    "steps": {1: 32_768, 64: 4096, 1024: 512, 8192: 224},  # num_envs: steps of each environment
    "num_steps": 32,
    "continuous": ("Pendulum-v1",),  # action uniform in [-1, 1], as a fraction of the bound; else one of:
    "num_actions": {"CartPole-v1": 2, "Acrobot-v1": 3, "MountainCar-v0": 3, "Catch-bsuite": 3, "Breakout-MinAtar": 3},
}

TEXT = {  # a small language model: sampling from full prompts to full responses, and one step of Adam on as many tokens
    "vocabulary": 256,
    "width": 256,
    "layers": 4,
    "heads": 4,
    "hidden": 688,  # of SwiGLU
    "batch_size": 64,
    "prompt": 64,
    "response": 64,
    "learning_rate": 1e-3,
}


class Work(NamedTuple):
    """One piece of work.

    Attributes:
        settings: what the workers read.
        workers: module of each library, rlx's first.
        fresh: whether whole processes are timed too, without and with a compilation cache.
        env_steps: of one run; 0 where nothing is trained.
        gradient_steps: of one run.
    """

    settings: dict[str, Any]
    workers: dict[str, str]
    fresh: bool = False
    env_steps: int = 0
    gradient_steps: int = 0


def ppo_work(fresh: bool = False, **changes: Any) -> Work:
    """PPO with some settings changed."""
    settings = PPO | changes
    updates = settings["num_seeds"] * settings["updates"]
    return Work(
        settings,
        {"rlx": "ppo_rlx", "rejax": "ppo_rejax"},
        fresh,
        updates * settings["num_envs"] * settings["num_steps"],
        updates * settings["num_epochs"] * settings["num_minibatches"],
    )


def dqn_work(**changes: Any) -> Work:
    """DQN with some settings changed."""
    settings = DQN | changes
    workers = {"rlx": "dqn_rlx", "flashbax": "dqn_flashbax"}
    return Work(settings, workers, False, settings["updates"] * settings["num_envs"], settings["updates"])


SAC_WORKERS = {"rlx": "sac_rlx", "sbx": "sac_sbx", "sb3": "sac_sb3"}
ENVS_WORKERS = {"rlx": "envs_rlx", "gymnax": "envs_gymnax"}
REPLAY_WORKERS = {"rlx": "replay_rlx", "flashbax": "replay_flashbax"}
TEXT_WORKERS = {"rlx": "text_rlx", "transformers": "text_transformers"}
WORKS = {
    "ppo": {
        "ppo": ppo_work(fresh=True),
        "ppo, 1,024 environments": ppo_work(num_envs=1024, updates=8, check_updates=40),
        "ppo, 64 seeds": ppo_work(num_seeds=64, updates=40, check_updates=200),
    },
    "dqn": {
        "dqn": dqn_work(),
        "dqn, replay of 200,000": dqn_work(replay_size=200_000),
        "dqn, purejaxrl's sizes": dqn_work(num_envs=10, updates=20_000, batch_size=128, hidden=(120, 84)),
    },
    "sac": {"sac": Work(SAC, SAC_WORKERS, False, SAC["updates"], SAC["updates"])},
    "envs": {"envs": Work(ENVS, ENVS_WORKERS)},
    "replay": {"replay": Work(REPLAY, REPLAY_WORKERS)},
    "text": {"text": Work(TEXT, TEXT_WORKERS)},
}

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "gymnasium",
    "gymnax",
    "distrax",
    "rlx",
    "rejax",
    "flashbax",
    "sbx",
    "stable_baselines3",
    "torch",
    "transformers",
)


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


def arguments() -> argparse.Namespace:
    """What every worker is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True, help="its name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=0, help="runs after the first")
    parser.add_argument("--check", action="store_true", help="say what was learned")
    return parser.parse_args()


def settings_of(name: str) -> dict[str, Any]:
    """Settings of the work with this name."""
    return {key: work for works in WORKS.values() for key, work in works.items()}[name].settings


def measure(
    args: argparse.Namespace,
    watch: Stopwatch,
    prepare: Callable[..., Any],
    check: Callable[[Any], dict[str, Any]],
    flop: Callable[[], float] | None = None,
) -> None:
    """Trace and compile a run by JAX and do it once, then `--repeat` times more with other keys; print one JSON line.

    Args:
        args: from `arguments`.
        watch: has timed the import and the building.
        prepare: `(key) -> run`, traces and compiles; `run(key)` is the whole training.
        check: what `run` returned -> facts that show the work was equal and learned; only asked with `--check`.
        flop: gives the floating-point operations of a run's matrix products; asked with `--repeat`.
    """
    import jax

    compiled = 0.0

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        nonlocal compiled
        if event == "/jax/core/compile/backend_compile_duration":  # or taken from the cache
            compiled += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    key = jax.random.key(args.seed)
    before = compiled
    with watch("prepare"):
        program = prepare(key)
    watch.wall["compile"] = compiled - before
    watch.wall["trace"] = watch.wall["prepare"] - watch.wall["compile"]
    with watch("run"):
        out = jax.block_until_ready(program(key))

    steady = Stopwatch()
    for index in range(args.repeat):
        key = jax.random.key(args.seed + 1 + index)
        with steady(str(index)):
            jax.block_until_ready(program(key))
    more = {"matrix_flop": flop()} if flop and args.repeat else {}
    report(watch, steady, check(out) if args.check else {}, **more)


def report(watch: Stopwatch, steady: Stopwatch, check: dict[str, Any], **more: Any) -> None:
    """Print the JSON line that `benchmarks.compare` reads.

    Args:
        watch: seconds of each stage.
        steady: of each run after the first.
        check: facts that show the work was equal and learned.
        **more: other figures.
    """
    line = {
        "wall": watch.wall,
        "cpu": watch.cpu,
        "steady_wall": list(steady.wall.values()),
        "steady_cpu": list(steady.cpu.values()),
        "check": check,
        "versions": versions(),
    }
    print(json.dumps(line | more))


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

    args = arguments()
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
    report(total, Stopwatch(), episode_length, nanoseconds=nanoseconds)


def measure_replay(build: Callable[[int], tuple[Any, Any, Any]]) -> None:
    """Add a step of every environment to a full replay and sample a batch from it, again and again; print one line.

    Args:
        build: `(capacity in rows) -> (init, add, sample)`: `init() -> replay` that is full,
            `add(replay, observation [B, O], reward [B]) -> replay`, `sample(replay, key) -> batch`.
    """
    import jax
    import jax.numpy as jnp

    args = arguments()
    nanoseconds, rounds = {}, REPLAY["rounds"]
    total = Stopwatch()
    with total("run"):
        for name, capacity in REPLAY["cases"].items():
            init, add, sample = build(capacity)

            def run(replay: Any, key: Any, add: Any = add, sample: Any = sample) -> Any:
                def one(carry: Any, key: Any) -> tuple[Any, None]:
                    replay, total = carry
                    x = total % 2 + jnp.zeros((REPLAY["added"], REPLAY["observation"]))
                    replay = add(replay, x, x[:, 0])
                    batch = sample(replay, key)
                    return (replay, sum(jnp.sum(leaf) for leaf in jax.tree.leaves(batch))), None

                carry = (replay, jnp.zeros(()))
                return jax.lax.scan(one, carry, jax.random.split(key, rounds))[0]

            replay, watch = init(), Stopwatch()
            program = jax.jit(run, donate_argnums=0)
            replay, _ = jax.block_until_ready(program(replay, jax.random.key(0)))
            for index in range(args.repeat):
                with watch(str(index)):
                    replay, _ = jax.block_until_ready(program(replay, jax.random.key(1 + index)))
            nanoseconds[name] = median(watch.cpu.values()) / rounds * 1e9
            del replay
    report(total, Stopwatch(), {}, nanoseconds=nanoseconds)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if name in sys.modules:
            try:
                found[name] = importlib.metadata.version({"sbx": "sbx-rl"}.get(name, name))
            except importlib.metadata.PackageNotFoundError:  # run from the checkout
                found[name] = getattr(sys.modules[name], "__version__", "unknown")
    return found


def measure_text(build: Callable[[], tuple[int, Any, Any]]) -> None:
    """Sample and train, in turn, and print one line: nanoseconds of CPU time a token.

    Args:
        build: `() -> (number of parameters, sampling, training)`: `sampling(seed) -> tokens drawn`,
            `training(seed) -> loss`, each of which has done its work when it returns.
    """
    args = arguments()
    total, sampled, trained = Stopwatch(), Stopwatch(), Stopwatch()
    tokens = TEXT["batch_size"] * (TEXT["prompt"] + TEXT["response"])
    with total("run"):
        parameters, sampling, training = build()
        drawn, first = sampling(0), training(0)
        last = first
        for index in range(args.repeat):
            with sampled(str(index)):
                sampling(1 + index)
            with trained(str(index)):
                last = training(1 + index)
    nanoseconds = {
        "sampling a token": median(sampled.cpu.values()) / drawn * 1e9,
        "training on a token": median(trained.cpu.values()) / tokens * 1e9,
    }
    check = {"parameters": parameters, "tokens drawn": drawn, "first loss": first, "last loss": last}
    report(total, Stopwatch(), check, nanoseconds=nanoseconds)
