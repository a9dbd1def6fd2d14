"""Runs over gymnasium's environments: a process a seed."""

import json
import os
import signal
import time

import pytest
from cli_runs import CARTPOLE, ENV_STEPS, TINY, UPDATES, alive, result, run, start, wait_for

pytestmark = pytest.mark.slow
HOST = ["train", "ppo", "CartPole-v1", *TINY, "--gymnasium", "--seeds", "2"]
LONG = [*HOST, "--steps", str(10_000 * ENV_STEPS), "--log-every", "20"]


def logged(folder) -> int:
    """Lines of the seed that has fewest."""
    files = [folder / "seeds" / str(seed) / "metrics.jsonl" for seed in range(2)]
    return min(file.read_text().count("\n") if file.exists() else 0 for file in files)


def saved(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("seeds/*/checkpoints/*"))


def test_stop_and_resume(reference, tmp_path):
    """SIGTERM to the whole group, as a cluster's scheduler sends it: the parent alone answers."""
    folder = tmp_path / "run"
    process = start(*HOST, "--out", folder)
    wait_for(lambda: logged(folder) >= 1, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert err.count("\n") == 1
    assert "rlx resume" in err

    process = start("resume", folder)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    value = result(folder)
    assert value.keys() >= result(reference).keys()
    assert (value["seeds"], value["env_steps"]) == ([0, 1], UPDATES * ENV_STEPS)
    assert len(value["final_return"]) == 2
    assert all(8 <= mean <= 500 for mean in value["final_return"])
    assert value["final_return"][0] != value["final_return"][1]
    assert value["resumed"]["after_update"].keys() == {"0", "1"}
    assert "new episodes" in value["resumed"]["note"]
    assert (folder / "curve.png").is_file()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["update"] == UPDATES
    assert [row["env_steps"] for row in rows] == [row["update"] * ENV_STEPS for row in rows]
    assert all(len(row["entropy"]) == 2 for row in rows)
    for seed in range(2):
        single = [
            json.loads(line) for line in (folder / "seeds" / str(seed) / "metrics.jsonl").read_text().splitlines()
        ]
        assert [row["entropy"][seed] for row in rows] == [row["entropy"][0] for row in single]

    assert run("eval", folder, "--episodes", "2") == 0


def test_children_end_with_their_parent(tmp_path):
    """After SIGKILL of the parent nobody writes to the folder any more, so that `rlx resume` has it alone."""
    folder = tmp_path / "run"
    process = start(*LONG, "--out", folder)
    wait_for(lambda: logged(folder) >= 2, process)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while alive(process.pid):
        assert time.monotonic() < end, "a process of the group lives on"
        time.sleep(0.05)


def test_interrupt_while_children_start(tmp_path):
    """Ctrl-C reaches the children too, before they can say that they ignore it."""
    folder = tmp_path / "run"
    process = start(*LONG, "--out", folder)
    wait_for((folder / "seeds" / "1").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    assert err.count("\n") == 1


def test_single_seed_in_this_process(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(*CARTPOLE, "--gymnasium", "--seeds", "1", "--seed", "1", "--out", folder) == 0
    assert result(folder)["seeds"] == [1]
    assert "resumed" not in result(folder)
    assert not (folder / "seeds").exists()
    assert run("eval", folder, "--episodes", "2") == 0
    assert "gymnasium's environment" in capsys.readouterr().out
