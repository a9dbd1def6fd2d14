"""Demonstrations, comparisons and rankings, from files to arrays of token ids.

Axes: B records, P prompt, T response tokens, K ranked responses. Prompt and response are encoded
apart and never joined as text, so that no token spans both. Every prompt begins with the tokenizer's `begin`, every
response ends with its `end` unless it was cut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from rlx.lm.jsonl import DataError, Paths, Report
from rlx.lm.records import (
    OnError,
    Row,
    TooLong,
    comparison,
    demonstration,
    load_rows,
    pad,
    prompt_alone,
    ranking,
)
from rlx.lm.sequences import Prompts, Sequences
from rlx.lm.tokenizer import Tokenizer
from rlx.types import Key


class Comparisons(NamedTuple):
    """B prompts with two responses each, of which people (or a program) preferred one."""

    chosen: Sequences
    rejected: Sequences  # the same prompts, responses of the same width T
    margin: jax.Array  # [B] float32, 0 or more: by how much the chosen one is better; 0 where that is not known
    tie: jax.Array  # [B] bool: neither was preferred, and which is called chosen means nothing


class Rankings(NamedTuple):
    """B prompts with up to K responses each, best first."""

    prompt: jax.Array  # [B, P] int32
    prompt_length: jax.Array  # [B] int32
    response: jax.Array  # [B, K, T] int32
    response_length: jax.Array  # [B, K] int32, 0 beyond `count`
    count: jax.Array  # [B] int32, 2 to K: how many responses were ranked


def load_demonstrations(
    paths: Paths,
    tokenizer: Tokenizer,
    max_prompt: int,
    max_response: int,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
) -> tuple[Sequences, Report]:
    """Read texts to imitate: JSONL of `{"prompt", "completion"}`, or of `{"text"}`, whose prompt is `begin` alone.

    Other keys of a record are not looked at. A byte-order mark and CRLF line ends are fine; a line of white space
    alone is no record; gzip is known by its content. A text of nothing but white space is empty.

    Args:
        paths: a file, a folder (its .jsonl and .jsonl.gz files by name), or a list of either.
        tokenizer: its `begin` and `end` are added here; a response that holds `end` already is an error.
        max_prompt: tokens of a prompt at most, `begin` included.
        max_response: tokens of a response at most, `end` included.
        too_long: what becomes of a longer one. "error": the line is bad; "skip": it is left out and counted;
            "truncate": of a prompt `begin` and the last tokens stay, of a response the first ones, without `end`; the
            report counts these records.
        on_error: "raise": the first bad line is an error; "skip": bad lines are left out and counted by reason.

    Returns:
        Arrays, as wide as the longest prompt and the longest response, and what became of the lines.

    Raises:
        DataError: `path:line: what is wrong`; whatever `on_error` is: a file is missing or empty, or no line is good.
    """
    rows, report = load_rows(paths, demonstration, tokenizer, max_prompt, max_response, too_long, on_error)
    return Sequences(*pad_prompts(rows), *pad([row.responses[0] for row in rows])), report


def load_comparisons(
    paths: Paths,
    tokenizer: Tokenizer,
    max_prompt: int,
    max_response: int,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
) -> tuple[Comparisons, Report]:
    """Read preferences: JSONL of `{"prompt", "chosen", "rejected"}`, or of HH-RLHF's `{"chosen", "rejected"}`.

    HH-RLHF's two are whole dialogues: the prompt is what they share, up to and with the last "\\n\\nAssistant:" of it.
    Either kind may have `"margin"` (a number from 0 up) and `"tie"` (true: neither was preferred). Two responses that
    are the same tokens, be it after truncation, are an error unless they tie.

    Args and errors: as in `load_demonstrations`.

    Returns:
        Both responses in arrays of one width, and what became of the lines.
    """
    rows, report = load_rows(paths, comparison, tokenizer, max_prompt, max_response, too_long, on_error)
    prompts = pad_prompts(rows)
    response, length = pad([row.responses[side] for side in (0, 1) for row in rows])
    chosen = Sequences(*prompts, response[: len(rows)], length[: len(rows)])
    rejected = Sequences(*prompts, response[len(rows) :], length[len(rows) :])
    margin: Any = np.array([row.margin for row in rows], np.float32)
    tie: Any = np.array([row.tie for row in rows])
    return Comparisons(chosen, rejected, margin, tie), report


def load_rankings(
    paths: Paths,
    tokenizer: Tokenizer,
    max_prompt: int,
    max_response: int,
    too_long: TooLong = "error",
    on_error: OnError = "raise",
) -> tuple[Rankings, Report]:
    """Read ranked lists: JSONL of `{"prompt", "responses": [best, ..., worst]}`, two or more, no two the same.

    Args and errors: as in `load_demonstrations`.

    Returns:
        Arrays with room for the longest list, and what became of the lines.
    """
    rows, report = load_rows(paths, ranking, tokenizer, max_prompt, max_response, too_long, on_error)
    count: Any = np.array([len(row.responses) for row in rows], np.int32)
    most, nothing = count.max(), np.zeros(0, np.int32)
    response, length = pad([r for row in rows for r in row.responses + [nothing] * (most - len(row.responses))])
    shape = (len(rows), most)
    return Rankings(*pad_prompts(rows), response.reshape(*shape, -1), length.reshape(shape), count), report


def load_prompts(
    paths: Paths, tokenizer: Tokenizer, max_prompt: int, too_long: TooLong = "error", on_error: OnError = "raise"
) -> tuple[Prompts, Report]:
    """Read prompts to be answered: the `"prompt"` of JSONL of any kind, or what HH-RLHF's two dialogues share.

    Args and errors: as in `load_demonstrations`.

    Returns:
        The prompts, `[B, P]` and `[B]`, and what became of the lines.
    """
    rows, report = load_rows(paths, prompt_alone, tokenizer, max_prompt, 1, too_long, on_error)
    return Prompts(*pad_prompts(rows)), report


def folds(prompt: jax.Array, prompt_length: jax.Array, k: int, key: Key) -> np.ndarray:
    """Deal records into k parts of about the same size, all records of one prompt into the same.

    Args:
        prompt: `[B, P]`.
        prompt_length: `[B]`.
        k: how many parts, 2 or more.
        key: by which prompts are dealt.

    Returns:
        `[B]` int32, the part of each record: part i is tested where `folds == i`, trained on where it is not.

    Raises:
        DataError: there are fewer than k different prompts.
    """
    rows = zip(np.asarray(prompt), np.asarray(prompt_length), strict=True)
    names: dict[bytes, int] = {}
    group = np.array([names.setdefault(row[:length].tobytes(), len(names)) for row, length in rows])
    size = np.bincount(group)
    if not 2 <= k <= len(size):
        raise DataError(f"k={k} parts of {len(size)} different prompts: must be 2 to as many as there are")
    order = np.asarray(jax.random.permutation(key, len(size)))
    part, filled = np.zeros(len(size), np.int32), np.zeros(k, np.int64)
    for i in order[np.argsort(-size[order], kind="stable")]:  # large ones first, each into the emptiest part
        part[i] = np.argmin(filled)
        filled[part[i]] += size[i]
    return part[group]


def pad_prompts(rows: list[Row]) -> tuple[Any, Any]:
    """Prompts as an array, and their lengths."""
    return pad([row.prompt for row in rows])
