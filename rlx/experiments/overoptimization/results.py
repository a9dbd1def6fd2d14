"""The result of an experiment, as result.json holds it.

Axes: S seeds, K points of a curve.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from rlx.experiments.bootstrap import Bootstrap, Interval, interval, smooth
from rlx.experiments.gao import GAO
from rlx.experiments.laws import BEST_OF_N, LOG1P, POWER, RL, extrapolate, fit
from rlx.experiments.overoptimization.analysis import Analysed, collect
from rlx.experiments.overoptimization.findings import finding
from rlx.experiments.overoptimization.lab import LabConfig, Place, place_folder
from rlx.experiments.overoptimization.methods import DIRECT
from rlx.experiments.overoptimization.signatures import signatures, trends
from rlx.experiments.overoptimization.studies import STUDIES

Json = dict[str, Any]
GOLD_TEXTS = {
    "extremal": "Surface (how many letters of a favoured class) and substance (how well letters follow one another and "
    "suit the prompt) both pay; too much does not, and surface without substance is punished.",
    "plain": "Surface and substance both pay, without end: the extremal ingredient is left out, as a control.",
    "teacher": "A transformer with random weights, larger than the proxies.",
}


def make_result(config: LabConfig, folder: Path, told: Json) -> Json:
    """Analyse all outcomes in a folder.

    Args:
        config: the experiment's.
        folder: of it.
        told: what else is to be in the result: preset, command, versions and the like.
    """
    found = collect(config, folder)
    worlds, rows, lines = [], [], []
    for place in config.places:
        arms = found[place.name]
        world = {"name": place.name, "gold": place.world.gold, "description": GOLD_TEXTS[place.world.gold]}
        world |= json.loads((place_folder(folder, place) / "world.json").read_text())
        worlds.append(world | {"arms": [arm_result(config, place, one) for one in arms.values()]})
        rows += signatures(config, place, arms)
        lines += trends(config, place, arms)
    studied = {study for place in config.places for study in place.studies}
    result = {
        **told,
        "config": dataclasses.asdict(config),
        "worlds": worlds,
        "studies": [study_result(config, name, found) for name in STUDIES if name in studied],
        "signatures": rows,
        "trends": lines,
        "gao": GAO._asdict(),
    }
    return plain(result)


def study_result(config: LabConfig, name: str, found: dict[str, dict[str, Analysed]]) -> Json:
    """A study in the result."""
    study, names = STUDIES[name], [arm.name for arm in STUDIES[name].arms(config.grid)]
    texts = []
    for place in config.places:
        if name in place.studies and (text := finding(name, found[place.name], names)):
            texts.append(f"{place.name[0].upper()}{place.name[1:]}. {text}")
    return {"name": name, "title": study.title, "question": study.question, "finding": " ".join(texts), "arms": names}


def result_lines(result: Json) -> list[str]:
    """What the command line says at the end: each claim, and whether it came out."""
    marks = {True: "yes", False: "NO", None: "-"}
    return [f"{marks[row['holds']]:>4}  {row['world']}: {row['claim']}: {row['found']}" for row in result["signatures"]]


def numbers(found: Interval) -> Json:
    """An interval as it stands in the result."""
    return {"mean": plain(found.value), "low": plain(found.low), "high": plain(found.high)}


def plain(x: Any) -> Any:
    """Arrays as lists, what is not finite as None."""
    if isinstance(x, dict):
        return {name: plain(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    if isinstance(x, np.ndarray | np.generic):
        return plain(x.tolist())
    return None if isinstance(x, float) and not math.isfinite(x) else x


def seed_interval(values: np.ndarray, resamples: int) -> Json:
    """Mean over seeds `[S]` with its interval."""
    rows = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    return numbers(interval(np.mean(values), np.mean(np.asarray(values)[rows], axis=1)))


def arm_result(config: LabConfig, place: Place, found: Analysed) -> Json:
    """An arm in the result."""
    arm, outcome, boot = found.arm, found.outcome, found.bootstrap
    curves, known = outcome.curves, not np.all(np.isnan(outcome.accuracy))
    window = config.smoothing if not found.best_of_n else 1
    settings = {k: v for k, v in dataclasses.asdict(arm.method).items() if k != "name"}
    settings |= {"rounds": arm.rounds, "restart": arm.restart, "policy_width": arm.policy_width or place.world.width}
    along = {name: smooth(np.mean(getattr(curves, name), axis=1), window) for name in ("proxy", "gold")}
    distance = smooth(np.sqrt(np.maximum(np.mean(curves.kl, axis=1), 0.0)), window)
    return {
        "name": arm.name,
        "label": arm.label,
        "optimizer": arm.method.name,
        "proxy": {
            "parameters": int(outcome.parameters),
            **{k: getattr(arm.proxy, k) for k in ("comparisons", "epochs", "flips", "members", "objective", "kind")},
            "accuracy": seed_interval(outcome.accuracy, config.resamples),
            "correlation": seed_interval(outcome.correlation, config.resamples),
            "loss": seed_interval(outcome.loss, config.resamples),
        }
        if known
        else None,
        "settings": settings,
        "seeds": len(curves.gold),
        "curve": None
        if boot is None
        else {
            "d": boot.d,
            "n": curves.point[1:] if found.best_of_n else None,
            "proxy": None if found.proxy is None else numbers(found.proxy.curve),
            "gold": numbers(boot.curve),
        },
        "runs": {"d": distance, "proxy": None if arm.method.name in DIRECT else along["proxy"], "gold": along["gold"]},
        "fit": None if boot is None else fit_result(boot, found.best_of_n),
        "rivals": [] if boot is None else rival_results(boot),
    }


def fit_result(boot: Bootstrap, best_of_n: bool) -> Json:
    """A law in the result."""
    law = BEST_OF_N if best_of_n else RL
    return {
        "law": "best_of_n" if best_of_n else "rl",
        "formula": law.formula,
        "window": [float(boot.d[0]), float(boot.d[-1])],
        "r2": float(boot.fit.r2),
        **{name: numbers(getattr(boot, name)) for name in ("alpha", "beta", "peak_d", "peak_gold")},
        "located_peak_d": numbers(boot.top_d),
        "located_peak_gold": numbers(boot.top_gold),
    }


def rival_results(boot: Bootstrap) -> list[Json]:
    """What each law makes of a curve, and of its last third from the rest."""
    d, gold, rows = boot.d, boot.curve.value, []
    below = float(np.quantile(d, 2 / 3))
    for law in (BEST_OF_N, RL, LOG1P, POWER):
        whole, ahead = fit(law, d, gold), extrapolate(law, d, gold, below)
        row = {"law": law.name, "formula": law.formula, "r2": float(whole.r2), "aic": float(whole.aic)}
        rows.append(row | {"extrapolation_rmse": float(ahead.rms)})
    return rows
