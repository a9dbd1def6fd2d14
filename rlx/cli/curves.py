"""Learning curves: from the lines of metrics.jsonl to a picture.

Axes: R rows (environment steps), S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlx.cli.language import Run
from rlx.cli.metrics import failed_seeds, read_rows

# Okabe and Ito's colours, told apart by the colour-blind too; all of them once per line style
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLES = ["-", "--", ":", "-."]


class Curve(NamedTuple):
    """A metric of a run.

    Attributes:
        label: in the legend.
        seeds: those that are drawn.
        steps: environment steps (or what else a run takes) per seed, `[R]`: of every line that any seed has.
        values: `[R, S]`; NaN before a seed's first value and after its last.
    """

    label: str
    seeds: list[int]
    steps: np.ndarray
    values: np.ndarray


def read_parts(folder: Path, spec: Run) -> list[tuple[list[int], list[dict[str, Any]]]]:
    """Read the lines of a run, finished or not: seeds and their lines, several such where each seed was a process."""
    if (folder / "seeds").is_dir():
        return [([seed], read_rows(folder / "seeds" / str(seed) / "metrics.jsonl")) for seed in spec.seeds]
    return [(spec.seeds, read_rows(folder / "metrics.jsonl"))]


def make_curve(
    label: str, parts: list[tuple[list[int], list[dict[str, Any]]]], metric: str, unit: str = "env_steps"
) -> Curve:
    """Bring the seeds that did not fail to the same steps, in straight lines between those they have."""
    failed = {seed for _, rows in parts for seed in failed_seeds(rows)}
    points = {
        seed: known_values(rows, metric, index, unit)
        for seeds, rows in parts
        for index, seed in enumerate(seeds)
        if seed not in failed
    }
    points = {seed: (steps, values) for seed, (steps, values) in points.items() if len(steps)}
    if not points:
        return Curve(label, [], np.zeros(0), np.zeros((0, 0)))
    grid = np.unique(np.concatenate([steps for steps, _ in points.values()]))
    values = [np.interp(grid, steps, values, left=np.nan, right=np.nan) for steps, values in points.values()]
    return Curve(label, list(points), grid, np.stack(values, axis=1))


def known_values(
    rows: list[dict[str, Any]], metric: str, index: int, unit: str = "env_steps"
) -> tuple[np.ndarray, np.ndarray]:
    """Give one seed's steps and values from its first value on; where a line has none, the value stays."""
    steps = np.array([row[unit] for row in rows], float)
    values = np.array([row[metric][index] if metric in row else None for row in rows], float)
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return steps[:0], values[:0]
    latest = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return steps[known[0] :], values[latest[known[0] :]]


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without its lowest and highest quarter."""
    from scipy import stats  # half a second to import

    return stats.trim_mean(values, 0.25, axis=-1)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis."""
    return values.mean(axis=-1)


def bootstrap_interval(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[Any, Any]:
    """Give the 95 % percentile bootstrap interval over seeds of a statistic of `[R, S]`: low `[R]`, high `[R]`."""
    num_seeds = values.shape[1]
    draws = np.random.default_rng(0).integers(num_seeds, size=(1000, num_seeds))
    low, high = zip(*(np.percentile(statistic(row[draws]), [2.5, 97.5]) for row in values), strict=True)
    return low, high


def draw_curves(
    file: Path,
    panels: Mapping[str, Sequence[Curve]],
    metric: str = "return of training episodes",
    iqm: bool = False,
    unit: str = "environment steps",
) -> None:
    """Draw curves against environment steps, or what else runs take: each one's mean over seeds and 95 % interval.

    A picture of a single curve also shows a thin line per seed.

    Args:
        file: where to; its extension says in which format.
        panels: curves by the title of their panel.
        metric: what they show, in words.
        iqm: draw the interquartile mean in place of the mean.
        unit: of the steps, in words.

    Raises:
        ImportError: matplotlib is missing.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    single = sum(map(len, panels.values())) == 1
    legend = 0.0 if single else 0.25 + 0.2 * max(map(len, panels.values()))  # below the panel, inches
    figure = Figure(figsize=(max(6.4, 5.0 * columns), (4.0 + legend) * rows), dpi=150, layout="constrained")
    for index, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        draw_panel(axes, curves, iqm, single)
        axes.set(title=title, xlabel=f"{unit} per seed", ylabel=metric)
    figure.savefig(file)


def draw_panel(axes: Any, curves: Sequence[Curve], iqm: bool, single: bool) -> None:
    """Draw curves into one pair of axes; `single`: there is no other curve in the picture."""
    from matplotlib.ticker import EngFormatter

    name, statistic = ("IQM", interquartile_mean) if iqm else ("mean", mean)
    for index, curve in enumerate(curves):
        look = {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index // len(COLOURS) % len(STYLES)]}
        labels = (curve.label, None)
        if single:
            labels = (f"{name} of {len(curve.seeds)} seeds", "95 % bootstrap interval")
            axes.plot(curve.steps, curve.values, color=look["color"], alpha=0.3, linewidth=0.8)
        draw_statistic(axes, curve, statistic, look, *labels)
    if not single:
        title = f"{name} and 95 % bootstrap interval over seeds"
        axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False, fontsize="small")
    elif len(curves[0].seeds) > 1:
        axes.legend(loc="best", frameon=False)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def draw_statistic(
    axes: Any, curve: Curve, statistic: Callable, look: dict[str, str], label: str, interval_label: str | None
) -> None:
    """Draw the mean or the IQM over seeds where every seed has a value, and its interval."""
    whole = ~np.isnan(curve.values).any(axis=1)
    if not whole.any():
        return
    steps, values = curve.steps[whole], curve.values[whole]
    axes.plot(steps, statistic(values), linewidth=2, label=label, **look)
    if len(curve.seeds) > 1:
        low, high = bootstrap_interval(values, statistic)
        axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0, label=interval_label)
