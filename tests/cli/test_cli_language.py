"""`rlx sft | reward-model | rlhf | grpo | dpo | best-of-n`: the pipeline, its files, resume, evaluation, bad input."""

import dataclasses
import itertools
import json
import math
import re
import shutil

import jax
import numpy as np
import pytest
from cli_runs import arrays, assert_same_end, lines, result, run, start, steps, wait_for

import rlx
from rlx.cli.language import LanguageSpec
from rlx.cli.language_flags import read_language
from rlx.cli.parsing import UsageError, read_spec
from rlx.lm.tokenizer import ByteTokenizer

pytestmark = pytest.mark.slow

RUN = ["--log-every", "2", "--checkpoint-seconds", "0", "--size", "64"]
SHAPE = ["--width", "8", "--layers", "1", "--heads", "2"]
SFT = ["sft", "copy", *SHAPE, *RUN, "--steps", "6", "--batch-size", "16"]
GRPO = ["grpo", "copy", *RUN, "--steps", "16", "--num-prompts", "2", "--samples", "4"]
FILE_RUN = ["--log-every", "2", "--steps", "4", "--batch-size", "4"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with the runs that many tests read."""
    folder = tmp_path_factory.mktemp("language")
    assert run(*SFT, "--seeds", "2", "--out", folder / "sft") == 0
    return folder


@pytest.fixture(scope="session")
def grpo(runs):
    assert run(*GRPO, "--policy", runs / "sft", "--policy-seed", "1", "--out", runs / "grpo") == 0
    return runs / "grpo"


@pytest.fixture(scope="session")
def reward_model(runs):
    words = ["reward-model", "--policy", runs / "sft", *RUN, "--steps", "4", "--batch-size", "8", "--members", "2"]
    assert run(*words, "--out", runs / "rm") == 0
    return runs / "rm"


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory):
    file = tmp_path_factory.mktemp("files") / "demos.jsonl"
    rows = [{"prompt": f"{i}+1=", "completion": f"{i + 1}"} for i in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def from_file(runs, demonstrations):
    words = ["sft", "--data", demonstrations, *SHAPE, *FILE_RUN, "--max-tokens", "4"]
    assert run(*words, "--out", runs / "file") == 0
    return runs / "file"


def language(folder) -> LanguageSpec:
    spec = read_spec(folder)
    assert isinstance(spec, LanguageSpec)
    return spec


def test_sft_leaves_what_control_leaves(runs):
    folder = runs / "sft"
    value = result(folder)
    assert (value["algorithm"], value["task"], value["seeds"]) == ("sft", "copy", [0, 1])
    assert value["measure"] == "gold reward of responses to fresh prompts"
    assert value["sequences"] == 6 * 16
    assert len(value["final_return"]) == 2
    assert all(0 < x < 1 for x in value["final_return"])
    assert value["mean"] == pytest.approx(np.mean(value["final_return"]))
    assert value["sequences_per_s"] == pytest.approx(2 * 6 * 16 / value["run_s"], rel=0.01)
    assert value["versions"]["jax"] == jax.__version__
    rows = lines(folder)
    assert [(row["update"], row["sequences"]) for row in rows] == [(2, 32), (4, 64), (6, 96)]
    assert all(len(row["loss"]) == 2 for row in rows)
    assert rows[0]["loss"][0] != rows[0]["loss"][1]  # seeds are runs of their own
    assert steps(folder) == [2, 4, 6]
    assert (folder / "curve.png").is_file()
    config = json.loads((folder / "config.json").read_text())
    assert config["network"]["vocabulary"] == rlx.lm.TASKS["copy"]().tokenizer.vocabulary
    assert value["config"] == config


def test_config_comes_back(runs, grpo, reward_model):
    for folder in (runs / "sft", grpo, reward_model):
        spec = language(folder)
        assert spec.to_json() == json.loads((folder / "config.json").read_text())
        assert dataclasses.replace(spec, task="add").task == "add"


def test_grpo_begins_with_the_policy_of_one_seed(runs, grpo):
    """It keeps these parameters itself: its reference, also when the other run is gone."""
    given = jax.tree.leaves(language(grpo).params["policy"])
    of_sft = [leaf for leaf in arrays(runs / "sft") if leaf.ndim > 1]
    for leaf in given:
        assert any(x.shape[1:] == leaf.shape and np.array_equal(x[1], leaf) for x in of_sft)
    assert lines(grpo)[0]["kl"][0] == pytest.approx(0, abs=0.05)
    assert lines(grpo)[0]["episodes"] == [16]


def test_kill_and_resume(runs, grpo, tmp_path):
    """SIGKILL on the way; the policy's run is gone too. It ends bit for bit where the unbroken run ends."""
    folder, sft = tmp_path / "run", shutil.copytree(runs / "sft", tmp_path / "sft")
    process = start(*GRPO, "--policy", sft, "--policy-seed", "1", "--out", folder)
    wait_for(lambda: len(steps(folder)) >= 2, process)
    process.kill()
    process.wait()
    assert 0 < steps(folder)[-1] < 16
    assert not (folder / "result.json").exists()
    shutil.rmtree(sft)
    assert run("resume", folder) == 0
    assert_same_end(folder, grpo)
    assert "resumed" in result(folder)


def test_eval(runs, grpo, capsys):
    assert run("eval", runs / "sft", "--show", "2") == 0
    out = capsys.readouterr().out
    for seed, value in enumerate(result(runs / "sft")["final_return"]):
        assert f"seed {seed}: {value:.3f}, 95 % interval" in out  # as after training
    assert "copy, gold reward of responses to fresh prompts, sampled, 512 a seed" in out
    assert out.count(" -> ") == out.count("  reward ") == 2
    assert run("eval", grpo, "--greedy", "--prompts", "8", "--show", "0") == 0
    out = capsys.readouterr().out
    assert "greedy, 8 a seed" in out
    assert " -> " not in out


def test_plot(runs, grpo, tmp_path, capsys):
    assert run("plot", grpo, "--out", tmp_path / "picture.png") == 0
    assert "episode_return" in capsys.readouterr().out
    assert run("plot", grpo, runs / "sft", "--metric", "loss", "--out", tmp_path / "loss.png") == 0
    assert (tmp_path / "loss.png").is_file()


def test_reward_model_and_what_takes_it(runs, reward_model, tmp_path, capsys):
    assert result(reward_model)["measure"] == "accuracy on fresh comparisons"
    assert 0 <= result(reward_model)["mean"] <= 1
    assert run("eval", reward_model, "--prompts", "16") == 0
    assert " -> " not in capsys.readouterr().out

    words = ["--policy", runs / "sft", "--reward", reward_model, *RUN, "--steps", "2", "--num-prompts", "4"]
    rlhf = [*words, "--num-minibatches", "2", "--num-epochs", "1", "--ptx-coef", "0.5", "--out", tmp_path / "rlhf"]
    assert run("rlhf", *rlhf) == 0
    assert {"value_loss", "kl", "episode_return", "ptx_loss"} <= lines(tmp_path / "rlhf")[0].keys()

    capsys.readouterr()
    assert run("best-of-n", *words, "--samples", "6", "--out", tmp_path / "bon") == 0
    rows = result(tmp_path / "bon")["best_of_n"]
    assert [row["n"] for row in rows] == [1, 2, 4, 6]
    assert "KL bound" in capsys.readouterr().out
    assert all(a["proxy"] <= b["proxy"] for a, b in itertools.pairwise(rows))
    for row in rows:
        assert row["kl_bound"] == pytest.approx(math.log(row["n"]) - (row["n"] - 1) / row["n"], abs=1e-6)
        assert 0 <= row["gold"] <= 1
        assert row["kl_estimate"] <= row["kl_bound"] + 1e-5
    pools = lines(tmp_path / "bon")
    assert rows[2]["gold"] == pytest.approx(np.mean([row["gold_4"][0] for row in pools]), rel=1e-5)


def test_scores_are_on_the_scale_of_the_first_policy(runs, reward_model):
    """Mean 0 and deviation 1 on its responses, member by member."""
    spec = read_language("grpo", ["--policy", str(runs / "sft"), "--reward", str(reward_model), "--size", "32"])
    assert spec.task == "copy"  # of the policy
    assert spec.members == 2
    assert spec.params["scale"].shape == (2,)
    texts, algorithm = spec.make()
    state = algorithm.init(jax.random.key(1))
    prompts = texts.prompts(jax.random.key(2), 512)
    response = algorithm.act(state, jax.random.key(3), prompts)
    scores = np.asarray(spec.judge()(rlx.lm.Sequences(*prompts, response, jax.numpy.full(512, response.shape[1]))))
    assert abs(scores.mean()) < 1.0
    assert 0.1 < scores.std() < 3.0


def test_dpo(runs, tmp_path):
    words = ["dpo", "--policy", runs / "sft", *RUN, "--steps", "4", "--batch-size", "8", "--out", tmp_path / "dpo"]
    assert run(*words) == 0
    assert {"accuracy", "margin", "loss"} <= lines(tmp_path / "dpo")[0].keys()
    assert "ptx_loss" not in lines(tmp_path / "dpo")[0]
    assert lines(tmp_path / "dpo")[0]["sequences"] == 2 * 2 * 8


def test_pretraining_text_is_of_the_task_or_of_files(runs, from_file, demonstrations, tmp_path):
    config = read_language("rlhf", ["--policy", str(runs / "sft"), "--ptx-coef", "1", "--size", "32"])
    assert config.texts.mix.response.shape == (32, rlx.lm.TASKS["copy"]().max_response)
    pairs, changed = tmp_path / "pairs.jsonl", tmp_path / "changed.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"{i}", "chosen": "a", "rejected": "b"}) + "\n" for i in range(9)))
    changed.write_text(demonstrations.read_text().replace("5", "6"))
    words = ["--policy", str(from_file), "--data", str(pairs), "--batch-size", "2", "--ptx"]
    of_files, others = (read_language("dpo", [*words, str(file)]) for file in (demonstrations, changed))
    assert {flag: report.good for flag, report in of_files.texts.reports.items()} == {"data": 9, "ptx": 20}
    assert len(of_files.texts.mix.prompt) == 20
    assert others.sha256 != of_files.sha256
    back = LanguageSpec.from_json(of_files.to_json(), tmp_path)
    assert back.ptx == of_files.ptx
    with pytest.raises(ValueError, match="put the old files back"):
        _ = dataclasses.replace(of_files, ptx=others.ptx).texts


@pytest.mark.parametrize("name", ["dapo", "dr_grpo", "gspo", "rloo"])
def test_presets_of_grpo(runs, name):
    flags = ["--policy", str(runs / "sft"), "--preset", name, "--kl-coef", "0.5", "--samples", "3"]
    config = read_language("grpo", flags).config
    expected = rlx.GRPO_PRESETS[name]
    for field in dataclasses.fields(expected):
        if field.name not in ("num_prompts", "samples", "kl_coef", "overlong_buffer"):
            assert getattr(config, field.name) == getattr(expected, field.name), field.name
    assert (config.kl_coef, config.samples) == (0.5, 3)
    assert config.overlong_buffer == (1 if name == "dapo" else 0)  # a tenth of 10 tokens


def test_files(from_file, demonstrations, tmp_path, capsys):
    """18 of 20 are learnt from; what is kept back tells how good it is; other files are not taken for these."""
    value = result(from_file)
    assert "kept back" in value["measure"]
    assert -math.log(300) * 2 < value["mean"] < 0
    spec = language(from_file)
    assert spec.tokens == "bytes"
    assert spec.network.vocabulary == ByteTokenizer.vocabulary
    assert len(spec.texts.train.prompt) == 18
    assert run("eval", from_file, "--show", "1") == 0
    assert re.search(r"'1[89]\+1=' -> '", capsys.readouterr().out)

    moved = shutil.copytree(from_file, tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text())
    config["data"]["data"] = [str(tmp_path / "other.jsonl")]
    (moved / "config.json").write_text(json.dumps(config))
    (tmp_path / "other.jsonl").write_text(demonstrations.read_text().replace("5", "6"))
    assert run("resume", moved) == 2
    assert "not what the run began with" in one_line(capsys)


CASES = {
    "task": (["sft", "cpy"], ["cpy", "did you mean copy", "copy, sort, add"]),
    "two tasks": (["sft", "copy", "sort"], ["one task"]),
    "neither task nor data": (["sft"], ["copy, sort, add", "--data"]),
    "no policy": (["grpo", "copy"], ["--policy RUN", "rlx sft copy"]),
    "policy is nowhere": (["grpo", "copy", "--policy", "nowhere"], ["nowhere", "config.json"]),
    "policy without a value": (["grpo", "copy", "--policy"], ["--policy", "value"]),
    "policy of another vocabulary": (["grpo", "add", "--policy", "SFT"], ["vocabulary", "abcdefgh=", "0123456789+="]),
    "no reward model": (["grpo", "copy", "--policy", "SFT", "--reward", "SFT"], ["no reward model", "a run of sft"]),
    "an ensemble without its amount": (
        ["grpo", "--policy", "SFT", "--reward", "RM", "--ensemble", "uncertainty"],
        ["'uncertainty' needs an amount"],
    ),
    "policy is a reward model": (["rlhf", "--policy", "RM"], ["no policy", "a run of reward-model"]),
    "no such seed": (["grpo", "--policy", "SFT", "--policy-seed", "7"], ["--policy-seed 7", "[0, 1]"]),
    "preset": (["grpo", "--policy", "SFT", "--preset", "dap"], ["dap", "did you mean dapo"]),
    "shape of a policy that is there": (["sft", "copy", "--policy", "SFT", "--width", "8"], ["--width"]),
    "tokenizer of a task": (["sft", "copy", "--tokenizer", "x"], ["--tokenizer", "alphabet of its own"]),
    "batch": (["sft", "copy", "--size", "8", "--batch-size", "9"], ["batch_size=9", "8 records"]),
    "top-k": (["grpo", "--policy", "SFT", "--top-k", "2"], ["top-k", "temperature"]),
    "heads": (["sft", "copy", "--heads", "3", "--kv-heads", "2"], ["heads=3"]),
    "a broken line": (["sft", "--data", "bad.jsonl"], ["bad.jsonl:2:"]),
    "a missing file": (["sft", "--data", "none.jsonl"], ["none.jsonl"]),
    "letters that the task lacks": (["sft", "copy", "--data", "digits.jsonl"], ["digits.jsonl:1:", "'1'"]),
    "a broken line of pretraining": (["rlhf", "--policy", "SFT", "--ptx", "bad.jsonl"], ["bad.jsonl:2:"]),
    "no pretraining": (
        ["dpo", "--policy", "FILE", "--data", "pairs.jsonl", "--ptx-coef", "1"],
        ["ptx_coef=1.0 needs text", "--ptx FILE"],
    ),
    "no reward": (["grpo", "--policy", "FILE", "--data", "digits.jsonl"], ["needs a reward", "--reward RUN"]),
    "flag": (["sft", "copy", "--stps", "1"], ["--stps", "did you mean --steps"]),
    "export": (["export", "SFT"], ["language"]),
}


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("rlx: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, runs, reward_model, from_file, tmp_path, monkeypatch, capsys):
    words, parts = CASES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n')
    (tmp_path / "digits.jsonl").write_text('{"prompt": "1", "completion": "2"}\n' * 3)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "1", "chosen": "2", "rejected": "3"}\n' * 3)
    folders = {"SFT": str(runs / "sft"), "RM": str(reward_model), "FILE": str(from_file)}
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert run(*(folders.get(word, word) for word in words)) == 2
    message = one_line(capsys)
    assert all(part in message for part in parts), message
    assert sorted(tmp_path.rglob("*")) == before


def test_help(capsys):
    with pytest.raises(SystemExit):
        run("grpo", "--help")
    out = capsys.readouterr().out
    assert "--policy" in out
    assert "--clip-high" in out
    assert "--vocabulary" not in out


def test_flags_are_not_ambiguous():
    """Every field of a command's options has a name of its own."""
    from rlx.cli.language_flags import KINDS, flags_of
    from rlx.cli.language_table import ALGORITHMS_OF_TEXT

    for algorithm, entry in ALGORITHMS_OF_TEXT.items():
        kinds = KINDS | {"config": entry.config}
        names = [field.name for name in flags_of(algorithm, None) for field in dataclasses.fields(kinds[name])]
        assert len(names) == len(set(names)), algorithm


def test_unknown_preset_value_is_an_error():
    with pytest.raises(UsageError, match="did you mean rloo"):
        read_language("grpo", ["--preset", "rlo"])
