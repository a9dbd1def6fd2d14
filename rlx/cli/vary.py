"""What a sweep varies: from `--vary FIELD=VALUES` to configurations, and from these to programs.

Axes: N configurations.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from typing import Any, NamedTuple

import numpy as np

from rlx.cli.parsing import UsageError, parse
from rlx.cli.spec import Spec
from rlx.envs.host import Gymnasium, unknown

PARTS = ("config", "optimizer", "network")  # of a Spec: whose fields can vary


class Range(NamedTuple):
    """Floats to draw from, uniformly or (`log`) with a uniform logarithm."""

    low: float
    high: float
    log: bool

    def at(self, share: float) -> float:
        """Give the value below which this share of the draws is, to 4 digits."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + (high - low) * share
        value = math.exp(value) if self.log else value
        return min(max(float(f"{value:.4g}"), self.low), self.high)


Varied = dict[str, list[Any] | Range]


def fields(spec: Spec) -> dict[str, str]:
    """Give the fields that can vary, each with the part of the run that it is in."""
    parts = {part: getattr(spec, part) for part in PARTS if getattr(spec, part) is not None}
    return {field.name: part for part, values in parts.items() for field in dataclasses.fields(values)}


def read_vary(spec: Spec, words: tuple[str, ...]) -> Varied:
    """Read FIELD=A,B,C, FIELD=LOW..HIGH and FIELD=log:LOW..HIGH."""
    varied: Varied = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--vary {word}: say FIELD=VALUES, such as learning_rate=1e-4,1e-3")
        if name not in (known := fields(spec)):
            raise UsageError(unknown("field", name, known) + " (fields of `rlx train`'s config, optimizer and network)")
        if name in varied:
            raise UsageError(f"--vary {name} is there twice: give all its values at once")
        varied[name] = read_range(spec, name, word, text) if ".." in text else read_list(spec, name, word, text)
    return varied


def read_range(spec: Spec, name: str, word: str, text: str) -> Range:
    """Read LOW..HIGH or log:LOW..HIGH."""
    part = getattr(spec, fields(spec)[name])
    kind = typing.get_type_hints(type(part))[name]
    if float not in (kind, *typing.get_args(kind)):
        raise UsageError(f"--vary {word}: {name} is no float, which ranges are for: list its values")
    log = text.startswith("log:")
    try:
        low, high = map(float, text.removeprefix("log:").split(".."))
    except ValueError:
        raise UsageError(f"--vary {word}: a range is LOW..HIGH, such as 0.1..0.3 or log:1e-5..1e-2") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--vary {word}: the range must go up from one finite number to another")
    if log and low <= 0:
        raise UsageError(f"--vary {word}: only numbers above 0 have a logarithm")
    return Range(low, high, log)


def read_list(spec: Spec, name: str, word: str, text: str) -> list[Any]:
    """Read A,B,C, each as the flag of that name is read; a value of several words has spaces between them."""
    values: list[Any] = []
    for item in text.split(","):
        if not item.strip():
            raise UsageError(f"--vary {word}: a value is missing" if text else f"--vary {word} has no values")
        value = read_value(spec, name, item.strip())
        if value in values:
            raise UsageError(f"--vary {word}: {item.strip()} is there twice")
        values.append(value)
    return values


def read_value(spec: Spec, name: str, item: str) -> Any:
    """Read one value as `rlx train` reads that of the flag."""
    part = fields(spec)[name]
    flag = name.replace("_", "-")
    if isinstance(getattr(getattr(spec, part), name), bool):
        if item.lower() not in ("true", "false"):
            raise UsageError(f"--vary {name}: {item!r} must be true or false")
        argv = [f"--{flag}" if item.lower() == "true" else f"--no-{flag}"]
    else:
        argv = [f"--{flag}", *("None" if word.lower() == "none" else word for word in item.split())]
    return getattr(parse({part: getattr(spec, part)}, argv, "rlx sweep")[part], name)


def configurations(varied: Varied, samples: int | None, seed: int) -> list[dict[str, Any]]:
    """Give the values of each configuration: all combinations of lists, or where there are ranges, draws.

    Draws are a Latin hypercube: each N-th of a range, and of a list, is drawn from once (McKay et al. 1979).
    """
    ranges = [name for name, values in varied.items() if isinstance(values, Range)]
    if not varied:
        raise UsageError("say what to vary: --vary FIELD=VALUES, such as --vary learning_rate=1e-4,3e-4,1e-3")
    if samples is None:
        if ranges:
            raise UsageError(f"--vary {ranges[0]} is a range: say how many configurations to draw with --samples")
        lists = [values for values in varied.values() if isinstance(values, list)]
        return [dict(zip(varied, row, strict=True)) for row in itertools.product(*lists)]
    if samples < 1:
        raise UsageError(f"--samples {samples} must be 1 or more")
    if not ranges:
        raise UsageError("--samples is for ranges, FIELD=LOW..HIGH: of lists alone every combination is tried")
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(samples), (len(varied), 1)), axis=1)
    shares = (order + rng.random(order.shape)) / samples  # [fields, N] in [0, 1)
    return [
        {name: draw(values, share) for (name, values), share in zip(varied.items(), column, strict=True)}
        for column in shares.T.tolist()
    ]


def draw(values: list[Any] | Range, share: float) -> Any:
    """Give the value at a share from 0 to 1."""
    return values.at(share) if isinstance(values, Range) else values[int(share * len(values))]


def with_values(spec: Spec, values: dict[str, Any]) -> Spec:
    """Make the run with these values, which may be tracers where they are floats.

    Raises:
        ValueError: a concrete value that its dataclass refuses.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, part in fields(spec).items():
        if name in values:
            changes.setdefault(part, {})[name] = values[name]
    parts = {part: dataclasses.replace(getattr(spec, part), **change) for part, change in changes.items()}
    return dataclasses.replace(spec, **parts)


def programs(spec: Spec, found: list[dict[str, Any]]) -> list[list[int]]:
    """Group configurations into programs: those that differ only in floats, in one; over a host environment, none."""
    if isinstance(spec.make_env(), Gymnasium):
        return [[number] for number in range(len(found))]
    together: dict[tuple, list[int]] = {}
    for number, values in enumerate(found):
        floats = traced(spec, values)
        together.setdefault(tuple(float if name in floats else values[name] for name in values), []).append(number)
    return list(together.values())


def traced(spec: Spec, values: dict[str, Any]) -> dict[str, float]:
    """Give the values that need no program of their own: floats, but for the network's."""
    parts = fields(spec)
    return {name: value for name, value in values.items() if isinstance(value, float) and parts[name] != "network"}
