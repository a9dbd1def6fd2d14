"""Plain text to pretrain on: files to one stream of token ids, and the stream to rows. N tokens."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from rlx.lm.jsonl import (
    JSONL,
    PLAIN,
    DataError,
    Paths,
    Report,
    decode,
    find_files,
    get_text,
    is_plain,
    parse_record,
    scan,
)
from rlx.lm.records import OnError, check, encode
from rlx.lm.sequences import Sequences
from rlx.lm.tokenizer import Tokenizer, TokenizerError

BLOCK = 10_000  # lines of a .txt file that are encoded at once


def load_text(paths: Paths, tokenizer: Tokenizer, on_error: OnError = "raise") -> tuple[np.ndarray, Report]:
    """Read text to pretrain on, as one stream of tokens: .txt files, each one text, and JSONL of `{"text"}`.

    Each text begins with `begin` and ends with `end`. A .txt file is taken as it is, line ends and all; it is encoded
    in blocks of 10,000 lines. Where bad lines are skipped, a line of it that is not UTF-8 is left out.

    Args and errors: as in `load_demonstrations`; a folder stands for its .txt, .txt.gz, .jsonl and .jsonl.gz files.

    Returns:
        `[N]` int32, for `windows`, and what became of the lines.
    """
    check(too_long="error", on_error=on_error)
    files = find_files(paths, PLAIN + JSONL)
    lines, report = scan(files, text_line, lambda _: on_error == "skip")
    try:
        return stream(lines, tokenizer), report
    except TokenizerError:  # once more, slowly, to learn which lines

        def parse(path: Path, line: bytes) -> tuple[Path, str]:
            path, text = text_line(path, line)
            encode(tokenizer, text, "text")
            return path, text

        lines, report = scan(files, parse, lambda _: on_error == "skip")
        return stream(lines, tokenizer), report


def windows(tokens: np.ndarray, length: int) -> Sequences:
    """Cut a stream of tokens into rows to pretrain on: of each, the first token is the prompt, the rest the response.

    A row begins with the token that the row before ended with, so that every token but the first is predicted once.
    Fewer than `length` tokens are left over at the end, and left out.

    Args:
        tokens: `[N]` int32, as `load_text` gives them.
        length: tokens to predict in a row.

    Returns:
        `(N - 1) // length` rows, P = 1, T = `length`.

    Raises:
        DataError: they do not fill one row.
    """
    num = (len(tokens) - 1) // length
    if num < 1:
        raise DataError(f"a text of {len(tokens)} tokens does not fill one window of {length} + 1")
    starts = np.arange(num)[:, None] * length
    prompt: Any = tokens[starts]
    response: Any = tokens[starts + np.arange(1, length + 1)]
    ones: Any = np.ones(num, np.int32)
    return Sequences(prompt, ones, response, ones * length)


def text_line(path: Path, line: bytes) -> tuple[Path, str]:
    """A line of a plain text, or the text of a record; with its file."""
    return path, decode(line) if is_plain(path) else get_text(parse_record(line), "text")


def stream(lines: list[tuple[Path, str]], tokenizer: Tokenizer) -> np.ndarray:
    """All texts one after the other, `[N]`, each between `begin` and `end`."""
    parts = []
    for path, group in itertools.groupby(lines, key=lambda line: line[0]):
        texts = [text for _, text in group]
        if is_plain(path):
            if not any(text.strip() for text in texts):
                raise DataError(f"{path} is empty")
            documents = [["".join(texts[i : i + BLOCK]) for i in range(0, len(texts), BLOCK)]]
        else:
            documents = [[text] for text in texts]
        for pieces in documents:
            ids = [np.array(tokenizer.encode(piece), np.int32) for piece in pieces]
            parts += [np.array([tokenizer.begin], np.int32), *ids, np.array([tokenizer.end], np.int32)]
    return np.concatenate(parts)
