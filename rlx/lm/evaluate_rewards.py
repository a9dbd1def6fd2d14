"""How good scores are on comparisons that they were not learned from: accuracy, what it rests on, calibration.

Axes: N comparisons, E bins.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rlx.ops.best_of_n import win_rate
from rlx.ops.calibration import (
    Bins,
    binned_mean,
    calibration_error,
    fit_temperature,
    length_baseline,
    pair_confidence,
    wilson_interval,
)


class RewardReport(NamedTuple):
    """What `evaluate_rewards` found.

    Attributes:
        count: N, comparisons.
        accuracy: share of them whose chosen response has the greater score, equal scores counting one half.
        interval: of 95 percent, for the accuracy.
        length_accuracy: of the better one of "the longer response" and "the shorter one".
        length_interval: of 95 percent, for that.
        by_margin: accuracy along |r_w - r_l|, in bins of about equal count.
        by_length: accuracy along the chosen response's length minus the rejected's, likewise.
        reliability: accuracy along the confidence sigmoid(|r_w - r_l|), in bins of equal width from 1/2 to 1.
        calibration_error: mean distance between the two (ECE), 0 to 1.
        recalibrated: `reliability` after scores were divided by the temperature.
        recalibrated_error: its calibration error.
    """

    count: int
    accuracy: float
    interval: tuple[float, float]
    length_accuracy: float
    length_interval: tuple[float, float]
    by_margin: Bins
    by_length: Bins
    reliability: Bins
    calibration_error: float
    recalibrated: Bins
    recalibrated_error: float


def pair_temperature(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Temperature to divide scores by, so that sigmoid(r_w - r_l) is as calibrated as one number can make it.

    Args:
        chosen: `[N]` scores of preferred responses, of comparisons that are neither trained nor reported on.
        rejected: `[N]` scores of the others.

    Returns:
        A scalar, as `fit_temperature` has it.
    """
    return fit_temperature(jnp.stack([chosen, rejected], axis=-1), jnp.zeros(len(chosen), jnp.int32))


def evaluate_rewards(
    chosen: jax.Array,
    rejected: jax.Array,
    chosen_length: jax.Array,
    rejected_length: jax.Array,
    temperature: float | jax.Array = 1.0,
    bins: int = 10,
) -> RewardReport:
    """Compare scores with preferences.

    Args:
        chosen: `[N]` scores of the preferred responses; leave ties out.
        rejected: `[N]` scores of the others.
        chosen_length: `[N]` lengths of the preferred responses, tokens or characters.
        rejected_length: `[N]` lengths of the others.
        temperature: a scalar or `[N]`, from `pair_temperature` on other comparisons.
        bins: E, the most there are; fewer where values are equal.

    Raises:
        ValueError: there are no comparisons, or fewer than two bins.
    """
    chex.assert_equal_shape([chosen, rejected, chosen_length, rejected_length])
    if not len(chosen) or bins < 2:
        raise ValueError(f"evaluate_rewards of {len(chosen)} comparisons in {bins} bins: must be 1 and 2 at least")
    right, gap = win_rate(chosen, rejected), jnp.abs(chosen - rejected)
    longer = (chosen_length - rejected_length).astype(jnp.float32)
    accuracy, length = float(jnp.mean(right)), float(length_baseline(chosen_length, rejected_length))
    raw, recalibrated = (reliability(chosen / t, rejected / t, bins) for t in (1.0, temperature))
    return RewardReport(
        count=len(chosen),
        accuracy=accuracy,
        interval=interval(accuracy, len(chosen)),
        length_accuracy=length,
        length_interval=interval(length, len(chosen)),
        by_margin=binned_mean(gap, right, even_edges(gap, bins)),
        by_length=binned_mean(longer, right, even_edges(longer, bins)),
        reliability=raw,
        calibration_error=float(calibration_error(raw)),
        recalibrated=recalibrated,
        recalibrated_error=float(calibration_error(recalibrated)),
    )


def reliability(chosen: jax.Array, rejected: jax.Array, bins: int) -> Bins:
    """Accuracy along confidence, in bins of equal width from 1/2 to 1."""
    return binned_mean(*pair_confidence(chosen, rejected), jnp.linspace(0.5, 1.0, bins + 1))


def even_edges(values: jax.Array, bins: int) -> jax.Array:
    """Edges of bins that hold about as many values each; fewer bins where values are equal."""
    edges = np.unique(np.quantile(np.asarray(values), np.linspace(0.0, 1.0, bins + 1)))
    return jnp.asarray(edges if len(edges) > 1 else np.repeat(edges, 2), jnp.float32)


def interval(accuracy: float, count: int) -> tuple[float, float]:
    """Wilson's, of 95 percent."""
    low, high = wilson_interval(jnp.float32(accuracy), count)
    return float(low), float(high)


def draw_reliability(path: Path, report: RewardReport, title: str = "") -> None:
    """Draw accuracy against confidence, with intervals of 95 percent, before and after recalibration.

    Args:
        path: of the picture: .png, .svg or .pdf.
        report: what to draw.
        title: above the picture.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a diagram of reliability needs matplotlib: pip install 'rlx[plot]'") from error
    figure = Figure(figsize=(5.0, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.5, 1.0], [0.5, 1.0], color="0.6", linewidth=1.0, label="calibrated")
    kinds = [
        ("as trained", "o", "#0072B2", report.reliability, report.calibration_error),
        ("recalibrated", "s", "#D55E00", report.recalibrated, report.recalibrated_error),
    ]
    for name, marker, colour, bins, error in kinds:
        some = np.asarray(bins.count) > 0
        position, mean = np.asarray(bins.position)[some], np.asarray(bins.mean)[some]
        low, high = (np.asarray(end) for end in wilson_interval(jnp.asarray(mean), jnp.asarray(bins.count)[some]))
        bars = np.maximum([mean - low, high - mean], 0.0)
        label = f"{name}, error {error:.3f}"
        axes.errorbar(position, mean, bars, marker=marker, color=colour, capsize=2, linewidth=1.0, label=label)
    axes.set_xlabel("confidence, sigmoid(|difference of scores|)")
    axes.set_ylabel("accuracy")
    axes.set_title(title)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
