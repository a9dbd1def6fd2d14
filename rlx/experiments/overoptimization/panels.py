"""Pairs of axes: reward against KL, gold against proxy, coefficients against size, laws against their rivals.

Axes of arrays: K points of a curve, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlx.experiments.overoptimization.looks import Look
from rlx.experiments.overoptimization.values import inner_peak, interval, law, number, numbers

INK, GREY, PROXY, GOLD = "#1f2430", "#8a8f98", "#0072B2", "#B8860B"
DASHED = (0, (4, 2))
LINES = ["-", "--", "-.", (0, (1, 1))]


def tidy(axes: Any) -> None:
    """Take away what is not read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def kl_axis(axes: Any, d_max: float) -> None:
    """Make the x axis, which is in d, tell KL: labels at round KL, as many as stand apart on a square-root scale."""
    axes.set_xlim(0, d_max * 1.02)
    top = d_max**2
    step = next(step for step in nice_numbers(top / 100) if top / step <= 10)
    ticks = [0.0]
    for value in [step / 4, *np.arange(1, top / step + 1e-6) * step]:
        if np.sqrt(value) - np.sqrt(ticks[-1]) > 0.08 * d_max:
            ticks.append(float(value))
    axes.set_xticks(np.sqrt(ticks), [f"{tick:g}" for tick in ticks])
    axes.set_xticks(np.sqrt(np.arange(1, top / step + 1e-6) * step), minor=True)


def nice_numbers(smallest: float) -> list[float]:
    """List 1, 2 and 5 times the powers of ten from about this number on, four powers of them."""
    power = np.floor(np.log10(smallest))
    return [float(digit * 10.0 ** (power + more)) for more in range(4) for digit in (1, 2, 5)]


def draw_arms(axes: Any, arms: Sequence[dict[str, Any]], looks: Mapping[str, Look]) -> None:
    """Draw each arm's gold (solid), proxy (dashed), their intervals, the fitted law (dotted) and the peak (a ring)."""
    for index, arm in enumerate(arms):
        draw_arm(axes, arm, looks[arm["label"]], index)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    tidy(axes)


def draw_arm(axes: Any, arm: dict[str, Any], look: Look, index: int = 0) -> None:
    """Draw one arm; `index` shifts its markers along, so that they do not cover those of others."""
    d, curve = numbers(arm["curve"]["d"]), arm["curve"]
    every = max(1, len(d) // 7)
    marks = {"marker": look.marker, "markersize": 4, "markevery": (index * every // 5 % every, every)}
    if curve["proxy"]:
        draw_mean(axes, d, curve["proxy"], 0.08, color=look.color, linestyle=DASHED, linewidth=1.1)
    if curve["gold"]:
        draw_mean(axes, d, curve["gold"], 0.16, color=look.color, linewidth=1.8, **marks)
    draw_fit(axes, arm)


def draw_mean(axes: Any, d: np.ndarray, values: dict[str, Any], shade: float, **line: Any) -> None:
    """Draw a mean `[K]` and shade its interval."""
    mean, low, high = (numbers(values[name]) for name in ("mean", "low", "high"))
    axes.plot(d, mean, **line)
    axes.fill_between(d, low, high, color=line["color"], alpha=shade, linewidth=0)


def draw_fit(axes: Any, arm: dict[str, Any]) -> None:
    """Draw the fitted law over its window, and a ring where the gold curve itself has its peak."""
    fit = arm["fit"]
    if not fit:
        return
    low, high = (number(value) for value in fit["window"])
    if np.isfinite([low, high, interval(fit["alpha"]).mean, interval(fit["beta"]).mean]).all():
        grid = np.linspace(max(low, 1e-3), high, 100)
        axes.plot(grid, law(fit, grid), color=INK, linestyle=":", linewidth=1.1, zorder=4)
    peak, gold = inner_peak(arm).mean, interval(fit["located_peak_gold"]).mean
    if np.isfinite([peak, gold]).all():
        axes.plot(peak, gold, "o", markersize=8, markerfacecolor="none", markeredgecolor=INK, zorder=5)


def draw_hump(axes: Any, arm: dict[str, Any]) -> None:
    """Draw one arm's proxy and gold in colours of their own, gold with a line a seed and the interval of its peak."""
    d, curve = numbers(arm["curve"]["d"]), arm["curve"]
    for seed_d, gold in zip(arm["runs"]["d"], arm["runs"]["gold"], strict=True):
        axes.plot(numbers(seed_d), numbers(gold), color=GOLD, alpha=0.45, linewidth=0.7)
    if curve["proxy"]:
        draw_mean(axes, d, curve["proxy"], 0.1, color=PROXY, linestyle=DASHED, linewidth=1.6)
    draw_mean(axes, d, curve["gold"], 0.2, color=GOLD, linewidth=2.4)
    draw_fit(axes, arm)
    peak = inner_peak(arm)
    if np.isfinite(peak).all():
        axes.axvspan(peak.low, peak.high, color=GREY, alpha=0.18, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    tidy(axes)


def draw_plane(axes: Any, arms: Sequence[dict[str, Any]], looks: Mapping[str, Look], lines: Mapping[str, Any]) -> None:
    """Draw gold against proxy, a line style an optimiser; on the diagonal the two are equal."""
    for arm in arms:
        proxy, gold = (numbers(arm["curve"][name]["mean"]) for name in ("proxy", "gold"))
        look = looks[arm["label"]]
        style = {"color": look.color, "linestyle": lines[arm["optimizer"]], "linewidth": 1.6}
        axes.plot(proxy, gold, marker=look.marker, markersize=4, markevery=max(1, len(gold) // 6), **style)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=1)
    tidy(axes)


def draw_trend(axes: Any, trend: dict[str, Any], look: Look, shift: float = 1.0) -> None:
    """Draw a coefficient with its intervals against a size times `shift`, and a straight line in its logarithm."""
    x, mean, low, high = (numbers(trend[name]) for name in ("x", "mean", "low", "high"))
    axes.errorbar(
        shift * x,
        mean,
        yerr=np.abs([mean - low, high - mean]),
        fmt=look.marker,
        color=look.color,
        markersize=5,
        linewidth=1.2,
        capsize=2,
    )
    draw_log_line(axes, x, mean, look.color)


def draw_log_line(axes: Any, x: np.ndarray, y: np.ndarray, color: Any) -> None:
    """Draw the least-squares line of y against log x, and make x logarithmic."""
    known = np.isfinite(y) & (x > 0)
    if len(np.unique(x[known])) > 1:
        slope, start = np.polyfit(np.log(x[known]), y[known], 1)
        ends = np.array([x[known].min(), x[known].max()])
        axes.plot(ends, start + slope * np.log(ends), color=color, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    tidy(axes)


def draw_rivals(axes: Any, arms: Sequence[dict[str, Any]], measure: str, laws: Mapping[str, str]) -> None:
    """Draw a row a law: a dot an arm, a bar to their median. AIC is above the best law's of the same arm."""
    for row, name in enumerate(laws):
        values = np.array([value for arm in arms for value in [rival_value(arm, name, measure)] if np.isfinite(value)])
        if len(values):
            shift = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else 0.0
            axes.barh(row, np.median(values), color="#0072B2", alpha=0.25, height=0.7)
            axes.plot(values, row + shift, "o", color="#0072B2", markersize=3, alpha=0.8)
    axes.set_yticks(range(len(laws)), [*laws.values()])
    axes.set_ylim(len(laws) - 0.5, -0.5)
    axes.set_xscale("symlog", linthresh=10 if measure == "aic" else 0.1)
    axes.set_xlim(left=0)
    tidy(axes)


def rival_value(arm: dict[str, Any], name: str, measure: str) -> float:
    """Give a law's extrapolation error in one arm, or its AIC less the lowest of the arm's laws; NaN for none."""
    values = {rival["law"]: number(rival[measure]) for rival in arm["rivals"]}
    known = [value for value in values.values() if np.isfinite(value)]
    best = min(known, default=0.0) if measure == "aic" else 0.0
    return values.get(name, np.nan) - best


def plane_lines(arms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give each optimiser a line style."""
    return {
        name: LINES[index % len(LINES)] for index, name in enumerate(dict.fromkeys(arm["optimizer"] for arm in arms))
    }
