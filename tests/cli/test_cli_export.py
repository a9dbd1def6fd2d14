"""`rlx export`: files that act as the run does, and bad input in one line."""

import importlib.util

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_runs import run, tree

from rlx.cli.metrics import read_rows
from rlx.cli.parsing import read_spec
from rlx.cli.train import make_group, restore, state_of

OBSERVATION = np.array([0.01, -0.2, 0.03, 0.4], np.float32)


def acting(folder, seed):
    """What the run's own policy does on some observations."""
    spec = read_spec(folder)
    group = make_group(spec, spec.seeds)
    _, state = restore(group, folder / "checkpoints", print)
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    return observations, group.algorithm.act(state_of(group, state, seed), None, jnp.array(observations))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 1])
def test_the_files_act_as_the_run_does(seed, reference, tmp_path, capsys):
    flags = [] if seed is None else ["--seed", str(seed)]
    assert run("export", reference, "--out", tmp_path / "policy", *flags) == 0
    out = capsys.readouterr().out
    assert out == f"policy of seed {seed or 0} after update 24: policy.npz, policy.py in {tmp_path / 'policy'}\n"
    spec = importlib.util.spec_from_file_location("policy", tmp_path / "policy" / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    act = module.load(tmp_path / "policy" / "policy.npz")
    observations, expected = acting(reference, seed or 0)
    np.testing.assert_array_equal([act(observation) for observation in observations], expected)


@pytest.mark.slow
def test_a_jax_program(reference, tmp_path):
    assert run("export", reference, "--jax", "--out", tmp_path / "policy") == 0
    program = jax.export.deserialize((tmp_path / "policy" / "policy.jax").read_bytes())
    observations, expected = acting(reference, 0)
    np.testing.assert_array_equal(program.call(observations), expected)


@pytest.mark.slow
def test_bad_input_is_one_line(reference, tmp_path, capsys):
    before = tree(reference)
    (tmp_path / "file").write_text("")
    for argv, words in [
        ([reference, "--seed", "7"], ["--seed 7", "[0, 1, 2]"]),
        ([tmp_path], ["no run folder"]),
        ([], ["say which run"]),
        ([reference, "--out", tmp_path / "file"], [str(tmp_path / "file")]),
        ([reference, "--outt", "x"], ["--outt", "did you mean --out"]),
    ]:
        assert run("export", *argv) in (1, 2), argv
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert all(word in captured.err for word in words), captured.err
    assert tree(reference) == before


class Hot(gym.Env):
    """Its motor fails in the second update."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 13:
            raise RuntimeError("the motor\nis too hot")
        return np.zeros(2, np.float32), 1.0, False, False, {}


@pytest.mark.slow
def test_an_error_inside_an_environment_is_one_line_and_the_checkpoint_stays(tmp_path, capsys):
    gym.register("Hot-v0", Hot)
    try:
        flags = ["--num-envs", "2", "--num-steps", "8", "--num-minibatches", "1", "--steps", "64", "--no-progress"]
        save = ["--checkpoint-seconds", "0", "--log-every", "1"]
        assert run("train", "ppo", "Hot-v0", *flags, *save, "--out", tmp_path / "run") == 1
    finally:
        del gym.registry["Hot-v0"]
    error = capsys.readouterr().err
    assert error == "rlx: Hot-v0, environment 0, step 13: RuntimeError: the motor is too hot\n"
    assert [row["update"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [1]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["1"]
