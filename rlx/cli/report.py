"""What a finished run leaves: result.json and curve.png."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rlx


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


def draw_curve(file: Path, rows: list[dict[str, Any]], title: str, kept: Sequence[bool]) -> None:
    """Draw training returns against environment steps: one thin line a seed, their mean and its 95 % interval.

    Args:
        file: where to.
        rows: lines of metrics.jsonl, one or more.
        title: over the picture.
        kept: per seed, whether it is drawn: not where it failed.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    steps = np.array([row["env_steps"] for row in rows])
    returns = np.array([row["episode_return"] for row in rows], float)  # [rows, S], NaN where no episode ended
    returns = returns[:, np.asarray(kept)]
    for row in range(1, len(returns)):  # then the curve stays where it was
        returns[row] = np.where(np.isnan(returns[row]), returns[row - 1], returns[row])
    whole = ~np.isnan(returns).any(axis=1)  # from there on every seed has ended an episode

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, returns, color="tab:blue", alpha=0.25, linewidth=0.8)
    if returns.shape[1] and whole.any():
        steps, returns = steps[whole], returns[whole]
        mean = returns.mean(axis=1)
        axes.plot(steps, mean, color="tab:blue", linewidth=2, label=f"mean of {returns.shape[1]} seeds")
        if returns.shape[1] > 1:
            draws = np.random.default_rng(0).integers(returns.shape[1], size=(1000, returns.shape[1]))
            low, high = np.percentile(returns[:, draws].mean(axis=2), [2.5, 97.5], axis=1)
            axes.fill_between(steps, low, high, color="tab:blue", alpha=0.2, label="95 % bootstrap interval")
            axes.legend(loc="lower right", frameon=False)
    axes.set(title=title, xlabel="environment steps per seed", ylabel="return of training episodes")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)
