"""What Gao et al. (2022) found, and whether it comes out: signatures of overoptimisation, trends of coefficients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlx.experiments.bootstrap import Interval, trend
from rlx.experiments.overoptimization.analysis import Analysed, told
from rlx.experiments.overoptimization.lab import LabConfig, Place
from rlx.experiments.overoptimization.studies import STUDIES

Json = dict[str, Any]


def signatures(config: LabConfig, place: Place, found: dict[str, Analysed]) -> list[Json]:
    """What Gao et al. found, and whether it came out here: claim by claim, each with its numbers."""
    rows: list[Json] = []

    def say(claim: str, text: str, holds: Any) -> None:
        rows.append(
            {"claim": claim, "world": place.name, "found": text, "holds": None if holds is None else bool(holds)}
        )

    sizes = [found[arm.name] for arm in STUDIES["size"].arms(config.grid) if arm.name in found]
    bons = [one for one in sizes if one.best_of_n and one.bootstrap]
    pushed = [one for one in sizes if not one.best_of_n and one.bootstrap]
    rising = [one for one in found.values() if one.proxy]
    if rising:
        share = [float(np.mean(np.diff(one.proxy.curve.value) > 0)) for one in rising if one.proxy]
        text = f"in {sum(s == 1.0 for s in share)} of {len(share)} arms at every step, in the worst at {min(share):.0%}"
        say("the proxy reward rises throughout", text, all(s >= 0.95 for s in share))
    if pushed:
        boot = pushed[0].bootstrap
        assert boot
        text = f"highest at d = {told(boot.top_d)} of {boot.d[0]:.2g} to {boot.d[-1]:.2g}; gold {told(boot.top_gold)}, "
        last = Interval(*(x[..., -1] for x in boot.curve))
        say(
            "the smallest proxy's gold reward rises and then falls under RL",
            text + f"{told(last)} at the end",
            boot.top_is_interior,
        )
        fits = [float(one.bootstrap.fit.r2) for one in pushed if one.bootstrap]
        say("d(alpha - beta log d) fits RL, R^2 >= 0.95 in at least 4 of 5 sizes", r2_text(fits), enough(fits, 0.95))
    if bons:
        fits = [float(one.bootstrap.fit.r2) for one in bons if one.bootstrap]
        say("d(alpha - beta d) fits best-of-n, R^2 >= 0.98 in at least 4 of 5 sizes", r2_text(fits), enough(fits, 0.98))
        small, large = (one.bootstrap.alpha for one in (bons[0], bons[-1]) if one.bootstrap)
        text = f"{told(large)} against {told(small)}"
        say("alpha of best-of-n is larger for the largest proxy than for the smallest", text, large.low > small.high)
    for name, arms in (("RL", pushed), ("best-of-n", bons)):
        if arms:
            say(f"the peak of the gold reward grows with the proxy's size under {name}", *growth(arms))
    data = [found[arm.name] for arm in STUDIES["data"].arms(config.grid) if arm.name in found and arm.proxy.epochs == 1]
    if "data" in place.studies:
        for name, arms in (
            ("RL", [x for x in data if not x.best_of_n]),
            ("best-of-n", [x for x in data if x.best_of_n]),
        ):
            if arms := [one for one in arms if one.bootstrap]:
                say(f"the peak of the gold reward grows with the comparisons under {name}", *growth(arms))
    if bons and pushed:
        ratios = [kl_ratio(bon, rl) for bon, rl in zip(bons, pushed, strict=False)]
        text = (
            ", ".join(f"{ratio:.1f}" for ratio in ratios)
            + " times the KL where both have half of best-of-n's last proxy"
        )
        say("RL spends more KL than best-of-n at equal proxy reward", text, all(ratio > 1.0 for ratio in ratios))
    return rows


def r2_text(fits: Sequence[float]) -> str:
    """How well a law fits several curves."""
    return "R^2 " + ", ".join(f"{r2:.3f}" for r2 in fits) + ", from small to large"


def enough(fits: Sequence[float], bar: float) -> bool:
    """Whether a law fits in four of five."""
    return sum(r2 >= bar for r2 in fits) >= 0.8 * len(fits)


def growth(arms: Sequence[Analysed]) -> tuple[str, bool]:
    """Whether located peaks grow: each no lower than the one before, and the last above the first beyond intervals."""
    peaks = [one.bootstrap.top_gold for one in arms if one.bootstrap]
    values = [float(peak.value) for peak in peaks]
    apart = bool(peaks[-1].low > peaks[0].high)
    text = ", ".join(told(peak) for peak in peaks) + ("" if apart else "; the ends' intervals overlap")
    return text, apart and all(later >= earlier for earlier, later in itertools.pairwise(values))


def kl_ratio(bon: Analysed, rl: Analysed) -> float:
    """KL of RL over that of best-of-n at the proxy reward that is half of best-of-n's last."""
    assert bon.proxy
    assert rl.proxy
    level = 0.5 * float(bon.proxy.curve.value[-1])
    first, second = (float(np.interp(level, one.proxy.curve.value, one.proxy.d)) for one in (bon, rl) if one.proxy)
    return (second / first) ** 2


def trends(config: LabConfig, place: Place, found: dict[str, Analysed]) -> list[Json]:
    """Coefficients against log size and log data, with what Gao found of them."""
    rows = []
    directions = {("alpha", True): "up", ("beta", True): "down", ("alpha", False): "flat", ("beta", False): "down"}
    sizes: dict[str, Callable[[Analysed], float]] = {
        "parameters": lambda one: float(one.outcome.parameters),
        "comparisons": lambda one: float(one.arm.proxy.comparisons),
    }
    for study, against in (("size", "parameters"), ("data", "comparisons")):
        if study not in place.studies:
            continue
        arms = [
            found[arm.name] for arm in STUDIES[study].arms(config.grid) if arm.name in found and arm.proxy.epochs == 1
        ]
        for (coefficient, best_of_n), gao in directions.items():
            chosen = [one for one in arms if one.best_of_n == best_of_n and one.bootstrap]
            if len(chosen) < 3:
                continue
            values = [getattr(one.bootstrap, coefficient) for one in chosen]
            x = [sizes[against](one) for one in chosen]
            slope = trend(np.log10(x), values).slope
            sign = "up" if slope.low > 0 else "down" if slope.high < 0 else "flat"
            rows.append(
                {
                    "world": place.name,
                    "coefficient": f"{coefficient} {'best-of-n' if best_of_n else 'RL'}",
                    "against": against,
                    "x": x,
                    **{
                        name: [float(getattr(value, field)) for value in values]
                        for name, field in (("mean", "value"), ("low", "low"), ("high", "high"))
                    },
                    "slope": {"mean": float(slope.value), "low": float(slope.low), "high": float(slope.high)},
                    "gao": gao if against == "parameters" else None,
                    "comes_out": sign == gao if against == "parameters" else None,
                }
            )
    return rows
