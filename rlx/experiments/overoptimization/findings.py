"""What each study came to, in sentences made of its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlx.experiments.overoptimization.analysis import Analysed, told
from rlx.experiments.overoptimization.methods import DIRECT


def finding(study: str, found: dict[str, Analysed], names: Sequence[str]) -> str:
    """Sentences on a study of one world; empty where nothing of it is there."""
    arms = [found[name] for name in names if name in found and found[name].bootstrap]
    if not arms:
        return ""
    more = {"data": epochs, "penalty": penalty, "iterated": rounds, "direct": prediction}.get(study)
    return " ".join(filter(None, [peaks(arms), more(arms) if more else ""]))


def peaks(arms: Sequence[Analysed]) -> str:
    """Where the gold reward is highest, arm by arm."""
    texts = []
    for group in (False, True):
        rows = [one for one in arms if one.best_of_n == group]
        tops = [f"{one.arm.label}: {told(one.bootstrap.top_gold)}" for one in rows if one.bootstrap]
        if tops:
            how = "best-of-n" if group else "direct alignment" if rows[0].arm.method.name in DIRECT else "RL"
            texts.append(f"Highest gold reward under {how}, {'; '.join(tops)}.")
    return " ".join(texts)


def epochs(arms: Sequence[Analysed]) -> str:
    """Whether reading comparisons again is as good as more of them."""
    again = [one for one in arms if one.arm.proxy.epochs > 1]
    if not again:
        return ""
    many, few = again[0], again[0].arm.proxy.comparisons
    read = many.arm.proxy.epochs * few
    once = {one.arm.proxy.comparisons: one for one in arms if one.best_of_n and one.arm.proxy.epochs == 1}
    near = min((n for n in once if n > few), key=lambda n: abs(np.log(n / read)), default=None)
    if few not in once or near is None:
        return ""
    loss = [float(np.mean(one.outcome.loss)) for one in (once[few], many, once[near])]
    return (
        f"Held-out loss, nats a comparison: {loss[0]:.3f} after {few:,} comparisons, {loss[1]:.3f} after reading them "
        f"{many.arm.proxy.epochs} times, {loss[2]:.3f} after {near:,} of them once."
    )


def penalty(arms: Sequence[Analysed]) -> str:
    """Whether a KL penalty moves the gold reward at equal KL, or stops early."""
    base = next((one for one in arms if one.arm.method.kl_coef == 0), None)
    texts = []
    for one in arms:
        if base is None or base.bootstrap is None or one.bootstrap is None or one is base:
            continue
        end = min(float(base.bootstrap.d[-1]), float(one.bootstrap.d[-1]))
        grid = np.linspace(float(base.bootstrap.d[0]), end, 16)
        gap = np.interp(grid, one.bootstrap.d, one.bootstrap.curve.value)
        gap = float(np.mean(gap - np.interp(grid, base.bootstrap.d, base.bootstrap.curve.value)))
        texts.append(f"{one.arm.label}: up to d = {end:.2f} gold {gap:+.2f} against no penalty at equal d")
    return "; ".join(texts) + "." if texts else ""


def rounds(arms: Sequence[Analysed]) -> str:
    """The gold reward at the end of each arm's runs."""
    ends = [f"{one.arm.label}: {float(np.mean(one.outcome.curves.gold[..., -1])):.2f}" for one in arms]
    return f"Gold reward of the last policy, {'; '.join(ends)}."


def prediction(arms: Sequence[Analysed]) -> str:
    """Whether the accuracy in training tells which run is good."""
    from scipy.stats import spearmanr

    accuracy = np.concatenate([one.outcome.curves.proxy[..., -1].mean(axis=1) for one in arms])
    gold = np.concatenate([one.outcome.curves.gold[..., -1].mean(axis=1) for one in arms])
    if min(np.ptp(accuracy), np.ptp(gold)) == 0:  # there is nothing to rank
        return ""
    rank = float(np.asarray(spearmanr(accuracy, gold))[0])
    return f"Over all runs the accuracy in training and the last gold reward have a rank correlation of {rank:.2f}."
