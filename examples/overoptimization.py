"""Overoptimisation: what the distance d is, why it is the root of the KL, and why the gold reward has a hump.

Run it: `python examples/overoptimization.py` (seconds; it saves overoptimization.png). The same with a language, a
policy and reward models that learn: `rlx overopt --preset quick`.

1. The question. A policy is optimised against a proxy reward that stands for what is wanted, the gold reward. The proxy
   goes up, for that is what is optimised. What becomes of the gold?

2. How far. Optimisation moves a policy away from where it began, p. How far it went is told by KL(pi || p), in nats,
   whatever the method. Two methods here:

       best-of-n   of n draws keep the one that the proxy likes best
       the tilt    pi(y) = p(y) exp(proxy(y) / beta) / Z: of all policies at its KL the one of the greatest proxy reward

3. Why its root. To change probabilities by a little, e, changes every mean by something like e, but the KL by e^2: at p
   it has a minimum, 0. So reward goes as the root of the KL, and against d = sqrt(KL) it begins as a straight line. Of
   the tilt its slope is known, sqrt(2 Var r): the more rewards vary, the more there is to gain. (Of normal rewards the
   line goes on for ever.)

4. Why the hump. Let the proxy be gold plus an error.
   Where errors are as rare far out as the gold itself, choosing by the proxy gains gold more slowly than proxy, but for
   ever: regressional Goodhart. Gao et al. (2022, https://arxiv.org/abs/2210.10760) see it in alpha.
   Where an error grows the further out one goes, be it that proxies have heavy tails or that the gold has a cost which
   the first policy's texts hardly show, what is gained at first is lost again: extremal Goodhart, their beta. The
   simplest such world: features f, normal under p; proxy = w . f; gold = w . f - c (h . f)^2. Along the tilt its gold
   reward is exactly

       R(d) = d (alpha - beta d),       alpha = sqrt(2) |w|,     beta = 2 c (h . w)^2 / |w|^2

   with its peak alpha^2 / (4 beta) at d = alpha / (2 beta). It is the form that they find of best-of-n.

5. What to look at. Left: against the KL reward rises as a root; middle: against its root as a line at first, and
   nobody is above the tilt. Right: the hump of the last formula; best-of-n over errors with heavy tails, which has
   one too; and over normal errors, which has none.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx.experiments.goodhart import AnalyticWorld, extremal, normal_noise, student_noise
from rlx.experiments.laws import BEST_OF_N, fit, peak
from rlx.experiments.tilt import best_of_n_path, initial_slope, tilt_path

PROB, REWARD = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 1.0, 2.0, 3.0])  # of four responses
NS = (1, 2, 4, 8, 16, 32, 64)
STRENGTH = np.linspace(0.0, 6.0, 200)


def compare() -> None:
    """Best of 4 and a tilt of four responses by hand, and the same numbers from rlx."""
    n = 4
    at_most = np.cumsum(PROB)  # F: rewards ascend
    best = at_most**n - np.append(0.0, at_most[:-1]) ** n
    kl = np.sum(best * np.log(best / PROB))
    exact = float(rlx.ops.best_of_n_kl(jnp.array(PROB), jnp.array(REWARD), n))
    print(f"best of 4: {best.round(4)}, gain {best @ REWARD - PROB @ REWARD:.4f}")
    print(f"its KL by hand {kl:.4f}, by rlx.ops.best_of_n_kl {exact:.4f}; the bound {np.log(n) - (n - 1) / n:.4f}")

    weight = PROB * np.exp(0.5 * REWARD)
    tilted = weight / weight.sum()
    kl = np.sum(tilted * np.log(tilted / PROB))
    path = tilt_path(np.log(PROB), REWARD, REWARD, [0.5])
    print(f"tilt by 1/2: {tilted.round(4)}, KL by hand {kl:.4f}, by rlx.experiments.tilt {path.kl[0]:.4f}")

    variance = PROB @ REWARD**2 - (PROB @ REWARD) ** 2
    slope = initial_slope(np.log(PROB), REWARD)
    little = tilt_path(np.log(PROB), REWARD, REWARD, [1e-3])
    print(f"slope sqrt(2 Var r) by hand {np.sqrt(2 * variance):.4f}, by rlx {slope:.4f}, of a small tilt", end=" ")
    print(f"{little.proxy[0] / little.d[0]:.4f}")


def report(pools: int, picture: str) -> None:
    """The root, the line, the hump."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 4.0), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    tilt, best = (
        tilt_path(np.log(PROB), REWARD, REWARD, STRENGTH),
        best_of_n_path(np.log(PROB), REWARD, REWARD, NS),
    )
    for axes, of in ((left, lambda path: path.kl), (middle, lambda path: path.d)):
        axes.plot(of(tilt), tilt.proxy, label="tilt")
        axes.plot(of(best), best.proxy, "o", markersize=4, label="best of 1, 2, 4 ... 64")
    line = np.linspace(0.0, 1.0, 2)
    slope = initial_slope(np.log(PROB), REWARD)
    middle.plot(line, slope * line, "k:", label="slope sqrt(2 Var r)")
    left.set(title="A root of the KL", xlabel="KL, nats", ylabel="reward above the first policy's")
    middle.set(title="A line in d, at first", xlabel="d = sqrt(KL)")
    middle.legend(frameon=False)

    world = AnalyticWorld(np.array([1.0, 0.0]), np.array([0.6, 0.8]), 0.5)
    d = np.linspace(0.0, 3.2, 65)
    path = world.tilt(d)
    top = peak(BEST_OF_N, fit(BEST_OF_N, d[1:], path.gold[1:]))
    law = f"alpha {world.alpha:.3f}, beta {world.beta:.3f}"
    print(f"the hump: {law}; gold {float(top.gold):.3f} at d = {float(top.d):.3f}")
    right.plot(d, path.proxy, "k--", linewidth=0.8, label="proxy along the tilt")
    right.plot(d, path.gold, "k", label="gold: exactly d (alpha - beta d)")
    ns = tuple(2**power for power in range(1, 13))
    for color, name, noise in (("C2", "normal", normal_noise(0.5)), ("C3", "heavy-tailed", student_noise(3.0, 0.5))):
        found = extremal(jax.random.key(0), noise, ns, pools=pools)
        right.errorbar(
            found.d, found.gold, 2 * found.error, color=color, marker="o", markersize=3, label=f"{name} errors"
        )
        highest = int(np.argmax(found.gold))
        where = "at the last n" if highest == len(ns) - 1 else f"at n = {ns[highest]}, {found.gold[-1]:.2f} at the last"
        print(f"best-of-n over {name} errors: gold highest {where}, {found.gold[highest]:.2f}")
    right.set(title="The hump", xlabel="d", ylim=(-1.0, 4.5))
    right.legend(frameon=False, fontsize="small")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)
    print(f"root, line and hump: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=64, help="pools of 8192 draws for best-of-n over errors")
    parser.add_argument("--picture", default="overoptimization.png", help="where to save the picture")
    arguments = parser.parse_args()
    compare()
    report(arguments.pools, arguments.picture)
