"""Checks for the frozen dataclasses of plain numbers that configure algorithms."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jax.core import Tracer


def require(config: Any, condition: Any, message: str, *names: str) -> None:
    """Raise a ValueError that names the fields unless `condition` holds; a tracer passes, as its value is not known.

    Args:
        config: the dataclass instance.
        condition: a bool, or a traced one.
        message: what the fields must be.
        *names: the fields that the condition is about.
    """
    if isinstance(condition, Tracer) or condition:
        return
    values = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
    raise ValueError(f"{type(config).__name__}: {values}: {message}")


def require_positive(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields are above 0."""
    for name in names:
        require(config, getattr(config, name) > 0, "must be above 0", name)


def require_counts(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields are integers above 0."""
    for name in names:
        value = getattr(config, name)
        require(config, isinstance(value, int) and value > 0, "must be an integer above 0", name)


def require_fraction(config: Any, *names: str) -> None:
    """Raise a ValueError unless these fields are from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        require(config, (value >= 0) & (value <= 1), "must be from 0 to 1", name)


def require_finite(config: Any) -> None:
    """Raise a ValueError if any concrete float is NaN or infinite."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float):
            require(config, math.isfinite(value), "must be finite", field.name)
