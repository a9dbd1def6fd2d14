"""What `rlx overopt --preset NAME` runs."""

from __future__ import annotations

import dataclasses

from rlx.experiments.overoptimization.lab import LabConfig, Place
from rlx.experiments.overoptimization.language import LanguageConfig
from rlx.experiments.overoptimization.methods import MethodConfig
from rlx.experiments.overoptimization.proxies import ProxyConfig
from rlx.experiments.overoptimization.studies import STUDIES, Grid
from rlx.experiments.overoptimization.world import WorldConfig

PUSH = MethodConfig("grpo", updates=90, every=3, learning_rate=2e-4, judged=4)
WORLD = WorldConfig(language=LanguageConfig(ending=0.012), prompts=64, samples=1024)
GRID = Grid(push=PUSH)


def place(seed: int, gold: str, studies: tuple[str, ...], seeds: int) -> Place:
    """Studies of one world."""
    return Place(dataclasses.replace(WORLD, seed=seed, gold=gold), studies, seeds)


def quick() -> LabConfig:
    """Sizes and data in two worlds, and the control without the extremal ingredient: some minutes on 2 cores."""
    both = [place(seed, "extremal", ("size", "data"), 8) for seed in (0, 1)]
    return LabConfig((*both, place(0, "plain", ("size",), 8)), GRID)


def paper() -> LabConfig:
    """Every study, in the first world: an hour or so on 2 cores."""
    return LabConfig((place(0, "extremal", tuple(STUDIES), 8),), GRID)


def tiny() -> LabConfig:
    """All parts, too small to show anything: for tests."""
    world = dataclasses.replace(
        WORLD, width=8, texts=512, sft_steps=20, prompts=4, samples=16, comparisons=256, held_out=64
    )
    grid = Grid(
        proxy=ProxyConfig(width=4, comparisons=256),
        push=dataclasses.replace(PUSH, updates=6, every=2, warm_up=2, learning_rate=3e-3, responses=16, judged=2),
        widths=(2, 4),
        comparisons=(64, 128, 256),
        policy_widths=(8,),
        kl_coefs=(0.0,),
        rounds=(1, 2),
        members=2,
        betas=(0.2,),
        direct=MethodConfig("dpo", updates=4, every=2, responses=16, kl_coef=0.1),
    )
    places = Place(world, ("size",), 2), Place(dataclasses.replace(world, gold="plain"), ("penalty",), 2)
    return LabConfig(places, grid, window=(0.05, 4.3), resamples=50)


PRESETS = {"quick": quick, "paper": paper, "tiny": tiny}


def preset(name: str, seeds: int | None = None) -> LabConfig:
    """A preset, or one study in the first world, by name.

    Args:
        name: quick, paper, or one of the studies.
        seeds: another number of them than the preset's.

    Raises:
        ValueError: there is no such name.
    """
    if name not in PRESETS and name not in STUDIES:
        raise ValueError(f"no preset or study {name!r} (there are: {', '.join([*PRESETS, *STUDIES])})")
    config = PRESETS[name]() if name in PRESETS else LabConfig((place(0, "extremal", (name,), 8),), GRID)
    if seeds is None:
        return config
    return dataclasses.replace(config, places=tuple(dataclasses.replace(p, seeds=seeds) for p in config.places))
