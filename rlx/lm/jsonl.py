"""Files of text, plain or gzipped, line by line; whatever is wrong with a line is said with its file and number."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Paths = str | Path | Sequence[str | Path]

JSONL = (".jsonl", ".jsonl.gz")
PLAIN = (".txt", ".txt.gz")
BOM = b"\xef\xbb\xbf"
KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}


class DataError(ValueError):
    """What is wrong with a file or with one of its lines, in one line.

    Attributes:
        reason: its kind in a few words, by which bad lines are counted.
    """

    def __init__(self, message: str, reason: str = "unusable file") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Report:
    """What became of the lines that were read; `str()` says it in one line."""

    good: int  # lines that were used
    skipped: dict[str, int]  # bad lines by reason: how many were left out
    first: dict[str, str]  # by reason: the first of them, with its file and line
    truncated: int = 0  # good lines of which the prompt or a response was cut

    def __str__(self) -> str:
        parts = [f"{self.good} good lines"]
        parts += [f"{self.truncated} of them truncated"] * (self.truncated > 0)
        parts += [f"skipped {count}: {reason} (first: {self.first[reason]})" for reason, count in self.skipped.items()]
        return "; ".join(parts)


def find_files(paths: Paths, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that are meant, in order; a folder stands for those in it that end in `suffixes`, by name.

    Raises:
        DataError: a path is not there, or nothing in a folder is of that kind.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    files = []
    for path in given:
        if not path.exists():
            raise DataError(f"{path} is not there")
        inside = sorted(file for file in path.glob("*") if file.name.endswith(suffixes)) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no {' or '.join(suffixes)} file")
        files += inside
    if not files:
        raise DataError("no files were given")
    return files


def scan(
    files: Sequence[Path], parse: Callable[[Path, bytes], Item], skips: Callable[[str], bool]
) -> tuple[list[Item], Report]:
    """Parse every line of some files.

    A JSONL line of nothing but white space holds no record and is passed over, wherever it stands.

    Args:
        files: as `find_files` gives them.
        parse: `(file, line) -> item`; a DataError of its own names neither file nor line.
        skips: whether a bad line of this reason is left out and counted; otherwise it is raised.

    Returns:
        The items of the good lines, in order, and what became of the others.

    Raises:
        DataError: `path:line: what is wrong`; or a file is empty, or no line is good.
    """
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    first: dict[str, str] = {}
    for path in files:
        before = len(items) + skipped.total()
        for number, line in enumerate(read_lines(path), 1):
            try:
                if isinstance(line, DataError):
                    raise line
                if line.strip() or is_plain(path):
                    items.append(parse(path, line.removeprefix(BOM) if number == 1 else line))
            except DataError as error:
                message = f"{path}:{number}: {error}"
                if not skips(error.reason):
                    raise DataError(message, error.reason) from None
                skipped[error.reason] += 1
                first.setdefault(error.reason, message)
        if len(items) + skipped.total() == before:
            raise DataError(f"{path} is empty")
    report = Report(len(items), dict(skipped), first)
    if not items:
        raise DataError(f"{', '.join(map(str, files))}: no line is good: {report}")
    return items, report


def read_lines(path: Path) -> Iterator[bytes | DataError]:
    """Lines with their ends, unzipped where the content (not the name) is gzip; damage comes as the last one."""
    try:
        with path.open("rb") as file:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            yield from gzip.GzipFile(fileobj=file) if zipped else file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield DataError(f"the gzip stream is damaged, and the rest of the file lost: {error}", "damaged gzip")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def is_plain(path: Path) -> bool:
    """Whether a file is one long text rather than JSON lines, by its name."""
    return path.name.endswith(PLAIN)


def decode(line: bytes) -> str:
    """UTF-8 as text."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: byte 0x{line[error.start]:02x} at {error.start + 1}", "not UTF-8") from None


def parse_record(line: bytes) -> dict[str, Any]:
    """A JSON object."""
    text = decode(line).rstrip()
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"broken JSON: {error.msg}, at character {error.pos + 1}", "broken JSON") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise DataError(f"broken JSON: {error}", "broken JSON") from None
    if not isinstance(record, dict):
        raise DataError(f"must be an object, not {kind(record)}", "not an object")
    return record


def get(record: dict[str, Any], key: str) -> Any:
    """The value of a key that must be there."""
    if key not in record:
        keys = [name if name.isprintable() else ascii(name) for name in list(record)[:9]]
        listed = ", ".join(name[:40] for name in keys) or "none"
        raise DataError(f'"{key}" is missing (keys: {listed})', "missing key")
    return record[key]


def get_text(record: dict[str, Any], key: str) -> str:
    """A string that is more than white space."""
    return checked_text(get(record, key), key)


def get_texts(record: dict[str, Any], key: str) -> list[str]:
    """A list of two or more such strings."""
    values = get(record, key)
    if not isinstance(values, list):
        raise DataError(f'"{key}" must be a list of strings, not {kind(values)}', "wrong type")
    if len(values) < 2:
        raise DataError(f'"{key}" must hold two strings or more, not {len(values)}', "too few responses")
    return [checked_text(value, f"{key}[{i}]") for i, value in enumerate(values)]


def checked_text(value: Any, name: str) -> str:
    """A string that is more than white space."""
    if not isinstance(value, str):
        raise DataError(f'"{name}" must be a string, not {kind(value)}', "wrong type")
    if not value.strip():
        raise DataError(f'"{name}" is empty', "empty text")
    return value


def get_margin(record: dict[str, Any]) -> float:
    """`margin`: a finite number from 0 up; 0 where it is absent."""
    margin = record.get("margin", 0)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < 1e38:
        shown = margin if isinstance(margin, float) else kind(margin)
        raise DataError(f'"margin" must be a finite number, 0 or more, not {shown}', "wrong type")
    return float(margin)


def get_tie(record: dict[str, Any]) -> bool:
    """`tie`: true or false; false where it is absent."""
    tie = record.get("tie", False)
    if not isinstance(tie, bool):
        raise DataError(f'"tie" must be true or false, not {kind(tie)}', "wrong type")
    return tie


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    return KINDS.get(type(value), "a number")
