"""Every example runs, at a tiny setting."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("ppo", ["--updates", "2"], "mean loss by hand -0.7"),
        ("reinforce", ["--updates", "2", "--rollouts", "2"], "mean loss by hand -0.096982"),
        ("trpo", ["--updates", "2"], "refused"),
        ("actor_critic", ["--updates", "100", "--rollouts", "2"], "loss by hand 0.216143, by rlx.ops 0.216143"),
    ],
)
def test_example(name, flags, said, tmp_path):
    picture = tmp_path / "picture.png"
    command = [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *flags, "--picture", picture]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"
