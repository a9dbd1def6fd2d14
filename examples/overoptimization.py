"""Overoptimisation: what the distance d is, why it is the root of the KL, and why the gold reward has a hump.

Run it: `python examples/overoptimization.py` (about a minute; it prints as it goes and saves overoptimization.png).

1. The question. A policy is optimised against a proxy reward that stands for what is wanted, the gold reward. The proxy
   goes up, for that is what is optimised. What becomes of the gold?

2. How far. Optimisation moves a policy away from where it began, p. How far it went is told by KL(pi || p), in nats,
   whatever the method. Two methods that can be had exactly:

       best-of-n   of n draws keep the one that the proxy likes best
       the tilt    pi(y) = p(y) exp(proxy(y) / beta) / Z: of all policies at its KL the one of the greatest proxy reward

   The tilt is where reinforcement learning with a KL penalty beta ends, if it ends.

3. Why the root. To change probabilities by a little, e, changes a mean by something like e, but the KL by e^2: at p it
   has its minimum, 0. So reward goes as the root of the KL, and against d = sqrt(KL) it begins as a straight line. Of
   the tilt the slope is known, sqrt(2 Var r): the more rewards vary, the more there is to gain. (If rewards are normal
   the line goes on for ever. Of four responses the best is soon all that is left, and the line bends.)

4. Why the hump. Let the proxy be gold plus an error (Manheim and Garrabrant 2018, https://arxiv.org/abs/1803.04585).
   Regressional Goodhart: a great proxy is partly luck. If gold and error are normal, gold gains a fixed share of what
   the proxy gains, Var gold / (Var gold + Var error), for ever. That is slower, and no hump.
   Extremal Goodhart: far out, the proxy is another thing than it was. If errors have heavy tails, the greatest proxies
   are the greatest errors. If gold has a cost that p hardly shows, the proxy cannot have learnt it. The simplest such
   world has features f, normal under p; proxy = w . f; gold = w . f - c ((h . f)^2 - |h|^2). Along the tilt, exactly,

       gold = d (alpha - beta d),       alpha = sqrt(2) |w|,     beta = 2 c (h . w)^2 / |w|^2

   with its peak alpha^2 / (4 beta) at d = alpha / (2 beta). Gao, Schulman and Hilton (2022,
   https://arxiv.org/abs/2210.10760) measured this form for best-of-n, and d (alpha - beta log d) for RL. They read the
   first kind out of alpha and the second out of beta.

5. Learnt, not made up. A policy that learnt a small language, a gold that turns beyond what this policy shows, and two
   proxies that learnt comparisons labelled by it, a small one and a larger; best-of-n and GRPO against both. It is
   world 1001, one of two that the laboratory's settings were tuned in: an illustration. `rlx overopt` does it properly,
   and the README tells what held in other worlds and what did not.

6. What to look at. Above: reward against the KL; the same against its root, with the slope; the hump that is exact.
   Below: best-of-n where errors are normal and where they have heavy tails; then the language, where dashes are the
   proxy, lines the gold, dots the fitted law, rings the gold's highest. The last two have different axes.
"""

import argparse
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx.experiments import overoptimization as lab
from rlx.experiments.bootstrap import Bootstrap, Resampling, bootstrap_best_of_n, bootstrap_rl
from rlx.experiments.goodhart import AnalyticWorld, extremal, normal_noise, student_noise
from rlx.experiments.laws import BEST_OF_N, RL, fit, peak, predict
from rlx.experiments.tilt import best_of_n_path, initial_slope, strength_at, tilt_path

# ---------------------------------------------------------------------------------------------------------------------
# Four responses, by hand. The proxy is the reward here; nothing else is wanted yet.
# ---------------------------------------------------------------------------------------------------------------------
PROB, REWARD = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 1.0, 2.0, 3.0])  # p, and rewards, ascending
N, BETA = 4, 2.0
LOG_PROB, NS = np.log(PROB), (1, 2, 4, 8, 16, 32, 64)


def compare() -> None:
    """Best of four and a tilt by hand, and the same numbers from rlx."""
    at_most = np.cumsum(PROB)  # probability of this reward or less: that all N draws are so is its Nth power
    best = at_most**N - np.append(0.0, at_most[:-1]) ** N
    tilted = PROB * np.exp(REWARD / BETA) / np.sum(PROB * np.exp(REWARD / BETA))
    best_rlx = rlx.ops.best_of_n_distribution(jnp.array(PROB), jnp.array(REWARD), N)
    print(f"{'reward':>6} {'p':>6} {'best of 4':>10} {'rlx.ops':>8} {'tilt':>8}")
    for row in zip(REWARD, PROB, best, best_rlx, tilted, strict=True):
        print("{:6.0f} {:6.2f} {:10.4f} {:8.4f} {:8.4f}".format(*row))
    best_kl, tilt_kl = (np.sum(q * np.log(q / PROB)) for q in (best, tilted))
    best_kl_rlx = rlx.ops.best_of_n_kl(jnp.array(PROB), jnp.array(REWARD), N)
    path = tilt_path(LOG_PROB, REWARD, REWARD, [1.0 / BETA])
    print(f"KL of best of 4 by hand {best_kl:.4f}, by rlx.ops.best_of_n_kl {best_kl_rlx:.4f}", end="; ")
    print(f"its bound, of draws that are never alike, {np.log(4) - 3 / 4:.4f}")
    print(f"KL of the tilt by hand {tilt_kl:.4f}, by rlx.experiments.tilt {path.kl[0]:.4f}; d = {path.d[0]:.4f}")

    slope = np.sqrt(2 * (PROB @ REWARD**2 - (PROB @ REWARD) ** 2))
    slope_rlx, little = initial_slope(LOG_PROB, REWARD), tilt_path(LOG_PROB, REWARD, REWARD, [1e-3])
    print(f"slope sqrt(2 Var r) by hand {slope:.4f}, by rlx.experiments.tilt {slope_rlx:.4f}", end=", ")
    print(f"gain / d of a tilt with beta = 1000 {little.proxy[0] / little.d[0]:.4f}")
    several = best_of_n_path(LOG_PROB, REWARD, REWARD, NS[1:])
    more = tilt_path(LOG_PROB, REWARD, REWARD, strength_at(LOG_PROB, REWARD, several.kl)).proxy - several.proxy
    print(f"what the tilt has more at the KL of best of 2, 4 ... 64: {', '.join(f'{x:z.3f}' for x in more)}\n")
    np.testing.assert_allclose(best, best_rlx, rtol=1e-4)
    np.testing.assert_allclose([best_kl, tilt_kl, slope], [float(best_kl_rlx), path.kl[0], slope_rlx], rtol=1e-4)


def draw_root(left: Any, right: Any) -> None:
    """Reward against the KL, and against its root."""
    tilt = tilt_path(LOG_PROB, REWARD, REWARD, np.linspace(0.0, 6.0, 200))
    best = best_of_n_path(LOG_PROB, REWARD, REWARD, NS)
    for axes, tilt_x, best_x in ((left, tilt.kl, best.kl), (right, tilt.d, best.d)):
        axes.plot(tilt_x, tilt.proxy, color="black", label="tilt: the most there is")
        axes.plot(best_x, best.proxy, "o", markersize=4, label="best of 1, 2, 4 ... 64")
    right.plot([0.0, 1.4], [0.0, 1.4 * initial_slope(LOG_PROB, REWARD)], ":", color="grey", label="sqrt(2 Var r) d")
    left.set(title="Four responses: a root of the KL", xlabel="KL, nats", ylabel="reward gained")
    right.set(title="... a line in d, at first", xlabel="d = sqrt(KL)")
    right.legend(frameon=False, fontsize="small")


# ---------------------------------------------------------------------------------------------------------------------
# The hump: exactly, and by tails.
# ---------------------------------------------------------------------------------------------------------------------
def draw_hump(left: Any, right: Any, pools: int) -> None:
    """The world whose gold is d (alpha - beta d), and best-of-n over errors with light and with heavy tails."""
    world = AnalyticWorld(w=np.array([1.0, 0.0]), h=np.array([0.6, 0.8]), c=0.5)
    path = world.tilt(np.linspace(0.0, 3.2, 65))
    law = fit(BEST_OF_N, path.d[1:], path.gold[1:])
    top, alpha, beta = peak(BEST_OF_N, law), world.alpha, world.beta
    print(f"exact hump: alpha {alpha:.4f}, fitted {law.alpha:.4f}; beta {beta:.4f}, fitted {law.beta:.4f}")
    print(f"its peak by hand {alpha**2 / (4 * beta):.4f} at d = {alpha / (2 * beta):.4f}", end=", ")
    print(f"by rlx.experiments.laws.peak {top.gold:.4f} at d = {top.d:.4f}")
    left.plot(path.d, path.proxy, "--", color="black", label="proxy")
    left.plot(path.d, path.gold, color="black", label="gold: d (alpha - beta d)")
    left.plot(top.d, top.gold, "o", color="black", markersize=8, markerfacecolor="none")
    left.set(title="A hidden cost: the exact hump", xlabel="d, along the tilt")

    ns, scale = tuple(2**power for power in range(1, 13)), 0.5
    tails = {"normal": ("C2", normal_noise(scale)), "heavy-tailed": ("C3", student_noise(3.0, scale))}
    for name, (color, noise) in tails.items():
        found = extremal(jax.random.key(0), noise, ns, pools=pools)
        right.plot(found.d, found.proxy, "--", color=color)
        right.errorbar(found.d, found.gold, 2 * found.error, color=color, marker="o", markersize=3, label=name)
        share, highest = found.gold / found.proxy, int(np.argmax(found.gold))
        print(f"{name} errors: gold {found.gold[highest]:.2f} at its highest, n = {ns[highest]}", end="; ")
        print(f"{found.gold[-1]:.2f} of a proxy of {found.proxy[-1]:.2f} at n = {ns[-1]}", end="; ")
        print(f"its share of the proxy {share[0]:.2f} at first, {share[-1]:.2f} at last")
    print(f"the share that regressional Goodhart leaves of it, 1 / (1 + {scale}^2): {1 / (1 + scale**2):.2f}\n")
    right.set(title="Errors of a proxy: which tails?", xlabel="d, of best-of-n", ylabel="gained", ylim=(-0.2, 5.0))
    left.legend(frameon=False, fontsize="small")
    right.legend(frameon=False, fontsize="small")


# ---------------------------------------------------------------------------------------------------------------------
# The same where everything is learnt.
# ---------------------------------------------------------------------------------------------------------------------
WIDTHS = {1: "C1", 16: "C0"}  # of the proxies, and their colours
LEAST, MOST = 0.3, 5.0  # of d: where the law of RL is fitted; near 0 it has an infinite slope
HEADER = ("at d", "proxy", "gold", "highest", "at d", "alpha", "beta", "R^2")


class Pushed(NamedTuple):
    """Curves, means over seeds, with their laws and intervals."""

    gold: Bootstrap
    proxy: Bootstrap


def push(updates: int, seeds: int) -> dict[str, list[Pushed]]:
    """Best-of-n and RL against each proxy, by method."""
    language = lab.LanguageConfig(ending=0.012)
    config = lab.WorldConfig(1001, language=language, prompts=16, samples=256, comparisons=16_384, held_out=1024)
    world = lab.make_world(config, lab.first_policy(config))
    method = lab.MethodConfig("grpo", updates=updates, every=3, learning_rate=2e-4, judged=4)
    resampling = Resampling(shared_prompts=True)
    found: dict[str, list[Pushed]] = {"best-of-n": [], "RL": []}
    for width in WIDTHS:
        settings = lab.ProxyConfig(width=width, comparisons=16_000, learning_rate=2e-2 if width == 1 else 1e-2)
        proxy = lab.train_proxies(world, settings, seeds)
        right = ", ".join(f"{share:.0%}" for share in np.asarray(proxy.accuracy))
        print(f"proxies of width {width}: right of {right} of held-out comparisons, by seed")

        best = jax.tree.map(lambda x: np.asarray(x)[..., 1:], lab.best_of_n_curves(world, settings, proxy))
        d = np.sqrt(best.kl[0, 0])  # [K], of the upper bound of the KL, which is the same for all
        pair = (bootstrap_best_of_n(BEST_OF_N, d, x, resampling) for x in (best.gold, best.proxy))
        found["best-of-n"].append(Pushed(*pair))

        reward = functools.partial(lab.proxy_reward, world, settings)
        run = jax.tree.map(np.asarray, lab.reinforcement_curves(world, method, reward, proxy))
        least = min(LEAST, 0.2 * np.sqrt(run.kl.mean(axis=1)).max(axis=1).min())  # a tiny setting comes no further
        pair = (bootstrap_rl(RL, run.kl, x, MOST, least, 64, 3, resampling) for x in (run.gold, run.proxy))
        found["RL"].append(Pushed(*pair))
    return found


def tell(found: dict[str, list[Pushed]]) -> None:
    """What the curves came to: every sentence is made of them."""
    print("{:>20} {:>5} {:>6} {:>6} {:>8} {:>17} {:>6} {:>6} {:>5}".format("", *HEADER))
    for method, pairs in found.items():
        for width, (gold, proxy) in zip(WIDTHS, pairs, strict=True):
            row = [gold.d[-1], proxy.curve.value[-1], gold.curve.value[-1], gold.top_gold.value, *gold.top_d[:3]]
            row += [gold.alpha.value, gold.beta.value, gold.fit.r2]
            numbers = "{:5.2f} {:6.2f} {:6.2f} {:8.2f} {:5.2f} [{:.2f}, {:.2f}] {:6.2f} {:6.2f} {:5.2f}".format(*row)
            hump = "a hump" if gold.top_is_interior else "its highest may be an end"
            print(f"{f'{method}, width {width}':>20} {numbers}  {hump}")
    for method, (small, large) in found.items():
        # Both were resampled alike: what is common to them, the prompts, is not in their difference.
        more = large.gold.top_gold.value - small.gold.top_gold.value
        low, high = np.quantile(large.gold.top_gold.draws - small.gold.top_gold.draws, [0.025, 0.975])
        print(f"{method}: gold's highest, of the larger proxy less the small: {more:.2f} [{low:.2f}, {high:.2f}]")
    for width, best, run in zip(WIDTHS, *found.values(), strict=True):
        level = 0.5 * best.proxy.curve.value[-1]
        if best.proxy.curve.value[0] < level < run.proxy.curve.value[-1]:
            near, far = (np.interp(level, x.proxy.curve.value, x.proxy.d) for x in (best, run))
            print(f"width {width}: for a proxy reward of {level:.2f} RL spends {far**2 / near**2:.1f} times the KL")


def draw_learnt(axes: Any, method: str, pairs: list[Pushed]) -> None:
    """Proxy dashed, gold solid, its law dotted, over the KL on the scale of its root."""
    law = BEST_OF_N if method == "best-of-n" else RL
    for (width, color), (gold, proxy) in zip(WIDTHS.items(), pairs, strict=True):
        axes.plot(proxy.d, proxy.curve.value, "--", color=color, linewidth=1.0)
        axes.plot(gold.d, gold.curve.value, color=color, label=f"width {width}")
        axes.fill_between(gold.d, gold.curve.low, gold.curve.high, color=color, alpha=0.15, linewidth=0)
        axes.plot(gold.d, predict(law, gold.fit, gold.d), ":", color="black", linewidth=1.0)
        axes.plot(gold.top_d.value, gold.top_gold.value, "o", color=color, markersize=8, markerfacecolor="none")
    axes.axhline(0.0, color="grey", linewidth=0.6)
    most = max(gold.d[-1] for gold, _ in pairs) ** 2
    ticks = [0.1, 0.5, 1, 2, 3, 4] if most < 6.0 else [0.5, 2, 4, 8, 12, 16, 20, 25]
    ticks = [0.0, *(tick for tick in ticks if tick < 1.01 * most)]
    axes.set_xticks(np.sqrt(ticks), [f"{tick:g}" for tick in ticks])
    axes.set(title=f"A language: {method}", xlabel="KL, nats, on a scale of its root", ylabel="gained")
    axes.legend(frameon=False, fontsize="small", title="proxies", title_fontsize="small")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=64, help="pools of 8192 draws for best-of-n over errors")
    parser.add_argument("--updates", type=int, default=66, help="updates of RL, a multiple of 3")
    parser.add_argument("--seeds", type=int, default=4, help="seeds of each proxy and what is pushed against it")
    parser.add_argument("--picture", default="overoptimization.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()

    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 7.6), dpi=150, layout="constrained")
    panels = figure.subplots(2, 3)
    draw_root(panels[0, 0], panels[0, 1])
    draw_hump(panels[0, 2], panels[1, 0], arguments.pools)
    learnt = push(arguments.updates, arguments.seeds)
    tell(learnt)
    draw_learnt(panels[1, 1], "best-of-n", learnt["best-of-n"])
    draw_learnt(panels[1, 2], "RL", learnt["RL"])
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.picture)
    print(f"root, line, humps and a language: {arguments.picture}")
