"""`rlx overopt`: from nothing to a report, killed and resumed on the way; mistakes are one line."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from cli_runs import alive, result, run, start, tree, wait_for

from rlx.cli import overopt
from rlx.cli.processes import Stop
from rlx.experiments.overoptimization.arms import load_outcome
from rlx.experiments.overoptimization.lab import arm_file
from rlx.experiments.overoptimization.presets import preset

TINY = ["overopt", "--preset", "tiny"]
CONFIG = preset("tiny")
ARMS = [(place, arm) for place in CONFIG.places for arm in CONFIG.arms(place)]
TIMES = ("wall_s", "stages", "command")


def lasting(folder):
    """What result.json holds, but for times and the words of the command."""
    return {name: value for name, value in result(folder).items() if name not in TIMES}


def done(folder):
    """How many arms have an outcome."""
    return sum(arm_file(folder, place, arm).exists() for place, arm in ARMS)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tiny preset, unbroken; read it, or copy it."""
    out = tmp_path_factory.mktemp("overopt") / "out"
    assert run(*TINY, "--out", out) == 0
    return out


@pytest.mark.slow
def test_what_an_experiment_leaves(tiny):
    told = result(tiny)
    assert done(tiny) == len(ARMS) == 5
    assert {"config.json", "result.json", "report.html", "figures", "stages.jsonl", "worlds"} == {
        path.name for path in tiny.iterdir()
    }
    assert [world["name"] for world in told["worlds"]] == ["world 0, extremal gold", "world 0, plain gold"]
    assert [study["name"] for study in told["studies"]] == ["size", "penalty"]
    assert (told["preset"], told["command"].split()[0]) == ("tiny", "rlx")
    assert told["config"] == json.loads((tiny / "config.json").read_text())["config"]
    for world in told["worlds"]:
        assert 0 < world["response_length"] <= 24
        assert all(len(sample["prompt"]) == 3 for sample in world["samples"])
        for arm in world["arms"]:
            assert arm["seeds"] == 2
            assert np.all(np.isfinite(arm["curve"]["gold"]["mean"]))
            low, mean, high = (np.array(arm["curve"]["gold"][name]) for name in ("low", "mean", "high"))
            assert np.all((low <= mean + 1e-9) & (mean <= high + 1e-9))
            assert len(arm["runs"]["gold"]) == 2
            assert arm["fit"]["law"] == ("best_of_n" if arm["optimizer"] == "best_of_n" else "rl")
    names = {row["name"] for row in told["stages"]}
    assert {f"{place.name}: {arm.name}" for place, arm in ARMS} <= names
    page = (tiny / "report.html").read_text()
    for study in told["studies"]:
        assert study["title"] in page
        assert study["question"] in page
    for path in (tiny / "figures").glob("*.png"):
        assert path.with_suffix(".svg").exists()
    pickles = [path for path in tiny.rglob("*") if path.suffix in (".pkl", ".pickle", ".partial")]
    assert not pickles


@pytest.mark.slow
def test_runs_begin_at_the_first_policy_and_seeds_are_runs_of_their_own(tiny):
    for place, arm in ARMS:
        curves = load_outcome(arm_file(tiny, place, arm)).curves
        jax.tree.map(lambda x: np.testing.assert_array_equal(np.isfinite(x), True), curves)
        np.testing.assert_allclose(curves.kl[..., 0], 0, atol=1e-5)
        assert not np.array_equal(curves.proxy[0], curves.proxy[1])


@pytest.mark.slow
def test_killed_and_resumed_it_comes_to_the_same(tiny, tmp_path, capsys):
    """SIGKILL of the parent leaves no process behind; a broken outcome and a line cut off are no harm."""
    out = tmp_path / "out"
    process = start(*TINY, "--out", out)
    wait_for(lambda: done(out) > 0, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(1000):
        if not alive(process.pid):
            break
        time.sleep(0.01)
    assert not alive(process.pid)
    kept = done(out)
    assert 0 < kept < len(ARMS)
    assert not (out / "result.json").exists()
    broken = next(file for place, arm in ARMS if (file := arm_file(out, place, arm)).exists())
    broken.write_bytes(broken.read_bytes()[:100])
    with (out / "stages.jsonl").open("a") as stages:
        stages.write('{"name": "cut o\n')
    assert run("resume", out) == 0
    assert "report.html are in" in capsys.readouterr().out
    assert lasting(out) == lasting(tiny)
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_a_finished_one_is_left_alone(tiny, capsys):
    before = tree(tiny)
    assert run("resume", tiny) == 0
    assert capsys.readouterr().out == f"{tiny} is finished: its result.json is there\n"
    assert tree(tiny) == before


@pytest.mark.slow
def test_a_signal_stops_between_arms_and_says_how_to_go_on(tiny, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(tiny, tmp_path / "out")
    (folder / "result.json").unlink()
    place, arm = ARMS[-1]
    arm_file(folder, place, arm).unlink()
    monkeypatch.setattr(overopt, "catch_signals", lambda: Stop(signal.SIGTERM))
    assert run("resume", folder) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == (
        f"rlx: stopped; all arms that are done are kept; go on with: rlx resume {folder}\n"
    )
    assert not (folder / "result.json").exists()


@pytest.mark.slow
def test_an_error_in_a_world_is_one_line(tiny, tmp_path, capsys):
    """Its folder cannot be written: a file is in its place."""
    folder = shutil.copytree(tiny, tmp_path / "out")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "worlds")
    (folder / "worlds").write_text("")
    assert run("resume", folder) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "worlds" in captured.err


def line(capsys):
    """The one line of standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("rlx: ")
    return captured.err


def test_mistakes_are_one_line(tmp_path, capsys):
    cases = {
        ("--preset", "quik"): "no preset or study 'quik' (there are: quick, paper",
        ("--preset", "tiny", "--seeds", "0"): "seeds=0: must be an integer above 0",
        ("--presett", "tiny"): "did you mean --preset",
    }
    for words, told in cases.items():
        assert run("overopt", *words, "--out", tmp_path / "new") == 2
        assert told in line(capsys)
        assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    assert run(*TINY, "--out", tmp_path) == 2
    assert "is there already" in line(capsys)


def settings(folder, **changes):
    """A folder that holds an experiment's settings alone."""
    plain = overopt.to_json(overopt.OveroptOptions(preset="tiny"), CONFIG)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(plain | changes))
    return folder


def test_settings_of_another_version_are_refused(tmp_path, capsys):
    changed = json.loads(json.dumps(overopt.to_json(overopt.OveroptOptions(), CONFIG)["config"]))
    changed["grid"]["push"]["learning_rate"] *= 2
    assert run("resume", settings(tmp_path / "a", config=changed)) == 2
    assert "another version of rlx" in line(capsys)
    assert run("resume", settings(tmp_path / "b", seeds=3)) == 2
    assert "another version of rlx" in line(capsys)
    assert run("resume", settings(tmp_path / "c", overopt="gone")) == 2
    assert "no preset or study 'gone'" in line(capsys)
    (tmp_path / "c" / "config.json").write_text('{"overopt": "tiny"}')
    assert run("resume", tmp_path / "c") == 2
    assert "config.json is broken" in line(capsys)
    assert not any((tmp_path / name / "worlds").exists() for name in "abc")


@pytest.mark.parametrize("command", ["eval", "plot", "export"])
def test_other_commands_say_what_it_is(tmp_path, capsys, command):
    assert run(command, settings(tmp_path / "out")) == 2
    assert "is an experiment of rlx overopt, not a run" in line(capsys)
