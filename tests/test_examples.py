"""Every example runs, at a tiny setting."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_ppo(tmp_path):
    picture = tmp_path / "ppo.png"
    command = [sys.executable, "-W", "error", EXAMPLES / "ppo.py", "--updates", "2", "--picture", picture]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "mean loss by hand -0.7" in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"
