"""Whole figures: panels side by side, and their legends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlx.experiments.overoptimization import panels
from rlx.experiments.overoptimization.looks import COLOURS, Look, legible, look, looks, panel_title
from rlx.experiments.overoptimization.values import greek, inner_peak, kl, numbers, optimizer_name, show_interval

WIDTH = 8.0  # inches: shown 800 pixels wide, 9 points are 12.5 pixels
KL = "KL from the initial policy, nats"


def draw_headline(world: str, arms: Sequence[dict[str, Any]]) -> Any:
    """Draw a panel an arm, titled with where its gold peaks."""
    figure, grid = make_grid(1, len(arms), 3.4, sharey=True)
    for axes, arm in zip(grid, arms, strict=True):
        panels.draw_hump(axes, arm)
        peak = kl(inner_peak(arm))
        words = f"gold peaks at KL {show_interval(peak)}" if np.isfinite(peak.mean) else "gold has no peak inside"
        axes.set(title=f"{panel_title(optimizer_name(arm['optimizer']), world)}\n{words}", xlabel=KL)
        panels.kl_axis(axes, d_limit([arm]))
    grid[0].set_ylabel("reward")
    proxy, gold = "proxy: what is optimised", "gold: what is wanted"
    line_legend(figure, {proxy: panels.DASHED, gold: "-", "fitted law": ":"}, {proxy: panels.PROXY, gold: panels.GOLD})
    return figure


def draw_cells(cells: Sequence[tuple[str, list[dict[str, Any]]]], num_worlds: int) -> Any:
    """Draw a panel a cell, and one legend for all."""
    columns = num_worlds if num_worlds > 1 else min(2, len(cells))
    rows = math.ceil(len(cells) / columns)
    figure, grid = make_grid(rows, columns, 3.4 if columns == 1 else 2.7, sharey="row")
    arms = [arm for _, group in cells for arm in group]
    styles = looks(arms)
    for axes, (title, group) in zip(grid, cells, strict=False):
        panels.draw_arms(axes, group, styles)
        axes.set_title(title)
        panels.kl_axis(axes, d_limit(group))
    finish(figure, grid, len(cells), columns, (KL, "reward"))
    add_legends(figure, styles, any(arm["curve"]["proxy"] for arm in arms))
    return figure


def draw_planes(cells: Sequence[tuple[str, list[dict[str, Any]]]]) -> Any:
    """Draw a proxy-gold plane a world."""
    figure, grid = make_grid(1, len(cells), 3.4 if len(cells) < 3 else 2.8, sharey=True)
    arms = [arm for _, group in cells for arm in group]
    styles, lines = looks(arms), panels.plane_lines(arms)
    for axes, (title, group) in zip(grid, cells, strict=True):
        panels.draw_plane(axes, group, styles, lines)
        axes.set_title(title)
    finish(figure, grid, len(cells), len(cells), ("proxy reward", "gold reward"))
    line_legend(figure, {optimizer_name(name): line for name, line in lines.items()}, {})
    arm_legend(figure, styles)
    return figure


def draw_trends(trends: Sequence[dict[str, Any]], against: str, gao: Mapping[str, Any]) -> Any:
    """Draw a panel a coefficient, a colour a world; with Gao's, a row a coefficient: ours at the left, Gao's right."""
    names = list(dict.fromkeys(trend["coefficient"] for trend in trends))
    worlds = list(dict.fromkeys(trend["world"] for trend in trends))
    styles = {world: look(index, COLOURS[index % len(COLOURS)], world) for index, world in enumerate(worlds)}
    rows, step = (len(names), 2) if gao else (math.ceil(len(names) / 2), 1)
    figure, grid = make_grid(rows, 2, 1.9 if gao else 2.2)
    for axes, name in zip(grid[::step], names, strict=False):
        for trend in trends:
            if trend["coefficient"] == name:  # worlds stand a little apart
                panels.draw_trend(axes, trend, styles[trend["world"]], 1.1 ** worlds.index(trend["world"]))
        axes.set_ylabel(legible(greek(name)))
    for axes, name in zip(grid[1::2], names if gao else [], strict=False):
        draw_gao(axes, gao, gao_key(name), legible(greek(name)))
    finish(figure, grid, rows * 2 if gao else len(names), 2, (against, None))
    if gao:
        grid[0].set_title("here")
        grid[1].set_title("Gao et al. 2022")
        grid[-1].set_xlabel("reward model parameters")
    arm_legend(figure, styles)
    return figure


def draw_gao(axes: Any, gao: Mapping[str, Any], key: str, name: str) -> None:
    """Draw Gao's values of a coefficient in grey, or say that there are none."""
    x, values = numbers(gao["parameters"]), numbers(gao.get(key))
    if len(values):
        axes.plot(x, values, "o", color=panels.GREY, markersize=4)
        panels.draw_log_line(axes, x, values, panels.GREY)
    else:
        axes.text(0.5, 0.5, f"{name} is not printed there", transform=axes.transAxes, ha="center", color=panels.GREY)
        axes.set_axis_off()


def gao_key(coefficient: str) -> str:
    """Name a coefficient as Gao's table does: "alpha best-of-n" is alpha_bon."""
    letter, _, optimizer = coefficient.lower().partition(" ")
    return f"{letter}_{'bon' if 'best' in optimizer or 'bon' in optimizer else 'rl'}"


def draw_rival_rows(arms: Sequence[dict[str, Any]]) -> Any:
    """Draw a row a fitted law, two measures beside one another."""
    kinds = {arm["fit"]["law"]: [other for other in arms if other["fit"]["law"] == arm["fit"]["law"]] for arm in arms}
    figure, grid = make_grid(len(kinds), 2, 2.1)
    measures = {"aic": "AIC above the best", "extrapolation_rmse": "extrapolation error (RMSE)"}
    for row, (kind, group) in enumerate(kinds.items()):
        laws = {rival["law"]: legible(greek(rival["formula"])) for arm in group for rival in arm["rivals"]}
        for column, (measure, words) in enumerate(measures.items()):
            axes = grid[2 * row + column]
            panels.draw_rivals(axes, group, measure, laws)
            axes.set(title=optimizer_name(kind), xlabel=words)
            axes.tick_params(labelleft=column == 0)
    return figure


def make_grid(rows: int, columns: int, height: float, **shared: Any) -> tuple[Any, list[Any]]:
    """Make a figure and its axes, row by row; `height` of a row in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height * rows + 0.6), layout="constrained")
    return figure, [*np.ravel(figure.subplots(rows, columns, squeeze=False, **shared))]


def finish(figure: Any, grid: Sequence[Any], used: int, columns: int, words: tuple[str, str | None]) -> None:
    """Take away axes without a panel; name the outer axes."""
    for index, axes in enumerate(grid):
        if index >= used:
            axes.remove()
        elif index + columns >= used:
            axes.set_xlabel(words[0])
        if index % columns == 0 and words[1]:
            axes.set_ylabel(words[1])


def add_legends(figure: Any, styles: Mapping[str, Look], proxy: bool) -> None:
    """Say above what the line styles are, below whose the colours are."""
    line_legend(figure, {"gold": "-"} | ({"proxy": panels.DASHED} if proxy else {}) | {"fitted law": ":"}, {})
    arm_legend(figure, styles)


def line_legend(figure: Any, lines: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Say above the panels what the line styles are."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colours.get(words, panels.INK), linestyle=line, label=words)
        for words, line in lines.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=2.6)


def arm_legend(figure: Any, styles: Mapping[str, Look]) -> None:
    """Say below the panels whose the colours and markers are, in as many columns as there is room for."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.color, marker=style.marker, markersize=5, label=style.text)
        for style in styles.values()
    ]
    longest = max((len(style.text) for style in styles.values()), default=0)
    most = max(1, int(WIDTH * 72 / (5 * longest + 31)))  # a letter is some 5 points wide
    rows = max(1, math.ceil(len(handles) / most))
    look = {"ncols": math.ceil(len(handles) / rows), "columnspacing": 1.2, "handlelength": 1.6}
    figure.legend(handles=handles, loc="outside lower center", **look)


def d_limit(arms: Sequence[dict[str, Any]]) -> float:
    """Give the largest d of some arms, 1 where there is none."""
    largest = [d.max() for arm in arms if len(d := numbers(arm["curve"]["d"])) and np.isfinite(d).all()]
    return float(max([value for value in largest if value > 0], default=1.0))
