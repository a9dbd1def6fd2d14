"""`rlx presets`: the tuned hyperparameters."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlx.cli.algorithms import ALGORITHMS
from rlx.cli.parsing import UsageError, leading_words, parse
from rlx.cli.spec import fill, read_presets
from rlx.envs.host import unknown


@dataclass(frozen=True)
class PresetsOptions:
    """How to list them."""

    json: bool = False  # as JSON


class Preset(NamedTuple):
    """The tuned values of an algorithm in an environment.

    Attributes:
        steps: environment steps per seed.
        values: those that are not the defaults, by field.
        defaults: what the defaults are, for the same fields.
    """

    algorithm: str
    env: str
    steps: int
    values: dict[str, Any]
    defaults: dict[str, Any]


def presets(argv: list[str]) -> int:
    """`rlx presets [ALGORITHM [ENV]] [--json]`."""
    words, rest = leading_words(argv)
    options = parse({"presets": PresetsOptions()}, rest, "rlx presets [ALGORITHM [ENV]]")["presets"]
    if len(words) > 2:
        raise UsageError(f"rlx presets takes an algorithm and an environment, not {' '.join(words[2:])} too")
    found = find_presets(*words)
    print(json.dumps([preset._asdict() for preset in found], indent=2) if options.json else table(found))
    return 0


def find_presets(algorithm: str | None = None, env: str | None = None) -> list[Preset]:
    """Give the presets of all algorithms and environments, or of those that are named."""
    tuned = {
        name: {env: values for env, values in envs.items() if env != "default"} for name, envs in read_presets().items()
    }
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise UsageError(unknown("algorithm", algorithm, ALGORITHMS) + f" (there are: {', '.join(ALGORITHMS)})")
    if algorithm is not None:
        tuned = {algorithm: tuned.get(algorithm, {})}
    if algorithm is not None and env is not None:
        envs = tuned[algorithm]
        if env not in envs:
            raise UsageError(unknown(f"{algorithm} preset", env, envs) + f" (there are: {', '.join(envs) or 'none'})")
        tuned = {algorithm: {env: envs[env]}}
    return [make_preset(name, env, values) for name, envs in tuned.items() for env, values in envs.items()]


def make_preset(algorithm: str, env: str, tuned: dict[str, Any]) -> Preset:
    """Compare tuned values with the defaults."""
    spec = fill(algorithm, env, read_presets()[algorithm].get("default", {}))
    parts = [part for part in (spec.run, spec.config, spec.optimizer, spec.network) if part is not None]
    defaults = {name: value for part in parts for name, value in dataclasses.asdict(part).items()}
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    values = {name: value for name, value in tuned.items() if name != "steps" and value != defaults[name]}
    steps = tuned.get("steps", defaults["steps"])
    return Preset(algorithm, env, steps, values, {name: defaults[name] for name in values})


def table(found: list[Preset]) -> str:
    """Lay presets out in columns that fit the terminal."""
    head = ("algorithm", "environment", "steps", "values (defaults)")
    rows = [(preset.algorithm, preset.env, f"{preset.steps:,}") for preset in found]
    widths = [max(map(len, column)) for column in zip(head[:3], *rows, strict=True)]
    margin = sum(widths) + 6
    lines = ["  ".join([*map(str.ljust, head[:3], widths), head[3]])]
    for (algorithm, env, steps), preset in zip(rows, found, strict=True):
        first = f"{algorithm:{widths[0]}}  {env:{widths[1]}}  {steps:>{widths[2]}}  "
        values = [f"{name}={value} ({preset.defaults[name]})" for name, value in preset.values.items()]
        text = ", ".join(value.replace(" ", "\0") for value in values)  # a value and its default stay on one line
        width = max(margin + 30, shutil.get_terminal_size().columns)
        lines.append(textwrap.fill(text or "the defaults", width, initial_indent=first, subsequent_indent=" " * margin))
    return "\n".join(lines).replace("\0", " ")
