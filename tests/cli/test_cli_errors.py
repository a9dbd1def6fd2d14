"""Bad input: one line on standard error, a non-zero exit, no traceback, nothing written and nothing lost."""

import inspect
import json
import re
import shutil

import gymnasium as gym
import numpy as np
import pytest
from cli_runs import run, tree

from rlx.cli import main
from rlx.cli.algorithms import ALGORITHMS
from rlx.cli.commands import EvalOptions
from rlx.cli.language_eval import TextEvalOptions
from rlx.cli.language_table import ALGORITHMS_OF_TEXT
from rlx.cli.options import (
    DataOptions,
    NetworkConfig,
    OptimizerConfig,
    PolicyOptions,
    PtxOptions,
    RewardOptions,
    RunOptions,
    SamplingOptions,
    TextOptions,
)
from rlx.cli.plot import PlotOptions
from rlx.cli.presets import PresetsOptions
from rlx.cli.sweep import SweepOptions

ENV = ["train", "ppo", "CartPole-v1"]


class TwoHanded(gym.Env):
    """Its action space is not supported."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Tuple([gym.spaces.Discrete(2)] * 2)


class Letter(gym.Env):
    """Its observation space is not supported."""

    observation_space = gym.spaces.Dict({"word": gym.spaces.Text(3), "place": gym.spaces.Discrete(2)})
    action_space = gym.spaces.Discrete(2)


@pytest.fixture(autouse=True)
def environments():
    for env in (TwoHanded, Letter):
        gym.register(f"{env.__name__}-v0", env)
    yield
    for env in (TwoHanded, Letter):
        del gym.registry[f"{env.__name__}-v0"]


CASES = {
    "command": (["trian"], ["trian", "train"]),
    "nothing to train": (["train"], ["rlx train ALGORITHM ENV"]),
    "no environment": (["train", "ppo"], ["rlx train ALGORITHM ENV"]),
    "flag first": (["train", "--seeds", "2", "ppo", "CartPole-v1"], ["rlx train ALGORITHM ENV"]),
    "algorithm": (["train", "pppo", "CartPole-v1"], ["pppo", "did you mean ppo"]),
    "environment": (["train", "ppo", "CartPol-v1"], ["CartPol-v1", "did you mean CartPole-v1"]),
    "environment's module": (["train", "ppo", "no_such_module:Env-v0"], ["no_such_module"]),
    "observation space": (["train", "ppo", "Letter-v0"], ["observation space", "Text", "not supported"]),
    "action space": (["train", "ppo", "TwoHanded-v0"], ["action space", "Tuple", "not supported"]),
    "flag": ([*ENV, "--learning-rat", "1"], ["--learning-rat", "did you mean --learning-rate"]),
    "another flag": ([*ENV, "--frobnicate"], ["--frobnicate", "--help"]),
    "word": ([*ENV, "more"], ["more"]),
    "flag without a value": ([*ENV, "--steps"], ["--steps"]),
    "not a number": ([*ENV, "--steps", "many"], ["--steps", "many"]),
    "not an integer": ([*ENV, "--num-envs", "1.5"], ["--num-envs", "1.5"]),
    "choice": ([*ENV, "--activation", "tan"], ["--activation", "tan", "tanh"]),
    "no steps": ([*ENV, "--steps", "0"], ["steps=0", "above 0"]),
    "less than an update": ([*ENV, "--steps", "10"], ["steps=10", "one update"]),
    "no seeds": ([*ENV, "--seeds", "0"], ["seeds=0", "above 0"]),
    "negative seed": ([*ENV, "--seed", "-1"], ["seed=-1"]),
    "large seed": ([*ENV, "--seed", str(2**31)], [f"seed={2**31}"]),
    "no environments": ([*ENV, "--num-envs", "0"], ["num_envs=0", "above 0"]),
    "does not divide": ([*ENV, "--num-minibatches", "7"], ["num_minibatches=7", "divide"]),
    "single rows": ([*ENV, "--num-envs", "2", "--num-steps", "2", "--num-minibatches", "4"], ["single row"]),
    "learning rate": ([*ENV, "--learning-rate", "-1"], ["learning_rate=-1.0", "above 0"]),
    "learning rate NaN": ([*ENV, "--learning-rate", "nan"], ["learning_rate=nan", "finite"]),
    "discount": ([*ENV, "--discount", "1.01"], ["discount=1.01", "from 0 to 1"]),
    "trace": ([*ENV, "--trace", "-0.1"], ["trace=-0.1", "from 0 to 1"]),
    "clip": ([*ENV, "--clip", "0"], ["clip=0", "above 0"]),
    "gradient norm": ([*ENV, "--max-grad-norm", "0"], ["max_grad_norm=0", "above 0"]),
    "widths": ([*ENV, "--hidden", "64", "0"], ["hidden=(64, 0)", "above 0"]),
    "no checkpoints kept": ([*ENV, "--keep-checkpoints", "0"], ["keep_checkpoints=0", "above 0"]),
    "checkpoint time": ([*ENV, "--checkpoint-seconds", "-1"], ["checkpoint_seconds=-1", "negative"]),
    "log every 0": ([*ENV, "--log-every", "0"], ["log_every=0", "above 0"]),
    "two mistakes": ([*ENV, "--discount", "2", "--seeds", "0"], ["=", "must be"]),
    "out is a file": ([*ENV, "--out", "file"], ["file", "is there already"]),
    "out is below a file": ([*ENV, "--out", "file/run"], ["file/run", "Not a directory"]),
    "out cannot be made": ([*ENV, "--out", "/proc/run"], ["/proc/run"]),
    "out is another run": ([*ENV, "--out", "run"], ["run", "rlx resume run"]),
    "out holds something": ([*ENV, "--out", "."], ["is there already"]),
    "eval what": (["eval"], ["rlx eval RUN"]),
    "eval nothing": (["eval", "nowhere"], ["nowhere", "config.json"]),
    "eval a file": (["eval", "file"], ["file", "config.json"]),
    "eval before a checkpoint": (["eval", "run"], ["run", "no checkpoint"]),
    "eval no episodes": (["eval", "run", "--episodes", "0"], ["--episodes 0"]),
    "eval flag": (["eval", "run", "--gymnasum"], ["--gymnasum", "did you mean --gymnasium"]),
    "resume what": (["resume"], ["rlx resume RUN"]),
    "resume nothing": (["resume", "nowhere"], ["nowhere", "config.json"]),
    "resume with flags": (["resume", "run", "--steps", "5"], ["--steps 5"]),
    "presets of what": (["presets", "pppo"], ["pppo", "did you mean ppo"]),
    "presets where": (["presets", "ppo", "CartPol-v1"], ["CartPol-v1", "did you mean CartPole-v1"]),
    "presets three": (["presets", "ppo", "CartPole-v1", "more"], ["more"]),
    "presets flag": (["presets", "--jsn"], ["--jsn", "did you mean --json"]),
    "plot what": (["plot"], ["rlx plot RUN..."]),
    "plot nothing": (["plot", "run", "nowhere"], ["nowhere", "config.json"]),
    "plot before a line": (["plot", "run"], ["run", "metrics.jsonl is empty"]),
    "plot flag": (["plot", "run", "--metrc", "loss"], ["--metrc", "did you mean --metric"]),
    "plot format": (["plot", "run", "--out", "picture.jpeg"], ["picture.jpeg", ".png, .svg or .pdf"]),
    "plot no format": (["plot", "run", "--out", "picture"], ["picture", ".png, .svg or .pdf"]),
    "resume two": (["resume", "run", "run"], ["run folder alone"]),
}


def one_line(capsys) -> str:
    """What the user was told on standard error: exactly one line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rlx: ")
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a file, and a run that has not come to a checkpoint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


CONFIG = {
    "algorithm": "ppo",
    "env": "CartPole-v1",
    "run": {"seeds": 1, "seed": 0, "steps": 1000, "out": "run", "gymnasium": False},
    "config": {"num_envs": 2, "num_steps": 8},
    "optimizer": {"learning_rate": 0.001},
    "network": {"hidden": [8], "activation": "tanh"},
}


@pytest.mark.parametrize("case", CASES)
def test_one_line(case, place, capsys):
    argv, expected = CASES[case]
    before = tree(place)
    assert run(*argv) in (1, 2)
    line = one_line(capsys)
    for part in expected:
        assert part in line
    assert tree(place) == before
    assert {path.name for path in place.iterdir()} == {"file", "run"}


def changed(**changes) -> dict:
    return CONFIG | {
        name: (CONFIG[name] | value if isinstance(value, dict) else value) for name, value in changes.items()
    }


@pytest.mark.parametrize("command", ["resume", "eval"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "\x00",
        "{}",
        json.dumps(changed(algorithm="pppo")),
        json.dumps(changed(env="CartPol-v1")),
        json.dumps(changed(env="Letter-v0")),
        json.dumps(changed(run={"steps": 1})),
        json.dumps(changed(run={"seeds": "two"})),
        json.dumps(changed(config={"discount": 3})),
        json.dumps(changed(config={"no_such_field": 3})),
        json.dumps(changed(network={"hidden": 5})),
        json.dumps(changed(network={"activation": "tan"})),
        json.dumps({name: value for name, value in CONFIG.items() if name != "network"}),
    ],
)
def test_broken_config(command, text, place, capsys):
    (place / "run" / "config.json").write_text(text)
    before = tree(place)
    assert run(command, "run") in (1, 2)
    one_line(capsys)
    assert tree(place) == before


@pytest.mark.slow
def test_folder_that_holds_another_run(reference, capsys):
    before = tree(reference)
    assert run(*ENV, "--out", reference) == 2
    line = one_line(capsys)
    assert str(reference) in line
    assert "rlx resume" in line
    assert tree(reference) == before


@pytest.mark.slow
def test_eval_of_what_gymnasium_lacks(broken, capsys, monkeypatch):
    """A JAX environment that gymnasium does not have."""
    import rlx

    monkeypatch.setitem(rlx.envs.JAX_ENVS, "Ours-v0", rlx.envs.CartPole)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"env": "Ours-v0"}))
    assert run("eval", broken, "--gymnasium") == 2
    assert "Ours-v0" in one_line(capsys)
    assert run("eval", broken, "--episodes", "2") == 0


def test_missing_package_is_one_line(place, capsys):
    if shutil.which("python") and gym.envs.registration.registry.get("Ant-v5") is None:
        pytest.skip("gymnasium has no Ant-v5")
    try:
        gym.make("Ant-v5").close()
    except gym.error.DependencyNotInstalled:
        assert run("train", "ppo", "Ant-v5") == 2
        assert "pip install" in one_line(capsys)
    else:
        pytest.skip("MuJoCo is installed")


@pytest.mark.parametrize(
    "config",
    [
        *(RunOptions, OptimizerConfig, NetworkConfig, EvalOptions, PlotOptions, PresetsOptions, SweepOptions),
        *(DataOptions, TextOptions, PolicyOptions, RewardOptions, PtxOptions, SamplingOptions, TextEvalOptions),
        *(entry.config for entry in (ALGORITHMS | ALGORITHMS_OF_TEXT).values()),
    ],
)
def test_help_says_what_every_flag_means(config):
    """The comments on the fields are the help; a formatter that moves one off its line loses it."""
    source = inspect.getsource(config)
    for name in vars(config)["__annotations__"]:  # those of a base are in its source
        assert re.search(rf"^    {name}: .* = .*  # \S", source, flags=re.M), name


def test_help_shows_the_comments(capsys):
    with pytest.raises(SystemExit):
        main(["train", "ppo", "CartPole-v1", "--help"])
    assert "half width of the probability" in capsys.readouterr().out
