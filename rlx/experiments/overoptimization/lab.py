"""The laboratory: which worlds and studies a preset has, and running them, each arm kept as soon as it is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rlx.core.config import require, require_counts
from rlx.experiments.overoptimization.arms import Arm, Bench, load_outcome, save_outcome
from rlx.experiments.overoptimization.language import make_language
from rlx.experiments.overoptimization.studies import STUDIES, Grid
from rlx.experiments.overoptimization.world import World, WorldConfig, first_policy, make_world, policy_model
from rlx.types import PyTree


@dataclasses.dataclass(frozen=True)
class Place:
    """Studies of one world."""

    world: WorldConfig
    studies: tuple[str, ...] = ("size",)
    seeds: int = 8  # S

    def __post_init__(self) -> None:
        require_counts(self, "seeds")
        for study in self.studies:
            require(self, study in STUDIES, f"must be of {', '.join(STUDIES)}", "studies")

    @property
    def name(self) -> str:
        """The world's, in tables and files."""
        return f"world {self.world.seed}, {self.world.gold} gold"


@dataclasses.dataclass(frozen=True)
class LabConfig:
    """All of an experiment."""

    places: tuple[Place, ...]
    grid: Grid = Grid()
    window: tuple[float, float] = (0.3, 4.3)  # of d, in which laws of RL are fitted and curves are drawn
    smoothing: int = 3  # points of a run's moving average
    resamples: int = 1000  # of the bootstrap

    def __post_init__(self) -> None:
        names = [place.name for place in self.places]
        if len(set(names)) < len(names):
            raise ValueError(f"LabConfig: places: two worlds have one name: {', '.join(names)}")

    def arms(self, place: Place) -> list[Arm]:
        """The arms of a world's studies, each once, those of one proxy one after another."""
        arms = {arm.name: arm for study in place.studies for arm in STUDIES[study].arms(self.grid)}
        order = {arm.proxy: index for index, arm in reversed([*enumerate(arms.values())])}
        return sorted(arms.values(), key=lambda arm: order[arm.proxy])


def place_folder(folder: Path, place: Place) -> Path:
    """Where a world's outcomes are; a world of other settings is elsewhere."""
    return folder / "worlds" / f"{place.world.seed}-{place.world.gold}-{digest(dataclasses.asdict(place.world))}"


def arm_file(folder: Path, place: Place, arm: Arm) -> Path:
    """Where an arm's outcome is; one of other settings or another number of seeds is elsewhere."""
    settings = dataclasses.asdict(arm) | {"label": None, "seeds": place.seeds}
    return place_folder(folder, place) / f"{arm.name}-{digest(settings)}.npz"


def digest(settings: dict[str, Any]) -> str:
    """Eight letters that other settings do not have."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run_place(
    config: LabConfig, place: Place, folder: Path, report: Callable[[str, float], None], stopping: Callable[[], bool]
) -> bool:
    """Run the arms of one world that are not done yet.

    Args:
        config: the experiment's.
        place: which world.
        folder: of the experiment.
        report: is told what was done, and the seconds it took; done earlier is 0 s.
        stopping: asked between two arms whether to leave.

    Returns:
        Whether all is done.
    """
    here = place_folder(folder, place)
    here.mkdir(parents=True, exist_ok=True)
    bench: Bench | None = None
    for arm in config.arms(place):
        file, begun = arm_file(folder, place, arm), time.perf_counter()
        if load_outcome(file) is None:
            if stopping():
                return False
            if bench is None:
                bench = Bench(open_world(place.world, here, report), place.seeds)
                begun = time.perf_counter()
            save_outcome(file, bench.run(arm))
            report(arm.name, time.perf_counter() - begun)
        else:
            report(arm.name, 0.0)
    return True


def open_world(config: WorldConfig, here: Path, report: Callable[[str, float], None]) -> World:
    """Make a world, round the first policy that is kept in its folder."""
    begun = time.perf_counter()
    params = kept_policy(config, here)
    world = make_world(config, params)
    (here / "world.json").write_text(json.dumps(describe(world), indent=1))
    report("world", time.perf_counter() - begun)
    return world


def kept_policy(config: WorldConfig, here: Path) -> PyTree:
    """The first policy from its file, or learnt and kept."""
    if (here / "policy" / "0").is_dir():
        try:
            language = make_language(jax.random.key(0), config.language)
            like = jax.eval_shape(
                policy_model(config, language, "logits").init, jax.random.key(0), np.zeros((1, 1), int)
            )
            return load_checkpoint(here / "policy" / "0", like)
        except CheckpointError:
            pass
    params = first_policy(config)
    save_checkpoint(here / "policy", 0, params)
    return params


def describe(world: World, samples: int = 6) -> dict[str, Any]:
    """What the report tells of a world: the first policy in numbers, and some of its responses."""
    tokenizer, pool = world.language.tokenizer, world.pool

    def text(tokens: jax.Array, length: jax.Array) -> str:
        return tokenizer.decode(np.asarray(tokens[: int(length)]).tolist())

    return {
        "policy_parameters": world.model.config.parameter_count,
        "policy_entropy": -float(np.mean(pool.log_prob)),
        "response_length": float(np.mean(pool.response_length)),
        "samples": [
            {
                "prompt": text(pool.prompts.tokens[row, 1:], pool.prompts.length[row] - 1),
                "response": text(pool.response[row, 0], pool.response_length[row, 0]),
                "gold": float(world.pool_gold[row, 0]),
            }
            for row in range(min(samples, len(pool.response)))
        ],
    }
