"""`python -m benchmarks.readme` writes the tables of README.md from benchmarks/results; `--check` only compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

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


def speed_table() -> str:
    """Medians of rlx and the peer, and their ratio, from one run in alternation."""
    file = RESULTS.parent / "compare_ppo.json"
    if not file.is_file():
        return "Not measured yet."
    result = json.loads(file.read_text())
    parts = [
        ("whole process, no compilation cache", "cold", "process_wall", "s"),
        ("whole process, warm compilation cache", "warm", "process_wall", "s"),
        ("import", "cold", "import_wall", "s"),
        ("trace and compile", "cold", "compile_wall", "s"),
        ("training, compiled", "steady", "run_wall", "s"),
        ("peak memory", "cold", "peak_memory_mib", "MiB"),
    ]
    rows = ["| median | rlx | rejax | rlx / rejax |", "|---|---|---|---|"]
    for label, series, metric, unit in parts:
        row = result[series][metric]
        ours, theirs = row["rlx"]["median"], row["rejax"]["median"]
        rows.append(f"| {label} | {ours:.3g} {unit} | {theirs:.3g} {unit} | **{row['ratio']:.2f}** |")
    versions, origin = result["versions"], result["provenance"]
    rows.append("")
    rows.append(
        f"rejax {versions['rejax']['rejax']}, jax {versions['rlx']['jax']}, one pinned core of {origin['cores']} "
        f"({origin['cpu']}), commit {origin['commit'][:7]}. Both learned: return "
        f"{result['check']['rlx'][0]['return']:.0f} and {result['check']['rejax'][0]['return']:.0f}."
    )
    return "\n".join(rows)


def envs_table() -> str:
    """How many times gymnax's rate each JAX environment steps at, by the number of environments."""
    file = RESULTS.parent / "compare_envs.json"
    if not file.is_file():
        return "Not measured yet."
    result = json.loads(file.read_text())
    ratios = {tuple(name.split(" x ")): 1 / row["ratio"] for name, row in result["steady"].items()}
    sizes = sorted({int(size) for _, size in ratios})
    rows = [f"| environments | {' | '.join(f'{size:,}' for size in sizes)} |", "|---" * (1 + len(sizes)) + "|"]
    for env in dict.fromkeys(env for env, _ in ratios):
        rows.append(f"| {env} | {' | '.join(f'{ratios[env, str(size)]:.1f}' for size in sizes)} |")
    origin = result["provenance"]
    rows.append("")
    rows.append(
        f"gymnax {result['versions']['gymnax']['gymnax']}, jax {result['versions']['rlx']['jax']}, one pinned core of "
        f"{origin['cores']} ({origin['cpu']}), commit {origin['commit'][:7]}."
    )
    return "\n".join(rows)


def host_loop() -> str:
    """The loop over gymnasium's environments beside one whose policy is in NumPy."""
    file = RESULTS.parent / "host_loop.json"
    if not file.is_file():
        return "Not measured yet."
    result = json.loads(file.read_text())
    ours, theirs = (result["steps_per_s"][name]["median"] for name in ("rlx", "numpy"))
    return (
        f"{ours:,} environment steps per second with a jitted 64-64 policy, {theirs:,} in a loop over gymnasium's "
        f"SyncVectorEnv with the same policy in NumPy: {result['rlx_over_numpy']:.2f} of its rate "
        f"(aim: {result['target']})."
    )


def rendered(text: str) -> str:
    """README with its generated parts replaced."""
    for name, table in (
        ("returns", returns_table()),
        ("speed", speed_table()),
        ("envs", envs_table()),
        ("host loop", host_loop()),
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
