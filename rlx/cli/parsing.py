"""From the words of a command line, and from config.json, to dataclasses; a mistake becomes one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlx.cli.language import LanguageSpec, Run
from rlx.cli.language_table import ALGORITHMS_OF_TEXT
from rlx.cli.spec import Spec
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


def what_where(argv: list[str], command: str, usage: str) -> list[str]:
    """Take algorithm and environment off the front of the arguments; none of them where `usage` was asked for."""
    names = [word for word in argv[:2] if not word.startswith("-")]
    if len(names) == 2:
        return names
    if not {"-h", "--help"} & set(argv):
        whole = f"rlx {command} ALGORITHM ENV, such as: rlx {command} ppo CartPole-v1"
        raise UsageError(f"say what to {command} where: {whole}")
    print(usage, end="")
    return []


def default_folder(prefix: str, algorithm: str, env: str) -> Path:
    """Where a run goes that was not told where."""
    return Path("runs", f"{prefix}{algorithm}-{Path(env).name}-{time.strftime('%Y%m%d-%H%M%S')}")


def make_folder(out: Path) -> None:
    """Make the folder that takes a run; one that holds something stays as it is."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        hint = f"; `rlx resume {out}` goes on with it" if (out / "config.json").is_file() else ""
        raise UsageError(f"--out {out} is there already{hint}: name another folder or remove it")
    out.mkdir(parents=True, exist_ok=True)


def one_folder(argv: list[str], usage: str) -> tuple[Path, list[str]]:
    """Take the run folder off the front of the arguments."""
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"say which run: {usage}")
    return Path(argv[0]), argv[1:]


def leading_words(argv: list[str]) -> tuple[list[str], list[str]]:
    """Take the words before the first flag off the front of the arguments."""
    first = next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))
    return argv[:first], argv[first:]


def read_spec(folder: Path) -> Run:
    """Read a run's config.json."""
    file = folder / "config.json"
    if (folder / "sweep.json").is_file():
        raise UsageError(f"{folder} is a sweep, not a run: its best run is {folder / 'best'}")
    if not file.is_file():
        raise UsageError(f"{folder} is no run folder: it has no config.json")
    try:
        data = json.loads(file.read_text())
        if "overopt" in data:
            raise UsageError(f"{folder} is an experiment of rlx overopt, not a run: see {folder / 'report.html'}")
        if data["algorithm"] in ALGORITHMS_OF_TEXT:
            return LanguageSpec.from_json(data, folder)
        return Spec.from_json(data)
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
