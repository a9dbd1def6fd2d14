"""`rlx train --tensorboard`: the event files hold what metrics.jsonl holds, each event once."""

import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runs import CARTPOLE, SEEDS, UPDATES, lines, run, start, steps, wait_for
from tensorboardX.proto.event_pb2 import Event

from rlx.cli.metrics import metric_names
from rlx.cli.tensorboard import EventFiles


def read_events(folder: Path) -> list[Event]:
    """Events of the one event file of a folder; a record is length, checksum, data, checksum."""
    (file,) = folder.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert events[0].file_version == "brain.Event:2"
    return events


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def assert_same_as_lines(events: Path, rows: list[dict], index: int) -> None:
    """Assert that the event file of a seed holds what is in its place of the lines, nulls left out."""
    expected = {
        name: [(row["env_steps"], row[name][index]) for row in rows if row[name][index] is not None]
        for name in metric_names(rows[0])
    }
    found = scalars(events)
    assert found.keys() == {name for name, values in expected.items() if values}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, err_msg=name)


def test_events_by_hand(tmp_path):
    rows = [{"update": n, "env_steps": 16 * n, "loss": [0.5 * n, None], "time_s": 10.0 * n} for n in (1, 2)]
    rows[0]["kept_checkpoints"] = [3]
    events = EventFiles(tmp_path, [7, 8], rows)
    events.write({"update": 3, "env_steps": 48, "loss": [2.0, 4.0], "time_s": 30.0})
    events.close()
    assert scalars(tmp_path / "seed-7") == {"loss": [(16, 0.5), (32, 1.0), (48, 2.0)]}
    assert scalars(tmp_path / "seed-8") == {"loss": [(48, 4.0)]}
    times = [event.wall_time for event in read_events(tmp_path / "seed-7") if event.summary.value]
    np.testing.assert_allclose(np.diff(times), 10)  # of training: the time that it was stopped does not show

    EventFiles(tmp_path, [7, 8], rows[:1]).close()  # a resumed run
    assert scalars(tmp_path / "seed-7") == {"loss": [(16, 0.5)]}


@pytest.mark.slow
def test_kill_and_resume(reference, tmp_path):
    """After SIGKILL, what came after the checkpoint is not there twice."""
    folder = tmp_path / "run"
    process = start(*CARTPOLE, "--tensorboard", "--out", folder)
    wait_for(lambda: len(steps(folder)) >= 1 and len(lines(folder)) >= 4, process)
    process.kill()
    process.wait()
    assert run("resume", folder) == 0
    assert lines(folder) == lines(reference)
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {f"seed-{seed}" for seed in range(SEEDS)}
    for seed in range(SEEDS):
        assert_same_as_lines(folder / "tensorboard" / f"seed-{seed}", lines(folder), seed)

    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / str(UPDATES))
    shutil.rmtree(folder / "tensorboard")  # lost: they are made again
    assert run("resume", folder) == 0
    assert_same_as_lines(folder / "tensorboard" / "seed-1", lines(folder), 1)


@pytest.mark.slow
def test_processes(tmp_path):
    folder = tmp_path / "run"
    process = start(*CARTPOLE, "--gymnasium", "--seeds", "2", "--tensorboard", "--out", folder)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    for seed in range(2):
        assert_same_as_lines(folder / "tensorboard" / f"seed-{seed}", lines(folder), seed)


def test_missing_package_is_told_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run(*CARTPOLE, "--tensorboard", "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err == "rlx: --tensorboard needs tensorboardX: pip install 'rlx[tensorboard]'\n"
    assert not (tmp_path / "run").exists()


def test_not_asked_for(reference):
    assert not (reference / "tensorboard").exists()
