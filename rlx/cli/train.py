"""Training a group of seeds into a folder: metrics, checkpoints, failed seeds, signals.

Seeds over a JAX environment are one group, in one vmapped program; over a host environment each is a group.
Axes: U updates of a chunk, S seeds of the group, E episodes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlx.cli.options import Spec
from rlx.core.checkpoint import (
    CheckpointError,
    checkpoint_steps,
    load_checkpoint,
    restart_environments,
    save_checkpoint,
)
from rlx.core.evaluate import evaluate
from rlx.core.train import chunks, jit, over_seeds, seed_keys
from rlx.envs.host import Gymnasium
from rlx.types import Algorithm, Env, Key, PyTree

EPISODES = 100  # of the final evaluation


class CompileTime:
    """Counts the seconds that JAX spends on tracing, lowering and compiling from now on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration_secs


class Group(NamedTuple):
    """Seeds that run together, and the algorithm that runs them.

    Attributes:
        algorithm: of one seed, which evaluates.
        batched: of all seeds: vmapped where there are several.
        env: what it learns in.
        keys: one key, or `[S]`.
        seeds: their numbers.
    """

    algorithm: Algorithm
    batched: Algorithm
    env: Env | Gymnasium
    keys: Key
    seeds: list[int]


class Outcome(NamedTuple):
    """What became of a group.

    Attributes:
        finished: False where a signal stopped it.
        update: updates done, in all.
        start: updates done before this process.
        failed: what went wrong, by seed.
        compile_s: seconds spent on tracing and compiling, evaluation included.
        run_s: seconds of training in this process, compilation apart.
        final_return: mean greedy return per seed, None for a failed one; empty if not finished.
    """

    finished: bool
    update: int
    start: int
    failed: dict[int, str]
    compile_s: float
    run_s: float
    final_return: list[float | None]


def make_group(spec: Spec, seeds: list[int]) -> Group:
    """Build the algorithm for some seeds of a run."""
    env = spec.make_env()
    algorithm = spec.build(env)
    if len(seeds) == 1:
        return Group(algorithm, algorithm, env, jax.random.key(seeds[0]), seeds)
    return Group(algorithm, over_seeds(algorithm), env, seed_keys(seeds), seeds)


def restore(group: Group, folder: Path, warn: Callable[[str], None]) -> tuple[int, PyTree] | None:
    """Load the last checkpoint that is whole, naming those that are not.

    Host environments are not in a checkpoint: they begin new episodes with seeds drawn from the state's key.

    Returns:
        Updates done and the state; None where there is no checkpoint.

    Raises:
        CheckpointError: there are checkpoints, and none can be used.
    """
    steps = checkpoint_steps(folder)
    if not steps:
        return None
    init = group.batched.init
    like = init(group.keys) if group.batched.host else jax.eval_shape(init, group.keys)
    for step in reversed(steps):
        try:
            state = load_checkpoint(folder / str(step), like)
        except CheckpointError as error:
            warn(str(error))
            continue
        if group.batched.host:
            state = restart_environments(group.batched, state, jax.random.fold_in(state.key, step))
        return step, state
    raise CheckpointError(f"{folder}: no checkpoint can be used")


def train_group(
    spec: Spec,
    seeds: list[int],
    folder: Path,
    report: Callable[[int, float | None], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Outcome:
    """Train seeds into `folder`, from its last checkpoint if it has one, and evaluate them.

    Args:
        spec: the run.
        seeds: those of this group.
        folder: takes metrics.jsonl and checkpoints/.
        report: told updates done and the mean return of the episodes that just ended.
        warn: told what the user should know.
        stopping: asked after each chunk whether to save and leave.
    """
    compiling = CompileTime()
    group = make_group(spec, seeds)
    checkpoints, start = folder / "checkpoints", 0
    restored = restore(group, checkpoints, warn)
    if restored is not None:
        start, state = restored
    else:
        state = group.batched.init(group.keys) if group.batched.host else jit(group.batched.init, once=True)(group.keys)
    rows = keep_rows(folder / "metrics.jsonl", start)
    failed = failed_seeds(rows)
    update, begun, saved, compiled = start, time.perf_counter(), time.perf_counter(), compiling.seconds
    offset, run_s = rows[-1]["time_s"] if rows else 0.0, 0.0
    pinned = {step for row in rows for step in row.get("kept_checkpoints", [])}  # the last good ones of failed seeds
    every = spec.run.log_every or max(1, min(spec.updates // 100, 50_000 // spec.config.env_steps))

    def outcome(finished: bool, final_return: list[float | None]) -> Outcome:
        return Outcome(finished, update, start, failed, compiling.seconds, run_s, final_return)

    if start and (not rows or rows[-1]["update"] < start):
        warn(f"{folder / 'metrics.jsonl'} lacks lines up to update {start}: it goes on from there")
    if stopping() and start < spec.updates:
        return outcome(False, [])
    last = [start] if start else []  # the newest checkpoint that is whole
    with (folder / "metrics.jsonl").open("a") as log:
        run = chunks(group.batched, state, spec.updates - start, every)
        for state, metrics in run:
            values = {name: np.asarray(value) for name, value in metrics.items()}
            values = {name: value.reshape(len(value), len(seeds)) for name, value in values.items()}  # [U, S]
            bad = find_failed(values, seeds, failed, update, spec.config.env_steps)
            update += len(values["episodes"])
            run_s = time.perf_counter() - begun - (compiling.seconds - compiled)
            row = summarize(values, update, update * spec.config.env_steps)
            row["time_s"] = round(offset + time.perf_counter() - begun, 3)
            if bad:
                row |= {"failed": bad, "kept_checkpoints": last}
                failed |= bad
                pinned |= set(last)
                for message in bad.values():
                    warn(f"{message}; kept: the checkpoint of update {last[0]}" if last else message)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if len(failed) == len(seeds):
                return outcome(True, [None] * len(seeds))
            pairs = zip(seeds, row["episode_return"], strict=True)
            returns = [value for seed, value in pairs if value is not None and seed not in failed]
            report(update, float(np.mean(returns)) if returns else None)
            stop = stopping()
            if stop or update == spec.updates or time.perf_counter() - saved >= spec.run.checkpoint_seconds:
                os.fsync(log.fileno())
                save_checkpoint(checkpoints, update, state, spec.run.keep_checkpoints, frozenset(pinned))
                saved, last = time.perf_counter(), [update]
            if stop and update < spec.updates:
                return outcome(False, [])
    returns = evaluate_group(group, state, group.env, EPISODES, greedy=True, seed=0).mean(axis=1).tolist()
    final = [None if seed in failed else value for seed, value in zip(seeds, returns, strict=True)]
    return outcome(True, final)


def evaluate_group(
    group: Group, state: PyTree, env: Env | Gymnasium, episodes: int, greedy: bool, seed: int
) -> np.ndarray:
    """Play whole episodes with each seed's policy: returns `[S, E]`, the same whatever seeds are in the group."""

    def play(state: PyTree, key: Key) -> jax.Array:
        return evaluate(group.algorithm, env, state, key, episodes, greedy).episode_return

    key = jax.random.fold_in(jax.random.key(seed), 2**31)  # apart from every training key
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(np.asarray(group.seeds, np.uint32))
    if isinstance(env, Gymnasium):
        states = [state_of(group, state, index) for index in range(len(group.seeds))]
        return np.stack([play(state, key) for state, key in zip(states, keys, strict=True)])
    if len(group.seeds) == 1:
        return np.asarray(jit(play)(state, keys[0]))[None]
    return np.asarray(jit(jax.vmap(play))(state, keys))


def state_of(group: Group, state: PyTree, index: int) -> PyTree:
    """Take one seed's state out of a group's."""
    return jax.tree.map(lambda x: x[index], state) if len(group.seeds) > 1 else state


def summarize(values: dict[str, np.ndarray], update: int, env_steps: int) -> dict[str, Any]:
    """Make one line of metrics.jsonl from a chunk's metrics `[U, S]`: a list over seeds for every metric.

    Means over updates; `episodes` is a sum, and means over episodes are weighted by it (null where none ended).
    """
    episodes = values["episodes"].sum(axis=0)
    row: dict[str, Any] = {"update": update, "env_steps": env_steps}
    for name, value in values.items():
        if name == "episodes":
            mean = episodes
        elif name.startswith("episode_"):
            total = (value * values["episodes"]).sum(axis=0)
            mean = np.where(episodes > 0, total / np.maximum(episodes, 1), np.nan)
        else:
            mean = value.mean(axis=0)
        row[name] = [x if np.isfinite(x) else None for x in mean.tolist()]
    return row


def find_failed(
    values: dict[str, np.ndarray], seeds: list[int], known: dict[int, str], update: int, env_steps: int
) -> dict[int, str]:
    """Name the seeds whose metrics `[U, S]` stopped being finite in this chunk: at which update, in which metrics."""
    names, stacked = list(values), np.stack(list(values.values()))  # [names, U, S]
    broken = ~np.isfinite(stacked)
    messages = {}
    for index in np.flatnonzero(broken.any(axis=(0, 1))):
        seed = seeds[index]
        if seed in known:
            continue
        first = int(np.argmax(broken[:, :, index].any(axis=0)))
        which = ", ".join(name for name, is_broken in zip(names, broken[:, first, index], strict=True) if is_broken)
        at = update + first + 1
        messages[seed] = (
            f"seed {seed} failed: NaN or infinity at update {at} (environment steps {(at - 1) * env_steps:,} to "
            f"{at * env_steps:,}) in {which}"
        )
    return messages


def keep_rows(file: Path, update: int) -> list[dict[str, Any]]:
    """Drop the lines of metrics.jsonl that came after a checkpoint, and a last one that was cut off; give the rest."""
    if not file.exists():
        return []
    rows = [row for row in read_rows(file) if row["update"] <= update]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial.replace(file)
    return rows


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl up to the first that is cut off or no line of ours."""
    rows = []
    for line in file.read_bytes().splitlines(keepends=True) if file.exists() else []:
        try:
            row = json.loads(line)
            row["update"]
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        rows.append(row)
    return rows


def failed_seeds(rows: list[dict[str, Any]]) -> dict[int, str]:
    """Say which seeds failed, and why, according to the lines of a metrics.jsonl."""
    return {int(seed): why for row in rows for seed, why in row.get("failed", {}).items()}


def warn(message: str) -> None:
    """Tell the user in one line on standard error."""
    print(f"rlx: {message}", file=sys.stderr, flush=True)
