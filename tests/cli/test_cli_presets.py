"""`rlx presets`."""

import json

import pytest
from cli_runs import run

from rlx.cli.spec import preset, read_presets


def test_table_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("presets") == 0
    out = capsys.readouterr().out
    assert out.startswith("algorithm")
    for algorithm, envs in read_presets().items():
        for env in envs.keys() - {"default"}:
            (line,) = [line for line in out.splitlines() if line.startswith(f"{algorithm} ") and f" {env} " in line]
            assert f" {preset(algorithm, env).run.steps:,} " in line
    assert max(map(len, out.splitlines())) <= 80
    assert "num_minibatches=64 (4)" in out


def test_narrowed(capsys):
    assert run("presets", "ppo", "CartPole-v1") == 0
    out = capsys.readouterr().out
    assert "CartPole-v1" in out
    assert "Pendulum-v1" not in out
    assert "steps=" not in out  # a column of its own


@pytest.mark.parametrize("words", [[], ["ppo"], ["ppo", "Pendulum-v1"]])
def test_json_is_what_train_uses(words, capsys):
    assert run("presets", *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    known = {(name, env) for name, envs in read_presets().items() for env in envs if env != "default"}
    named = {pair for pair in known if [*pair][: len(words)] == words}
    assert {(value["algorithm"], value["env"]) for value in found} == named
    for value in found:
        spec = preset(value["algorithm"], value["env"])
        parts = [spec.config, spec.optimizer, spec.network, spec.run]
        used = {name: value for part in parts if part is not None for name, value in vars(part).items()}
        assert value["steps"] == used["steps"]
        assert value["values"] == json.loads(json.dumps({name: used[name] for name in value["values"]}))
        assert all(value["values"][name] != default for name, default in value["defaults"].items())
