"""What result.json holds."""

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
