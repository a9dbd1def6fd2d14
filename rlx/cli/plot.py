"""`rlx plot`: one or several runs in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlx.cli.curves import RETURN, Curve, draw_curves, make_curve, read_parts
from rlx.cli.metrics import metric_names
from rlx.cli.parsing import UsageError, leading_words, parse, read_spec
from rlx.cli.spec import Spec
from rlx.cli.train import warn
from rlx.envs.host import unknown

FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlotOptions:
    """What to draw and where to put it."""

    metric: str = RETURN  # any metric of metrics.jsonl, against environment steps; default: training returns
    iqm: bool = False  # draw the interquartile mean over seeds; default: the mean
    out: Path | None = None  # picture: .png, .svg or .pdf; default: METRIC.png in the current folder


def plot(argv: list[str]) -> int:
    """`rlx plot RUN... [flags]`."""
    words, rest = leading_words(argv)
    options = parse({"plot": PlotOptions()}, rest, "rlx plot RUN...")["plot"]
    if not words:
        raise UsageError("say which runs: rlx plot RUN... [flags]")
    out = options.out or Path(f"{options.metric}.png")
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    folders = [Path(word) for word in words]
    specs = [read_spec(folder) for folder in folders]
    curves = [
        read_curve(folder, spec, options.metric, label)
        for folder, spec, label in zip(folders, specs, labels(folders, specs), strict=True)
    ]
    try:
        draw_curves(out, arrange(specs, curves), options.metric, options.iqm)
    except ImportError as error:
        raise UsageError("rlx plot needs matplotlib: pip install 'rlx[plot]'") from error
    print(f"{out} shows {options.metric} of {len(curves)} run{'s' if len(curves) > 1 else ''}")
    return 0


def read_curve(folder: Path, spec: Spec, metric: str, label: str) -> Curve:
    """Read a metric of a run, and say which seeds are not drawn to the end."""
    parts = read_parts(folder, spec)
    names = list(dict.fromkeys(name for _, rows in parts for row in rows[-1:] for name in metric_names(row)))
    if not names:
        raise UsageError(f"{folder} has nothing to plot yet: its metrics.jsonl is empty")
    if metric not in names:
        raise UsageError(f"{unknown('metric', metric, names)} ({folder} has: {', '.join(names)})")
    curve = make_curve(label, parts, metric)
    if not curve.seeds:
        raise UsageError(f"{folder} has nothing to plot: in no seed that did not fail is there a value of {metric}")
    if absent := [str(seed) for seed in spec.seeds if seed not in curve.seeds]:
        warn(f"{folder}: left out, as they failed or have no {metric} yet: seeds {', '.join(absent)}")
    if early := [str(seed) for seed, value in zip(curve.seeds, curve.values[-1], strict=True) if np.isnan(value)]:
        warn(f"{folder}: the mean ends before step {curve.steps[-1]:,.0f}, as seeds {', '.join(early)} do")
    return curve


def labels(folders: list[Path], specs: list[Spec]) -> list[str]:
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


def arrange(specs: list[Spec], curves: list[Curve]) -> dict[str, list[Curve]]:
    """Put the curves of each environment into a panel, titled with it and with the algorithm where there is one."""
    panels: dict[str, list[Curve]] = {}
    algorithms = {spec.env: {other.algorithm for other in specs if other.env == spec.env} for spec in specs}
    for spec, curve in zip(specs, curves, strict=True):
        title = spec.env if len(algorithms[spec.env]) > 1 else f"{spec.algorithm} on {spec.env}"
        panels.setdefault(title, []).append(curve)
    return panels
