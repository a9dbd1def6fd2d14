"""What the tests of the command line share: one tiny run, and how to start, watch, kill and compare runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from rlx.cli import main
from rlx.cli.commands import groups, read_spec
from rlx.cli.train import make_group
from rlx.core.checkpoint import checkpoint_steps, load_checkpoint

# 24 updates of 16 environment steps, a line every 2 and a checkpoint at every line. One shape for all tests: it is
# compiled once.
UPDATES, ENV_STEPS, EVERY, SEEDS = 24, 16, 2, 3
NETWORK = ["--num-envs", "2", "--num-steps", "8", "--num-epochs", "1", "--num-minibatches", "1", "--hidden", "8"]
TINY = [*NETWORK, "--steps", str(UPDATES * ENV_STEPS), "--log-every", str(EVERY), "--checkpoint-seconds", "0"]
SHORT = [*NETWORK, "--steps", str(2 * ENV_STEPS - 1), "--seeds", str(SEEDS)]  # one update
CARTPOLE = ["train", "ppo", "CartPole-v1", *TINY, "--seeds", str(SEEDS)]


def run(*argv: str) -> int:
    """Run a command in this process and give its exit status; signal handlers are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return main([str(word) for word in argv])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


started: list[subprocess.Popen] = []  # what a test started; the fixture `leftovers` ends what it left


def start(*argv: str | Path, **kwargs) -> subprocess.Popen:
    """Start `rlx` as a process, in a group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    started.append(subprocess.Popen([sys.executable, "-m", "rlx.cli", *map(str, argv)], **pipes | kwargs))
    return started[-1]


def alive(group: int) -> bool:
    """Whether any process of a group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
    """Wait until something holds, while the process is running."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the process ended too early: {process.communicate(timeout=10)}"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def lines(folder: Path, times: bool = False) -> list[dict]:
    """Lines of metrics.jsonl; without the times, which no two runs share."""
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{name: value for name, value in row.items() if times or name != "time_s"} for row in rows]


def result(folder: Path) -> dict:
    """What result.json holds."""
    return json.loads((folder / "result.json").read_text())


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints of a run."""
    return checkpoint_steps(folder / "checkpoints")


def arrays(folder: Path, step: int | None = None) -> list[np.ndarray]:
    """Every array of a checkpoint, of the last one by default; keys as integers."""
    spec = read_spec(folder)
    ((seeds, path),) = groups(spec, folder)
    group = make_group(spec, seeds)
    state = load_checkpoint(
        path / "checkpoints" / str(step or steps(path)[-1]), jax.eval_shape(group.batched.init, group.keys)
    )
    leaves = [
        jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(state)
    ]
    return [np.asarray(leaf) for leaf in leaves]


def assert_same_end(folder: Path, reference: Path) -> None:
    """Assert that two runs ended bit for bit alike: last checkpoint, metrics.jsonl but for times, final returns."""
    assert steps(folder)[-1] == steps(reference)[-1]
    for ours, theirs in zip(arrays(folder), arrays(reference), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert lines(folder) == lines(reference)
    assert result(folder)["final_return"] == result(reference)["final_return"]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
