"""Recipes for gymnasium environments, which `rlx.vectorize` turns into host environments."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class Gymnasium:
    """How to make one gymnasium environment; built only when it is vectorised.

    Attributes:
        make: an environment id, or a function (a class) that makes the environment.
        kwargs: keyword arguments for it.
    """

    make: str | Callable[..., gym.Env]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def one(self) -> gym.Env:
        """Make one of them."""
        return gym.make(self.make, **self.kwargs) if isinstance(self.make, str) else self.make(**self.kwargs)

    def build(self, num_envs: int) -> gym.vector.SyncVectorEnv:
        """Make `num_envs` of them side by side."""
        return gym.vector.SyncVectorEnv([self.one] * num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)

    @property
    def observation_space(self) -> gym.Space:
        """Space of one observation; makes an environment to ask it."""
        return self._spaces[0]

    @property
    def action_space(self) -> gym.Space:
        """Space of one action; makes an environment to ask it."""
        return self._spaces[1]

    @cached_property
    def _spaces(self) -> tuple[gym.Space, gym.Space]:
        env = self.one()
        env.close()
        return env.observation_space, env.action_space


def gymnasium(make: str | Callable[..., gym.Env], **kwargs: Any) -> Gymnasium:
    """Name a gymnasium environment for rlx: `rlx.envs.gymnasium("LunarLander-v3", gravity=-5.0)`.

    Args:
        make: an id that gymnasium knows, or a function (a class) that makes the environment.
        **kwargs: passed to it.

    Raises:
        ValueError: an id that gymnasium does not know; the nearest ones are named.
    """
    if isinstance(make, str) and ":" not in make and make not in gym.registry:
        raise ValueError(unknown("environment", make, gym.registry))
    return Gymnasium(make, kwargs)


def unknown(kind: str, name: str, known: Any) -> str:
    """Say that `name` is not among `known`, with the nearest names."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"unknown {kind} {name!r}" + (f": did you mean {' or '.join(near)}?" if near else "")
