"""Lines of metrics.jsonl: what is in them, and how they are read.

Axes: U updates of a chunk, S seeds of the group.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlx.types import PyTree


def metric_names(row: dict[str, Any]) -> list[str]:
    """Give the metrics of a line: what is a list over seeds."""
    return [name for name, value in row.items() if isinstance(value, list) and name != "kept_checkpoints"]


def per_seed(metrics: PyTree, num_seeds: int) -> dict[str, np.ndarray]:
    """Bring a chunk's metrics, `[U]` of a single seed or `[U, S]`, to numpy `[U, S]`."""
    return {name: (array := np.asarray(value)).reshape(len(array), num_seeds) for name, value in metrics.items()}


def summarize(values: dict[str, np.ndarray], update: int, taken: int, unit: str = "env_steps") -> dict[str, Any]:
    """Make one line of metrics.jsonl from a chunk's metrics `[U, S]`: a list over seeds for every metric.

    `taken` is how many of `unit` the updates are. Means over updates; `episodes` is a sum, and means over episodes are
    weighted by it (null where none ended).
    """
    episodes = values["episodes"].sum(axis=0)
    row: dict[str, Any] = {"update": update, unit: taken}
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
    values: dict[str, np.ndarray],
    seeds: list[int],
    known: dict[int, str],
    update: int,
    taken: Callable[[int], int],
    unit: str = "environment steps",
) -> dict[int, str]:
    """Name the seeds whose metrics `[U, S]` stopped being finite in this chunk: at which update, in which metrics.

    `taken` tells how many of `unit` some updates are.
    """
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
            f"seed {seed} failed: NaN or infinity at update {at} ({unit} {taken(at - 1):,} to {taken(at):,}) in {which}"
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
