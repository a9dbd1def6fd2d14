"""Training a group of seeds into a folder: metrics, checkpoints, failed seeds, signals.

Seeds over a JAX environment, or of language, are one group, in one program; over a host environment each is a group.
Axes: S seeds of the group, E episodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlx.cli.language import Run
from rlx.cli.log import MetricsLog
from rlx.cli.metrics import failed_seeds, find_failed, keep_rows, per_seed, summarize
from rlx.cli.options import RunOptions
from rlx.cli.stopwatch import Stopwatch
from rlx.cli.texts import Texts
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
    env: Env | Gymnasium | Texts
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
        final_return: mean return per seed, None for a failed one; empty if not finished.
        more: what else result.json says.
    """

    finished: bool
    update: int
    start: int
    failed: dict[int, str]
    compile_s: float
    run_s: float
    final_return: list[float | None]
    more: dict[str, Any]


def make_group(spec: Run, seeds: list[int]) -> Group:
    """Build the algorithm for some seeds of a run."""
    env, algorithm = spec.make()
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
    if not checkpoint_steps(folder):
        return None
    init = group.batched.init
    like = init(group.keys) if group.batched.host else jax.eval_shape(init, group.keys)
    step, state = load_newest(folder, like, warn)
    if group.batched.host:
        state = restart_environments(group.batched, state, jax.random.fold_in(state.key, step))
    return step, state


def load_newest(folder: Path, like: PyTree, warn: Callable[[str], None], part: str = "") -> tuple[int, PyTree]:
    """Load the last checkpoint that is whole, or a part of it, naming those that are not.

    Raises:
        CheckpointError: none can be used.
    """
    for step in reversed(checkpoint_steps(folder)):
        try:
            return step, load_checkpoint(folder / str(step), like, part)
        except CheckpointError as error:
            warn(str(error))
    raise CheckpointError(f"{folder}: no checkpoint can be used")


class Checkpoints:
    """The checkpoints of a group: when the next one is due, and which must stay.

    Attributes:
        last: the update of the newest one, in a list; empty where there is none.
    """

    def __init__(self, folder: Path, options: RunOptions, start: int, rows: list[dict[str, Any]]) -> None:
        self.last = [start] if start else []
        self._folder, self._options, self._saved = folder, options, time.perf_counter()
        self._kept = {step for row in rows for step in row.get("kept_checkpoints", [])}

    @property
    def due(self) -> bool:
        """Whether the time between two checkpoints is over."""
        return time.perf_counter() - self._saved >= self._options.checkpoint_seconds

    def keep_last(self) -> None:
        """Keep the newest one for good: it is the last one before a seed failed."""
        self._kept |= set(self.last)

    def save(self, update: int, state: PyTree) -> None:
        """Write one."""
        save_checkpoint(self._folder, update, state, self._options.keep_checkpoints, frozenset(self._kept))
        self._saved, self.last = time.perf_counter(), [update]


def train_group(
    spec: Run,
    seeds: list[int],
    folder: Path,
    events: Path | None,
    report: Callable[[int, float | None], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Outcome:
    """Train seeds into `folder`, from its last checkpoint if it has one, and evaluate them.

    Args:
        spec: the run.
        seeds: those of this group.
        folder: takes metrics.jsonl and checkpoints/.
        events: takes TensorBoard's event files; None: none are written.
        report: told updates done and the mean return of the episodes that just ended.
        warn: told what the user should know.
        stopping: asked after each chunk whether to save and leave.
    """
    watch = Stopwatch()
    group = make_group(spec, seeds)
    start, state = restore(group, folder / "checkpoints", warn) or (0, initial_state(group))
    rows = keep_rows(folder / "metrics.jsonl", start)
    if start and (not rows or rows[-1]["update"] < start):
        warn(f"{folder / 'metrics.jsonl'} lacks lines up to update {start}: it goes on from there")
    outcome = Outcome(False, start, start, failed_seeds(rows), watch.compile_s, 0.0, [], {})
    if start < spec.updates and stopping():
        return outcome
    checkpoints = Checkpoints(folder / "checkpoints", spec.run, start, rows)
    with MetricsLog(folder / "metrics.jsonl", rows, seeds, events, spec.unit) as log:
        watch.start()
        offset = rows[-1]["time_s"] if rows else 0.0
        run = chunks(group.batched, state, spec.updates - start, chunk_updates(spec))
        for state, metrics in run:
            outcome, row, failed = count_chunk(spec, seeds, outcome, metrics)
            outcome = outcome._replace(run_s=watch.run_s)
            row["time_s"] = round(offset + watch.train_s, 3)
            if failed:
                row |= {"failed": failed, "kept_checkpoints": checkpoints.last}
                checkpoints.keep_last()
                tell_failed(failed, checkpoints.last, warn)
            log.write(row)
            if len(outcome.failed) == len(seeds):
                break
            report(outcome.update, mean_metric(row[spec.metric], seeds, outcome.failed))
            stop = stopping()
            if stop or outcome.update == spec.updates or checkpoints.due:
                log.sync()
                checkpoints.save(outcome.update, state)
            if stop and outcome.update < spec.updates:
                return outcome._replace(compile_s=watch.compile_s)
    final = final_returns(spec, group, state, outcome.failed)
    more = group.env.more(state) if isinstance(group.env, Texts) else {}
    return outcome._replace(finished=True, compile_s=watch.compile_s, final_return=final, more=more)


def initial_state(group: Group) -> PyTree:
    """Give the state before the first update."""
    init = group.batched.init
    return init(group.keys) if group.batched.host else jit(init, once=True)(group.keys)


def chunk_updates(spec: Run) -> int:
    """Updates per line of metrics.jsonl."""
    return spec.run.log_every or max(1, min(spec.updates // 100, 50_000 // spec.per_update))


def count_chunk(
    spec: Run, seeds: list[int], outcome: Outcome, metrics: PyTree
) -> tuple[Outcome, dict[str, Any], dict[int, str]]:
    """Take in a chunk's metrics: the outcome so far, a line of metrics.jsonl, and the seeds that just failed."""
    values = per_seed(metrics, len(seeds))
    failed = find_failed(values, seeds, outcome.failed, outcome.update, spec.taken, spec.unit_words)
    update = outcome.update + len(values["episodes"])
    row = summarize(values, update, spec.taken(update), spec.unit)
    return outcome._replace(update=update, failed=outcome.failed | failed), row, failed


def tell_failed(failed: dict[int, str], kept: list[int], warn: Callable[[str], None]) -> None:
    """Say which seeds just failed, and from which checkpoint they can be looked into."""
    for message in failed.values():
        warn(f"{message}; kept: the checkpoint of update {kept[0]}" if kept else message)


def mean_metric(values: list[float | None], seeds: list[int], failed: dict[int, str]) -> float | None:
    """Mean over the seeds that have not failed and have a value, as for returns those in which episodes ended."""
    pairs = zip(seeds, values, strict=True)
    returns = [value for seed, value in pairs if value is not None and seed not in failed]
    return float(np.mean(returns)) if returns else None


def final_returns(spec: Run, group: Group, state: PyTree, failed: dict[int, str]) -> list[float | None]:
    """Evaluate the final parameters: mean return per seed, None for a failed one."""
    if len(failed) == len(group.seeds):
        return [None] * len(group.seeds)
    returns = evaluate_group(group, state, group.env, spec.episodes, spec.greedy, seed=0).mean(axis=1).tolist()
    return [None if seed in failed else value for seed, value in zip(group.seeds, returns, strict=True)]


def evaluate_group(
    group: Group, state: PyTree, env: Env | Gymnasium | Texts, episodes: int, greedy: bool, seed: int
) -> np.ndarray:
    """Play whole episodes with each seed's policy: returns `[S, E]`, the same whatever seeds are in the group."""

    def play(state: PyTree, key: Key) -> jax.Array:
        if isinstance(env, Texts):
            return env.measure(group.algorithm, state, key, episodes, greedy)
        return evaluate(group.algorithm, env, state, key, episodes, greedy).episode_return

    keys = evaluation_keys(group.seeds, seed)
    if isinstance(env, Gymnasium):
        states = [state_of(group, state, index) for index in range(len(group.seeds))]
        return np.stack([play(state, key) for state, key in zip(states, keys, strict=True)])
    if len(group.seeds) == 1:
        return np.asarray(jit(play)(state, keys[0]))[None]
    return np.asarray(jit(jax.vmap(play))(state, keys))


def evaluation_keys(seeds: list[int], seed: int) -> Key:
    """Keys `[S]` with which seeds' policies are evaluated, each its own and apart from every training key."""
    key = jax.random.fold_in(jax.random.key(seed), 2**31)
    return jax.vmap(lambda seed: jax.random.fold_in(key, seed))(np.asarray(seeds, np.uint32))


def state_of(group: Group, state: PyTree, index: int) -> PyTree:
    """Take one seed's state out of a group's."""
    return jax.tree.map(lambda x: x[index], state) if len(group.seeds) > 1 else state


def warn(message: str) -> None:
    """Tell the user in one line on standard error."""
    print(f"rlx: {message}", file=sys.stderr, flush=True)
