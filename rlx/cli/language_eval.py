"""`rlx eval` of a run of language."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.cli.language import LanguageSpec
from rlx.cli.metrics import failed_seeds, read_rows
from rlx.cli.parsing import UsageError
from rlx.cli.report import describe, statistics
from rlx.cli.texts import answered
from rlx.cli.train import evaluate_group, evaluation_keys, make_group, restore, state_of, warn
from rlx.core.train import jit
from rlx.lm.tokenizer import Tokenizer
from rlx.types import PyTree


@dataclass(frozen=True)
class TextEvalOptions:
    """How to evaluate a run of language."""

    prompts: int = 512  # prompts per seed, a response each; of a reward model: comparisons
    greedy: bool = False  # take the most probable token each time; default: sample
    seed: int = 0  # of the prompts and the sampling
    show: int = 5  # so many prompts and responses as text


def evaluate_language(spec: LanguageSpec, folder: Path, options: TextEvalOptions) -> None:
    """Print what the last checkpoint is worth, with its interval, and a few samples."""
    group = make_group(spec, spec.seeds)
    texts = spec.texts
    restored = restore(group, folder / "checkpoints", warn)
    if restored is None:
        raise UsageError(f"{folder} has no checkpoint yet: nothing to evaluate")
    rows = evaluate_group(group, restored[1], texts, options.prompts, options.greedy, options.seed)
    failed, means, shown = failed_seeds(read_rows(folder / "metrics.jsonl")), [], None
    for index, (seed, row) in enumerate(zip(spec.seeds, rows, strict=True)):
        if seed in failed:
            print(failed[seed])
            continue
        error = 1.96 * row.std(ddof=1) / np.sqrt(len(row)) if len(row) > 1 else np.nan
        low, high = row.mean() - error, row.mean() + error
        print(f"seed {seed}: {row.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}, std {row.std():.3f}")
        means.append(float(row.mean()))
        shown = index if shown is None else shown
    policy = spec.algorithm != "reward-model"
    how = (", greedy" if options.greedy else ", sampled") if policy else ""
    print(f"{spec.place}, {texts.measured}{how}, {rows.shape[1]} a seed: {describe(statistics(means), spec.digits)}")
    if policy and shown is not None and options.show:
        state = state_of(group, restored[1], shown)
        for line in sample_lines(spec, state, group.algorithm, options, spec.seeds[shown]):
            print(line)


def sample_lines(spec: LanguageSpec, state: PyTree, algorithm: Any, options: TextEvalOptions, seed: int) -> list[str]:
    """A few prompts, responses and rewards as text."""
    texts = spec.texts

    @jit
    def draw(state: PyTree, key: Any) -> Any:
        prompt_key, sample_key = jax.random.split(key)
        prompts = texts.prompts(prompt_key, options.show)
        drawn = algorithm.act(state, None if options.greedy else sample_key, prompts)
        sequences = answered(prompts, drawn, spec.sampling.end)
        return sequences, texts.reward(sequences) if texts.reward else None

    sequences, rewards = jax.tree.map(np.asarray, draw(state, evaluation_keys([seed], options.seed)[0]))
    lines = []
    for index in range(len(sequences.prompt_length)):
        prompt = decode(texts.tokenizer, sequences.prompt[index], sequences.prompt_length[index])
        response = decode(texts.tokenizer, sequences.response[index], sequences.response_length[index])
        judged = f"  reward {rewards[index]:.2f}" if rewards is not None else ""
        cut = "" if sequences.ended(spec.sampling.end)[index] else " (cut off)"
        lines.append(f"  {prompt!r} -> {response!r}{cut}{judged}")
    return lines


def decode(tokenizer: Tokenizer, tokens: np.ndarray, length: Any) -> str:
    """The text of a padded row."""
    return tokenizer.decode(tokens[: int(length)].tolist())
