"""`rlx plot`: runs as files, pictures as files."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runs import run, tree
from matplotlib.image import imread

from rlx.cli.curves import COLOURS, Curve, bootstrap_interval, interquartile_mean, make_curve, mean
from rlx.cli.plot import arrange, labels
from rlx.cli.spec import preset


def make_run(folder: Path, rows: list[dict], seeds: int = 2, env: str = "CartPole-v1") -> Path:
    """A run folder with these lines of metrics.jsonl."""
    spec = preset("ppo", env)
    spec = dataclasses.replace(spec, run=dataclasses.replace(spec.run, seeds=seeds, out=folder))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(spec.to_json()))
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def line(update: int, *returns: float | None, **more) -> dict:
    entropy = [0.1 * update] * len(returns)
    return {"update": update, "env_steps": 100 * update, "episode_return": returns, "entropy": entropy} | more


ROWS = [line(1, None, 10.0), line(2, 30.0, 12.0), line(3, None, 14.0), line(4, 40.0, 20.0)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a run."""
    monkeypatch.chdir(tmp_path)
    make_run(Path("run"), ROWS)
    return tmp_path


def colours(file: Path) -> set[str]:
    """Which colours of the palette are in a picture."""
    pixels = {tuple(pixel) for pixel in (imread(file)[..., :3] * 255).round().astype(int).reshape(-1, 3)}
    return {colour for colour in COLOURS if tuple(bytes.fromhex(colour[1:])) in pixels}


def test_curve_by_hand():
    """A value stays where no episode ended; before the first there is none."""
    curve = make_curve("a", [([5, 6], ROWS)], "episode_return")
    assert curve.seeds == [5, 6]
    np.testing.assert_array_equal(curve.steps, [100, 200, 300, 400])
    np.testing.assert_array_equal(curve.values, [[np.nan, 10], [30, 12], [30, 14], [40, 20]])


def test_failed_seeds_are_left_out():
    rows = [*ROWS, line(5, 1e9, 21.0, failed={"5": "seed 5 failed"})]
    curve = make_curve("a", [([5, 6], rows)], "episode_return")
    assert curve.seeds == [6]
    np.testing.assert_array_equal(curve.values[:, 0], [10, 12, 14, 20, 21])


def test_step_grids_are_interpolated_not_truncated():
    long, sparse = [line(i, 10.0 * i) for i in range(1, 5)], [line(1, 0.0), line(3, 20.0)]
    curve = make_curve("a", [([0], long), ([1], sparse), ([2], [])], "episode_return")
    assert curve.seeds == [0, 1]
    np.testing.assert_array_equal(curve.steps, [100, 200, 300, 400])
    np.testing.assert_array_equal(curve.values, [[10, 0], [20, 10], [30, 20], [40, np.nan]])


def test_interval_by_hand():
    values = np.array([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 8.0]])
    low, high = bootstrap_interval(values, mean)
    assert (low[0], high[0]) == (3, 3)
    assert low[1] == 0  # no draw of the 8: (3 / 4)**4 of the samples
    assert high[1] in (4, 6)
    np.testing.assert_array_equal(interquartile_mean(values), [3, 0])


def test_pictures(place, capsys):
    make_run(Path("other"), [line(i, 5.0, 6.0, 8.0) for i in range(1, 9)], seeds=3)
    before = tree(place)
    assert run("plot", "run") == 0
    assert "episode_return.png" in capsys.readouterr().out
    assert COLOURS[0] in colours(Path("episode_return.png"))
    assert run("plot", "run", "other", "--metric", "entropy", "--iqm", "--out", "both.png") == 0
    assert colours(Path("both.png")) >= set(COLOURS[:2])
    assert run("plot", "run", "--out", "curve.svg") == 0
    assert "<svg" in Path("curve.svg").read_text()
    assert run("plot", "run", "--out", "curve.PDF") == 0
    assert Path("curve.PDF").read_bytes().startswith(b"%PDF")
    assert capsys.readouterr().err == ""
    assert tree(place).items() >= before.items()


def test_a_panel_for_each_environment(place):
    make_run(Path("pendulum"), ROWS, env="Pendulum-v1")
    assert run("plot", "run", "--out", "one.png") == 0
    assert run("plot", "run", "pendulum", "--out", "two.png") == 0
    assert imread("two.png").shape[1] > 1.4 * imread("one.png").shape[1]
    assert COLOURS[1] not in colours(Path("two.png"))  # each panel begins with the first colour


def test_titles_and_labels(tmp_path):
    cartpole, pendulum = preset("ppo", "CartPole-v1"), preset("ppo", "Pendulum-v1")
    dqn = dataclasses.replace(cartpole, algorithm="dqn")
    empty = Curve("", [], np.zeros(0), np.zeros((0, 0)))
    panels = arrange([cartpole, pendulum, dqn], [empty] * 3)
    assert {title: len(curves) for title, curves in panels.items()} == {"CartPole-v1": 2, "ppo on Pendulum-v1": 1}
    assert labels([Path("x/a"), Path("y/b")], [cartpole, dqn]) == ["ppo, a (1 seed)", "dqn, b (1 seed)"]
    assert labels([Path("x/a"), Path("y/a")], [cartpole] * 2) == ["x/a (1 seed)", "y/a (1 seed)"]
    (odd,) = labels([tmp_path / ("_$x$" + "y" * 99)], [cartpole])
    assert not odd.startswith("_")
    assert r"\$x\$" in odd
    assert len(odd) < 70


def test_names_that_mean_something_to_matplotlib(place, capsys):
    for name in ("_hidden", r"$\frac{$"):
        make_run(Path(name), ROWS)
    assert run("plot", "_hidden", r"$\frac{$") == 0
    assert capsys.readouterr().err == ""


def test_processes_that_are_not_finished(place, capsys):
    """Each seed in a folder of its own; what is not drawn is told."""
    folder = make_run(Path("host"), [], seeds=3)
    write_rows(folder / "seeds" / "0", [line(1, 1.0), line(2, 2.0), line(3, 2.0)])
    write_rows(folder / "seeds" / "1", [line(1, 2.0), line(2, 4.0)])
    assert run("plot", "host") == 0
    absent, early = capsys.readouterr().err.splitlines()
    assert absent.endswith("seeds 2")
    assert "before step 300" in early
    assert early.endswith("seeds 1 do")


def test_half_a_line(place):
    with Path("run/metrics.jsonl").open("a") as file:
        file.write('{"update": 5, "env_')
    assert run("plot", "run") == 0


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["run", "--metric", "entropi"], ["entropi", "did you mean entropy", "episode_return, entropy"]),
        (["run", "--metric", "time_s"], ["time_s", "episode_return, entropy"]),
        (["failed"], ["failed", "nothing to plot", "episode_return"]),
        (["run", "--out", "no/such/folder.png"], ["no/such/folder.png", "No such file"]),
        (["run", "--out", "/proc/x.png"], ["/proc/x.png"]),
        (["run", "--out", "folder.png"], ["folder.png", "directory"]),
    ],
)
def test_bad_input_is_one_line(place, capsys, argv, expected):
    make_run(Path("failed"), [line(1, None, failed={"0": "seed 0 failed"})], seeds=1)
    Path("folder.png").mkdir()
    before = tree(place)
    assert run("plot", *argv) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rlx: ")
    assert captured.err.count("\n") == 1
    for part in expected:
        assert part in captured.err
    assert tree(place) == before


def test_without_matplotlib(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("plot", "run") == 2
    assert capsys.readouterr().err == "rlx: rlx plot needs matplotlib: pip install 'rlx[plot]'\n"
    assert not Path("episode_return.png").exists()
