"""The outcomes of arms analysed: curves on common distances, and the laws that belong to them, with intervals.

Axes: S seeds, B prompts, K points of a curve.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
from numpy.typing import ArrayLike

from rlx.experiments.bootstrap import Bootstrap, Interval, Resampling, bootstrap_best_of_n, bootstrap_rl
from rlx.experiments.laws import BEST_OF_N, RL
from rlx.experiments.overoptimization.arms import Arm, Outcome, load_outcome
from rlx.experiments.overoptimization.lab import LabConfig, arm_file
from rlx.experiments.overoptimization.methods import DIRECT

SIZE = 64  # points of a grid of distances


@dataclasses.dataclass(frozen=True)
class Analysed:
    """An arm with its outcome and what was made of it; `bootstrap` is None where too little of a curve is there."""

    arm: Arm
    outcome: Outcome
    bootstrap: Bootstrap | None
    proxy: Bootstrap | None

    @property
    def best_of_n(self) -> bool:
        """Whether its distances are those of best-of-n."""
        return self.arm.method.name == "best_of_n"


def analyse(config: LabConfig, arm: Arm, outcome: Outcome) -> Analysed:
    """Fit the law that belongs to an arm, and bring its curves to common distances."""
    outcome = last_round(arm, outcome)
    resampling, curves = Resampling(config.resamples, shared_prompts=True), outcome.curves
    least, most = config.window

    def of(values: ArrayLike) -> Bootstrap | None:
        values = np.asarray(values)
        if arm.method.name == "best_of_n":
            distance = np.sqrt(np.asarray(curves.kl)[0, 0, 1:])
            return bootstrap_best_of_n(BEST_OF_N, distance, values[..., 1:], resampling)
        try:
            return bootstrap_rl(RL, curves.kl, values, most, least, SIZE, config.smoothing, resampling)
        except ValueError:  # the slowest seed did not come to the window
            return None

    return Analysed(arm, outcome, of(curves.gold), None if arm.method.name in DIRECT else of(curves.proxy))


def last_round(arm: Arm, outcome: Outcome) -> Outcome:
    """The outcome of an arm that begins again in each round: of its last round, as the others' policies are gone."""
    if arm.rounds == 1 or not arm.restart:
        return outcome
    points = len(outcome.curves.point) // arm.rounds
    return outcome._replace(curves=jax.tree.map(lambda x: x[..., -points:], outcome.curves))


def collect(config: LabConfig, folder: Path) -> dict[str, dict[str, Analysed]]:
    """All outcomes that are there, analysed: by world and arm."""
    found: dict[str, dict[str, Analysed]] = {}
    for place in config.places:
        outcomes = {arm.name: (arm, load_outcome(arm_file(folder, place, arm))) for arm in config.arms(place)}
        found[place.name] = {
            name: analyse(config, arm, one) for name, (arm, one) in outcomes.items() if one is not None
        }
    return found


def told(found: Interval, digits: int = 2) -> str:
    """A number with its interval."""
    value, low, high = (float(x) for x in found[:3])
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
