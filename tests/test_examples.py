"""Every example runs, at a tiny setting."""

import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


RUNS = {  # flags of a tiny setting, and what must be printed
    "actor_critic": (["--updates", "100", "--rollouts", "2"], "loss by hand 0.216143, by rlx.ops 0.216143"),
    "bradley_terry": (
        ["--steps", "4", "--seeds", "2"],
        "mean loss by hand 0.567603, by rlx.ops.bradley_terry_loss 0.567603",
    ),
    "brittleness": (["--updates", "2", "--seeds", "2"], "SAC  solved 0 of 10"),
    "bug_zoo": (["--updates", "40"], "B1: value of a clock that never stops (10): right 10"),
    "dpo": (["--steps", "20"], "mean loss by hand 0.672412, by rlx.ops.dpo_loss 0.672412"),
    "dqn": (["--steps", "600"], "mean loss by hand 0."),
    "dqn_ablations": (["--steps", "1400", "--seeds", "2"], "no target network"),
    "exploration": (["--pulls", "20", "--episodes", "2", "--seeds", "2"], "could be as good as"),
    "grpo": (["--updates", "3", "--seeds", "2"], "clip_high 0.28: loss by hand 0.045105, by rlx.ops 0.045105"),
    "overestimation": (["--steps", "1200", "--seeds", "2"], "the largest estimate is 0.54"),
    "overoptimization": (
        ["--pools", "2", "--updates", "6", "--seeds", "2"],
        "KL of best of 4 by hand 0.5871, by rlx.ops.best_of_n_kl 0.5871",
    ),
    "policy_gradient_estimators": (["--episodes", "50"], "rlx.ops.policy_gradient: 0.3750"),
    "ppo": (["--updates", "2"], "mean loss by hand -0.7"),
    "reinforce": (["--updates", "2", "--rollouts", "2"], "mean loss by hand -0.096982"),
    "replay_ratio": (["--steps", "1024", "--seeds", "2", "--ratios", "1", "2"], "PPO (clip 0.2)"),
    "rlhf": (
        ["--updates", "3", "--seeds", "2"],
        "actor loss by hand -0.496119, by rlx.ops.clipped_surrogate -0.496119",
    ),
    "sac": (["--updates", "4"], "mean target by hand 1.113493, by rlx.ops.td_target 1.1134"),
    "sarsa_and_q_learning": (["--updates", "2", "--seeds", "2"], "expected SARSA     -14.65   -14.65"),
    "tabular": (["--updates", "2"], "by rlx.ops.action_values 0.3333"),
    "trpo": (["--updates", "2"], "refused"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_example(name, tmp_path):
    flags, expected = RUNS[name]
    picture = tmp_path / "picture.png"
    command = [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *flags, "--picture", picture]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert expected in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("[!_]*.py")} == RUNS.keys()


@pytest.mark.slow
def test_estimators_of_the_policy_gradient():
    """REINFORCE is right whatever the baseline, which takes noise away; GAE trades bias for noise by lambda."""
    example = runpy.run_path(str(EXAMPLES / "policy_gradient_estimators.py"))
    none, mean, value, *gae = example["measure"](jax.random.key(0), 20_000)
    assert max(none.worst, mean.worst, value.worst, gae[-1].worst) < 4.2  # standard errors; 14 components
    assert none.variance > 1.5 * mean.variance
    assert mean.variance > 1.05 * value.variance
    bias, variance = [float(e.bias) for e in gae], [float(e.variance) for e in gae]
    assert bias == sorted(bias, reverse=True)
    assert bias[0] > 0.2 > 0.1 > bias[2]
    assert min(e.worst for e in gae[:2]) > 10
    assert variance[1:] == sorted(variance[1:])
    assert 3 * variance[0] < variance[-1]
