"""What Gao et al. (2022) found, and whether it comes out: signatures of overoptimisation, trends of coefficients."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.experiments.bootstrap import Interval, trend
from rlx.experiments.overoptimization.analysis import Analysed, told
from rlx.experiments.overoptimization.lab import LabConfig, Place
from rlx.experiments.overoptimization.studies import STUDIES

Json = dict[str, Any]
ENOUGH = 0.95  # share of a curve's steps that go up where it "rises throughout": it is measured by samples
DIRECTIONS = {("alpha", True): "up", ("beta", True): "down", ("alpha", False): "flat", ("beta", False): "down"}


class Claim(NamedTuple):
    """Something that Gao et al. found.

    Attributes:
        text: what.
        found: the numbers here.
        holds: whether it came out; None where that cannot be said.
    """

    text: str
    found: str
    holds: bool | None


def signatures(config: LabConfig, place: Place, found: dict[str, Analysed]) -> list[Json]:
    """What Gao et al. found, and whether it came out in one world: claim by claim, each with its numbers."""
    claims = [rises(found.values())]
    bons, pushed = by_method(config, place, "size", found)
    claims += [humps(one) for one in pushed[:1]]
    claims += fits("d(alpha - beta log d) fits RL", pushed, 0.95) + fits("d(alpha - beta d) fits best-of-n", bons, 0.98)
    claims += alpha_grows(bons)
    claims += grows("RL", "proxy's size", pushed) + grows("best-of-n", "proxy's size", bons)
    more_bons, more_pushed = by_method(config, place, "data", found)
    claims += grows("RL", "comparisons", more_pushed) + grows("best-of-n", "comparisons", more_bons)
    claims += spends_more(bons, pushed)
    return [
        {"claim": claim.text, "world": place.name, "found": claim.found, "holds": claim.holds}
        for claim in claims
        if claim.found
    ]


def by_method(
    config: LabConfig, place: Place, study: str, found: dict[str, Analysed]
) -> tuple[list[Analysed], list[Analysed]]:
    """Arms of a study, from small to large, that read their data once: of best-of-n and of RL; none if it is not asked.

    An arm may be there because of another study that has it too.
    """
    arms = STUDIES[study].arms(config.grid) if study in place.studies else []
    there = [found[arm.name] for arm in arms if arm.name in found and arm.proxy.epochs == 1]
    return [one for one in there if one.best_of_n], [one for one in there if not one.best_of_n]


def rises(arms: Iterable[Analysed]) -> Claim:
    """Whether the proxy reward rises as far as anyone goes. Where proxies are replaced on the way, none is pushed."""
    curves = [one.proxy.curve.value for one in arms if one.proxy and (one.arm.rounds == 1 or one.arm.restart)]
    share = [float(np.mean(np.diff(curve) > 0)) for curve in curves]
    text = f"in {sum(s == 1.0 for s in share)} of {len(share)} arms at every step, in the worst at "
    text = f"{text}{min(share):.0%}; {ENOUGH:.0%} are enough" if share else ""
    return Claim("the proxy reward rises throughout", text, all(s >= ENOUGH for s in share))


def humps(smallest: Analysed) -> Claim:
    """Whether the gold reward against the smallest proxy has a peak between the ends of its curve."""
    claim, boot = "the smallest proxy's gold reward rises and then falls under RL", smallest.bootstrap
    if boot is None:
        return Claim(claim, "its runs did not come to the window", None)
    end = told(Interval(*(x[..., -1] for x in boot.curve)))
    where = f"highest at d = {told(boot.top_d)} of {boot.d[0]:.2g} to {boot.d[-1]:.2g}"
    return Claim(claim, f"{where}; gold {told(boot.top_gold)}, {end} at the end", boot.top_is_interior)


def fits(law: str, arms: Sequence[Analysed], bar: float) -> list[Claim]:
    """Whether a law fits in four sizes of five; one without a fit counts as one that does not."""
    found = [float(one.bootstrap.fit.r2) if one.bootstrap else np.nan for one in arms]
    text = f"R^2 {', '.join(f'{r2:.3f}' for r2 in found)}, from small to large"
    good = sum(r2 >= bar for r2 in found) >= 0.8 * len(found)
    return [Claim(f"{law}, R^2 >= {bar} in at least 4 of 5 sizes", text, good)] if arms else []


def alpha_grows(bons: Sequence[Analysed]) -> list[Claim]:
    """Whether alpha of best-of-n is larger at the larger end, intervals apart."""
    known = [one.bootstrap.alpha for one in bons if one.bootstrap]
    if len(known) < 2:
        return []
    small, large = known[0], known[-1]
    claim = "alpha of best-of-n is larger for the largest proxy than for the smallest"
    return [Claim(claim, f"{told(large)} against {told(small)}", bool(large.low > small.high))]


def grows(method: str, what: str, arms: Sequence[Analysed]) -> list[Claim]:
    """Whether located peaks grow: each no lower than the one before, and the last above the first beyond intervals."""
    peaks = [one.bootstrap.top_gold for one in arms if one.bootstrap]
    if len(peaks) < 2:
        return []
    values = [float(peak.value) for peak in peaks]
    apart = bool(peaks[-1].low > peaks[0].high)
    text = ", ".join(map(told, peaks)) + ("" if apart else "; the ends' intervals overlap")
    if missing := len(arms) - len(peaks):
        text += f"; {missing} more did not come to the window"
    holds = apart and all(later >= earlier for earlier, later in itertools.pairwise(values))
    return [
        Claim(f"the peak of the gold reward grows with the {what} under {method}", text, None if missing else holds)
    ]


def spends_more(bons: Sequence[Analysed], pushed: Sequence[Analysed]) -> list[Claim]:
    """Whether RL pays more KL for the same proxy reward, proxy by proxy."""
    of_proxy = {one.arm.proxy: one for one in bons}
    pairs = [(of_proxy[one.arm.proxy], one) for one in pushed if one.proxy and one.arm.proxy in of_proxy]
    ratios = [kl_ratio(bon, rl) for bon, rl in pairs]
    text = (
        f"{', '.join(f'{ratio:.1f}' for ratio in ratios)} times the KL where both have half of best-of-n's last proxy"
    )
    holds = all(ratio > 1.0 for ratio in ratios)
    return [Claim("RL spends more KL than best-of-n at equal proxy reward", text, holds)] if pairs else []


def kl_ratio(bon: Analysed, rl: Analysed) -> float:
    """KL of RL over best-of-n's at half of best-of-n's last proxy reward, or at RL's highest where that is less."""
    assert bon.proxy
    assert rl.proxy
    level = min(0.5 * float(bon.proxy.curve.value[-1]), float(np.max(rl.proxy.curve.value)))
    rising = [(np.maximum.accumulate(one.curve.value), one.d) for one in (bon.proxy, rl.proxy)]
    first, second = (float(np.interp(level, reward, d)) for reward, d in rising)
    return (second / first) ** 2


def trends(config: LabConfig, place: Place, found: dict[str, Analysed]) -> list[Json]:
    """Coefficients against log size and log data, with what Gao found of them."""
    rows = []
    for study, against in (("size", "parameters"), ("data", "comparisons")):
        bons, pushed = by_method(config, place, study, found)
        for (coefficient, best_of_n), gao in DIRECTIONS.items():
            arms = [one for one in (bons if best_of_n else pushed) if one.bootstrap]
            if len(arms) > 2:
                name = f"{coefficient} {'best-of-n' if best_of_n else 'RL'}"
                said = gao if against == "parameters" else None
                rows.append({"world": place.name, "coefficient": name, **trend_of(coefficient, against, arms, said)})
    return rows


def trend_of(coefficient: str, against: str, arms: Sequence[Analysed], gao: str | None) -> Json:
    """A coefficient against a logarithm: its values, its slope a decade, and whether that goes where Gao's does."""
    values = [getattr(one.bootstrap, coefficient) for one in arms]
    x = [float(one.outcome.parameters if against == "parameters" else one.arm.proxy.comparisons) for one in arms]
    slope = trend(np.log10(x), values).slope
    sign = "up" if slope.low > 0 else "down" if slope.high < 0 else "flat"
    fields = {"mean": "value", "low": "low", "high": "high"}
    return {
        "against": against,
        "x": x,
        **{name: [float(getattr(value, field)) for value in values] for name, field in fields.items()},
        "slope": {name: float(getattr(slope, field)) for name, field in fields.items()},
        "gao": gao,
        "comes_out": None if gao is None else sign == gao,
    }
