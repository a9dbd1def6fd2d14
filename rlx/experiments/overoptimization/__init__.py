"""The overoptimisation laboratory: what becomes of what is wanted when a policy is pushed against a learnt reward.

Piece by piece, with parts of one's own in any place:

    config = WorldConfig(seed=0)
    world = make_world(config, first_policy(config))         # gold=... a reward of one's own, or
                                                             # make_gold=preferred("comparisons.jsonl")
    proxy_config = ProxyConfig(width=2)
    proxy = train_proxies(world, proxy_config, seeds=8)
    curves = best_of_n_curves(world, proxy_config, proxy)
    reward = functools.partial(proxy_reward, world, proxy_config)  # of one seed's proxy; or any reward
    curves = reinforcement_curves(world, MethodConfig("ppo"), reward, proxy)

All at once, each arm kept in a folder as soon as it is done: `run_place`, `make_result`, `write_report`; that is what
`rlx overopt` does. Laws, their fits and intervals are in `rlx.experiments.laws` and `rlx.experiments.bootstrap`, exact
answers in `rlx.experiments.tilt` and `rlx.experiments.goodhart`.
"""

from rlx.experiments.overoptimization.arms import Arm, Bench, Outcome, load_outcome, save_outcome
from rlx.experiments.overoptimization.golds import GOLDS, extremal, learnt, normalized, preferred, teacher
from rlx.experiments.overoptimization.lab import LabConfig, Place, run_place
from rlx.experiments.overoptimization.language import Language, LanguageConfig, make_language
from rlx.experiments.overoptimization.methods import (
    Curves,
    MethodConfig,
    best_of_n_curves,
    direct_curves,
    iterated_curves,
    reinforcement_curves,
)
from rlx.experiments.overoptimization.presets import preset
from rlx.experiments.overoptimization.proxies import Proxy, ProxyConfig, proxy_reward, train_proxies
from rlx.experiments.overoptimization.report import write_report
from rlx.experiments.overoptimization.results import make_result
from rlx.experiments.overoptimization.studies import STUDIES, Grid, Study
from rlx.experiments.overoptimization.world import World, WorldConfig, first_policy, make_world

__all__ = [
    "GOLDS",
    "STUDIES",
    "Arm",
    "Bench",
    "Curves",
    "Grid",
    "LabConfig",
    "Language",
    "LanguageConfig",
    "MethodConfig",
    "Outcome",
    "Place",
    "Proxy",
    "ProxyConfig",
    "Study",
    "World",
    "WorldConfig",
    "best_of_n_curves",
    "direct_curves",
    "extremal",
    "first_policy",
    "iterated_curves",
    "learnt",
    "load_outcome",
    "make_language",
    "make_result",
    "make_world",
    "normalized",
    "preferred",
    "preset",
    "proxy_reward",
    "reinforcement_curves",
    "run_place",
    "save_outcome",
    "teacher",
    "train_proxies",
    "write_report",
]
