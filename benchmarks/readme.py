"""`python -m benchmarks.readme` writes the tables of README.md from benchmarks/results; `--check` only compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.returns import CELLS, RESULTS

README = Path(__file__).parents[1] / "README.md"


def returns_table() -> str:
    """One row a cell that has been measured."""
    rows = [
        "| algorithm | environment | steps | seeds | mean | IQM | 95 % interval of the mean | lowest seed | target |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        file = RESULTS / f"{cell.name}.json"
        if not file.is_file():
            continue
        result = json.loads(file.read_text())
        low, high = result["ci95"]
        verdict = "met" if result["met"] else "**not met**"
        rows.append(
            f"| {cell.algorithm} | {cell.env} | {result['env_steps']:,} | {len(result['seeds'])} | "
            f"{result['mean']:.1f} | {result['iqm']:.1f} | {low:.1f} to {high:.1f} | "
            f"{min(result['final_return']):.1f} | {cell.statistic} {cell.target:g}: {verdict} |"
        )
    return "\n".join(rows)


def load(name: str) -> dict[str, Any] | None:
    """A file of results, or None where it was not made."""
    file = RESULTS.parent / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def origin_of(result: dict[str, Any], versions: dict[str, dict[str, str]]) -> str:
    """Which libraries, on what machine, from which commit."""
    origin = result["provenance"]
    names = {"sbx": "sbx", "sb3": "stable_baselines3"}
    peers = [
        f"{names.get(peer, peer)} {found[names.get(peer, peer)]}" for peer, found in versions.items() if peer != "rlx"
    ]
    core = f"one pinned core of {origin['cores']} ({origin['cpu']})"
    return f"{', '.join([*peers, ''])}jax {versions['rlx']['jax']}, {core}, commit {origin['commit'][:7]}."


def startup_table() -> str:
    """Medians of rlx and rejax over whole processes, and their ratio, from one run in alternation."""
    result = load("compare_ppo")
    if result is None:
        return "Not measured yet."
    work = result["works"]["ppo"]
    parts = [
        ("whole process, no compilation cache", "cold", "process", "s"),
        ("whole process, warm compilation cache", "warm", "process", "s"),
        ("import", "cold", "import", "s"),
        ("trace", "cold", "trace", "s"),
        ("compile", "cold", "compile", "s"),
        ("training, compiled", "steady", "run", "s"),
        ("peak memory", "cold", "peak_memory_mib", "MiB"),
    ]
    rows = ["| median | rlx | rejax | rlx / rejax |", "|---|---|---|---|"]
    for label, series, metric, unit in parts:
        row = work[series][metric]
        ours, theirs = row["rlx"]["median"], row["rejax"]["median"]
        rows.append(f"| {label} | {ours:.3g} {unit} | {theirs:.3g} {unit} | **{row['ratio']['rejax']:.2f}** |")
    returns = {
        library: ", ".join(f"{seed['return']:.0f}" for seed in seeds) for library, seeds in work["check"].items()
    }
    rows += [
        "",
        f"{origin_of(result, work['versions'])} Returns of two seeds each: {returns['rlx']} and {returns['rejax']}.",
    ]
    return "\n".join(rows)


def rates_table() -> str:
    """Gradient steps per second of each piece of work, rlx's and each peer's, and rlx's share of the matrix peak."""
    rows = [
        "| work | gradient steps/s | peer | its | times its rate | share of matrix peak | returns, rlx's and its |",
        "|---|---|---|---|---|---|---|",
    ]
    origins = []
    for what in ("ppo", "dqn", "sac"):
        result = load(f"compare_{what}")
        if result is None:
            continue
        for name, work in result["works"].items():
            row = work["steady"]["gradient_steps_per_s"]
            rate = work["matrix_gflop"] / work["steady"]["run"]["rlx"]["median"]
            share = rate / result["peak_gflop_per_s"]
            learned = {
                library: f"{fmean(seed['return'] for seed in seeds):.0f}" for library, seeds in work["check"].items()
            }
            for peer, ratio in row["ratio"].items():
                ours, theirs = row["rlx"]["median"], row[peer]["median"]
                rates = f"{ours:,.0f} | {PEERS[peer]} | {theirs:,.0f} | **{ratio:.2f}**"
                rows.append(f"| {name} | {rates} | {share:.0%} | {learned['rlx']}, {learned[peer]} |")
        peak = f"matrix peak {result['peak_gflop_per_s']:.0f} GFLOP/s"
        origins.append(f"{what}: {origin_of(result, work['versions'])[:-1]}, {peak}.")
    return "\n".join([*rows, "", *origins]) if origins else "Not measured yet."


PEERS = {
    "rejax": "rejax",
    "flashbax": "plain code over flashbax",
    "sbx": "SBX",
    "sb3": "Stable-Baselines3",
}


def replay_table() -> str:
    """Microseconds of adding 16 rows and sampling 256."""
    result = load("compare_replay")
    if result is None:
        return "Not measured yet."
    work = result["works"]["replay"]
    rows = ["| replay | rlx | flashbax | rlx / flashbax |", "|---|---|---|---|"]
    for size, row in work["steady"].items():
        ours, theirs = row["rlx"]["median"] / 1000, row["flashbax"]["median"] / 1000
        rows.append(f"| {size} | {ours:.1f} us | {theirs:.1f} us | **{row['ratio']['flashbax']:.2f}** |")
    return "\n".join([*rows, "", origin_of(result, work["versions"])])


def text_table() -> str:
    """Tokens per second of sampling and of a training step."""
    result = load("compare_text")
    if result is None:
        return "Not measured yet."
    work = result["works"]["text"]
    rows = ["| tokens a second | rlx | transformers (PyTorch) | times its rate |", "|---|---|---|---|"]
    for name, row in work["steady"].items():
        ours, theirs = (1e9 / row[library]["median"] for library in ("rlx", "transformers"))
        rows.append(f"| {name} | {ours:,.0f} | {theirs:,.0f} | **{1 / row['ratio']['transformers']:.2f}** |")
    return "\n".join([*rows, "", origin_of(result, work["versions"])])


def envs_table() -> str:
    """How many times gymnax's rate each JAX environment steps at, by the number of environments."""
    result = load("compare_envs")
    if result is None:
        return "Not measured yet."
    work = result["works"]["envs"]
    ratios = {tuple(name.split(" x ")): 1 / row["ratio"]["gymnax"] for name, row in work["steady"].items()}
    sizes = sorted({int(size) for _, size in ratios})
    rows = [f"| environments | {' | '.join(f'{size:,}' for size in sizes)} |", "|---" * (1 + len(sizes)) + "|"]
    for env in dict.fromkeys(env for env, _ in ratios):
        rows.append(f"| {env} | {' | '.join(f'{ratios[env, str(size)]:.1f}' for size in sizes)} |")
    return "\n".join([*rows, "", origin_of(result, work["versions"])])


def budget_table() -> str:
    """What one step of each algorithm costs."""
    result = load("budget")
    if result is None:
        return "Not measured yet."
    rows = [
        "| algorithm | kernels | matrix products, MFLOP | a step | of it matrix products at peak |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["steps"].items():
        bound = row["bound_microseconds"]
        share = f"{bound:,.0f} us, {bound / row['microseconds']:.0%}" if bound else "none"
        rows.append(
            f"| {name} | {row['kernels']:,} | {row['matrix_mflop']:.3g} | {row['microseconds']:,.0f} us | {share} |"
        )
    peak = f"matrix peak {result['peak_gflop_per_s']:.0f} GFLOP/s"
    return "\n".join([*rows, "", f"rlx: {origin_of(result, result['versions'])[:-1]}, {peak}."])


def host_loop() -> str:
    """The loop over gymnasium's environments beside one whose policy is in NumPy."""
    result = load("host_loop")
    if result is None:
        return "Not measured yet."
    ours, theirs = (result["steps_per_s"][name]["median"] for name in ("rlx", "numpy"))
    return (
        f"{ours:,} environment steps per second with a jitted 64-64 policy, {theirs:,} in a loop over gymnasium's "
        f"SyncVectorEnv with the same policy in NumPy: {result['rlx_over_numpy']:.2f} of its rate "
        f"(aim: {result['target']})."
    )


def overoptimization_table() -> str:
    """What was claimed and what came out, world by world."""
    result = load("overoptimization/result")
    if result is None:
        return "Not measured yet."
    rows = ["| world | claim | found | comes out |", "|---|---|---|---|"]
    marks = {True: "yes", False: "**no**", None: "-"}
    rows += [f"| {x['world']} | {x['claim']} | {x['found']} | {marks[x['holds']]} |" for x in result["signatures"]]
    versions = result["versions"]
    told = f"`{result['command']}`, {result['wall_s'] / 60:.0f} minutes on 2 cores that tests used too"
    return "\n".join([*rows, "", f"{told}, jax {versions['jax']}, commit {result['commit'][:7]}."])


def rendered(text: str) -> str:
    """README with its generated parts replaced."""
    for name, table in (
        ("returns", returns_table()),
        ("start-up", startup_table()),
        ("rates", rates_table()),
        ("replay", replay_table()),
        ("text", text_table()),
        ("budget", budget_table()),
        ("envs", envs_table()),
        ("host loop", host_loop()),
        ("overoptimization", overoptimization_table()),
    ):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text, found = re.subn(pattern, lambda match, table=table: match[1] + table + "\n" + match[2], text, flags=re.S)
        assert found == 1, f"README.md has no part named {name}"
    return text


def main() -> int:
    text = README.read_text()
    if "--check" in sys.argv:
        return int(rendered(text) != text)
    README.write_text(rendered(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
