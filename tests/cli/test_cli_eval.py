"""`rlx eval`."""

import re

import numpy as np
import pytest
from cli_runs import SEEDS, result, run, tree

pytestmark = pytest.mark.slow


def returns(capsys) -> list[float]:
    """The seeds' means that were printed."""
    out = capsys.readouterr().out
    return [float(value) for _, value in re.findall(r"seed (\d+): return (-?[0-9.]+)", out)]


def test_eval_gives_the_final_return(reference, capsys):
    before = tree(reference)
    assert run("eval", reference) == 0
    assert returns(capsys) == pytest.approx(result(reference)["final_return"], abs=0.006)
    assert tree(reference) == before


def test_eval_in_gymnasium_agrees(reference, capsys):
    """The same policies in gymnasium's own CartPole."""
    assert run("eval", reference, "--gymnasium") == 0
    out = capsys.readouterr()
    assert "gymnasium's environment, greedy, 100 episodes" in out.out
    means = [float(value) for value in re.findall(r": return ([0-9.]+)", out.out)]
    errors = [float(value) / 10 for value in re.findall(r"std ([0-9.]+)", out.out)]  # standard errors of 100 episodes
    assert len(means) == SEEDS
    ours = result(reference)["final_return"]
    assert (np.abs(np.subtract(means, ours)) < 6 * np.array(errors) + 0.3).all()


def test_eval_sampled_and_seeded(reference, capsys):
    def play(*flags):
        assert run("eval", reference, "--episodes", "20", *flags) == 0
        return returns(capsys)

    greedy, sampled = play(), play("--sampled")
    assert play("--sampled") == sampled
    assert sampled != greedy
    assert play("--sampled", "--seed", "5") != sampled


def test_eval_episodes_are_an_exact_count(reference, capsys):
    assert run("eval", reference, "--episodes", "1") == 0
    out = capsys.readouterr().out
    assert "1 episodes a seed" in out
    for mean, deviation, low, high in re.findall(r"return ([0-9.]+) \(std ([0-9.]+), ([0-9.]+) to ([0-9.]+)\)", out):
        assert float(mean) == float(low) == float(high)
        assert float(deviation) == 0


def test_eval_before_the_end(broken, capsys):
    """Of a run that was killed while it wrote a line."""
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"update": 26, "env_')
    assert run("eval", broken, "--episodes", "2") == 0
    assert len(returns(capsys)) == SEEDS
