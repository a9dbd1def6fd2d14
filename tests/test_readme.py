"""README.md is true: its tables are those of the committed results, its Python runs."""

import re

from benchmarks.readme import README, rendered


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
