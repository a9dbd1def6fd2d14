"""Records of JSONL files as rows of token ids: what each kind says, encoded, made to fit and padded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rlx.lm.jsonl import (
    JSONL,
    DataError,
    Paths,
    Report,
    find_files,
    get_margin,
    get_text,
    get_texts,
    get_tie,
    parse_record,
    scan,
)
from rlx.lm.tokenizer import Tokenizer, TokenizerError

TURN = "\n\nAssistant:"  # in HH-RLHF's dialogues: what follows was said by the model
TOO_LONG = "too long"

OnError = Literal["raise", "skip"]
TooLong = Literal["error", "skip", "truncate"]


class Texts(NamedTuple):
    """What a record says, as text."""

    prompt: str | None  # None: a text without one
    responses: dict[str, str]  # by the name that a message gives them
    margin: float = 0.0
    tie: bool = False


class Row(NamedTuple):
    """The same as token ids."""

    prompt: np.ndarray  # int32
    responses: list[np.ndarray]
    margin: float
    tie: bool
    truncated: bool


def load_rows(
    paths: Paths,
    read: Callable[[dict[str, Any]], Texts],
    tokenizer: Tokenizer,
    max_prompt: int,
    max_response: int,
    too_long: TooLong,
    on_error: OnError,
) -> tuple[list[Row], Report]:
    """Records as token ids, and what became of the lines."""
    check(too_long, on_error, max_prompt, max_response)

    def parse(_: Path, line: bytes) -> Row:
        return to_row(read(parse_record(line)), tokenizer, max_prompt, max_response, too_long == "truncate")

    def skips(reason: str) -> bool:
        return on_error == "skip" or (too_long == "skip" and reason == TOO_LONG)

    rows, report = scan(find_files(paths, JSONL), parse, skips)
    return rows, dataclasses.replace(report, truncated=sum(row.truncated for row in rows))


def check(too_long: str, on_error: str, *limits: int) -> None:
    """Raise a ValueError for arguments that mean nothing."""
    if too_long not in ("error", "skip", "truncate"):
        raise ValueError(f"too_long={too_long!r} must be error, skip or truncate")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} must be raise or skip")
    if any(limit < 1 for limit in limits):
        raise ValueError(f"max_prompt and max_response must be 1 or more, not {' and '.join(map(str, limits))}")


def demonstration(record: dict[str, Any]) -> Texts:
    """`{"prompt", "completion"}` or `{"text"}`."""
    if "text" in record and "prompt" not in record:
        return Texts(None, {"text": get_text(record, "text")})
    return Texts(get_text(record, "prompt"), {"completion": get_text(record, "completion")})


def comparison(record: dict[str, Any]) -> Texts:
    """`{"prompt", "chosen", "rejected"}` or HH-RLHF's `{"chosen", "rejected"}`."""
    chosen, rejected = get_text(record, "chosen"), get_text(record, "rejected")
    margin, tie = get_margin(record), get_tie(record)
    if "prompt" in record:
        return Texts(get_text(record, "prompt"), {"chosen": chosen, "rejected": rejected}, margin, tie)
    shared = shared_prompt(chosen, rejected)
    responses = {"chosen": chosen[shared:], "rejected": rejected[shared:]}
    for name, response in responses.items():
        if not response.strip():
            raise DataError(f'"{name}" has an empty response', "empty text")
    return Texts(chosen[:shared], responses, margin, tie)


def ranking(record: dict[str, Any]) -> Texts:
    """`{"prompt", "responses"}`."""
    responses = get_texts(record, "responses")
    return Texts(get_text(record, "prompt"), {f"responses[{i}]": text for i, text in enumerate(responses)})


def prompt_alone(record: dict[str, Any]) -> Texts:
    """The prompt of a record of any kind."""
    if "prompt" not in record and "chosen" in record:
        chosen, rejected = get_text(record, "chosen"), get_text(record, "rejected")
        return Texts(chosen[: shared_prompt(chosen, rejected)], {})
    return Texts(get_text(record, "prompt"), {})


def shared_prompt(chosen: str, rejected: str) -> int:
    """How long the beginning is that two dialogues share, up to and with the last TURN of it."""
    end = 0
    while (found := chosen.find(TURN, end)) >= 0:
        after = found + len(TURN)
        if chosen[end:after] != rejected[end:after]:
            break
        end = after
    if not end:
        raise DataError(
            f'no "prompt", and "chosen" and "rejected" share no beginning with {json.dumps(TURN)}', "no shared prompt"
        )
    return end


def to_row(texts: Texts, tokenizer: Tokenizer, max_prompt: int, max_response: int, truncate: bool) -> Row:
    """Encode a record, and make it fit or say that it does not."""
    prompt = [tokenizer.begin] + ([] if texts.prompt is None else encode(tokenizer, texts.prompt, "prompt"))
    responses = {name: encode_response(tokenizer, text, name) for name, text in texts.responses.items()}
    sizes = {"prompt": (len(prompt), max_prompt)} | {name: (len(r), max_response) for name, r in responses.items()}
    over = [f'"{name}" has {size} tokens, more than {limit}' for name, (size, limit) in sizes.items() if size > limit]
    if over and not truncate:
        raise DataError(over[0], TOO_LONG)
    del prompt[1 : 1 + max(len(prompt) - max_prompt, 0)]
    responses = {name: np.array(ids[:max_response], np.int32) for name, ids in responses.items()}
    if not texts.tie:
        require_different(responses, bool(over))
    return Row(np.array(prompt, np.int32), list(responses.values()), texts.margin, texts.tie, bool(over))


def require_different(responses: dict[str, np.ndarray], truncated: bool) -> None:
    """No preference between two of the same can be learned."""
    names: dict[bytes, str] = {}
    for name, ids in responses.items():
        if (other := names.setdefault(ids.tobytes(), name)) != name:
            when = " once truncated" if truncated else ""
            raise DataError(f'"{other}" and "{name}" are the same{when}', "same responses")


def encode(tokenizer: Tokenizer, text: str, name: str) -> list[int]:
    """Token ids of a text, one at least."""
    try:
        ids = tokenizer.encode(text)
    except TokenizerError as error:
        raise DataError(f'"{name}" cannot be encoded: {error}', "cannot be encoded") from None
    if not ids:
        raise DataError(f'"{name}" has no tokens', "empty text")
    return ids


def encode_response(tokenizer: Tokenizer, text: str, name: str) -> list[int]:
    """Token ids of a response and `end`, which only its end may be."""
    ids = encode(tokenizer, text, name)
    if tokenizer.end in ids:
        raise DataError(f'"{name}" holds the end-of-text token, which is added by itself', "end inside a response")
    return [*ids, tokenizer.end]


def pad(rows: list[np.ndarray]) -> tuple[Any, Any]:
    """Rows as one array `[B, longest]`, padded with 0 on the right, and their lengths `[B]`; both int32."""
    length = np.array([len(row) for row in rows], np.int32)
    padded = np.zeros((len(rows), length.max()), np.int32)
    padded[np.arange(length.max()) < length[:, None]] = np.concatenate(rows)
    return padded, length
