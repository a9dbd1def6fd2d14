"""Returns at a budget: `python -m benchmarks.returns` reruns the table, `--only ppo` or `--only Pendulum-v1` a part.

Each cell is `rlx train ALGORITHM ENV --seeds 10 --seed 0` with its preset: the greedy return of the final parameters
over 100 episodes a seed. Presets were tuned on seeds >= 1000. Writes benchmarks/results/returns/*.json and *.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results" / "returns"


class Cell(NamedTuple):
    """One cell of the table: the statistic over seeds must reach the target."""

    algorithm: str
    env: str
    statistic: str
    target: float
    seeds: int = 10

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.env}"


CELLS = [
    Cell("dqn", "CartPole-v1", "iqm", 499.0),
    Cell("dqn", "Acrobot-v1", "mean", -78.0),
    Cell("dqn", "MountainCar-v0", "mean", -105.0),
    Cell("dqn", "LunarLander-v3", "mean", 200.0, seeds=5),
    Cell("reinforce", "CartPole-v1", "mean", 490.0),
    Cell("reinforce", "Acrobot-v1", "mean", -90.0),
    Cell("a2c", "CartPole-v1", "mean", 500.0),
    Cell("a2c", "Acrobot-v1", "mean", -84.0),
    Cell("a2c", "MountainCar-v0", "mean", -115.0),
    Cell("a2c", "MountainCarContinuous-v0", "mean", 91.0),
    Cell("a2c", "Pendulum-v1", "mean", -165.0),
    Cell("trpo", "CartPole-v1", "mean", 499.0),
    Cell("trpo", "Acrobot-v1", "mean", -83.0),
    Cell("trpo", "MountainCar-v0", "mean", -110.0),
    Cell("trpo", "MountainCarContinuous-v0", "mean", 92.0),
    Cell("trpo", "Pendulum-v1", "mean", -170.0),
    Cell("trpo", "LunarLander-v3", "mean", 230.0, seeds=5),
    Cell("sac", "CartPole-v1", "mean", 490.0),
    Cell("sac", "MountainCarContinuous-v0", "mean", 94.0),
    Cell("sac", "Pendulum-v1", "mean", -150.0),
    Cell("sac", "LunarLanderContinuous-v3", "mean", 265.0, seeds=3),
    Cell("ppo", "CartPole-v1", "iqm", 499.0),
    Cell("ppo", "Pendulum-v1", "mean", -165.0),
    Cell("ppo", "Acrobot-v1", "mean", -80.0),
    Cell("ppo", "MountainCar-v0", "mean", -112.0),
    Cell("ppo", "MountainCarContinuous-v0", "mean", 90.0),
    Cell("ppo", "LunarLander-v3", "mean", 240.0, seeds=5),
    Cell("ppo", "Breakout-MinAtar", "mean", 10.0),
    Cell("ppo", "Catch-bsuite", "mean", 0.99),
    Cell("ppo", "Hopper-v5", "mean", 1000.0, seeds=3),
]


def measure(cell: Cell) -> dict:
    """Train in a process of its own and keep its result and curve."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / cell.name
        command = ["train", cell.algorithm, cell.env, "--seeds", str(cell.seeds), "--seed", "0"]
        root = str(Path(__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": root}
        subprocess.run([sys.executable, "-m", "rlx.cli", *command, "--out", str(out)], check=True, env=environment)
        result = json.loads((out / "result.json").read_text())
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(out / "curve.png", RESULTS / f"{cell.name}.png")
    result["config"]["run"]["out"] = None
    result |= {
        "command": "rlx " + " ".join(command),
        "statistic": cell.statistic,
        "target": cell.target,
        "met": result[cell.statistic] >= cell.target,
        "curve": {name: [row[name] for row in rows] for name in ("env_steps", "episode_return")},
    }
    text = json.dumps(result, indent=1)
    (RESULTS / f"{cell.name}.json").write_text(text + "\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="algorithms, environments or cells")
    only = set(parser.parse_args().only)
    for cell in CELLS:
        if not only or only & {cell.algorithm, cell.env, cell.name}:
            result = measure(cell)
            verdict = "met" if result["met"] else "NOT met"
            print(f"{cell.name}: {cell.statistic} {result[cell.statistic]:.2f}, target {cell.target}: {verdict}")


if __name__ == "__main__":
    main()
