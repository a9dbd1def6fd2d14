"""What a run leaves at its end: result.json and curve.png."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import rlx
from rlx.cli.best_of_n import draw_best_of_n
from rlx.cli.curves import draw_curves, make_curve, read_parts
from rlx.cli.language import Run
from rlx.cli.train import Outcome, warn


class Clock(NamedTuple):
    """When the process began, and how long its imports took, s."""

    started: float
    import_s: float


def statistics(values: Sequence[float]) -> dict[str, Any]:
    """Mean, interquartile mean and 95 % bootstrap interval of the mean over seeds (null for a single seed).

    The interquartile mean drops the lowest and highest quarter (Agarwal et al. 2021, arXiv 2108.13264).
    """
    if not values:
        return {"mean": None, "iqm": None, "ci95": None}
    from scipy import stats  # half a second to import

    interval = None
    if len(values) > 1:
        low, high = min(values), max(values)
        if low < high:
            resampled = stats.bootstrap(
                (np.asarray(values),), np.mean, confidence_level=0.95, method="percentile", rng=np.random.default_rng(0)
            )
            low, high = resampled.confidence_interval
        interval = [float(low), float(high)]
    return {"mean": float(np.mean(values)), "iqm": float(stats.trim_mean(values, 0.25)), "ci95": interval}


def provenance() -> dict[str, Any]:
    """Versions, device and the commit of rlx, if it runs from a git checkout."""
    names = ["rlx", "jax", "jaxlib", "flax", "optax", "chex", "gymnasium", "numpy"]
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in names},
        "device": f"{device.platform}: {device.device_kind} x {jax.device_count()}",
        "commit": _commit(),
    }


def command_line() -> str:
    """The command that is running, as it may be typed again."""
    return shlex.join(["rlx", *sys.argv[1:]])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return rlx.__version__


def _commit() -> str | None:
    root = Path(rlx.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def write_json(file: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(file)


def finish(
    spec: Run, out: Path, parts: list[tuple[list[int], Path]], outcomes: list[Outcome], clock: Clock
) -> dict[str, Any]:
    """Write curve.png and result.json."""
    failed = {seed: why for outcome in outcomes for seed, why in outcome.failed.items()}
    final = [value for outcome in outcomes for value in outcome.final_return]
    more = {name: value for outcome in outcomes for name, value in outcome.more.items()}
    draw_run(spec, out, more)
    run_s = sum(outcome.run_s for outcome in outcomes) / min(len(outcomes), os.cpu_count() or 1)
    steps_here = sum(outcome.update - outcome.start for outcome in outcomes) * spec.per_update
    steps_here *= spec.run.seeds // len(outcomes)
    result = {
        **spec.names,
        "config": spec.to_json(),
        "seeds": spec.seeds,
        spec.unit: spec.taken(max(outcome.update for outcome in outcomes)),
        "final_return": final,
        **statistics([value for value in final if value is not None]),
        "failed": failed,
        **more,
        "wall_s": round(time.perf_counter() - clock.started, 3),
        "import_s": round(clock.import_s, 3),
        "compile_s": round(max(outcome.compile_s for outcome in outcomes), 3),
        "run_s": round(run_s, 3),
        f"{spec.unit}_per_s": round(steps_here / run_s, 1) if run_s else None,
        **provenance(),
        "command": command_line(),
    }
    begun = {seed: outcome.start for (seeds, _), outcome in zip(parts, outcomes, strict=True) for seed in seeds}
    if any(begun.values()):
        result["resumed"] = {
            "after_update": begun,
            "note": f"wall_s, import_s, compile_s, run_s and {spec.unit}_per_s are of the last process alone"
            + ("; its environments began new episodes" if spec.host else ""),
        }
    write_json(out / "result.json", result)
    return result


def draw_run(spec: Run, out: Path, more: dict[str, Any]) -> None:
    """Draw curve.png."""
    parts = read_parts(out, spec)
    if not any(rows for _, rows in parts):
        warn("curve.png is not drawn, as metrics.jsonl is empty")
        return None
    try:
        if rows := more.get("best_of_n"):  # nothing learned
            return draw_best_of_n(out / "curve.png", rows)
        curve = make_curve(out.name, parts, spec.metric, spec.unit)
        panels = {f"{spec.algorithm} on {spec.place}": [curve]}
        draw_curves(out / "curve.png", panels, spec.metric_words, unit=spec.unit_words)
    except ImportError:
        warn("curve.png is not drawn, as matplotlib is missing: pip install 'rlx[plot]'")


def describe(summary: dict[str, Any], digits: int = 2) -> str:
    """Say mean, IQM and interval in words."""
    if summary["mean"] is None:
        return "every seed failed"
    text = f"mean {summary['mean']:.{digits}f}"
    if summary["ci95"] is not None:
        low, high = summary["ci95"]
        text += f", IQM {summary['iqm']:.{digits}f}, 95 % interval of the mean {low:.{digits}f} to {high:.{digits}f}"
    return text
