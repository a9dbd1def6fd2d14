"""From the words of a command line, and from config.json, to dataclasses; a mistake becomes one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlx.cli.options import Spec
from rlx.envs.host import unknown


class UsageError(Exception):
    """A mistake of the user's; its text is the one line they see."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn what goes wrong when the user's words are built into one line."""
    try:
        yield
    except (ValueError, ImportError, gym.error.Error) as error:
        raise UsageError(" ".join(str(error).split())) from error


def one_folder(argv: list[str], usage: str) -> tuple[Path, list[str]]:
    """Take the run folder off the front of the arguments."""
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"say which run: {usage}")
    return Path(argv[0]), argv[1:]


def leading_words(argv: list[str]) -> tuple[list[str], list[str]]:
    """Take the words before the first flag off the front of the arguments."""
    first = next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))
    return argv[:first], argv[first:]


def read_spec(folder: Path) -> Spec:
    """Read a run's config.json."""
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder} is no run folder: it has no config.json")
    try:
        return Spec.from_json(json.loads(file.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is broken: {error!r}") from error


def parse(defaults: dict[str, Any], argv: list[str], program: str) -> dict[str, Any]:
    """Read flags into dataclasses, whose fields and comments they are."""
    import tyro

    fields = [(name, type(value), dataclasses.field(default=value)) for name, value in defaults.items()]
    flags = dataclasses.make_dataclass("Flags", fields, frozen=True)
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            parsed, extra = tyro.cli(
                flags, prog=program, args=argv, return_unknown_args=True, config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as error:
        if error.code == 0:  # --help
            raise
        lines = [line.strip("│ ") for line in output.getvalue().splitlines()]
        text = " ".join(lines[1 : next((i for i, line in enumerate(lines) if i and set(line) <= {"─"}), len(lines))])
        raise UsageError(text) from error
    if extra:
        known = [
            "--" + field.name.replace("_", "-") for value in defaults.values() for field in dataclasses.fields(value)
        ]
        raise UsageError(unknown("flag", extra[0], known) + f" (`{program} --help` lists them)")
    return {name: getattr(parsed, name) for name in defaults}
