"""Tables of a report, as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rlx.experiments.overoptimization.values import (
    DASH,
    Interval,
    arms_of,
    by_optimizer,
    greek,
    inner_peak,
    interval,
    kl,
    number,
    numbers,
    optimizer_name,
    peak_and_end,
    show,
    show_interval,
    weakest,
)

MARKS = {True: ("yes", "✓", "comes out"), False: ("no", "✗", "does not come out"), None: ("open", DASH, "not decided")}
ARROWS = {"up": "↑ up", "down": "↓ down", "flat": "→ flat", None: DASH}


class Html(str):
    """Text that is HTML already; every other text is escaped where it enters a page."""


def escape(value: Any) -> str:
    """Escape whatever is not HTML yet."""
    return value if isinstance(value, Html) else html.escape(str(value))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], text_columns: int = 1, caption: str = "") -> Html:
    """Make a table; columns after the first `text_columns` hold numbers."""
    kinds = ["" if index < text_columns else ' class="n"' for index in range(len(head))]
    cells = [[f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)] for row in rows]
    heads = [f'<th scope="col"{kind}>{escape(cell)}</th>' for kind, cell in zip(kinds, head, strict=True)]
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in cells)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    start = f'<div class="scroll"><table>{title}<thead><tr>{"".join(heads)}</tr></thead>'
    return Html(f"{start}\n<tbody>{body}</tbody></table></div>")


def mark(holds: bool | None) -> Html:
    """Make a check, a cross or a dash, with words for who does not see it."""
    kind, sign, words = MARKS[holds]
    return Html(f'<span class="mark {kind}" role="img" aria-label="{words}" title="{words}">{sign}</span>')


def study_tables(worlds: Sequence[dict[str, Any]], study: dict[str, Any]) -> Html:
    """Make a table of proxies and fits a world, the first of them open."""
    parts = []
    for world in worlds:
        if arms := arms_of(world, study):
            opened = "" if parts else " open"
            summary = f"Fits in {escape(world['name'])} (gold: {escape(world['gold'])})"
            parts.append(f"<details{opened}><summary>{summary}</summary>{arm_table(arms)}</details>")
    return Html("".join(parts))


def arm_table(arms: Sequence[dict[str, Any]]) -> Html:
    """Make the table of some arms' proxies, coefficients and peaks."""
    head = [
        "arm",
        "optimiser",
        "seeds",
        "accuracy",
        greek("alpha"),
        greek("beta"),
        "R²",
        "KL at peak",
        "KL at peak, law",
        "peak gold",
    ]
    return table([*head, "gold at end"], map(arm_row, arms), text_columns=2)


def arm_row(arm: dict[str, Any]) -> list[str]:
    """Give an arm's cells; a peak at the curve's end is none."""
    fit = arm["fit"] or {}
    located, inner = interval(fit.get("located_peak_d")), inner_peak(arm)
    passed = np.isnan(located.mean) or np.isfinite(inner.mean)
    return [
        arm["label"],
        optimizer_name(arm["optimizer"]),
        str(arm["seeds"]),
        stacked(interval((arm["proxy"] or {}).get("accuracy")), 3),
        stacked(interval(fit.get("alpha"))),
        stacked(interval(fit.get("beta")), 3),
        show(fit.get("r2"), 3),
        stacked(kl(inner), 1) if passed else "not passed",
        stacked(kl(interval(fit.get("peak_d"))), 1),
        stacked(interval(fit.get("located_peak_gold"))),
        show(peak_and_end(arm)[2]),
    ]


def stacked(value: Interval, digits: int = 2) -> Html:
    """Write an interval below its mean, so that many columns fit."""
    mean, _, ends = show_interval(value, digits).partition(" ")
    return Html(f"{mean}<br><small>{ends}</small>" if ends else mean)


def world_table(world: dict[str, Any]) -> Html:
    """Make the table of a world's sample texts."""
    rows = [(sample["prompt"], sample["response"], show(sample["gold"])) for sample in world["samples"]]
    return table(["prompt", "response of the initial policy", "gold"], rows, text_columns=2)


def signature_table(signatures: Sequence[dict[str, Any]]) -> Html:
    """Make a row a claim, a column a world: whether it comes out, and what was found."""
    worlds = list(dict.fromkeys(each["world"] for each in signatures))
    claims = list(dict.fromkeys(each["claim"] for each in signatures))
    found = {(each["claim"], each["world"]): each for each in signatures}
    rows = [[claim, *(signature_cell(found.get((claim, world))) for world in worlds)] for claim in claims]
    return table(["what Gao et al. and others found", *worlds], rows, text_columns=1 + len(worlds))


def signature_cell(signature: dict[str, Any] | None) -> Html:
    """Make one cell of it."""
    if not signature:
        return mark(None)
    return Html(f'{mark(signature["holds"])} <span class="found">{escape(signature["found"])}</span>')


def trend_table(trends: Sequence[dict[str, Any]]) -> Html:
    """Make a row a trend: its slope beside the direction that Gao et al. found."""
    head = ["coefficient", "against", "world", "slope per tenfold", "Gao et al.", "comes out"]
    rows = [
        (
            greek(trend["coefficient"]),
            trend["against"],
            trend["world"],
            show_interval(interval(trend["slope"]), 3),
            ARROWS[trend["gao"]],
            mark(trend["comes_out"]),
        )
        for trend in sorted(trends, key=lambda trend: (trend["against"] != "parameters", trend["coefficient"].lower()))
    ]
    return table(head, rows, text_columns=3)


def coefficient_table(trends: Sequence[dict[str, Any]], against: str) -> Html:
    """Make a row a size, a column a coefficient and world."""
    trends = [trend for trend in trends if trend["against"] == against]
    sizes = sorted({x for trend in trends for x in trend["x"]})
    rows = [[show(size, 0), *(coefficient_at(trend, size) for trend in trends)] for size in sizes]
    heads = [Html(f"{escape(greek(trend['coefficient']))}<br>{escape(trend['world'])}") for trend in trends]
    return table([against, *heads], rows, caption=f"Measured here, against {against}")


def coefficient_at(trend: dict[str, Any], size: float) -> Html:
    """Write a trend's value at a size."""
    if size not in trend["x"]:
        return Html(DASH)
    place = trend["x"].index(size)
    return stacked(interval({name: trend[name][place] for name in ("mean", "low", "high")}), 3)


def gao_table(gao: dict[str, Any]) -> Html:
    """Make the table of Gao's values."""
    kinds = {"alpha_bon": "alpha best-of-n", "beta_bon": "beta best-of-n", "alpha_rl": "alpha RL", "beta_rl": "beta RL"}
    names = {name: greek(words) for name, words in kinds.items() if gao.get(name)}
    columns = [numbers(gao[name]) for name in names]
    rows = [[show(size, 0), *(show(column[i], 3) for column in columns)] for i, size in enumerate(gao["parameters"])]
    return table(["parameters", *names.values()], rows, caption="Gao et al. 2022, read off their figure 3")


def control_table(worlds: Sequence[dict[str, Any]], study: dict[str, Any]) -> Html:
    """Make a row a world and optimiser: how far the smallest proxy's gold falls after its peak."""
    rows = []
    for world in worlds:
        for optimizer, arms in by_optimizer(arms_of(world, study)).items():
            if arm := weakest(arms):
                d, peak, end = peak_and_end(arm)
                values = (show(d * d, 1), show(peak), show(end), show(peak - end))
                rows.append((world["name"], world["gold"], optimizer_name(optimizer), *values))
    head = ["world", "gold", "optimiser", "KL at highest", "highest gold", "gold at end", "fall"]
    return table(head, rows, text_columns=3)


def rival_table(worlds: Sequence[dict[str, Any]]) -> Html:
    """Make a row a law: in how many arms it is the best by AIC and by extrapolation, and its medians."""
    arms = [arm for world in worlds for arm in world["arms"] if arm["rivals"] and arm["fit"]]
    rows = []
    for kind in dict.fromkeys(arm["fit"]["law"] for arm in arms):
        group = [arm["rivals"] for arm in arms if arm["fit"]["law"] == kind]
        for name, formula in {rival["law"]: rival["formula"] for rivals in group for rival in rivals}.items():
            own = [rival for rivals in group for rival in rivals if rival["law"] == name]
            wins = [sum(best(rivals, measure) == name for rivals in group) for measure in ("aic", "extrapolation_rmse")]
            medians = [median(rival[measure] for rival in own) for measure in ("r2", "extrapolation_rmse")]
            of = [f"{count} of {len(group)}" for count in wins]
            rows.append((optimizer_name(kind), greek(formula), *of, *(show(value, 3) for value in medians)))
    head = ["curves of", "law", "best by AIC", "best beyond the fit", "median R²", "median error beyond"]
    return table(head, rows, text_columns=2)


def best(rivals: Sequence[dict[str, Any]], measure: str) -> str | None:
    """Name the law of the least AIC or error; None where no law has one."""
    known = [rival for rival in rivals if np.isfinite(number(rival[measure]))]
    return min(known, key=lambda rival: rival[measure])["law"] if known else None


def median(values: Iterable[Any]) -> float:
    """Give the median of those that are known."""
    known = [value for value in map(number, values) if np.isfinite(value)]
    return float(np.median(known)) if known else np.nan


def stage_table(stages: Sequence[dict[str, Any]]) -> Html:
    """Make a row a stage, with a bar as long as it took."""
    longest = max((number(stage["seconds"]) for stage in stages), default=0.0) or 1.0
    rows = []
    for stage in stages:
        seconds = number(stage["seconds"])
        width = 100 * seconds / longest if np.isfinite(seconds) else 0.0
        rows.append((stage["name"], show(seconds, 1), Html(f'<span class="bar" style="width:{width:.1f}%"></span>')))
    return table(["stage", "seconds", ""], rows)
