"""Every example runs, at a tiny setting."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


RUNS = {  # flags of a tiny setting, and what must be printed
    "dqn": (["--steps", "600"], "mean loss by hand 0."),
    "dqn_ablations": (["--steps", "1400", "--seeds", "2"], "no target network"),
    "overestimation": (["--steps", "1200", "--seeds", "2"], "the largest estimate is 0.54"),
    "ppo": (["--updates", "2"], "mean loss by hand -0.7"),
    "replay_ratio": (["--steps", "1024", "--seeds", "2", "--ratios", "1", "2"], "PPO (clip 0.2)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_example(name, tmp_path):
    flags, expected = RUNS[name]
    picture = tmp_path / "picture.png"
    command = [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *flags, "--picture", picture]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert expected in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == RUNS.keys()
