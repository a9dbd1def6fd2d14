"""Every algorithm through the command line: train, evaluate, and leave as a file that acts as it did."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from cli_runs import run

from rlx.cli.parsing import read_spec
from rlx.cli.train import make_group, restore, state_of

SMALL = ["--num-envs", "2", "--num-steps", "8", "--hidden", "8", "--steps", "40", "--seeds", "2", "--no-progress"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["a2c", "reinforce", "trpo"])
def test_train_eval_export(algorithm, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run("train", algorithm, "CartPole-v1", *SMALL, "--normalize-observation", "--out", folder) == 0
    assert run("eval", folder, "--episodes", "2") == 0
    assert run("export", folder, "--seed", "1", "--out", tmp_path / "policy") == 0
    assert "policy of seed 1 after update 2" in capsys.readouterr().out
    spec = importlib.util.spec_from_file_location("policy", tmp_path / "policy" / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    act = module.load(tmp_path / "policy" / "policy.npz")

    group = make_group(read_spec(folder), [0, 1])
    _, state = restore(group, folder / "checkpoints", print)
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    expected = group.algorithm.act(state_of(group, state, 1), None, jnp.array(observations))
    np.testing.assert_array_equal([act(observation) for observation in observations], expected)
    assert len({*expected.tolist()}) == 2
