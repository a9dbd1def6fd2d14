"""NaN: the seed, the update and the metric are named, the other seeds go on, the last good checkpoint stays."""

import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_runs import CARTPOLE, ENV_STEPS, EVERY, SEEDS, TINY, UPDATES, lines, result, run, steps
from matplotlib.image import imread

import rlx
from rlx.cli.algorithms import ALGORITHMS
from rlx.types import Algorithm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nans")]
DOOM = 7  # after this update an observation is NaN: update 8 is the first to see it


class Doomed(NamedTuple):
    """PPO's state, and when an environment gives a NaN (never: 2**20); each seed its own."""

    inner: rlx.PPOState
    time: jax.Array
    doom: jax.Array


def make_doomed(*args):
    """PPO in which an environment of the seeds that $DOOMED_SEEDS names observes NaN from some update on."""
    ppo = rlx.ppo(*args)
    doomed = jnp.array([str(seed) in os.environ["DOOMED_SEEDS"] for seed in range(SEEDS)])

    def init(key):
        seed = jax.random.key_data(key)[-1]
        doom = jnp.where(doomed[seed], DOOM, 2**20)
        return Doomed(ppo.init(key), jnp.zeros((), int), doom)

    def step(state):
        inner, metrics = ppo.step(state.inner)
        time = state.time + 1
        observation = inner.rollout.observation
        observation = observation.at[0, 0].set(jnp.where(time >= state.doom, jnp.nan, observation[0, 0]))
        inner = inner._replace(rollout=inner.rollout._replace(observation=observation))
        return Doomed(inner, time, state.doom), metrics

    return Algorithm(init, step, lambda state, key, observation: ppo.act(state.inner, key, observation))


@pytest.fixture
def doomed(monkeypatch):
    """Make `rlx train doomed`, and say which seeds are."""
    monkeypatch.setitem(ALGORITHMS, "doomed", ALGORITHMS["ppo"]._replace(make=make_doomed))
    return lambda *seeds: monkeypatch.setenv("DOOMED_SEEDS", " ".join(map(str, seeds)))


def train(folder, *flags) -> int:
    return run("train", "doomed", "CartPole-v1", *TINY, "--seeds", str(SEEDS), "--out", folder, *flags)


def test_seed_is_named_kept_and_the_others_go_on(doomed, tmp_path, capsys):
    doomed()
    assert train(tmp_path / "whole") == 0
    capsys.readouterr()
    doomed(1)
    assert train(tmp_path / "one lost") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    first = DOOM + 1
    for part in ("seed 1", f"update {first} ", f"{(first - 1) * ENV_STEPS:,} to {first * ENV_STEPS:,}", "loss", "NaN"):
        assert part in err
    good = DOOM - DOOM % EVERY
    assert f"update {good}" in err.partition("kept")[2]

    whole, lost = tmp_path / "whole", tmp_path / "one lost"
    assert steps(lost) == [good, *steps(whole)]  # kept, though only three are
    others = [0, 2]
    assert result(lost)["failed"].keys() == {"1"}
    assert result(lost)["final_return"][1] is None
    assert [result(lost)["final_return"][seed] for seed in others] == [
        result(whole)["final_return"][seed] for seed in others
    ]
    assert result(lost)["mean"] == pytest.approx(np.mean([result(whole)["final_return"][seed] for seed in others]))
    for ours, theirs in zip(lines(lost), lines(whole), strict=True):
        for name in theirs:
            if isinstance(theirs[name], list):
                assert [ours[name][seed] for seed in others] == [theirs[name][seed] for seed in others]
        assert ("failed" in ours) == (ours["update"] == first + first % EVERY)
    assert lines(lost)[-1]["loss"][1] is None
    assert imread(lost / "curve.png").size

    assert run("eval", lost, "--episodes", "3") == 0  # the failed seed does not count
    out = capsys.readouterr().out
    assert "seed 1 failed" in out
    assert "seed 1: return" not in out

    # Stopped and resumed, the failed seed is remembered, without being told anew, and what was kept stays kept.
    folder = shutil.copytree(lost, tmp_path / "resumed")
    (folder / "result.json").unlink()
    for step in steps(folder)[-2:]:
        shutil.rmtree(folder / "checkpoints" / str(step))
    assert run("resume", folder) == 1
    assert capsys.readouterr().err == ""
    assert lines(folder) == lines(lost)
    assert steps(folder) == steps(lost)
    assert result(folder)["failed"] == result(lost)["failed"]
    assert result(folder)["final_return"] == result(lost)["final_return"]


def test_all_seeds_fail(doomed, tmp_path, capsys):
    doomed(0, 1, 2)
    folder = tmp_path / "run"
    assert train(folder) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == SEEDS
    assert "every seed failed" in captured.out
    assert lines(folder)[-1]["update"] == DOOM + 1  # it stopped there
    assert result(folder)["env_steps"] == (DOOM + 1) * ENV_STEPS
    assert steps(folder)[-1] == DOOM - DOOM % EVERY
    assert (result(folder)["final_return"], result(folder)["mean"]) == ([None] * SEEDS, None)
    assert result(folder)["ci95"] is None
    assert imread(folder / "curve.png").size


def test_learning_rate_that_blows_up(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [*CARTPOLE, "--learning-rate", "1e30", "--seeds", "1", "--log-every", "1", "--max-grad-norm", "None"]
    assert run(*command, "--no-anneal", "--out", folder) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "seed 0 failed" in captured.err
    assert "Traceback" not in captured.err
    last = lines(folder)[-1]
    assert last["update"] < UPDATES
    assert f"at update {last['update']} " in captured.err
    assert steps(folder)[-1] == last["update"] - 1
    assert result(folder)["final_return"] == [None]
