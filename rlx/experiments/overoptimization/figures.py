"""Figures of an overoptimisation result, in the manner of Gao et al. (2022, arXiv 2210.10760), figure 1.

KL is on a square-root scale; proxy reward is dashed, gold solid, fitted laws dotted, 95 % intervals shaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rlx.experiments.overoptimization import drawings
from rlx.experiments.overoptimization.looks import legible, panel_title
from rlx.experiments.overoptimization.values import arms_of, by_optimizer, optimizer_name, weakest

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.hashsalt": "rlx",  # the same picture is the same file
}


class Picture(NamedTuple):
    """A figure that a result has the data for.

    Attributes:
        name: of its files, without the ending.
        section: of the report: "headline", "control", "trends", "rivals", or `study NAME`.
        caption: what is seen, in a sentence or two.
        alt: the same for who does not see it.
        draw: () -> a matplotlib figure.
    """

    name: str
    section: str
    caption: str
    alt: str
    draw: Callable[[], Any]


def write_figures(result: dict[str, Any], folder: Path) -> list[Picture]:
    """Write every figure as NAME.png and NAME.svg.

    Args:
        result: of the experiment, or result.json as it was read.
        folder: where to; made if it is not there.

    Raises:
        ImportError: matplotlib is missing.
        OSError: a file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError as error:
        raise ImportError("the figures need matplotlib: pip install 'rlx[plot]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    made = pictures(result)
    with matplotlib.rc_context(STYLE):
        for picture in made:
            figure = picture.draw()
            figure.savefig(folder / f"{picture.name}.svg", metadata={"Date": None})
            figure.savefig(folder / f"{picture.name}.png", dpi=150)
    return made


def pictures(result: dict[str, Any]) -> list[Picture]:
    """List the figures that a result has the data for, in the report's order; none is drawn yet."""
    made = [*headline_pictures(result)]
    for study in result["studies"]:
        made += [*study_pictures(result["worlds"], study), *plane_pictures(result["worlds"], study)]
    made += [*trend_pictures(result), *rival_pictures(result), *control_pictures(result)]
    return made


def headline_pictures(result: dict[str, Any]) -> Iterator[Picture]:
    """Show the smallest proxy of the first study in the first world, under best-of-n and under one other optimiser."""
    if not result["worlds"] or not result["studies"]:
        return
    world = result["worlds"][0]
    groups = by_optimizer(arms_of(world, result["studies"][0]))
    arms = [arm for group in groups.values() if (arm := weakest(group))][:2]
    if arms:
        names = " and ".join(optimizer_name(arm["optimizer"]) for arm in arms)
        caption = (
            f"The smallest reward model of {world['name']}, optimised by {names}. Dashed: its own score, the proxy. "
            "Solid: the gold reward, which nobody optimises. A thin line is one seed, dotted the fitted law, shaded a "
            "95 % interval over seeds."
        )
        alt = f"Reward against KL under {names}: the proxy and the gold reward of the smallest reward model."
        yield Picture("headline", "headline", caption, alt, partial(drawings.draw_headline, world["name"], arms))


def study_pictures(worlds: Sequence[dict[str, Any]], study: dict[str, Any]) -> Iterator[Picture]:
    """Show the curves of a study: a row an optimiser, a column a world, three worlds a picture at the most."""
    worlds = [world for world in worlds if any(arm["curve"]["gold"] for arm in arms_of(world, study))]
    chunk = len(worlds) if len(worlds) <= 3 else 2
    for start in range(0, len(worlds), max(1, chunk)):
        some = worlds[start : start + chunk]
        cells = study_cells(some, study)
        names = ", ".join(world["name"] for world in some)
        proxied = any(arm["curve"]["proxy"] for _, arms in cells for arm in arms)
        caption = (
            f"Gold reward (solid){' and proxy (dashed)' if proxied else ''} against KL, mean over seeds and 95 % "
            f"interval, with the fitted law dotted and a ring where the mean gold peaks; {names}."
        )
        alt = f"{study['title']}. {caption}"
        name = slug(f"study-{study['name']}") + (f"-{start // chunk + 1}" if chunk < len(worlds) else "")
        yield Picture(name, f"study {study['name']}", caption, alt, partial(drawings.draw_cells, cells, len(some)))


def study_cells(worlds: Sequence[dict[str, Any]], study: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Give titles and arms of the panels, row by row. Optimisers of one arm each share a panel, to be compared."""
    groups = {world["name"]: panel_groups(arms_of(world, study)) for world in worlds}
    if all(alone(group) for group in groups.values()):
        return [(legible(world["name"]), arms_of(world, study)) for world in worlds]
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    return [(panel_title(name, world), groups[world].get(name, [])) for name in names for world in groups]


def alone(groups: dict[str, list[dict[str, Any]]]) -> bool:
    """Say whether each group is a single arm, with a label of its own."""
    labels = [arm["label"] for arms in groups.values() for arm in arms]
    return len(set(labels)) == len(labels) == len(groups)


def panel_groups(arms: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Put arms together by optimiser; a grid of sizes and data by the number of comparisons too, labelled by size."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for optimizer, group in by_optimizer(arms).items():
        if not is_grid(group):
            groups[optimizer_name(optimizer)] = group
            continue
        for arm in sorted(group, key=lambda arm: arm["proxy"]["comparisons"]):
            title = f"{optimizer_name(optimizer)}, {arm['proxy']['comparisons']:,} comparisons"
            label = f"{arm['proxy']['parameters']:,} parameters"
            groups.setdefault(title, []).append(arm | {"label": label})
    return groups


def is_grid(arms: Sequence[dict[str, Any]]) -> bool:
    """Say whether arms are many sizes, each at several numbers of comparisons."""
    pairs = {(arm["proxy"]["parameters"], arm["proxy"]["comparisons"]) for arm in arms if arm["proxy"]}
    sizes, counts = (len(set(each)) for each in zip(*pairs, strict=True)) if pairs else (0, 0)
    return len(pairs) == len(arms) > 9 and max(sizes, counts) < len(arms)


def plane_pictures(worlds: Sequence[dict[str, Any]], study: dict[str, Any]) -> Iterator[Picture]:
    """Show gold against proxy where several optimisers were given the same proxy."""
    cells = [(legible(world["name"]), same_proxy(arms_of(world, study))) for world in worlds]
    cells = [(title, arms) for title, arms in cells if arms][:3]
    if cells:
        caption = (
            "Gold against proxy, which asks nothing about how KL is measured. On the grey line the "
            "two are equal; what is overoptimised bends away from it to the right."
        )
        alt = f"{study['title']}. Gold reward against proxy reward, a line style for each optimiser."
        name = slug(f"plane-{study['name']}")
        yield Picture(name, f"study {study['name']}", caption, alt, partial(drawings.draw_planes, cells))


def same_proxy(arms: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the arms whose proxy was given to another optimiser too; of a grid those of the most comparisons."""
    arms = [arm for arm in arms if arm["proxy"] and arm["curve"]["proxy"] and arm["curve"]["gold"]]
    optimizers: dict[tuple, set[str]] = {}
    for arm in arms:
        optimizers.setdefault(proxy_of(arm), set()).add(arm["optimizer"])
    arms = [arm for arm in arms if len(optimizers[proxy_of(arm)]) > 1]
    most = max((arm["proxy"]["comparisons"] for arm in arms), default=0)
    return [arm for arm in arms if len(arms) <= 20 or arm["proxy"]["comparisons"] == most]


def proxy_of(arm: dict[str, Any]) -> tuple:
    """Tell proxies apart."""
    names = ("parameters", "comparisons", "epochs", "flips", "members", "objective")
    return tuple(arm["proxy"].get(name) for name in names)


def control_pictures(result: dict[str, Any]) -> Iterator[Picture]:
    """Show worlds of different golds side by side, by the smallest proxy of the first study."""
    worlds = result["worlds"]
    if len({world["gold"] for world in worlds}) < 2 or not result["studies"]:
        return
    rows: dict[str, list[dict[str, Any]]] = {}
    for world in worlds:
        for name, arms in by_optimizer(arms_of(world, result["studies"][0])).items():
            if arm := weakest(arms):
                rows.setdefault(name, []).append(arm | {"label": f"{world['name']} ({world['gold']})"})
    if rows:
        cells = [(optimizer_name(name), arms) for name, arms in rows.items()]
        caption = "The smallest reward model under each gold reward: gold (solid) and proxy (dashed) against KL."
        alt = "Gold and proxy reward of the smallest reward model against KL, a line for each world and its gold."
        yield Picture("control", "control", caption, alt, partial(drawings.draw_cells, cells, 1))


def trend_pictures(result: dict[str, Any]) -> Iterator[Picture]:
    """Show coefficients against the logarithm of a size, beside Gao's where there are any."""
    for against in dict.fromkeys(trend["against"] for trend in result["trends"]):
        trends = [trend for trend in result["trends"] if trend["against"] == against]
        gao = (result.get("gao") or {}) if against == "parameters" else {}
        caption = f"Fitted coefficients against {against} (logarithmic), with 95 % intervals and least-squares lines."
        if gao:
            caption += " Grey: the values of Gao et al., read off their figure 3; other units, so other axes."
        alt = f"Fitted alpha and beta against the number of {against}, with intervals and trend lines."
        draw = partial(drawings.draw_trends, trends, against, gao)
        yield Picture(slug(f"trends-{against}"), "trends", caption, alt, draw)


def rival_pictures(result: dict[str, Any]) -> Iterator[Picture]:
    """Show the law against its rivals, over all arms of an optimiser: AIC, and error where it was not fitted."""
    arms = [arm for world in result["worlds"] for arm in world["arms"] if arm["rivals"] and arm["fit"]]
    if arms:
        caption = (
            "The laws against their rivals; a dot is an arm, a bar the median. Left: AIC above the arm's best law. "
            "Right: error of prediction beyond where the law was fitted. Less is better in both."
        )
        alt = "For each law of each kind of optimiser, AIC differences and extrapolation errors of all arms."
        yield Picture("rivals", "rivals", caption, alt, partial(drawings.draw_rival_rows, arms))


def slug(name: str) -> str:
    """Make a file name of any name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
