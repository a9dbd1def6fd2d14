"""Which colour and marker an arm has: the same label looks the same in every panel of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.experiments.overoptimization.values import number

# Okabe and Ito's colours, told apart by the colour-blind too
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*"]
PROXY_FIELDS = ("parameters", "comparisons", "epochs", "flips", "members")


class Look(NamedTuple):
    """How the curves of one label are drawn, and its text in a legend."""

    color: Any
    marker: str
    text: str


def looks(arms: Sequence[dict[str, Any]]) -> dict[str, Look]:
    """Give each label its look: dark to light along the number that tells them apart, else colours side by side."""
    ranks = rank(arms)
    if ranks is None:
        labels = [*dict.fromkeys(arm["label"] for arm in arms)]
        return {label: look(index, COLOURS[index % len(COLOURS)], label) for index, label in enumerate(labels)}
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    step = 0.84 / max(1, len(ranks) - 1)  # up to 0.84: yellow is not seen on white
    return {label: look(index, shades(step * index), label) for index, label in enumerate(ranks)}


def look(index: int, color: Any, label: str) -> Look:
    """Make the look of the label of this index."""
    return Look(color, MARKERS[index % len(MARKERS)], legible(label))


def rank(arms: Sequence[dict[str, Any]]) -> list[str] | None:
    """Order labels by the first number that each of them has a value of its own in; None where there is none."""
    labels = {arm["label"] for arm in arms}
    for values in candidates(arms):
        pairs = {(value, arm["label"]) for value, arm in zip(values, arms, strict=True)}
        if (
            len(labels) > 1
            and np.isfinite(values).all()
            and len(pairs) == len({value for value, _ in pairs}) == len(labels)
        ):
            return [label for _, label in sorted(pairs)]
    return None


def candidates(arms: Sequence[dict[str, Any]]) -> list[list[float]]:
    """List the numbers that every one of the arms has: of its proxy, then of its settings."""
    columns = []
    if all(arm["proxy"] for arm in arms):
        columns = [[number(arm["proxy"].get(name)) for arm in arms] for name in PROXY_FIELDS]
    names = [name for name in (arms[0]["settings"] if arms else {}) if all(is_number(arm, name) for arm in arms)]
    return columns + [[float(arm["settings"][name]) for arm in arms] for name in names]


def is_number(arm: dict[str, Any], name: str) -> bool:
    """Say whether a setting is there and a number."""
    value = arm["settings"].get(name)
    return isinstance(value, int | float) and not isinstance(value, bool)


def legible(label: str) -> str:
    """Shorten a label in its middle to 48 characters, and keep matplotlib from reading anything into it."""
    label = " ".join(label.split())
    label = label if len(label) <= 48 else f"{label[:22]} … {label[-23:]}"
    label = f"“{label}”" if label.startswith("_") else label
    return label.replace("$", r"\$")


def panel_title(name: str, world: str) -> str:
    """Title the panel of an optimiser in a world, on two lines where it is long."""
    name, world = legible(name), legible(world)
    return f"{name}, {world}" if len(name + world) < 28 else f"{name}\n{world}"
