"""Reading a result: a missing number is NaN, and shown as a dash.

Axes: K points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
OPTIMIZERS = {
    "best_of_n": "best-of-n",
    "ppo": "PPO",
    "grpo": "GRPO",
    "reinforce": "REINFORCE",
    "rl": "RL",
    "dpo": "DPO",
    "ipo": "IPO",
    "slic": "SLiC",
    "tilt": "exact tilt",
}


class Interval(NamedTuple):
    """A mean and its 95 % interval, each of them NaN where it is not known."""

    mean: float
    low: float
    high: float


def number(value: Any) -> float:
    """Give a float, NaN for null."""
    return math.nan if value is None else float(value)


def numbers(values: Sequence[Any] | None) -> np.ndarray:
    """Give floats `[K]`, NaN for each null; none at all for null."""
    return np.array(values or [], float)


def interval(value: dict[str, Any] | None) -> Interval:
    """Read `{"mean", "low", "high"}`."""
    return Interval(*(number((value or {}).get(name)) for name in Interval._fields))


def kl(distance: Interval) -> Interval:
    """Square an interval of d: KL in nats."""
    return Interval(*(value * value for value in distance))


def law(fit: dict[str, Any], d: np.ndarray) -> np.ndarray:
    """Evaluate a fit at d > 0: d (alpha - beta d) of best-of-n, d (alpha - beta log d) of RL."""
    alpha, beta = interval(fit["alpha"]).mean, interval(fit["beta"]).mean
    return d * (alpha - beta * (d if fit["law"] == "best_of_n" else np.log(d)))


def optimizer_name(optimizer: str) -> str:
    """Name an optimiser in words."""
    return OPTIMIZERS.get(optimizer, optimizer)


def show(value: Any, digits: int = 2) -> str:
    """Write a number with so many decimals, large ones with none; a dash where there is none."""
    value = number(value)
    if not math.isfinite(value):
        return DASH
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", MINUS)


def show_interval(value: Interval, digits: int = 2) -> str:
    """Write `mean [low, high]`, without the brackets where there is no interval."""
    mean, low, high = (show(each, digits) for each in value)
    return mean if DASH in (mean, low, high) or low == high == mean else f"{mean} [{low}, {high}]"


def arms_of(world: dict[str, Any], study: dict[str, Any]) -> list[dict[str, Any]]:
    """Find a study's arms in a world, in the study's order."""
    arms = {arm["name"]: arm for arm in world["arms"]}
    return [arms[name] for name in study["arms"] if name in arms]


def by_optimizer(arms: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Put arms together by their optimiser, in the order of first appearance."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for arm in arms:
        groups.setdefault(arm["optimizer"], []).append(arm)
    return groups


def weakest(arms: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Find the arm of the smallest proxy, of several the one of fewest comparisons; None where no arm has a proxy."""
    return min(
        (arm for arm in arms if arm["proxy"] and arm["curve"]["gold"]),
        key=lambda arm: (number(arm["proxy"]["parameters"]), number(arm["proxy"]["comparisons"])),
        default=None,
    )


def peak_and_end(arm: dict[str, Any]) -> tuple[float, float, float]:
    """Give a curve's d at its highest mean gold, that gold, and the gold at its end; NaN where there is no curve."""
    d, gold = numbers(arm["curve"]["d"]), numbers((arm["curve"]["gold"] or {}).get("mean"))
    known = np.flatnonzero(np.isfinite(gold))
    if not len(known):
        return math.nan, math.nan, math.nan
    top = known[np.argmax(gold[known])]
    return float(d[top]), float(gold[top]), float(gold[known[-1]])


def inner_peak(arm: dict[str, Any]) -> Interval:
    """Give the d where the gold curve itself has its peak; NaN where that is the curve's end, or there is no curve."""
    peak, d = interval((arm["fit"] or {}).get("located_peak_d")), numbers(arm["curve"]["d"])
    return peak if peak.mean < 0.98 * d.max(initial=0.0) else interval(None)


def greek(text: str) -> str:
    """Write the coefficients by their letters."""
    return text.replace("alpha", "\N{GREEK SMALL LETTER ALPHA}").replace("beta", "\N{GREEK SMALL LETTER BETA}")
