"""Driving gymnasium's environments: B at a time, each begun anew on the step that ends its episode.

Axes: B environments.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rlx.envs.layout import Layout, Misfit

ONE = np.zeros(1)  # a reward where there is none


class HostEnvError(RuntimeError):
    """An environment raised an error or gave what it must not; the message says which, when and what."""


class HostStep(NamedTuple):
    """What B environments gave back; observations are as `Layout` gives them.

    Attributes:
        observation: `[B, ...]` to act on next.
        successor: `[B, ...]` what the action led to, from before any reset.
        reward: `[B]` float32.
        terminated: `[B]` bool.
        truncated: `[B]` bool.
    """

    observation: Any
    successor: Any
    reward: Any
    terminated: Any
    truncated: Any


class HostEnvs(Protocol):
    """B environments on the host."""

    observation_space: gym.Space
    action_space: gym.Space

    def reset(self, seeds: list[int]) -> Any:
        """Begin an episode in each; observations `[B, ...]`."""
        ...

    def step(self, actions: np.ndarray) -> HostStep:
        """Step each with an action of its space."""
        ...

    def close(self) -> None:
        """End them."""
        ...


class _Driver:
    """What both ways of driving share: the layout, the count of steps, and errors that say where."""

    def __init__(self, name: str, num_envs: int, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.name, self.num_envs, self.steps = name, num_envs, 0
        self.observation_space, self.action_space = observation_space, action_space
        self.layout = Layout(observation_space)

    def _check(self, leaves: list[np.ndarray], which: Sequence[int], reward: np.ndarray = ONE) -> None:
        broken = self.layout.broken(leaves, reward)
        if broken is not None:
            what, index = broken
            self._complain(which[index], f"NaN or infinity in its {what}")

    def _complain(self, index: int | None, what: str | Exception) -> NoReturn:
        if isinstance(what, HostEnvError):  # from a process of ours, which knows the rest
            raise HostEnvError(f"{self.name}, {what}") from what
        which = "" if index is None else f", environment {index}"
        text = f"{type(what).__name__}: {what}" if isinstance(what, Exception) else what
        raise HostEnvError(f"{self.name}{which}, step {self.steps}: {text}") from (
            what if isinstance(what, Exception) else None
        )


class OneByOne(_Driver):
    """Environments in this process, stepped one after the other."""

    def __init__(self, envs: list[gym.Env], name: str) -> None:
        super().__init__(name, len(envs), envs[0].observation_space, envs[0].action_space)
        self.envs = envs
        self.close = weakref.finalize(self, lambda: [env.close() for env in envs])

    def reset(self, seeds: list[int]) -> Any:
        """Begin an episode in each."""
        self.steps = 0
        return self.layout.nest(self._begin(range(self.num_envs), seeds))

    def step(self, actions: np.ndarray) -> HostStep:
        """Step each; where an episode ends, begin another."""
        self.steps += 1
        observations, rewards, terminations, truncations, ended = [], [], [], [], []
        for index, env in enumerate(self.envs):
            try:
                observation, reward, terminated, truncated, _ = env.step(actions[index])
            except Exception as error:
                self._complain(index, error)
            observations.append(observation)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            if terminated or truncated:
                ended.append(index)
        before = self._stack(observations, range(self.num_envs))
        try:
            reward = np.array(rewards, np.float32).reshape(self.num_envs)
        except (TypeError, ValueError) as error:
            self._complain(None, f"rewards that are not single numbers: {error}")
        self._check(before, range(self.num_envs), reward)
        after = before
        if ended:
            after = [array.copy() for array in before]
            for array, new in zip(after, self._begin(ended, [None] * len(ended)), strict=True):
                array[ended] = new
        flags = np.array(terminations, bool), np.array(truncations, bool)
        return HostStep(self.layout.nest(after), self.layout.nest(before), reward, *flags)

    def _begin(self, which: Sequence[int], seeds: Sequence[int | None]) -> list[np.ndarray]:
        """Reset some of them; the arrays of their first observations."""
        observations = []
        for index, seed in zip(which, seeds, strict=True):
            try:
                observations.append(self.envs[index].reset(seed=seed)[0])
            except Exception as error:
                self._complain(index, error)
        leaves = self._stack(observations, which)
        self._check(leaves, which)
        return leaves

    def _stack(self, observations: list[Any], which: Sequence[int]) -> list[np.ndarray]:
        try:
            return self.layout.stack(observations)
        except Misfit as error:
            self._complain(which[error.index], str(error))


class Together(_Driver):
    """A vector environment of gymnasium's, in any of the three autoreset modes.

    Raises:
        ValueError: a mode that is not stated, or NEXT_STEP where a reset cannot be had at once.
    """

    def __init__(self, envs: VectorEnv, name: str) -> None:
        super().__init__(name, envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.envs: Any = envs
        self.mode = envs.metadata.get("autoreset_mode")
        self.close = weakref.finalize(self, envs.close)
        if not isinstance(self.mode, AutoresetMode):
            raise ValueError(f"{name}: its metadata state no autoreset_mode")
        kind = envs.unwrapped
        masked = isinstance(kind, SyncVectorEnv) or (isinstance(kind, AsyncVectorEnv) and kind.shared_memory)
        if self.mode is AutoresetMode.NEXT_STEP and not masked:
            raise ValueError(
                f"{name}: in autoreset mode NEXT_STEP {type(kind).__name__} spends a step on each reset; build it with "
                "SAME_STEP or DISABLED, or let rlx put single environments side by side"
            )

    def reset(self, seeds: list[int]) -> Any:
        """Begin an episode in each."""
        self.steps = 0
        try:
            observation, _ = self.envs.reset(seed=seeds)
        except Exception as error:
            self._complain(None, error)
        leaves = self._read(observation)
        self._check(leaves, range(self.num_envs))
        return self.layout.nest(leaves)

    def step(self, actions: np.ndarray) -> HostStep:
        """Step all at once; where an episode ends, another has begun."""
        self.steps += 1
        try:
            out: Any = self.envs.step(actions)
            observation, reward, terminated, truncated, info = out
            leaves, reward = self._read(observation), np.array(reward, np.float32)
            terminated, truncated = np.array(terminated, bool), np.array(truncated, bool)
            done = terminated | truncated
            before, after = leaves, leaves
            if done.any() and self.mode is AutoresetMode.SAME_STEP:
                before = [array.copy() for array in leaves]
                for array, last in zip(before, self.layout.stack(list(info["final_obs"][done])), strict=True):
                    array[done] = last
            elif done.any():
                fresh, _ = self.envs.reset(options={"reset_mask": done})
                after = [array.copy() for array in leaves]
                for array, new in zip(after, self._read(fresh), strict=True):
                    array[done] = new[done]
        except Exception as error:
            self._complain(None, error)
        self._check(before, range(self.num_envs), reward)
        self._check(after, range(self.num_envs))
        return HostStep(self.layout.nest(after), self.layout.nest(before), reward, terminated, truncated)

    def _read(self, observation: Any) -> list[np.ndarray]:
        """Copies, as gymnasium reuses its buffers."""
        pairs = zip(self.layout.leaves(observation), self.layout.dtypes, strict=True)
        return [np.array(leaf, dtype) for leaf, dtype in pairs]


class _Watched(gym.Wrapper):
    """Says which environment of several an error in a process is about."""

    def __init__(self, make: Callable[[], gym.Env], index: int) -> None:
        super().__init__(make())
        self.index, self.steps, self.layout = index, 0, Layout(self.env.observation_space)

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._watch(self.env.step, action)

    def reset(self, **kwargs: Any) -> Any:
        return self._watch(self.env.reset, **kwargs)

    def _watch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            out = function(*args, **kwargs)
            self.layout.stack([out[0]])
        except Exception as error:
            text = f"environment {self.index}, step {self.steps}: {type(error).__name__}: {error}"
            raise HostEnvError(text) from error
        return out


def in_processes(make: Callable[[], gym.Env], num_envs: int) -> AsyncVectorEnv:
    """Run each environment in a process of its own; forked ones would not survive JAX's threads."""
    return AsyncVectorEnv(
        [partial(_Watched, make, index) for index in range(num_envs)],
        autoreset_mode=AutoresetMode.SAME_STEP,
        context="forkserver",
    )
