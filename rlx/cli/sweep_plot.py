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
    figure.savefig(file)


def draw_field(axes: Any, values: list[Any], order: Sequence[Trial]) -> None:
    """Draw the trials against the values that one field has in them; values that are no numbers stand side by side."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: dict[Any, float] = {}
    for value in values:
        places.setdefault(value, value if numbers else len(places))
    if not numbers:
        axes.set_xticks([*places.values()], [describe_value(value) for value in places])
    elif min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
    for index, (value, trial) in enumerate(zip(values, order, strict=True)):
        known = [x for x in trial.final_return if x is not None]
        look: dict[str, Any] = {"color": COLOURS[0], "alpha": 0.6}
        if index == 0:
            look = {"color": COLOURS[1], "zorder": 3, "label": "best"}
        if not known:
            axes.plot(places[value], 0.02, "x", color="black", transform=axes.get_xaxis_transform())
            continue
        summary = statistics(known)
        low, high = summary["ci95"] or (summary["mean"], summary["mean"])
        error = [[summary["mean"] - low], [high - summary["mean"]]]
        axes.errorbar(places[value], summary["mean"], yerr=error, fmt="o", markersize=4, linewidth=1, **look)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
