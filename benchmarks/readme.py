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
    """Ratios of medians, rlx over the peer, from one run in alternation."""
    file = RESULTS.parent / "compare_ppo.json"
    return speed_rows(json.loads(file.read_text())) if file.is_file() else "Not measured yet."


def speed_rows(result: dict) -> str:
    raise NotImplementedError(result.keys())


def rendered(text: str) -> str:
    """README with its generated parts replaced."""
    for name, table in (("returns", returns_table()), ("speed", speed_table())):
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
