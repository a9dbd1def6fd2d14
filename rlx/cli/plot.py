"""`rlx plot`: one or several runs in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlx.cli.curves import Curve, draw_curves, make_curve, read_parts
from rlx.cli.language import Run
from rlx.cli.metrics import metric_names
from rlx.cli.parsing import UsageError, leading_words, parse, read_spec
from rlx.cli.train import warn
from rlx.envs.host import unknown

FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlotOptions:
    """What to draw and where to put it."""

    metric: str | None = None  # any metric of metrics.jsonl, against environment steps; default: of training, returns
    iqm: bool = False  # draw the interquartile mean over seeds; default: the mean
    out: Path | None = None  # picture: .png, .svg or .pdf; default: METRIC.png in the current folder


def plot(argv: list[str]) -> int:
    """`rlx plot RUN... [flags]`."""
    words, rest = leading_words(argv)
    options = parse({"plot": PlotOptions()}, rest, "rlx plot RUN...")["plot"]
    if not words:
        raise UsageError("say which runs: rlx plot RUN... [flags]")
    if options.out and options.out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {options.out} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    folders = [Path(word) for word in words]
    specs = [read_spec(folder) for folder in folders]
    metric = options.metric or specs[0].metric
    out = options.out or Path(f"{metric}.png")
    unit = specs[0].unit_words
    if other := [str(folder) for folder, spec in zip(folders, specs, strict=True) if spec.unit_words != unit]:
        raise UsageError(f"{folders[0]} counts {unit} and {other[0]} does not: draw them apart")
    curves = [
        read_curve(folder, spec, metric, label)
        for folder, spec, label in zip(folders, specs, labels(folders, specs), strict=True)
    ]
    try:
        words = specs[0].metric_words if metric == specs[0].metric else metric
        draw_curves(out, arrange(specs, curves), words, options.iqm, unit)
    except ImportError as error:
        raise UsageError("rlx plot needs matplotlib: pip install 'rlx[plot]'") from error
    print(f"{out} shows {metric} of {len(curves)} run{'s' if len(curves) > 1 else ''}")
    return 0


def read_curve(folder: Path, spec: Run, metric: str, label: str) -> Curve:
    """Read a metric of a run, and say which seeds are not drawn to the end."""
    parts = read_parts(folder, spec)
    names = list(dict.fromkeys(name for _, rows in parts for row in rows[-1:] for name in metric_names(row)))
    if not names:
        raise UsageError(f"{folder} has nothing to plot yet: its metrics.jsonl is empty")
    if metric not in names:
        raise UsageError(f"{unknown('metric', metric, names)} ({folder} has: {', '.join(names)})")
    curve = make_curve(label, parts, metric, spec.unit)
    if not curve.seeds:
        raise UsageError(f"{folder} has nothing to plot: in no seed that did not fail is there a value of {metric}")
    if absent := [str(seed) for seed in spec.seeds if seed not in curve.seeds]:
        warn(f"{folder}: left out, as they failed or have no {metric} yet: seeds {', '.join(absent)}")
    if early := [str(seed) for seed, value in zip(curve.seeds, curve.values[-1], strict=True) if np.isnan(value)]:
        warn(f"{folder}: the mean ends before step {curve.steps[-1]:,.0f}, as seeds {', '.join(early)} do")
    return curve


def labels(folders: list[Path], specs: list[Run]) -> list[str]:
    """Name runs for the legend: by their folders' names, where these differ, and by algorithm, where that differs."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len({spec.algorithm for spec in specs}) > 1:
        names = [f"{spec.algorithm}, {name}" for spec, name in zip(specs, names, strict=True)]
    counts = [f"{spec.run.seeds} seed{'s' if spec.run.seeds > 1 else ''}" for spec in specs]
    return [legible(f"{name} ({count})") for name, count in zip(names, counts, strict=True)]


def legible(label: str) -> str:
    """Shorten a label in its middle to 60 characters, and keep matplotlib from reading anything into it."""
    label = label if len(label) <= 60 else f"{label[:28]} … {label[-29:]}"
    return label.replace("$", r"\$") if not label.startswith("_") else legible(f" {label}")


def arrange(specs: list[Run], curves: list[Curve]) -> dict[str, list[Curve]]:
    """Put the curves of each environment into a panel, titled with it and with the algorithm where there is one."""
    panels: dict[str, list[Curve]] = {}
    algorithms = {spec.place: {other.algorithm for other in specs if other.place == spec.place} for spec in specs}
    for spec, curve in zip(specs, curves, strict=True):
        title = spec.place if len(algorithms[spec.place]) > 1 else f"{spec.algorithm} on {spec.place}"
        panels.setdefault(title, []).append(curve)
    return panels
