"""`rlx train`: what a run leaves, and that it is true."""

import json
import os
import pty
import re
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest
from cli_runs import (
    CARTPOLE,
    ENV_STEPS,
    EVERY,
    NETWORK,
    SEEDS,
    SHORT,
    TINY,
    UPDATES,
    arrays,
    lines,
    result,
    run,
    start,
    steps,
)
from matplotlib.image import imread
from scipy import stats

import rlx
import rlx.cli.train
from rlx.cli.algorithms import ALGORITHMS
from rlx.cli.commands import progress_bar, read_spec
from rlx.cli.report import statistics
from rlx.cli.spec import preset
from rlx.cli.train import make_group, summarize

pytestmark = pytest.mark.slow
FIELDS = (
    "algorithm env config seeds env_steps final_return mean iqm ci95 wall_s import_s compile_s run_s env_steps_per_s "
    "versions device command commit"
)


def test_run_folder(reference):
    names = {path.name for path in reference.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "curve.png", "checkpoints", "result.json"}
    assert steps(reference) == [UPDATES - 2 * EVERY, UPDATES - EVERY, UPDATES]  # the last three


def test_result_fields(reference):
    value = result(reference)
    assert value.keys() >= set(FIELDS.split())
    assert (value["algorithm"], value["env"], value["seeds"]) == ("ppo", "CartPole-v1", list(range(SEEDS)))
    assert value["env_steps"] == UPDATES * ENV_STEPS
    assert value["config"] == json.loads((reference / "config.json").read_text())
    assert value["failed"] == {}
    assert value["device"].startswith("cpu")
    assert value["versions"]["jax"] == jax.__version__
    assert value["versions"].keys() >= {"python", "rlx", "jax", "jaxlib", "flax", "optax", "chex", "gymnasium", "numpy"}
    assert isinstance(value["command"], str)
    assert value["commit"] is None or re.fullmatch("[0-9a-f]{40}", value["commit"])


def test_result_times(reference):
    value = result(reference)
    assert all(value[name] >= 0 for name in ("import_s", "compile_s", "run_s"))
    assert value["run_s"] + value["compile_s"] <= value["wall_s"] + 0.01
    speed = SEEDS * UPDATES * ENV_STEPS / value["run_s"]
    assert value["env_steps_per_s"] == pytest.approx(speed, rel=0.01)


def test_result_statistics(reference):
    value = result(reference)
    final = np.array(value["final_return"])
    assert final.shape == (SEEDS,)
    assert ((final >= 8) & (final <= 500)).all()  # CartPole's shortest and longest episodes
    assert value["mean"] == pytest.approx(np.mean(final))
    assert value["iqm"] == pytest.approx(stats.trim_mean(final, 0.25))
    low, high = value["ci95"]
    assert final.min() <= low < value["mean"] < high <= final.max()


@pytest.mark.parametrize(
    ("values", "mean", "iqm", "interval"),
    [
        ([], None, None, None),
        ([5.0], 5.0, 5.0, None),
        ([5.0, 5.0], 5.0, 5.0, [5.0, 5.0]),
        ([0.0, 1.0, 2.0, 100.0], 25.75, 1.5, None),
    ],
)
def test_statistics_by_hand(values, mean, iqm, interval):
    got = statistics(values)
    assert (got["mean"], got["iqm"]) == (mean, iqm)
    if interval is not None or len(values) < 2:
        assert got["ci95"] == interval


def test_interval_covers_the_mean():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (200, 10))
    intervals = np.array([statistics(list(row))["ci95"] for row in draws])
    covered = ((intervals[:, 0] <= 3) & (intervals[:, 1] >= 3)).mean()
    assert 0.8 < covered < 0.97  # a percentile bootstrap of 10 values is known to cover about 0.9


def test_curve_is_a_picture(reference):
    picture = imread(reference / "curve.png")
    assert picture.shape[0] >= 400
    assert picture.shape[1] >= 600
    blue = (picture[..., 2] > picture[..., 0] + 0.2).mean()  # the curves
    assert 0.001 < blue < 0.5


def test_metrics_lines(reference):
    rows = lines(reference, times=True)
    assert [row["update"] for row in rows] == list(range(EVERY, UPDATES + 1, EVERY))
    assert [row["env_steps"] for row in rows] == [row["update"] * ENV_STEPS for row in rows]
    assert (np.diff([row["time_s"] for row in rows]) >= 0).all()
    names = {"approx_kl", "clip_fraction", "explained_variance", "entropy", "gradient_norm", "episodes"}
    for row in rows:
        assert row.keys() >= names | {"episode_return", "episode_length"}
        assert row.keys() == rows[0].keys()
        for name in row.keys() - {"update", "env_steps", "time_s"}:
            assert len(row[name]) == SEEDS, name
        assert [value is None for value in row["episode_return"]] == [count == 0 for count in row["episodes"]]
    assert len({tuple(seed) for seed in np.transpose([row["entropy"] for row in rows])}) == SEEDS  # they differ


def test_summarize_by_hand():
    values = {
        "loss": np.array([[1.0, 10.0], [2.0, 20.0], [6.0, 30.0]]),  # [U, S]
        "episodes": np.array([[1, 0], [3, 0], [0, 0]]),
        "episode_return": np.array([[10.0, 0.0], [20.0, 0.0], [0.0, 0.0]]),
    }
    row = summarize(values, 7, 700)
    assert row == {
        "update": 7,
        "env_steps": 700,
        "loss": [3.0, 20.0],
        "episodes": [4, 0],
        "episode_return": [17.5, None],  # (1 * 10 + 3 * 20) / 4
    }


def test_metrics_are_those_of_chunks(reference):
    spec = read_spec(reference)
    group = make_group(spec, spec.seeds)
    _, metrics = next(rlx.chunks(group.batched, jax.jit(group.batched.init)(group.keys), EVERY, EVERY))
    np.testing.assert_allclose(lines(reference)[0]["entropy"], np.mean(metrics["entropy"], axis=0), rtol=1e-4)


def test_seeds_equal_single_runs_from_the_base_seed(reference, tmp_path):
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        command = ["train", "ppo", "CartPole-v1", *TINY, "--seeds", "1", "--seed", str(seed), "--out", folder]
        command += ["--checkpoint-seconds", "100"]
        assert run(*command) == 0
        first, ours = lines(reference)[0], lines(folder)[0]
        for name in first.keys() - {"update", "env_steps"}:
            if first[name][seed] is not None:
                assert ours[name] == pytest.approx([first[name][seed]], rel=1e-3, abs=1e-4), name
        assert result(folder)["seeds"] == [seed]
        assert result(folder)["ci95"] is None
        assert result(folder)["final_return"] == pytest.approx([result(reference)["final_return"][seed]], rel=0.05)


@pytest.mark.parametrize("log_every", [1, 50])
def test_one_update(tmp_path, log_every):
    folder = tmp_path / "one update"
    command = ["train", "ppo", "CartPole-v1", *SHORT]
    assert run(*command, "--log-every", str(log_every), "--out", folder) == 0
    assert [row["update"] for row in lines(folder)] == [1]
    assert steps(folder) == [1]
    assert result(folder)["env_steps"] == ENV_STEPS  # never more than --steps
    assert imread(folder / "curve.png").size


def test_default_folder_is_named_for_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "ppo", "CartPole-v1", *SHORT]
    assert run(*command) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"ppo-CartPole-v1-\d{8}-\d{6}", folder.name)
    assert (folder / "result.json").is_file()


def test_relative_folder_with_spaces(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "ppo", "CartPole-v1", *SHORT]
    assert run(*command, "--out", "a b/run of ours") == 0
    assert run("eval", "a b/run of ours", "--episodes", "2") == 0
    assert result(tmp_path / "a b" / "run of ours")["env_steps"] == ENV_STEPS


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    command = ["train", "ppo", "CartPole-v1", *SHORT]
    assert run(*command, "--out", tmp_path / "run") == 0
    assert "pip install" in capsys.readouterr().err
    assert (tmp_path / "run" / "result.json").is_file()
    assert not (tmp_path / "run" / "curve.png").exists()


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [
        (algorithm, env)
        for algorithm, envs in tomllib.loads(files("rlx.cli").joinpath("presets.toml").read_text()).items()
        for env in envs
        if env != "default"  # of every environment
    ],
)
def test_presets_build(algorithm, env):
    spec = preset(algorithm, env)
    try:
        group = make_group(spec, spec.seeds)
    except gym.error.DependencyNotInstalled as error:
        pytest.skip(f"NOT TESTED: {error}")
    assert group.batched.host or jax.eval_shape(group.batched.init, group.keys)
    assert algorithm in ALGORITHMS
    assert spec.updates >= 1


def test_config_json_is_the_run(reference):
    spec = read_spec(reference)
    assert json.loads(json.dumps(spec.to_json())) == json.loads((reference / "config.json").read_text())
    assert (spec.config.num_envs, spec.config.num_steps, spec.network.hidden) == (2, 8, (8,))
    assert spec.updates == UPDATES


def test_help_tells_flags_with_their_comments(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("train", "ppo", "CartPole-v1", "--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("--learning-rate", "Adam's step size", "--num-envs", "environments side by side", "0.001", "--seeds"):
        assert part in text
    for command in ([], ["--help"], ["train", "--help"], ["resume", "--help"]):
        assert run(*command) == 0
        assert "rlx" in capsys.readouterr().out


def test_progress_is_one_line(tmp_path):
    """In a real terminal: steps per second, return and time left, drawn over and over on one line."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with start(*CARTPOLE, "--out", tmp_path / "run", stderr=slave, env=environment) as process:
        os.close(slave)
        drawn = b""
        try:
            while block := os.read(master, 4096):
                drawn += block
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    assert re.search(r"ppo CartPole-v1 .*100%.* steps/s +return [0-9.]+ .*\d:\d\d:\d\d", text)
    assert text.count("\n") <= 1
    assert len({part for part in text.split("\r") if "steps/s" in part}) >= 2  # it moved


def test_progress_speed_leaves_compilation_out(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    now = [100.0]
    monkeypatch.setattr("rlx.cli.commands.time.perf_counter", lambda: now[0])
    with progress_bar("ppo", UPDATES, ENV_STEPS * SEEDS, 1, True) as report:
        now[0] += 20.0  # the first chunk is compiled
        report(4, 10.0)
        now[0] += 2.0
        report(UPDATES, 12.0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    speed = (UPDATES - 4) * ENV_STEPS * SEEDS / 2.0
    assert f"{speed:,.0f} steps/s" in text


def test_memory_is_flat_in_the_number_of_updates(tmp_path, monkeypatch):
    page, seen = os.sysconf("SC_PAGE_SIZE"), {}

    def watched(values, update, *rest):
        if update in (200, 2000):
            seen[update] = int(Path("/proc/self/statm").read_text().split()[1]) * page
        return summarize(values, update, *rest)

    monkeypatch.setattr(rlx.cli.train, "summarize", watched)
    steps_flag = ["--steps", str(2000 * ENV_STEPS), "--log-every", "1"]
    assert run("train", "ppo", "CartPole-v1", *NETWORK, *steps_flag, "--out", tmp_path / "run") == 0
    assert seen[2000] - seen[200] < 4e6  # bytes


def test_arrays_sees_everything(reference):
    """Of the comparison that the tests of resume rest on: it sees parameters, moments, keys, environments."""
    last, before = arrays(reference), arrays(reference, UPDATES - EVERY)
    assert sum(not np.array_equal(ours, theirs) for ours, theirs in zip(last, before, strict=True)) > 20
