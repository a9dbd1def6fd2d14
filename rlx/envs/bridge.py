"""Driving gymnasium's environments: B at a time, each begun anew on the step that ends its episode.

Whatever the source, an observation comes as its arrays in the order of `jax.tree.leaves`, of types that a device has.
Axes: B environments.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

import gymnasium as gym
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

ON_DEVICE = {np.dtype(np.float64): np.dtype(np.float32), np.dtype(np.int64): np.dtype(np.int32)}


class HostEnvError(RuntimeError):
    """An environment raised an error or gave what it must not; the message says which, when and what."""


class Misfit(ValueError):
    """An observation that does not fit its space: of which of several environments, and why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


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


class Layout:
    """Where the arrays of an observation are, and what they must be.

    Raises:
        ValueError: a space that is not made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple.
    """

    def __init__(self, space: gym.Space) -> None:
        nested = _leaves(space)
        self.spaces: list[gym.Space] = jax.tree.leaves(nested)
        self.structure = jax.tree.structure(nested)
        self.shapes = [space.shape or () for space in self.spaces]
        self.dtypes = [ON_DEVICE.get(np.dtype(space.dtype), np.dtype(space.dtype)) for space in self.spaces]
        self.known = [{dtype, np.dtype(space.dtype)} for dtype, space in zip(self.dtypes, self.spaces, strict=True)]
        self.floats = [index for index, dtype in enumerate(self.dtypes) if dtype.kind == "f"]
        self.single = isinstance(nested, gym.Space)

    def leaves(self, observation: Any) -> Sequence[Any]:
        """The arrays of an observation."""
        return (observation,) if self.single else self.structure.flatten_up_to(observation)

    def nest(self, leaves: Sequence[np.ndarray]) -> Any:
        """The observation of its arrays."""
        return leaves[0] if self.single else self.structure.unflatten(leaves)

    def stack(self, observations: Sequence[Any]) -> list[np.ndarray]:
        """Put observations of B environments side by side: arrays `[B, ...]`.

        Raises:
            Misfit: the first that does not fit the space.
        """
        columns = [observations] if self.single else zip(*map(self.leaves, observations), strict=True)
        return [self._column(place, column) for place, column in enumerate(columns)]

    def _column(self, place: int, column: Sequence[Any]) -> np.ndarray:
        try:
            array = np.array(column)
        except ValueError:  # their shapes differ
            array = np.empty(0)
        if array.shape != (len(column), *self.shapes[place]) or array.dtype not in self.known[place]:
            for index, leaf in enumerate(map(np.asarray, column)):
                self._admit(place, index, leaf)
        return array.astype(self.dtypes[place], copy=False)

    def _admit(self, place: int, index: int, leaf: np.ndarray) -> None:
        space, shape = self.spaces[place], self.shapes[place]
        if leaf.shape != shape:
            raise Misfit(index, f"an observation of shape {leaf.shape}, where its space says {shape}")
        if not np.can_cast(leaf.dtype, self.dtypes[place], "same_kind"):
            raise Misfit(index, f"an observation of type {leaf.dtype}, where its space says {space.dtype}")
        self.known[place].add(leaf.dtype)

    def broken(self, leaves: list[np.ndarray], reward: np.ndarray) -> tuple[str, int] | None:
        """Say what is not finite, and in which environment; None where all is well."""
        for name, array in [("reward", reward), *(("observation", leaves[place]) for place in self.floats)]:
            # The sum of squares is finite where all numbers are (or they are near overflow: then look at each).
            if not np.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
                return name, int(np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0])
        return None


def _leaves(space: gym.Space) -> Any:
    """The spaces that an observation is made of, nested as it is."""
    match space:
        case gym.spaces.Dict():
            return {name: _leaves(part) for name, part in space.spaces.items()}
        case gym.spaces.Tuple():
            return tuple(map(_leaves, space.spaces))
        case gym.spaces.Box() | gym.spaces.Discrete() | gym.spaces.MultiDiscrete() | gym.spaces.MultiBinary():
            return space
    raise ValueError(
        f"observation space {space} is not supported: use Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or "
        "Tuple of them"
    )


class _Driver:
    """What both ways of driving share: the layout, the count of steps, and errors that say where."""

    def __init__(self, name: str, num_envs: int, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.name, self.num_envs, self.steps = name, num_envs, 0
        self.observation_space, self.action_space = observation_space, action_space
        self.layout = Layout(observation_space)

    def _check(self, leaves: list[np.ndarray], reward: np.ndarray) -> None:
        broken = self.layout.broken(leaves, reward)
        if broken is not None:
            what, index = broken
            self._complain(index, f"NaN or infinity in its {what}")

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
        leaves = self._stack([self._begin(index, seed) for index, seed in enumerate(seeds)])
        self._check(leaves, np.zeros(1))
        return self.layout.nest(leaves)

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
        before, reward = self._stack(observations), np.array(rewards, np.float32)
        if reward.shape != (self.num_envs,):
            self._complain(None, f"rewards of shape {reward.shape[1:]}, not single numbers")
        self._check(before, reward)
        after = before
        if ended:
            fresh = self._stack([self._begin(index, None) for index in ended])
            self._check(fresh, reward)
            after = [array.copy() for array in before]
            for array, new in zip(after, fresh, strict=True):
                array[ended] = new
        flags = np.array(terminations, bool), np.array(truncations, bool)
        return HostStep(self.layout.nest(after), self.layout.nest(before), reward, *flags)

    def _begin(self, index: int, seed: int | None) -> Any:
        try:
            return self.envs[index].reset(seed=seed)[0]
        except Exception as error:
            self._complain(index, error)

    def _stack(self, observations: list[Any]) -> list[np.ndarray]:
        try:
            return self.layout.stack(observations)
        except Misfit as error:
            self._complain(error.index, str(error))


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
        self._check(leaves, np.zeros(1))
        return self.layout.nest(leaves)

    def step(self, actions: np.ndarray) -> HostStep:
        """Step all at once; where an episode ends, another has begun."""
        self.steps += 1
        try:
            out: Any = self.envs.step(actions)
            observation, reward, terminated, truncated, info = out
            leaves = self._read(observation)
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
        reward = np.asarray(reward, np.float32)
        self._check(before, reward)
        self._check(after, reward)
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
