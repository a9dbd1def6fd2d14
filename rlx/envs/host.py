"""Recipes for gymnasium environments, which `rlx.vectorize` turns into host environments."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import gymnasium as gym

from rlx.envs.bridge import HostEnvs, OneByOne, Together, in_processes


@dataclass(frozen=True)
class Gymnasium:
    """How to make gymnasium environments; they are built only when they are vectorised.

    Attributes:
        make: an environment id, or a function (a class) that makes the environment.
        kwargs: keyword arguments for it.
        processes: run each environment in a process of its own.
        vector: `make` makes a whole gymnasium `VectorEnv`, and takes `num_envs`.
    """

    make: str | Callable[..., Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    processes: bool = False
    vector: bool = False

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.make if isinstance(self.make, str) else getattr(self.make, "__name__", str(self.make))

    def one(self) -> gym.Env:
        """Make one environment."""
        if isinstance(self.make, str):  # what its checker looks for once, the bridge looks for on every step
            return gym.make(self.make, disable_env_checker=True, **self.kwargs)
        return self.make(**self.kwargs)

    def build(self, num_envs: int) -> HostEnvs:
        """Make `num_envs` of them side by side."""
        if self.vector:
            make = partial(gym.make_vec, self.make) if isinstance(self.make, str) else self.make
            return Together(make(num_envs=num_envs, **self.kwargs), self.name)
        if self.processes:
            return Together(in_processes(self.one, num_envs), self.name)
        return OneByOne([self.one() for _ in range(num_envs)], self.name)

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
        env = self.build(1) if self.vector else self.one()
        env.close()
        return env.observation_space, env.action_space


def gymnasium(make: str | Callable[..., gym.Env], processes: bool = False, **kwargs: Any) -> Gymnasium:
    """Name a gymnasium environment for rlx: `rlx.envs.gymnasium("LunarLander-v3", gravity=-5.0)`.

    Args:
        make: an id that gymnasium knows, or a function (a class) that makes the environment.
        processes: run each environment in a process of its own, started by forkserver (a script then needs its
            `if __name__ == "__main__":`). It pays where a step takes longer than about 0.1 ms.
        **kwargs: passed to it.

    Raises:
        ValueError: an id that gymnasium does not know; the nearest ones are named.
    """
    _check_known(make)
    return Gymnasium(make, kwargs, processes)


def gymnasium_vector(make: str | Callable[..., gym.vector.VectorEnv], **kwargs: Any) -> Gymnasium:
    """Name a vector environment of gymnasium's for rlx: `make(num_envs=..., **kwargs)`, or an id for `gym.make_vec`.

    Its autoreset mode may be any of the three. In NEXT_STEP and DISABLED rlx resets by `options["reset_mask"]` at
    once, so that no step is spent on a reset; of the environments in NEXT_STEP only `SyncVectorEnv` and
    `AsyncVectorEnv` take it.

    Raises:
        ValueError: an id that gymnasium does not know; the nearest ones are named.
    """
    _check_known(make)
    return Gymnasium(make, kwargs, vector=True)


def _check_known(make: str | Callable[..., Any]) -> None:
    if isinstance(make, str) and ":" not in make and make not in gym.registry:
        raise ValueError(unknown("environment", make, gym.registry))


def unknown(kind: str, name: str, known: Any) -> str:
    """Say that `name` is not among `known`, with the nearest names."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"unknown {kind} {name!r}" + (f": did you mean {' or '.join(near)}?" if near else "")
