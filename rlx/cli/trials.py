"""Training the configurations of a sweep: those of one program side by side, or one as a run of its own.

Axes: U updates of a chunk, N configurations of the program, S seeds, E episodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import rlx
from rlx.cli.metrics import find_failed, metric_names, per_seed, summarize
from rlx.cli.processes import Stop, alone, groups, train_parts
from rlx.cli.progress import progress_bar
from rlx.cli.report import Clock, finish, write_json
from rlx.cli.spec import Spec
from rlx.cli.stopwatch import Stopwatch
from rlx.cli.train import Outcome, chunk_updates, evaluation_keys, warn
from rlx.cli.vary import traced, with_values
from rlx.core.checkpoint import save_checkpoint
from rlx.core.train import chunks, jit, seed_keys
from rlx.types import Key, PyTree


class Trial(NamedTuple):
    """A configuration, and what it came to.

    Attributes:
        number: which configuration.
        values: of the fields that vary.
        spec: the run with these values; its folder is where it leaves what it leaves.
        final_return: mean greedy return per seed, None for a failed one; empty before the end.
        failed: what went wrong, by seed.
    """

    number: int
    values: dict[str, Any]
    spec: Spec
    final_return: list[float | None]
    failed: dict[int, str]

    @property
    def folder(self) -> Path:
        """Where its run is kept."""
        assert self.spec.run.out is not None
        return self.spec.run.out


def train_alone(trial: Trial, title: str, stop: Stop, clock: Clock) -> list[Trial]:
    """Train one configuration as `rlx train` does; nothing comes of it where a signal stopped it."""
    spec, out = trial.spec, trial.folder
    out.mkdir(parents=True)
    write_json(out / "config.json", spec.to_json())
    parts = groups(spec, out)
    rows = spec.config.env_steps * spec.run.seeds // len(parts)
    with alone(out), progress_bar(title, spec.updates, rows, len(parts), spec.run.progress) as report:
        outcomes = train_parts(spec, out, parts, report, stop)
    if not all(outcome.finished for outcome in outcomes):
        return []
    result = finish(spec, out, parts, outcomes, clock)
    return [trial._replace(final_return=result["final_return"], failed=result["failed"])]


def train_together(trials: list[Trial], title: str, stop: Stop, clock: Clock) -> list[Trial]:
    """Train configurations that differ in floats in one program; the best one of them leaves a run folder.

    Nothing comes of them where a signal stopped it.
    """
    spec = trials[0].spec
    seeds, env, watch = spec.seeds, spec.make_env(), Stopwatch()
    names = [*traced(spec, trials[0].values)]
    values = {name: np.array([trial.values[name] for trial in trials], np.float32) for name in names}

    def make(values: dict[str, Any]) -> rlx.Algorithm:
        return with_values(spec, values).build(env)

    algorithm = rlx.sweep(make, values)
    state = jit(algorithm.init, once=True)(seed_keys(seeds))
    rows: list[dict[str, Any]] = []
    update = 0
    watch.start()
    every_step = spec.config.env_steps * len(trials) * len(seeds)
    with progress_bar(title, spec.updates, every_step, 1, spec.run.progress) as report:
        for after, metrics in chunks(algorithm, state, spec.updates, chunk_updates(spec)):
            state = after
            row, trials = count_chunk(trials, metrics, update)
            update = row["update"]
            rows.append(row | {"time_s": round(watch.train_s, 3)})
            if all(len(trial.failed) == len(seeds) for trial in trials):
                break
            report(update, best_return(row))
            if stop.signal and update < spec.updates:
                return []
    run_s = watch.run_s / len(trials)
    returns = play(make, values, env, state, seeds)
    trials = [
        trial._replace(final_return=[None if s in trial.failed else x for s, x in zip(seeds, row, strict=True)])
        for trial, row in zip(trials, returns.tolist(), strict=True)
    ]
    best = ranked(trials)[0]
    if len(best.failed) < len(seeds):
        index = trials.index(best)
        outcome = Outcome(True, update, 0, best.failed, watch.compile_s, run_s, best.final_return, {})
        one = jax.tree.map(lambda leaf: leaf[index] if len(seeds) > 1 else leaf[index, 0], state)
        leave_run(best, [part_of(row, index, len(seeds)) for row in rows], outcome, one, clock)
    return trials


def count_chunk(trials: list[Trial], metrics: PyTree, update: int) -> tuple[dict[str, Any], list[Trial]]:
    """Take in a chunk's metrics `[U, N, S]`: a line with lists over N * S, and the trials with the seeds that failed.

    The line's `failed` is by the trial's place.
    """
    spec = trials[0].spec
    values = per_seed(metrics, len(trials) * len(spec.seeds))
    done = update + len(values["episodes"])
    row = summarize(values, done, spec.taken(done))
    split = {name: value.reshape(-1, len(trials), len(spec.seeds)) for name, value in values.items()}
    broken = np.any([~np.isfinite(value).all(axis=(0, 2)) for value in split.values()], axis=0)  # [N]
    trials, row["failed"] = list(trials), {}
    for index in np.flatnonzero(broken).tolist():
        trial = trials[index]
        of_one = {name: value[:, index] for name, value in split.items()}
        failed = find_failed(of_one, spec.seeds, trial.failed, update, spec.taken)
        for message in failed.values():
            warn(f"configuration {trial.number}, {describe_values(trial.values)}: {message}")
        if failed:
            row["failed"][index] = failed
            trials[index] = trial._replace(failed=trial.failed | failed)
    return row, trials


def part_of(row: dict[str, Any], index: int, num_seeds: int) -> dict[str, Any]:
    """Give one configuration's part of a line."""
    mine = {name: row[name][index * num_seeds : (index + 1) * num_seeds] for name in metric_names(row)}
    failed = {"failed": row["failed"][index], "kept_checkpoints": []} if index in row["failed"] else {}
    return {"update": row["update"], "env_steps": row["env_steps"], **mine, "time_s": row["time_s"], **failed}


def best_return(row: dict[str, Any]) -> float | None:
    """Give the highest of the returns in a line."""
    return max((value for value in row["episode_return"] if value is not None), default=None)


def play(make: Callable[..., rlx.Algorithm], values: PyTree, env: Any, state: PyTree, seeds: list[int]) -> np.ndarray:
    """Evaluate every final policy: mean greedy returns `[N, S]`; each seed meets the episodes that `rlx eval` gives."""

    def one(values: PyTree, state: PyTree, key: Key) -> jax.Array:
        return rlx.evaluate(make(values), env, state, key, Spec.episodes).episode_return

    over_seeds = jax.vmap(one, in_axes=(None, 0, 0))
    returns = jit(jax.vmap(over_seeds, in_axes=(0, 0, None)))(values, state, evaluation_keys(seeds, 0))  # [N, S, E]
    return np.asarray(returns).mean(axis=2)


def leave_run(trial: Trial, rows: list[dict[str, Any]], outcome: Outcome, state: PyTree, clock: Clock) -> None:
    """Write what `rlx train` would have left."""
    spec, out = trial.spec, trial.folder
    out.mkdir(parents=True)
    write_json(out / "config.json", spec.to_json())
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_checkpoint(out / "checkpoints", outcome.update, state)
    finish(spec, out, [(spec.seeds, out)], [outcome], clock)


def ranked(trials: list[Trial]) -> list[Trial]:
    """Order trials, best first; those with failed seeds come last."""
    order = rlx.rank(np.array([trial.final_return for trial in trials], float))  # None: NaN
    return [trials[index] for index in order]


def describe_values(values: dict[str, Any]) -> str:
    """Say values in words."""
    return ", ".join(f"{name}={describe_value(value)}" for name, value in values.items())


def describe_value(value: Any) -> str:
    """Say a value as it is written on the command line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
