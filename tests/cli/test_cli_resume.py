"""Runs that are stopped or broken, and `rlx resume`: they end bit for bit where the unbroken run ends."""

import json
import shutil
import signal

import numpy as np
import pytest
from cli_runs import (
    CARTPOLE,
    EVERY,
    SEEDS,
    TINY,
    UPDATES,
    arrays,
    assert_same_end,
    lines,
    result,
    run,
    start,
    steps,
    tree,
    wait_for,
)

import rlx.cli.train

pytestmark = pytest.mark.slow


def test_kill_at_any_moment(reference, tmp_path):
    """SIGKILL while compiling, then while a checkpoint is written, then after a line; each time it goes on."""
    folder = tmp_path / "run"
    process = start(*CARTPOLE, "--out", folder)
    wait_for((folder / "config.json").exists, process)
    process.kill()
    process.wait()
    assert steps(folder) == []

    process = start("resume", folder)  # from the start
    wait_for(lambda: len(steps(folder)) >= 2 and any(folder.glob("checkpoints/partial-*")), process)
    process.kill()
    process.wait()
    assert 0 < steps(folder)[-1] < UPDATES

    done = len(lines(folder))
    process = start("resume", folder)
    wait_for(lambda: (folder / "metrics.jsonl").read_text().count("\n") >= done + 3, process)
    process.kill()
    process.wait()
    assert steps(folder)[-1] < UPDATES

    assert run("resume", folder) == 0
    assert_same_end(folder, reference)
    assert not any(folder.glob("checkpoints/partial-*"))
    assert result(folder)["config"]["run"] == json.loads((folder / "config.json").read_text())["run"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_leave(reference, tmp_path, number):
    folder = tmp_path / "run of ours"
    process = start(*CARTPOLE, "--out", folder)
    wait_for(lambda: len(lines(folder)) >= 3, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err.count("\n") == 1
    assert f"rlx resume '{folder}'" in err
    saved = steps(folder)[-1]
    assert saved < UPDATES
    assert f"after update {saved} of {UPDATES}" in err
    assert lines(folder)[-1]["update"] == saved
    assert not (folder / "result.json").exists()

    assert run("resume", folder) == 0
    assert_same_end(folder, reference)


def test_two_signals_leave_at_once(tmp_path):
    """The second ends the process, as it would have without rlx; the checkpoints stay."""
    folder = tmp_path / "run"
    command = ["train", "ppo", "CartPole-v1", *TINY, "--steps", "16000000", "--log-every", "100000"]
    process = start(*command, "--out", folder)
    wait_for((folder / "metrics.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(Exception, match="timed out"):  # it is within a chunk
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert err == ""


def test_interrupt_before_training(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rlx.cli.commands.preset", interrupted)
    try:
        status = run(*CARTPOLE)
    except KeyboardInterrupt:  # it would end pytest
        pytest.fail("the interrupt came through")
    assert status == 130
    assert capsys.readouterr().err == "rlx: interrupted\n"


@pytest.mark.parametrize("kept", [0, 1])
def test_lines_after_the_checkpoint_are_written_anew(reference, broken, kept):
    for step in steps(broken)[kept:]:
        shutil.rmtree(broken / "checkpoints" / str(step))
    assert run("resume", broken) == 0
    assert_same_end(broken, reference)


def test_half_a_line(reference, broken):
    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    text = (broken / "metrics.jsonl").read_text().splitlines(keepends=True)
    (broken / "metrics.jsonl").write_text("".join(text[:-1]) + text[-1][:50])
    assert run("resume", broken) == 0
    assert_same_end(broken, reference)


@pytest.mark.parametrize("junk", [b"\x00" * 512 + b"\n", b"\xff\xfe\n", b"null\n", b"{}\n"])
def test_junk_after_the_checkpoint(reference, broken, junk):
    """As a power cut may leave it."""
    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    text = (broken / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "metrics.jsonl").write_bytes(b"".join(text[:-1]) + junk)
    assert run("resume", broken) == 0
    assert_same_end(broken, reference)


def test_missing_metrics_are_told(reference, broken, capsys):
    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    (broken / "metrics.jsonl").unlink()
    assert run("resume", broken) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "metrics.jsonl" in err
    assert lines(broken) == lines(reference)[-1:]
    assert result(broken)["final_return"] == result(reference)["final_return"]


def test_missing_metrics_of_a_whole_run(reference, broken, capsys):
    (broken / "metrics.jsonl").unlink()
    assert run("resume", broken) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert result(broken)["final_return"] == result(reference)["final_return"]


def test_killed_in_the_last_evaluation(reference, broken):
    """All is trained, and only result.json is missing."""
    assert run("resume", broken) == 0
    assert_same_end(broken, reference)
    assert (broken / "curve.png").is_file()
    assert result(broken)["env_steps_per_s"] is None


def test_result_says_that_it_was_resumed(reference, broken):
    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    assert run("resume", broken) == 0
    assert "resumed" not in result(reference)
    assert result(broken)["resumed"]["after_update"] == {str(seed): UPDATES - EVERY for seed in range(SEEDS)}


def test_resume_of_a_finished_run_changes_nothing(reference, capsys):
    before = tree(reference)
    assert run("resume", reference) == 0
    assert "finished" in capsys.readouterr().out
    assert tree(reference) == before


def test_a_run_folder_may_be_moved(reference, broken, tmp_path, monkeypatch):
    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    broken.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert run("resume", "moved") == 0
    assert_same_end(tmp_path / "moved", reference)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        ("largest", truncate),
        ("largest", flip),
        ("largest", lambda file: file.unlink()),
        ("manifest.json", truncate),
        ("manifest.json", lambda file: file.unlink()),
        ("manifest.json", lambda file: file.write_text("[1]")),
        ("manifest.json", lambda file: file.write_text('{"sha256": 3}')),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_damaged_checkpoint_is_named_and_the_one_before_used(reference, broken, which, damage, capsys):
    newest = broken / "checkpoints" / str(UPDATES)
    files = sorted((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    damage(newest / which if which != "largest" else [path for path in files if path.name != "manifest.json"][-1])
    assert run("resume", broken) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"checkpoints/{UPDATES}" in err
    assert_same_end(broken, reference)


def test_checkpoints_that_were_found_damaged_do_not_push_out_good_ones(reference, broken, capsys):
    """With two of the last ones damaged and room for one, what is saved on the way stays."""
    config = json.loads((broken / "config.json").read_text())
    config["run"]["keep_checkpoints"] = 1
    (broken / "config.json").write_text(json.dumps(config))
    for step in steps(broken)[1:]:
        truncate(broken / "checkpoints" / str(step) / "manifest.json")
    folder = broken / "checkpoints"
    seen = []
    save = rlx.cli.train.save_checkpoint

    def watched(*args):
        path = save(*args)
        seen.append((path.name, path.exists()))
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rlx.cli.train, "save_checkpoint", watched)
        assert run("resume", broken) == 0
    assert seen == [(str(step), True) for step in range(UPDATES - EVERY, UPDATES + 1, EVERY)]
    assert [path.name for path in folder.iterdir()] == [str(UPDATES)]


def test_all_checkpoints_damaged(broken, capsys):
    for step in steps(broken):
        truncate(broken / "checkpoints" / str(step) / "manifest.json")
    before = tree(broken)
    for command in ("resume", "eval"):
        assert run(command, broken) != 0
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert all(f"checkpoints/{step}" in err for step in steps(broken))
        assert "no checkpoint can be used" in err
    assert tree(broken) == before


def test_checkpoint_of_another_network(broken, capsys):
    """config.json was changed: the checkpoints do not fit it, which is said with the array's name."""
    config = json.loads((broken / "config.json").read_text())
    config["network"]["hidden"] = [9]
    (broken / "config.json").write_text(json.dumps(config))
    before = tree(broken)
    assert run("resume", broken) != 0
    err = capsys.readouterr().err
    assert "another algorithm or configuration" in err
    assert "learner." in err
    assert tree(broken) == before


def test_one_run_one_process(reference, tmp_path, capsys):
    """A second process keeps its hands off a run that is going on."""
    folder = tmp_path / "run"
    process = start(*CARTPOLE, "--out", folder)
    wait_for(lambda: len(lines(folder)) >= 2, process)
    process.send_signal(signal.SIGSTOP)
    try:
        before = tree(folder)
        assert run("resume", folder) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "another process" in err
        assert tree(folder) == before
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=120) == 0
    process.communicate()
    assert_same_end(folder, reference)


def test_full_disk(reference, broken, capsys, monkeypatch):
    """It is told before orbax begins, as its threads would fill the screen; older checkpoints stay."""
    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    usage = shutil.disk_usage(broken)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        assert run("resume", broken) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no space left" in err
    assert f"checkpoints/{UPDATES}" in err
    assert steps(broken) == [UPDATES - 2 * EVERY, UPDATES - EVERY]
    assert run("resume", broken) == 0
    assert_same_end(broken, reference)


def test_checkpoint_that_cannot_be_written(broken, capsys, monkeypatch):
    """tensorstore says ValueError: one line, and nothing is lost."""
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: quota\nmore")

    shutil.rmtree(broken / "checkpoints" / str(UPDATES))
    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", full)
    assert run("resume", broken) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "quota" in err
    assert steps(broken) == [UPDATES - 2 * EVERY, UPDATES - EVERY]


def test_arrays_of_a_resumed_run_are_all_there(reference):
    assert all(np.isfinite(array).all() for array in arrays(reference) if array.dtype.kind == "f")
