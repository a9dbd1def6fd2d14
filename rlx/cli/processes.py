"""A run's groups of seeds in processes, its signals, its lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from rlx.cli.language import Run
from rlx.cli.metrics import metric_names, read_rows
from rlx.cli.parsing import UsageError
from rlx.cli.train import Outcome, train_group, warn


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder; JAX_ENABLE_COMPILATION_CACHE=false turns it off."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "rlx" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def groups(spec: Run, folder: Path) -> list[tuple[list[int], Path]]:
    """Seeds that run together and their folders: all in one program, or over a host environment one by one."""
    if len(spec.seeds) == 1 or not spec.host:
        return [(spec.seeds, folder)]
    return [([seed], folder / "seeds" / str(seed)) for seed in spec.seeds]


@dataclass
class Stop:
    """Which signal asked the run to save and leave; 0 for none."""

    signal: int = 0


def catch_signals() -> Stop:
    """Let SIGINT and SIGTERM ask for a stop; a second one ends the process at once."""
    stop = Stop()

    def ask(number: int, _: Any) -> None:
        stop.signal = number
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop


def train_parts(
    spec: Run, out: Path, parts: list[tuple[list[int], Path]], report: Callable[..., None], stop: Stop
) -> list[Outcome]:
    """Train every group of a run into its folder."""
    events = out / "tensorboard" if spec.run.tensorboard else None
    if len(parts) == 1:
        return [train_group(spec, spec.seeds, out, events, report, warn, lambda: stop.signal != 0)]
    outcomes = train_processes(spec, parts, events, report, stop)
    merge_rows([path for _, path in parts], out / "metrics.jsonl", spec.unit)
    return outcomes


def train_processes(
    spec: Run, parts: list[tuple[list[int], Path]], events: Path | None, report: Callable[..., None], stop: Stop
) -> list[Outcome]:
    """Train groups in processes of their own."""
    for _, folder in parts:
        folder.mkdir(parents=True, exist_ok=True)
    tasks = [(spec, seeds, folder, events, index) for index, (seeds, folder) in enumerate(parts)]
    return in_processes(train_process, tasks, report, stop)


def in_processes(
    function: Callable[..., Any], tasks: Sequence[tuple], report: Callable[..., None], stop: Stop
) -> list[Any]:
    """Call a function once for each task, in processes of their own, as many at once as there are cores.

    They report and are asked to stop through `channel`: by a signal, or where one of them fails.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads half
    updates, stopping = context.Queue(), context.Event()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProcessPoolExecutor(min(len(tasks), cores), context, begin_process, (updates, stopping)) as pool:
        # children inherit the mask: signals to the whole process group are the parent's affair from their first moment
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        jobs = [pool.submit(function, *task) for task in tasks]
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        while not all(job.done() for job in jobs) or not updates.empty():
            if stop.signal or any(job.done() and job.exception() for job in jobs):
                stopping.set()
            with contextlib.suppress(queue.Empty):
                report(*updates.get(timeout=0.2))
        return [job.result() for job in jobs]


_updates: Any = None  # of a training process: the queue to its parent, and the event that asks it to stop
_stopping: Any = None


def begin_process(updates: Any, stopping: Any) -> None:
    """Make this process one that trains for its parent, and ends when that does, however that ends."""
    global _updates, _stopping
    _updates, _stopping = updates, stopping
    updates.cancel_join_thread()

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    use_compilation_cache()


def channel() -> tuple[Callable[[Any], None], Callable[[], bool]]:
    """In such a process: what sends to its parent, and what tells whether the parent asks it to stop."""
    return _updates.put, _stopping.is_set


def train_process(spec: Run, seeds: list[int], folder: Path, events: Path | None, index: int) -> Outcome:
    """Train one group in this process."""

    send, stopping = channel()

    def report(update: int, mean: float | None) -> None:
        send((update, mean, index))

    return train_group(spec, seeds, folder, events, report, warn, stopping)


def merge_rows(folders: list[Path], file: Path, unit: str) -> None:
    """Put the lines of metrics.jsonl of several groups side by side; a group that ended early has null from there."""
    runs = [read_rows(folder / "metrics.jsonl") for folder in folders]
    longest = max(runs, key=len)
    with file.open("w") as merged:
        for index, template in enumerate(longest):
            rows = [run[index] if index < len(run) else {} for run in runs]
            row: dict[str, Any] = {name: template[name] for name in ("update", unit)}
            row |= {name: [row.get(name, [None])[0] for row in rows] for name in metric_names(template)}
            row["time_s"] = max(row.get("time_s", 0.0) for row in rows)
            if failed := {seed: why for row in rows for seed, why in row.get("failed", {}).items()}:
                row["failed"] = failed
            merged.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second process from training into the same folder; the system frees the lock however a process ends."""
    with (folder / "config.json").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder} is being trained by another process") from None
        except OSError:  # a file system without locks
            pass
        yield
