"""A reward model trained from scratch on real comparisons, cross-validated; beside chance and the length baseline.

    taskset -c 0 python -m benchmarks.reward_model --data hh_harmless_first1800.jsonl.gz

writes benchmarks/results/reward_model_hh.json and reward_model_hh.png, the diagram of reliability. All comparisons of
one prompt are in the same fold. For each fold, a small transformer of bytes learns first to write the other folds'
texts, and then to score their responses, but for an eighth of them, which the temperature is fitted on. Settings are
the last of three that were tried within the training part of seed 0's first fold (at a quarter or half of it held out),
by what they had learned there; no test fold was looked at. The other folds' comparisons were in that training part.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from benchmarks.compare import RESULTS, provenance
from rlx.lm import ByteTokenizer, Comparisons, Sampling, Sequences, folds, load_comparisons, reward_of
from rlx.lm.evaluate_rewards import draw_reliability, evaluate_rewards, pair_temperature
from rlx.lm.sequences import rows
from rlx.nets.transformer import Transformer, TransformerConfig
from rlx.types import Algorithm, Key, PyTree

SETTINGS = {
    "folds": 5,
    "max_prompt": 96,  # bytes, the last ones
    "max_response": 192,  # bytes, the first ones
    "width": 64,
    "layers": 2,
    "heads": 2,
    "pretrain_epochs": 2,
    "epochs": 2,
    "members": 1,
    "batch_size": 16,
    "pretrain_learning_rate": 3e-3,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
}
TOKENIZER = ByteTokenizer()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="JSONL of comparisons, gzip or not")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the picture")
    args = parser.parse_args()
    start = time.process_time()
    data, lines = load(args.data, SETTINGS)
    found = cross_validate(data, jax.random.key(args.seed), SETTINGS)
    chosen, rejected = (jnp.asarray(side.response_length) for side in (data.chosen, data.rejected))
    report = evaluate_rewards(found["chosen"], found["rejected"], chosen, rejected, found["temperature"])
    args.out.mkdir(parents=True, exist_ok=True)
    result = {
        "provenance": provenance("reward_model"),
        "settings": SETTINGS | {"seed": args.seed},
        "data": lines,
        "cpu_seconds": round(time.process_time() - start),
        "chance": 0.5,
        "report": plain(report._asdict()),
        "fold_accuracy": found["fold_accuracy"],
        "fold_temperature": found["fold_temperature"],
    }
    (args.out / "reward_model_hh.json").write_text(json.dumps(result, indent=1) + "\n")
    draw_reliability(args.out / "reward_model_hh.png", report, f"{report.count} comparisons, 5 folds")
    summary = {name: result["report"][name] for name in ("accuracy", "interval", "length_accuracy", "length_interval")}
    print(json.dumps(summary | {"cpu_seconds": result["cpu_seconds"]}))


def load(path: str, settings: dict[str, Any]) -> tuple[Comparisons, dict[str, Any]]:
    """Comparisons, and what became of the file's lines."""
    sizes = settings["max_prompt"], settings["max_response"]
    data, report = load_comparisons(path, TOKENIZER, *sizes, too_long="truncate", on_error="skip")
    counts = {"good": report.good, "truncated": report.truncated, "skipped": report.skipped}
    return data, {"file": Path(path).name} | counts


def cross_validate(data: Comparisons, key: Key, settings: dict[str, Any]) -> dict[str, Any]:
    """Scores of every comparison by the model that learned from the other folds."""
    fold_key, *keys = jax.random.split(key, 1 + settings["folds"])
    fold = folds(data.chosen.prompt, data.chosen.prompt_length, settings["folds"], fold_key)
    chosen, rejected, temperature = np.zeros((3, len(fold)), np.float32)
    accuracy, temperatures = [], []
    for index, key in enumerate(keys):
        began = time.process_time()
        tested = fold == index
        train_rows, held_rows = split(data, np.flatnonzero(~tested), key)
        reward = fit(take(data, train_rows), key, settings)
        chosen[tested], rejected[tested] = scores(reward, take(data, tested))
        found = float(pair_temperature(*scores(reward, take(data, held_rows))))
        temperature[tested] = found
        accuracy.append(float(np.mean(chosen[tested] > rejected[tested])))
        temperatures.append(found)
        seconds = time.process_time() - began
        print(f"fold {index}: accuracy {accuracy[-1]:.3f} temperature {found:.2f} in {seconds:.0f} s", flush=True)
    arrays = {"chosen": chosen, "rejected": rejected, "temperature": temperature}
    return {name: jnp.asarray(x) for name, x in arrays.items()} | {
        "fold_accuracy": accuracy,
        "fold_temperature": temperatures,
    }


def split(data: Comparisons, train: np.ndarray, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and an eighth that is held out of learning; all of one prompt on the same side."""
    part = folds(data.chosen.prompt[train], data.chosen.prompt_length[train], 8, jax.random.fold_in(key, 0))
    return train[part > 0], train[part == 0]


def take(data: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], data)


def fit(data: Comparisons, key: Key, settings: dict[str, Any]) -> Any:
    """Pretrain on the texts, then learn their order: a reward."""
    pretrain_key, key = jax.random.split(jax.random.fold_in(key, 1))
    sizes = {name: settings[name] for name in ("width", "layers", "heads")}
    config = TransformerConfig(TOKENIZER.vocabulary, **sizes)
    trunk = pretrained(config, data, pretrain_key, settings) if settings["pretrain_epochs"] else None
    model, steps = Transformer(config, head="score"), steps_of(len(data.tie), settings["epochs"], settings)
    optimizer = adam(settings["learning_rate"], steps, settings["weight_decay"])
    setup = rlx.RewardModelConfig(settings["batch_size"], settings["members"])
    state = run(rlx.reward_model(model, data, optimizer, setup, trunk), key, steps)
    return jax.jit(reward_of(model, state.learner.params, batch_size=64))


def pretrained(config: TransformerConfig, data: Comparisons, key: Key, settings: dict[str, Any]) -> PyTree:
    """A language model of the prompts and both responses to them."""
    both = jax.tree.map(lambda *sides: np.concatenate(sides), data.chosen, data.rejected)
    texts, length = rows(both), both.prompt_length + both.response_length
    texts = Sequences(texts[:, :1], jnp.ones(len(length), jnp.int32), texts[:, 1:], jnp.asarray(length - 1))
    steps = steps_of(len(length), settings["pretrain_epochs"], settings)
    optimizer = adam(settings["pretrain_learning_rate"], steps, settings["weight_decay"])
    sampling, setup = Sampling(1, TOKENIZER.end), rlx.SFTConfig(settings["batch_size"])
    return run(rlx.sft(Transformer(config), texts, optimizer, sampling, setup), key, steps).learner.params


def steps_of(size: int, epochs: float, settings: dict[str, Any]) -> int:
    return round(size * epochs / settings["batch_size"])


def adam(learning_rate: float, steps: int, weight_decay: float) -> optax.GradientTransformation:
    """AdamW, warmed up over a tenth of the steps, then a cosine down to 0; gradients of norm 1 at most."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(steps // 10, 1), steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=weight_decay))


def run(algorithm: Algorithm, key: Key, steps: int) -> Any:
    """Train from the start; the last state."""
    ((state, metrics),) = rlx.chunks(algorithm, rlx.jit(algorithm.init)(key), steps, every=steps)
    shown = {name: f"{np.mean(metrics[name][-10:]):.3f}" for name in ("loss", "accuracy")}
    print(f"  {steps} steps, at the end {shown}", flush=True)
    return state


def scores(reward: Any, data: Comparisons) -> tuple[jax.Array, jax.Array]:
    return reward(data.chosen), reward(data.rejected)


def plain(value: Any) -> Any:
    """Numbers for JSON, of five digits."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: plain(x) for name, x in value.items()}
    value = np.asarray(value).tolist()
    return jax.tree.map(lambda x: round(x, 5) if isinstance(x, float) else x, value)


if __name__ == "__main__":
    main()
