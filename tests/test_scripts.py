"""The benchmark's scripts over gymnasium's environments run, at a tiny setting."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNS = {
    "off_policy": ["--env", "Pendulum-v1", "--steps", "450", "--prefill", "400"],
    "on_policy": ["--env", "CartPole-v1", "--steps", "512", "--num-steps", "16"],
    "value_based": ["--env", "CartPole-v1", "--steps", "480", "--prefill", "400"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_script(name):
    command = [sys.executable, "-W", "error", "-m", f"benchmarks.scripts.{name}", *RUNS[name]]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert "greedy, 20 episodes: " in printed
