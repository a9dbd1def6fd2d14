"""README.md is true: its tables are those of the committed results, these of the presets, and its Python runs."""

import dataclasses
import json
import re

import pytest

from benchmarks.readme import README, rendered
from benchmarks.returns import CELLS, RESULTS
from rlx.cli.spec import preset


def test_tables_are_generated_from_the_results():
    text = README.read_text()
    assert rendered(text) == text, "run `python -m benchmarks.readme`"


def test_python_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S))
    code = (
        code.replace(", 100)", ", 2)")
        .replace("100, every=10", "2, every=1")
        .replace("num_episodes=100", "num_episodes=2")
    )
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if (RESULTS / f"{cell.name}.json").is_file()], ids=lambda cell: cell.name
)
def test_a_cell_was_measured_with_its_preset(cell):
    """All that both know: fields that came later had no other value then than their default."""
    measured = json.loads((RESULTS / f"{cell.name}.json").read_text())["config"]
    spec = preset(cell.algorithm, cell.env)
    assert measured["run"]["steps"] == spec.run.steps
    for part in ("config", "optimizer", "network"):
        now = json.loads(json.dumps(dataclasses.asdict(getattr(spec, part))))
        assert now | measured[part] == now
