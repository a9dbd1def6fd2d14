"""`rlx sweep`: configurations in as few programs as can be, ranked, and the best one a run like any other."""

import dataclasses
import itertools
import json
import signal

import jax
import numpy as np
import pytest
from cli_runs import NETWORK, lines, result, run, start, steps, tree, wait_for
from matplotlib.image import imread

import rlx.cli.sweep
from rlx.cli import main
from rlx.cli.options import OptimizerConfig
from rlx.cli.parsing import read_spec
from rlx.cli.processes import Stop
from rlx.cli.spec import preset
from rlx.cli.sweep import SHOWN, SweepOptions, describe_trial, table
from rlx.cli.trials import Trial, ranked
from rlx.cli.vary import Range, configurations, programs, read_vary, with_values

SPEC = preset("ppo", "CartPole-v1")
SWEEP = ["sweep", "ppo", "CartPole-v1"]
UPDATES, SEEDS = 3, [1000, 1001]
SHORT = [*NETWORK, "--steps", str(UPDATES * 16), "--seeds", "2"]


def without(flag):
    """SHORT without a flag and its value."""
    return SHORT[: SHORT.index(flag)] + SHORT[SHORT.index(flag) + 2 :]


# Configurations -------------------------------------------------------------------------------------------------------


def test_lists_make_a_grid_of_all_combinations():
    words = ("learning_rate=1e-4,3e-4", "num-epochs=2", "hidden=8,16 16", "target_kl=none,0.1", "anneal=true,False")
    varied = read_vary(SPEC, words)
    assert varied == {
        "learning_rate": [1e-4, 3e-4],
        "num_epochs": [2],
        "hidden": [(8,), (16, 16)],
        "target_kl": [None, 0.1],
        "anneal": [True, False],
    }
    found = configurations(varied, None, 0)
    assert len(found) == 16
    assert len({json.dumps(values) for values in found}) == 16
    assert found[0] == {"learning_rate": 1e-4, "num_epochs": 2, "hidden": (8,), "target_kl": None, "anneal": True}
    spec = with_values(SPEC, found[-1])
    assert (spec.optimizer.learning_rate, spec.config.target_kl, spec.network.hidden) == (3e-4, 0.1, (16, 16))
    assert spec.config.clip == SPEC.config.clip


def test_samples_cover_ranges_and_lists_evenly():
    varied = read_vary(SPEC, ("clip=0.1..0.3", "learning_rate=log:1e-4..1e-2", "num_epochs=1,2,3,4"))
    assert varied["learning_rate"] == Range(1e-4, 1e-2, True)
    found = configurations(varied, 20, 5)
    assert found == configurations(varied, 20, 5)
    assert found != configurations(varied, 20, 6)
    clips = np.array([values["clip"] for values in found])
    np.testing.assert_array_equal(np.sort((clips - 0.1 - 1e-6) / 0.01).astype(int), np.arange(20))  # one in each 20th
    rates = np.log10([values["learning_rate"] for values in found])
    np.testing.assert_array_equal(np.sort((rates + 4) * 10 - 1e-3).astype(int), np.arange(20))
    assert sorted(values["num_epochs"] for values in found) == sorted([1, 2, 3, 4] * 5)
    assert not np.array_equal(np.argsort(clips), np.argsort(rates))  # each field in an order of its own


def test_range_by_hand():
    assert Range(1.0, 3.0, False).at(0.25) == 1.5
    assert Range(1e-4, 1e-2, True).at(0.5) == 1e-3
    assert Range(0.0, 1.0, False).at(1 / 3) == 0.3333
    assert Range(0.12345, 0.12346, False).at(0.999) == 0.12346  # rounding does not leave the range
    assert Range(-1.0, 1.0, False).at(0.0) == -1.0


def test_configurations_that_differ_in_floats_share_a_program():
    varied = read_vary(SPEC, ("learning_rate=1e-4,3e-4", "max_grad_norm=none,0.5,1", "num_epochs=1,2"))
    found = configurations(varied, None, 0)
    together = programs(SPEC, found)
    assert sorted(itertools.chain(*together)) == list(range(12))
    kinds = [{(found[i]["max_grad_norm"] is None, found[i]["num_epochs"]) for i in numbers} for numbers in together]
    assert [len(kind) for kind in kinds] == [1] * 4
    assert sorted(map(len, together)) == [2, 2, 4, 4]
    host = dataclasses.replace(SPEC, run=dataclasses.replace(SPEC.run, gymnasium=True))
    assert programs(host, found) == [[number] for number in range(12)]


# Bad input ------------------------------------------------------------------------------------------------------------

RATE = ["--vary", "learning_rate=1e-4,1e-3"]
CASES = {
    "what": (["sweep"], ["rlx sweep ALGORITHM ENV"]),
    "nothing varies": (SWEEP, ["say what to vary"]),
    "no equals sign": ([*SWEEP, "--vary", "clip"], ["--vary clip", "FIELD=VALUES"]),
    "no values": ([*SWEEP, "--vary", "clip="], ["--vary clip=", "no values"]),
    "a value is missing": ([*SWEEP, "--vary", "clip=0.1,,0.2"], ["clip=0.1,,0.2", "missing"]),
    "field": ([*SWEEP, "--vary", "learning_rat=1"], ["learning_rat", "did you mean learning_rate"]),
    "field of the run": ([*SWEEP, "--vary", "steps=10,20"], ["unknown field 'steps'"]),
    "twice": ([*SWEEP, *RATE, "--vary", "learning-rate=1"], ["learning_rate", "twice"]),
    "a value twice": ([*SWEEP, "--vary", "clip=0.1,0.10"], ["0.10", "twice"]),
    "given too": ([*SWEEP, *RATE, "--learning-rate", "1"], ["--learning-rate is given"]),
    "switch given too": ([*SWEEP, "--vary", "anneal=true,false", "--no-anneal"], ["--no-anneal is given"]),
    "out of range": ([*SWEEP, "--vary", "learning_rate=1e-3,-1"], ["learning_rate=-1.0", "above 0"]),
    "not a number": ([*SWEEP, "--vary", "learning_rate=1e-3,x"], ["--learning-rate", "x"]),
    "not an integer": ([*SWEEP, "--vary", "num_epochs=1.5"], ["--num-epochs", "1.5"]),
    "not a bool": ([*SWEEP, "--vary", "anneal=1"], ["anneal", "true or false"]),
    "choice": ([*SWEEP, "--vary", "activation=tan"], ["--activation", "tanh"]),
    "does not divide": ([*SWEEP, "--vary", "num_minibatches=8,7"], ["num_minibatches=7", "divide"]),
    "less than an update": ([*SWEEP, "--vary", "num_steps=8,1024", "--steps", "99"], ["steps=99", "one update"]),
    "range without samples": ([*SWEEP, "--vary", "clip=0.1..0.3"], ["clip", "--samples"]),
    "samples without range": ([*SWEEP, *RATE, "--samples", "4"], ["--samples", "ranges"]),
    "no samples": ([*SWEEP, "--vary", "clip=0.1..0.3", "--samples", "0"], ["--samples 0"]),
    "range of an integer": ([*SWEEP, "--vary", "num_steps=8..64", "--samples", "2"], ["num_steps", "no float"]),
    "half a range": ([*SWEEP, "--vary", "clip=0.1..", "--samples", "2"], ["LOW..HIGH"]),
    "falling range": ([*SWEEP, "--vary", "clip=0.3..0.1", "--samples", "2"], ["must go up"]),
    "endless range": ([*SWEEP, "--vary", "clip=0.3..inf", "--samples", "2"], ["finite"]),
    "logarithm": ([*SWEEP, "--vary", "entropy_coef=log:0..1", "--samples", "2"], ["logarithm"]),
    "range out of range": ([*SWEEP, "--vary", "discount=0.9..9", "--samples", "2"], ["discount=", "from 0 to 1"]),
    "no seeds": ([*SWEEP, *RATE, "--seeds", "0"], ["seeds=0"]),
    "environment": (["sweep", "ppo", "CartPol-v1", *RATE], ["did you mean CartPole-v1"]),
    "flag": ([*SWEEP, *RATE, "--sample", "3"], ["--sample", "did you mean --samples"]),
    "out is there": ([*SWEEP, *RATE, "--out", "there"], ["there is there already"]),
    "eval of a sweep": (["eval", "sweep"], ["is a sweep", "sweep/best"]),
}


@pytest.mark.parametrize(("argv", "parts"), CASES.values(), ids=CASES)
def test_bad_input_is_one_line_and_nothing_is_written(argv, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("there", "sweep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.json").write_text("{}")
    before = tree(tmp_path)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rlx: ")
    assert captured.err.count("\n") == 1
    assert all(part in captured.err for part in parts), captured.err
    assert tree(tmp_path) == before


def test_help(capsys):
    assert main(["sweep", "--help"]) == 0
    assert "--vary learning_rate=log:1e-5..1e-2" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        main([*SWEEP, "--help"])
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for kind in (SweepOptions, OptimizerConfig):
        for field in dataclasses.fields(kind):
            assert f"--{field.name.replace('_', '-')}" in shown
    assert "apart from those to report" in shown
    assert "(default: 1000)" in shown


# Ranking --------------------------------------------------------------------------------------------------------------


def trial(number, returns, failed=()):
    return Trial(number, {"clip": number / 10}, SPEC, returns, dict.fromkeys(failed, "NaN"))


def test_ranking_and_table_by_hand():
    trials = [trial(0, [1.0, 3.0]), trial(1, [None, 9.0], [1000]), trial(2, [4.0, 5.0]), trial(3, [None] * 2, SEEDS)]
    order = ranked(trials)
    assert [t.number for t in order] == [2, 0, 1, 3]
    head, *rows = table(order).splitlines()
    assert head.split() == ["rank", "clip", "mean", "IQM", "95", "%", "interval", "failed", "seeds"]
    assert rows[0].split() == ["1", "0.2", "4.50", "4.50", "4.00", "to", "5.00", "-"]
    assert rows[2].split() == ["3", "0.1", "9.00", "9.00", "-", "1000"]
    assert rows[3].split() == ["4", "0.3", "-", "-", "-", "1000", "1001"]
    assert describe_trial(trials[0])["mean"] == 2.0
    long = table([trial(0, [1.0])] * (SHOWN + 3)).splitlines()
    assert len(long) == SHOWN + 2
    assert "3 more" in long[-1]


# Sweeps ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two programs of two configurations and two seeds."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    flags = ["--vary", "learning_rate=1e-3,1e-1", "--vary", "num_epochs=1,2"]
    assert run(*SWEEP, *without("--num-epochs"), *flags, "--out", out) == 0
    return out


@pytest.mark.slow
def test_what_a_sweep_leaves(swept):
    data, told = json.loads((swept / "sweep.json").read_text()), result(swept)
    grid = [{"learning_rate": rate, "num_epochs": epochs} for rate in (1e-3, 1e-1) for epochs in (1, 2)]
    assert data["configurations"] == grid
    assert data["vary"] == ["learning_rate=1e-3,1e-1", "num_epochs=1,2"]
    assert (told["programs"], told["seeds"], told["unfinished"]) == (2, SEEDS, [])
    assert sorted(row["configuration"] for row in told["ranking"]) == [0, 1, 2, 3]
    assert all(grid[row["configuration"]] == row["values"] for row in told["ranking"])
    means = [row["mean"] for row in told["ranking"]]
    assert means == sorted(means, reverse=True)
    assert all(row["mean"] == pytest.approx(np.mean(row["final_return"])) for row in told["ranking"])
    assert imread(swept / "sweep.png").size
    best = told["ranking"][0]
    spec = read_spec(swept / "best")
    assert (spec.optimizer.learning_rate, spec.config.num_epochs) == tuple(best["values"].values())
    assert (spec.seeds, spec.run.out) == (SEEDS, swept / "best")
    assert result(swept / "best")["final_return"] == best["final_return"]
    assert result(swept / "best")["sweep"]["configuration"] == best["configuration"]
    left = [path.name for path in (swept / "configurations").iterdir()]  # the best of the other program
    assert len(left) == 1
    assert grid[int(left[0])]["num_epochs"] != spec.config.num_epochs


@pytest.mark.slow
def test_the_best_is_the_run_that_train_makes(swept, tmp_path):
    spec = read_spec(swept / "best")
    rate, epochs = spec.optimizer.learning_rate, spec.config.num_epochs
    flags = ["--num-epochs", epochs, "--learning-rate", rate, "--seed", SEEDS[0]]
    assert run("train", "ppo", "CartPole-v1", *without("--num-epochs"), *flags, "--out", tmp_path / "run") == 0
    ours, theirs = lines(swept / "best"), lines(tmp_path / "run")
    assert len(ours) == len(theirs) == UPDATES
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(
                np.array(row[name], float), np.array(other[name], float), rtol=1e-4, atol=1e-5, err_msg=name
            )
    assert result(swept / "best").keys() == result(tmp_path / "run").keys() | {"sweep"}
    assert result(swept / "best")["final_return"] == pytest.approx(result(tmp_path / "run")["final_return"], rel=0.1)
    assert steps(swept / "best") == [UPDATES]


@pytest.mark.slow
def test_every_command_takes_the_best(swept, tmp_path, capsys):
    best = swept / "best"
    assert run("eval", best) == 0
    out = capsys.readouterr().out
    for seed, value in zip(SEEDS, result(best)["final_return"], strict=True):
        assert f"seed {seed}: return {value:.2f}" in out
    assert run("plot", best, "--out", tmp_path / "x.png") == 0
    assert run("export", best, "--out", tmp_path / "policy") == 0
    assert run("resume", best) == 0
    assert "is finished" in capsys.readouterr().out
    (best / "result.json").rename(tmp_path / "result.json")
    assert run("resume", best) == 0  # its checkpoint fits the run that config.json describes
    assert result(best)["final_return"] == pytest.approx(
        json.loads((tmp_path / "result.json").read_text())["final_return"]
    )
    (tmp_path / "result.json").rename(best / "result.json")


@pytest.mark.slow
def test_64_configurations_compile_what_3_do(tmp_path):
    events = []

    def listen(event, _, **__):
        events.append(event)

    def compilations(number):
        before = len(events)
        flags = ["--vary", "learning_rate=log:1e-4..1e-2", "--vary", "clip=0.1..0.3", "--samples", number]
        assert run(*SWEEP, *SHORT, *flags, "--out", tmp_path / str(number)) == 0
        assert result(tmp_path / str(number))["programs"] == 1
        assert len(result(tmp_path / str(number))["ranking"]) == number
        return events[before:].count("/jax/core/compile/backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        compilations(2)  # what jax.numpy compiles for each operation is known from here on
        few, many = compilations(3), compilations(64)
        assert few == many
        assert few >= 3, "init, the steps, the evaluation"
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_over_host_environments_in_turn(tmp_path, capsys):
    flags = ["--vary", "learning_rate=1e-3,1e-1", "--gymnasium", "--seeds", "1", "--seed", "7"]
    assert run(*SWEEP, *SHORT, *flags, "--out", tmp_path / "out") == 0
    told = result(tmp_path / "out")
    assert (told["programs"], told["seeds"]) == (2, [7])
    best, other = (row["configuration"] for row in told["ranking"])
    assert [path.name for path in (tmp_path / "out" / "configurations").iterdir()] == [str(other)]
    assert read_spec(tmp_path / "out" / "best").optimizer.learning_rate == [1e-3, 1e-1][best]
    assert run("eval", tmp_path / "out" / "best", "--episodes", "2") == 0
    assert "best: learning_rate=" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("nans")
def test_failed_seeds_are_named_and_rank_last(tmp_path, capsys):
    flags = ["--vary", "learning_rate=1e38,1e-3,1e-2"]
    assert run(*SWEEP, *SHORT, *flags, "--out", tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 2
    for seed in SEEDS:
        assert f"configuration 0, learning_rate=1e+38: seed {seed} failed: NaN or infinity at update" in captured.err
    assert captured.out.splitlines()[3].endswith("1000 1001")
    last = result(tmp_path / "out")["ranking"][-1]
    assert last["configuration"] == 0
    assert (last["final_return"], last["failed"].keys()) == ([None, None], {"1000", "1001"})
    assert all(np.isfinite(value) for row in lines(tmp_path / "out" / "best") for value in row["loss"])

    flags = ["--vary", "learning_rate=1e37,1e38"]
    assert run(*SWEEP, *SHORT, *flags, "--out", tmp_path / "lost") == 1
    assert "every seed of every configuration failed" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "lost").iterdir()) == ["result.json", "sweep.json", "sweep.png"]


@pytest.mark.slow
def test_a_stopped_sweep_ranks_what_is_finished(tmp_path, monkeypatch, capsys):
    stop, train = Stop(), rlx.cli.sweep.train_together

    def once(*args):
        trials = train(*args)
        stop.signal = signal.SIGINT
        return trials

    monkeypatch.setattr(rlx.cli.sweep, "catch_signals", lambda: stop)
    monkeypatch.setattr(rlx.cli.sweep, "train_together", once)
    flags = ["--vary", "learning_rate=1e-3,1e-1", "--vary", "hidden=8,4"]
    assert run(*SWEEP, *without("--hidden"), *flags, "--out", tmp_path / "out") == 130
    captured = capsys.readouterr()
    assert captured.err == "rlx: stopped: 2 of 4 configurations are not finished and not ranked\n"
    told = result(tmp_path / "out")
    assert sorted(row["configuration"] for row in told["ranking"]) == [0, 2]
    assert told["unfinished"] == [1, 3]
    assert read_spec(tmp_path / "out" / "best").network.hidden == (8,)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_end_is_one_line(number, tmp_path):
    process = start(*SWEEP, *NETWORK, "--steps", "100000000", *RATE, "--out", tmp_path / "out")
    wait_for((tmp_path / "out" / "sweep.json").exists, process)
    wait_for(lambda: handled(process.pid, number), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + number, "")
    assert err == f"rlx: stopped before any configuration was finished: nothing is ranked in {tmp_path / 'out'}\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sweep.json"]


def handled(pid, number):
    """Whether a process catches a signal."""
    with open(f"/proc/{pid}/status") as file:
        caught = next(line.split()[1] for line in file if line.startswith("SigCgt"))
    return int(caught, 16) >> (number - 1) & 1
