"""What a run of language learns from, and how what it learned is measured.

Axes: N records, E of an evaluation, T tokens of a response, M members of an ensemble, S seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.cli.options import DataOptions
from rlx.core.train import jit
from rlx.lm.data import load_comparisons, load_demonstrations, load_prompts
from rlx.lm.jsonl import PLAIN, DataError, Report
from rlx.lm.pairs import pair_log_probs
from rlx.lm.sequences import Prompts, Sampling, Sequences, response_logits, token_log_probs
from rlx.lm.tasks import TASKS, Task
from rlx.lm.text import load_text, windows
from rlx.lm.tokenizer import ByteTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer
from rlx.ops.sequences import masked_mean
from rlx.types import Algorithm, Key, PyTree

Reward = Callable[[Sequences], jax.Array]
Measure = Callable[[Algorithm, PyTree, Key, int, bool], jax.Array]


class Texts(NamedTuple):
    """What a run of language is about: in the place of an environment.

    Attributes:
        tokenizer: of all its texts.
        train: `[N]` records to learn from: sequences, comparisons or prompts.
        mix: sequences whose loss is mixed in; None: there are none.
        prompts: `(key, num) -> prompts`, apart from those: fresh ones of the task, or of the records kept back.
        measure: `(algorithm, state, key, num, greedy) -> [E]`, what the final evaluation takes the mean of.
        measured: that in words.
        reward: what judges responses, for `rlx eval` to show; None: nothing does.
        more: from the final state, what else result.json says.
        reports: what became of the lines of files, by the flag that named them.
    """

    tokenizer: Tokenizer
    train: Any
    mix: Sequences | None
    prompts: Callable[[Key, int], Prompts]
    measure: Measure
    measured: str
    reward: Reward | None
    more: Callable[[PyTree], dict[str, Any]]
    reports: dict[str, Report]


class Records(NamedTuple):
    """Records of one kind.

    Attributes:
        train: `[N]`, to learn from.
        fresh: `(key, num) -> [num]`, or fewer, where files hold no more: to measure by.
        report: what became of the lines of files; None: the task made the records.
    """

    train: Any
    fresh: Callable[[Key, int], Any]
    report: Report | None


def tokenizer_named(name: str) -> Tokenizer:
    """The tokenizer of a task, "bytes", or a file's."""
    if name in TASKS:
        return TASKS[name]().tokenizer
    return ByteTokenizer() if name == "bytes" else load_tokenizer(name)


def same_tokens(one: str, other: str) -> bool:
    """Whether two such names mean the same ids."""
    first, second = (tokenizer_named(name) if name in TASKS else None for name in (one, other))
    if isinstance(first, CharacterTokenizer) and isinstance(second, CharacterTokenizer):
        return first.characters == second.characters
    return one == other


def task_records(kind: str, task: Task, options: DataOptions) -> Records:
    """Records that a task makes: demonstrations, comparisons or prompts."""

    def make(key: Key, num: int) -> Any:
        if kind == "comparisons":
            return task.comparisons(key, num, options.preference_scale)
        return task.demonstrations(key, num) if kind == "demonstrations" else Prompts(*task.prompts(key, num))

    key = jax.random.key(options.data_seed)
    return Records(jit(make, once=True, static_argnums=1)(key, options.size), make, None)


def file_records(kind: str, options: DataOptions, tokenizer: Tokenizer, max_tokens: int, split: bool) -> Records:
    """Records of files; where they are split, the last ones are kept back.

    Raises:
        DataError: what is wrong with which line.
    """
    found, report = read_files(kind, options, tokenizer, max_tokens)
    number = len(jax.tree.leaves(found)[0])
    if split and number < 2:
        raise DataError("there is 1 record: it takes 2 or more, as some are kept back for evaluation")
    kept = min(max(1, round(options.held_out * number)), number - 1) if split else 0
    train, held = (jax.tree.map(lambda x, part=part: x[part], found) for part in parts(number, kept))

    def fresh(key: Key, num: int) -> Any:
        size = len(jax.tree.leaves(held)[0])
        rows = jnp.arange(size) if num >= size else jax.random.permutation(key, size)[:num]
        return jax.tree.map(lambda x: jnp.asarray(x)[rows], held)

    return Records(train, fresh, report)


def parts(number: int, kept: int) -> tuple[slice, slice]:
    """Where the records to learn from are, and those kept back; where none are, all stand for them."""
    return slice(number - kept), slice(number - kept, number) if kept else slice(number)


def read_files(kind: str, options: DataOptions, tokenizer: Tokenizer, max_tokens: int) -> tuple[Any, Report]:
    """Read all records of a kind."""
    files, bad = options.data, options.on_error
    if kind == "prompts":
        return load_prompts(files, tokenizer, options.max_prompt, options.too_long, bad)
    if kind == "comparisons":
        return load_comparisons(files, tokenizer, options.max_prompt, max_tokens, options.too_long, bad)
    if any(file.name.endswith(PLAIN) for file in files):
        stream, report = load_text(files, tokenizer, bad)
        return windows(stream, max_tokens), report
    return load_demonstrations(files, tokenizer, options.max_prompt, max_tokens, options.too_long, bad)


def fingerprint(records: Any) -> str:
    """SHA-256 of all arrays of some records."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(records):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def answered(prompts: Prompts, response: jax.Array, end: int) -> Sequences:
    """Prompts with responses `[E, T]` as `act` gives them, which end with their first `end`."""
    is_end = response == end
    length = jnp.where(jnp.any(is_end, axis=1), jnp.argmax(is_end, axis=1) + 1, response.shape[1])
    return Sequences(*prompts, response, length.astype(jnp.int32))


def by_reward(reward: Reward, prompts: Callable[[Key, int], Prompts], sampling: Sampling) -> Measure:
    """Rewards `[E]` of a policy's responses, one to each prompt."""

    def measure(algorithm: Algorithm, state: PyTree, key: Key, num: int, greedy: bool) -> jax.Array:
        prompt_key, sample_key = jax.random.split(key)
        chosen = prompts(prompt_key, num)
        response = algorithm.act(state, None if greedy else sample_key, chosen)
        return reward(answered(chosen, response, sampling.end))

    return measure


def by_likelihood(model: Any, fresh: Callable[[Key, int], Sequences]) -> Measure:
    """Mean log-probability of a token `[E]` of responses that were kept back, nats."""

    def measure(_: Algorithm, state: PyTree, key: Key, num: int, greedy: bool) -> jax.Array:
        sequences = fresh(key, num)
        log_prob = token_log_probs(response_logits(model, state.learner.params, sequences), sequences)
        return masked_mean(log_prob, sequences.mask, axis=1)

    return measure


def by_scores(fresh: Callable[[Key, int], Any]) -> Measure:
    """Whether a reward model scores the preferred response higher `[E]`; ties are drawn past where there are others."""

    def measure(algorithm: Algorithm, state: PyTree, key: Key, num: int, greedy: bool) -> jax.Array:
        pairs = decided(fresh(key, 2 * num), num)
        difference = algorithm.act(state, None, pairs.chosen) - algorithm.act(state, None, pairs.rejected)
        return jnp.heaviside(difference, 0.5)

    return measure


def by_log_ratios(model: Any, ref_params: PyTree, fresh: Callable[[Key, int], Any]) -> Measure:
    """Whether a policy made the preferred response more probable than the other `[E]`, as against its reference."""

    def measure(_: Algorithm, state: PyTree, key: Key, num: int, greedy: bool) -> jax.Array:
        pairs = decided(fresh(key, 2 * num), num)
        after, before = (pair_log_probs(model, params, pairs) for params in (state.learner.params, ref_params))
        return jnp.heaviside(after[0] - before[0] - after[1] + before[1], 0.5)

    return measure


def decided(comparisons: Any, num: int) -> Any:
    """The first comparisons that are no ties, `num` of them at most; after them, ties."""
    rows = jnp.argsort(jnp.asarray(comparisons.tie), stable=True)[:num]
    return jax.tree.map(lambda x: jnp.asarray(x)[rows], comparisons)


def prompts_of(records: Any) -> Prompts:
    """The prompts of records of any kind."""
    if isinstance(records, Prompts):
        return records
    sequences = records.chosen if hasattr(records, "chosen") else records
    return Prompts(sequences.prompt, sequences.prompt_length)


def file_stem(files: tuple[Path, ...]) -> str:
    """What to call a run that is about files."""
    return files[0].name.split(".")[0] or "data" if files else "text"
