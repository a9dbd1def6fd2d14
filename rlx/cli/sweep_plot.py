"""The picture of a sweep: final return against every field that varied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlx.cli.curves import COLOURS
from rlx.cli.report import statistics
from rlx.cli.trials import Trial, describe_value


def draw_sweep(file: Path, title: str, order: Sequence[Trial]) -> None:
    """Draw a panel a field: a point a configuration, its mean over seeds with the 95 % interval; the best stands out.

    A configuration of which every seed failed is a cross at the bottom.

    Args:
        file: where to; its extension says in which format.
        title: of the picture.
        order: the trials, best first.

    Raises:
        ImportError: matplotlib is missing.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    names = [*order[0].values]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(6.4, 4.2 * columns), 4.0 * rows), dpi=150, layout="constrained")
    figure.suptitle(title)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        draw_field(axes, [trial.values[name] for trial in order], order)
        axes.set(xlabel=name, ylabel="greedy return, mean and 95 % interval" if index % columns == 0 else "")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", frameon=False)
    figure.savefig(file)


def draw_field(axes: Any, values: list[Any], order: Sequence[Trial]) -> None:
    """Draw the trials against the values that one field has in them; values that are no numbers stand side by side."""
    from matplotlib.ticker import LogLocator, NullFormatter

    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: dict[Any, float] = {}
    for value in values:
        places.setdefault(value, value if numbers else len(places))
    if not numbers:
        axes.set_xticks([*places.values()], [describe_value(value) for value in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    for index, (value, trial) in enumerate(zip(values, order, strict=True)):
        place = places[value] if numbers else places[value] + 0.3 * (index / len(order) - 0.5)
        draw_trial(axes, place, trial, index == 0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def draw_trial(axes: Any, place: float, trial: Trial, best: bool) -> None:
    """Draw one configuration."""
    known = [value for value in trial.final_return if value is not None]
    if not known:
        axes.plot(place, 0.02, "x", color="black", transform=axes.get_xaxis_transform())
        return
    look: dict[str, Any] = {"color": COLOURS[1], "zorder": 3, "label": "best"} if best else {"color": COLOURS[0]}
    summary = statistics(known)
    mean = summary["mean"]
    low, high = summary["ci95"] or (mean, mean)
    axes.errorbar(place, mean, yerr=[[mean - low], [high - mean]], fmt="o", markersize=4, linewidth=1, **look)
