"""Every algorithm through the command line: train, evaluate, and leave as a file that acts as it did."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from cli_runs import run

import rlx
from rlx.cli.parsing import read_spec
from rlx.cli.train import make_group, restore, state_of

SMALL = ["--num-envs", "2", "--num-steps", "8", "--hidden", "8", "--steps", "40", "--seeds", "2", "--no-progress"]


NORMALIZED = ["--normalize-observation"]
REPLAY = ["--prefill", "8", "--gradient-steps", "2", "--batch-size", "8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env", "flags"),
    [
        ("a2c", "CartPole-v1", NORMALIZED),
        ("reinforce", "CartPole-v1", NORMALIZED),
        ("trpo", "CartPole-v1", NORMALIZED),
        ("sac", "CartPole-v1", REPLAY),
        ("sac", "Pendulum-v1", REPLAY),
        ("ddpg", "Pendulum-v1", REPLAY),
    ],
)
def test_train_eval_export(algorithm, env, flags, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run("train", algorithm, env, *SMALL, *flags, "--out", folder) == 0
    assert run("eval", folder, "--episodes", "2") == 0
    assert run("export", folder, "--seed", "1", "--out", tmp_path / "policy") == 0
    assert "policy of seed 1 after update 2" in capsys.readouterr().out
    spec = importlib.util.spec_from_file_location("policy", tmp_path / "policy" / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    act = module.load(tmp_path / "policy" / "policy.npz")

    group = make_group(read_spec(folder), [0, 1])
    _, state = restore(group, folder / "checkpoints", print)
    shape = (100, *group.env.observation_space.shape)
    observations = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    acted = np.asarray(group.algorithm.act(state_of(group, state, 1), None, jnp.array(observations)))
    expected = rlx.envs.action_to_space(group.env.action_space)(acted)
    np.testing.assert_allclose([act(observation) for observation in observations], expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 0
