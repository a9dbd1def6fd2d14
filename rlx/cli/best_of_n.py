"""What `rlx best-of-n` shows: a table over n, and a picture."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlx.algorithms.best_of_n import BestOfNConfig, BestOfNState
from rlx.ops.best_of_n import best_of_n_kl_bound


def best_of_n_table(state: BestOfNState, config: BestOfNConfig, seeds: int) -> list[dict[str, float]]:
    """Rows by n: proxy and gold score with a 95 % interval over all prompts of all seeds, KL bound and estimate."""
    sums = jax.tree.map(lambda x: np.asarray(x, float).reshape(seeds, -1).sum(axis=0), state[1:])
    prompts, proxy, gold, square, kl = sums
    proxy, gold, square, kl = (x / prompts for x in (proxy, gold, square, kl))
    error = 1.96 * np.sqrt(np.maximum(square - gold**2, 0.0) / np.maximum(prompts - 1.0, 1.0))
    bound = np.asarray(best_of_n_kl_bound(jnp.array(config.ns)))
    columns = {"n": config.ns, "proxy": proxy, "gold": gold, "gold_error": error, "kl_bound": bound, "kl_estimate": kl}
    return [
        {name: int(value) if name == "n" else float(value) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]


def best_of_n_lines(rows: list[dict[str, float]]) -> list[str]:
    """The curve over n as a table; no lines without rows."""
    if not rows:
        return []
    lines = [f"{'n':>6}{'proxy':>10}{'gold':>10}{'+-':>8}{'KL bound':>10}{'KL estimate':>13}"]
    for row in rows:
        lines.append(
            f"{row['n']:>6}{row['proxy']:>10.3f}{row['gold']:>10.3f}{row['gold_error']:>8.3f}{row['kl_bound']:>10.3f}"
            f"{row['kl_estimate']:>13.3f}"
        )
    return lines


def draw_best_of_n(file: Path, rows: list[dict[str, float]]) -> None:
    """Draw the gold score with its interval, and the proxy's where it is another, against n.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    n, gold, error, proxy = ([row[name] for row in rows] for name in ("n", "gold", "gold_error", "proxy"))
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(n, gold, error, color="#E69F00", marker="o", capsize=3, label="gold, 95 % interval over prompts")
    if not np.allclose(gold, proxy):
        axes.plot(n, proxy, color="#0072B2", marker="s", linestyle="--", label="proxy, by which the best is picked")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="n", ylabel="score of the best of n", xticks=n, xticklabels=n)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.savefig(file)
