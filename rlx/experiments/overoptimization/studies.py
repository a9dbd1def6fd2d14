"""The studies: each a question, and the arms that answer it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from rlx.experiments.overoptimization.arms import Arm
from rlx.experiments.overoptimization.methods import MethodConfig
from rlx.experiments.overoptimization.proxies import ProxyConfig


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the studies vary, and what they leave as it is."""

    proxy: ProxyConfig = ProxyConfig()  # where nothing is said of it
    push: MethodConfig = MethodConfig("ppo")  # RL, where nothing is said of it
    widths: tuple[int, ...] = (1, 2, 4, 16, 64)  # of proxies, sizes from small to large
    comparisons: tuple[int, ...] = (500, 2000, 6000, 15_000, 30_000)  # that proxies learn from
    epochs: int = 4  # passes over a small set, against one over so many times the comparisons
    policy_widths: tuple[int, ...] = (16, 32, 64)  # of policies
    kl_coefs: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3)  # of the KL penalty
    rounds: tuple[int, ...] = (1, 2, 4)  # of iterated RLHF
    flips: tuple[float, ...] = (0.0, 0.25)  # share of swapped labels
    members: int = 5  # of an ensemble
    betas: tuple[float, ...] = (0.05, 0.2, 1.0)  # of direct alignment
    direct: MethodConfig = MethodConfig("dpo", learning_rate=5e-4, updates=400, every=16, kl_coef=0.1)


class Study(NamedTuple):
    """A question.

    Attributes:
        title: in a few words.
        question: in one sentence.
        arms: what is done to answer it.
    """

    title: str
    question: str
    arms: Callable[[Grid], list[Arm]]


BEST_OF_N = MethodConfig("best_of_n")


def sized(proxy: ProxyConfig, width: int, comparisons: int | None = None) -> ProxyConfig:
    """A proxy of another size, or with other data; the learning rate goes along."""
    comparisons = comparisons or proxy.comparisons
    rate = min(2e-2, 4e-2 * width**-0.5) if proxy.kind == "window" else proxy.learning_rate
    batch = min(proxy.batch_size, 16) if comparisons <= 2000 else proxy.batch_size
    return dataclasses.replace(proxy, width=width, comparisons=comparisons, learning_rate=rate, batch_size=batch)


def pair_of_arms(grid: Grid, name: str, label: str, proxy: ProxyConfig, **changes: object) -> list[Arm]:
    """Best-of-n and RL against one proxy."""
    return [
        Arm(f"best-of-n-{name}", label, BEST_OF_N, proxy, **changes),  # type: ignore[arg-type]
        Arm(f"{grid.push.name}-{name}", label, grid.push, proxy, **changes),  # type: ignore[arg-type]
    ]


def plain_arms(grid: Grid, proxy: ProxyConfig) -> list[Arm]:
    """Best-of-n and RL against a proxy of some size and data: of several studies, so that it bears both in its name."""
    name = f"w{proxy.width}-m{proxy.comparisons}"
    return pair_of_arms(grid, name, f"width {proxy.width}, {proxy.comparisons:,} comparisons", proxy)


def size_arms(grid: Grid) -> list[Arm]:
    """Proxies from small to large, of equal data."""
    arms = []
    for width in grid.widths:
        arms += plain_arms(grid, sized(grid.proxy, width))
    return arms


def data_arms(grid: Grid) -> list[Arm]:
    """Data from little to much, of one size; and little data read several times."""
    arms = []
    for number in grid.comparisons:
        arms += plain_arms(grid, sized(grid.proxy, grid.proxy.width, number))
    few = sized(grid.proxy, grid.proxy.width, grid.comparisons[1])
    few = dataclasses.replace(few, epochs=grid.epochs)
    name = f"w{few.width}-m{few.comparisons}-x{few.epochs}"
    label = f"width {few.width}, {few.epochs} x {few.comparisons:,} comparisons"
    return [*arms, pair_of_arms(grid, name, label, few)[0]]


def policy_arms(grid: Grid) -> list[Arm]:
    """Policies from small to large, the proxy and the gold the same."""
    proxy = sized(grid.proxy, grid.widths[0])
    return [
        arm
        for width in grid.policy_widths
        for arm in pair_of_arms(grid, f"policy{width}", f"policy of width {width}", proxy, policy_width=width)
    ]


def penalty_arms(grid: Grid) -> list[Arm]:
    """KL penalties from none to strong."""
    proxy = sized(grid.proxy, grid.widths[0])
    pushes = [dataclasses.replace(grid.push, kl_coef=kl_coef) for kl_coef in grid.kl_coefs]
    return [Arm(f"{push.name}-kl{push.kl_coef:g}", f"KL penalty {push.kl_coef:g}", push, proxy) for push in pushes]


def method_arms(grid: Grid) -> list[Arm]:
    """Several methods against one proxy."""
    proxy = sized(grid.proxy, grid.widths[0])
    pushes = [dataclasses.replace(grid.push, name=name) for name in ("ppo", "grpo", "reinforce")]
    return [Arm(f"method-{method.name}", method.name, method, proxy) for method in (BEST_OF_N, *pushes)]


def iterated_arms(grid: Grid) -> list[Arm]:
    """One, two and four rounds, from the last policy and from the first."""
    proxy, arms = sized(grid.proxy, grid.widths[0]), []
    for rounds in grid.rounds:
        for restart in (False, True) if rounds > 1 else (True,):
            begin = f", each from the {'first' if restart else 'last'} policy" if rounds > 1 else ""
            name = f"rounds{rounds}-{'first' if restart else 'last'}"
            label = f"{rounds} round{'s' * (rounds > 1)}{begin}"
            arms.append(Arm(name, label, grid.push, proxy, rounds=rounds, restart=restart))
    return arms


def noise_arms(grid: Grid) -> list[Arm]:
    """Swapped labels, and ensembles against them."""
    arms = []
    for flips in grid.flips:
        for objective, members in (("single", 1), *((o, grid.members) for o in ("mean", "min", "uncertainty"))):
            proxy = dataclasses.replace(sized(grid.proxy, grid.proxy.width), flips=flips, members=members)
            proxy = proxy if members == 1 else dataclasses.replace(proxy, objective=objective)
            label = f"{'one model' if members == 1 else f'{members} models, {objective}'}, {flips:.0%} swapped"
            arms += pair_of_arms(grid, f"{objective}-flips{flips:g}", label, proxy)
    return arms


def direct_arms(grid: Grid) -> list[Arm]:
    """DPO, IPO and SLiC, with weak and strong regularisation."""
    methods = [
        dataclasses.replace(grid.direct, name=name, kl_coef=beta)
        for name in ("dpo", "ipo", "slic")
        for beta in grid.betas
    ]
    return [
        Arm(
            f"{method.name}-beta{method.kl_coef:g}",
            f"{method.name.upper()}, beta {method.kl_coef:g}",
            method,
            grid.proxy,
        )
        for method in methods
    ]


STUDIES = {
    "size": Study("Size of the reward model", "Does a larger proxy hold out longer?", size_arms),
    "data": Study("Data of the reward model", "Do more comparisons help, and does reading them again?", data_arms),
    "policy": Study("Size of the policy", "Does a larger policy exploit its proxy more?", policy_arms),
    "penalty": Study("KL penalty", "Is a KL penalty more than stopping early?", penalty_arms),
    "methods": Study("RL against best-of-n", "Do methods of optimisation differ at equal KL?", method_arms),
    "iterated": Study("Iterated RLHF", "Does a proxy that is trained again on the way help?", iterated_arms),
    "noise": Study("Noisy labels and ensembles", "Do conservative ensembles mend what noise breaks?", noise_arms),
    "direct": Study("Direct alignment", "Does a policy without a reward model over-optimise too?", direct_arms),
}
