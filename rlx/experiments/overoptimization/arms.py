"""An arm of a study: one method against one proxy in one world, by several seeds; its outcome is kept in a file.

Axes: S seeds, B prompts, K points of a curve.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rlx.experiments.overoptimization.methods import (
    DIRECT,
    Curves,
    MethodConfig,
    best_of_n_curves,
    direct_curves,
    iterated_curves,
    reinforcement_curves,
)
from rlx.experiments.overoptimization.proxies import Proxy, ProxyConfig, proxy_reward, train_proxies
from rlx.experiments.overoptimization.world import World, first_policy, make_world

# What reading an npz file raises that is truncated or has other bytes in it
BROKEN = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is done; the seeds are the study's."""

    name: str  # of its file, and in tables
    label: str  # in pictures
    method: MethodConfig = MethodConfig()
    proxy: ProxyConfig = ProxyConfig()
    rounds: int = 1  # of training a proxy and pushing against it
    restart: bool = False  # whether each further round begins with the first policy again
    policy_width: int | None = None  # of the policy that is pushed; None: the world's


class Outcome(NamedTuple):
    """What an arm came to.

    Attributes:
        curves: of all seeds.
        parameters: of the proxy, one member; 0 where there is none.
        accuracy: `[S]` of the proxy on held-out comparisons; NaN where there is none, as of those below.
        correlation: `[S]` of it with the gold.
        loss: `[S]` of it on held-out comparisons.
    """

    curves: Curves
    parameters: np.ndarray
    accuracy: np.ndarray
    correlation: np.ndarray
    loss: np.ndarray


class Bench:
    """A world with what its arms share, made when it is first asked for."""

    def __init__(self, world: World, seeds: int) -> None:
        self.world, self.seeds = world, seeds
        self.proxies = functools.lru_cache(maxsize=1)(self._proxies)  # arms of one proxy come one after another
        self.with_policy = functools.cache(self._with_policy)

    def _proxies(self, config: ProxyConfig) -> Proxy:
        return train_proxies(self.world, config, self.seeds)

    def _with_policy(self, width: int | None) -> World:
        """The same world with a policy of another size: language, gold and comparisons stay."""
        if width in (None, self.world.config.width):
            return self.world
        config = dataclasses.replace(self.world.config, width=width)
        other = make_world(config, first_policy(config), gold=self.world.gold)
        return other._replace(pairs=self.world.pairs, pair_gold=self.world.pair_gold)

    def run(self, arm: Arm) -> Outcome:
        """Run an arm."""
        world, unknown = self.with_policy(arm.policy_width), np.full(self.seeds, np.nan)
        if arm.method.name in DIRECT:
            curves = direct_curves(world, arm.method, arm.proxy, self.seeds)
            return Outcome(curves, np.array(0), unknown, unknown, unknown)
        if arm.rounds > 1 or arm.restart:
            curves = iterated_curves(world, arm.method, arm.proxy, self.seeds, arm.rounds, arm.restart)
            return Outcome(curves, np.array(0), unknown, unknown, unknown)
        proxy = self.proxies(arm.proxy)
        if arm.method.name == "best_of_n":
            curves = best_of_n_curves(world, arm.proxy, proxy)
        else:
            make_reward = functools.partial(proxy_reward, world, arm.proxy)
            curves = reinforcement_curves(world, arm.method, make_reward, proxy)
        size = sum(leaf[0, 0].size for leaf in jax.tree.leaves(proxy.params))
        found = (np.asarray(x) for x in (proxy.accuracy, proxy.correlation, proxy.loss))
        return Outcome(curves, np.array(size), *found)


def save_outcome(file: Path, outcome: Outcome) -> None:
    """Write an outcome; a file of that name is whole."""
    arrays = {**outcome.curves._asdict(), **{k: v for k, v in outcome._asdict().items() if k != "curves"}}
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **jax.tree.map(np.asarray, arrays))
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file)


def load_outcome(file: Path) -> Outcome | None:
    """Read an outcome back; None where there is none, or it is broken."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = dict(arrays)
        curves = Curves(*(found.pop(name) for name in Curves._fields))
        return Outcome(curves, **found)
    except BROKEN:
        return None
