"""The progress bar."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np


@contextlib.contextmanager
def progress_bar(
    title: str, updates: int, rows: int, parts: int, shown: bool, metric: str = "return", digits: int = 1
) -> Iterator[Callable[..., None]]:
    """Show one line on standard error: steps per second, return, time left; gives what to report to.

    Args:
        title: what is trained.
        updates: of each part.
        rows: environment steps of an update of a part, all its seeds together.
        parts: how many report.
        shown: False: show nothing; nor is anything shown where standard error is no terminal.
        metric: what is reported, in a word.
        digits: of it, behind the point.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]} steps/s  {task.fields[metric]} {task.fields[mean]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    done, begun = [0] * parts, time.perf_counter()
    means: list[float | None] = [None] * parts
    first: int | None = None
    # redrawn when told to and at most 5 times a second: a thread of its own would take time from the training
    with Progress(
        *columns, console=console, auto_refresh=False, disable=not (shown and console.is_terminal)
    ) as progress:
        task = progress.add_task(title, total=updates * parts, speed="-", mean="-", metric=metric)
        drawn = 0.0

        def report(update: int, mean: float | None, part: int = 0) -> None:
            nonlocal drawn, first, begun
            done[part], means[part] = update, mean if mean is not None else means[part]
            now = time.perf_counter()
            if first is None:  # from here on nothing is compiled
                first, begun = sum(done), now
            if now - drawn < 0.2 and sum(done) < updates * parts:
                return
            drawn = now
            speed = (sum(done) - first) * rows / max(now - begun, 1e-9)
            known = [mean for mean in means if mean is not None]
            progress.update(
                task,
                completed=sum(done),
                speed=f"{speed:,.0f}" if speed else "-",
                mean=f"{np.mean(known):.{digits}f}" if known else "-",
                refresh=True,
            )

        yield report
