"""Environments of gymnax and brax as rlx's: the same functions, flags told apart, no hidden resets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.types import Env, Key, PyTree, Step


@dataclass(frozen=True, eq=False)
class Spaces:
    """An environment's spaces; hashed by identity, as gymnasium's cannot be hashed."""

    observation: spaces.Space
    action: spaces.Space


def from_gymnax(env: Any, params: Any = None) -> Env:
    """Turn a gymnax environment (1.0.1 or newer) into rlx's: `from_gymnax(*gymnax.make("Breakout-MinAtar"))`.

    Terminated is what its `step_env` says, truncated its time limit, `is_truncated`. Observations are cast to the
    dtype of their space, which some of gymnax's are not, rewards to float32.

    Args:
        env: a `gymnax.environments.environment.Environment`.
        params: its constants, the leaves of the pytree; they may be traced later on. None: the default ones.

    Raises:
        ImportError: gymnax is missing.
        ValueError: it is older, and does not tell truncation from termination.
    """
    try:
        from gymnax.environments.spaces import gymnax_space_to_gym_space  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"from_gymnax needs gymnax ({error}): pip install 'rlx[gymnax]'") from error
    if not hasattr(env, "is_truncated"):
        raise ValueError("from_gymnax needs gymnax 1.0.1 or newer: pip install 'rlx[gymnax]'")
    params = env.default_params if params is None else params
    observation, action = env.observation_space(params), env.action_space(params)
    return Gymnax(env, Spaces(gymnax_space_to_gym_space(observation), gymnax_space_to_gym_space(action)), params)


def from_brax(env: Any, episode_length: int = 1000) -> Env:
    """Turn a brax environment into rlx's: `from_brax(brax.envs.get_environment("ant"))`.

    Terminated is brax's `done`, truncated is `episode_length` reached. Actions are in [-1, 1], which is what brax's
    own training gives its environments. Its `metrics` are the info.

    Args:
        env: as `brax.envs.get_environment` makes it, without wrappers, which would reset or count by themselves.
        episode_length: steps in an episode.

    Raises:
        ValueError: a wrapped environment, or an episode length below 1.
    """
    if env.unwrapped is not env:
        raise ValueError(f"{type(env).__name__} is a wrapper: give from_brax what brax.envs.get_environment makes")
    if episode_length < 1:
        raise ValueError(f"episode_length={episode_length} must be 1 or more")

    def space(shapes: Any) -> spaces.Space:
        if isinstance(shapes, Mapping):
            return spaces.Dict({name: space(part) for name, part in shapes.items()})
        return spaces.Box(-np.inf, np.inf, shapes.shape, np.float32)

    observation = space(jax.eval_shape(env.reset, jax.random.key(0)).obs)
    action = spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)
    return Brax(env, Spaces(observation, action), episode_length)


@dataclass(frozen=True)
class _Adapter:
    env: Any = field(metadata={"static": True})
    spaces: Spaces = field(metadata={"static": True})

    @property
    def observation_space(self) -> spaces.Space:
        """Space of one observation."""
        return self.spaces.observation

    @property
    def action_space(self) -> spaces.Space:
        """Space of one action."""
        return self.spaces.action


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gymnax(_Adapter):
    """A gymnax environment; made by `from_gymnax`. The state is gymnax's."""

    params: Any

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Begin an episode: `(state, observation)`."""
        observation, state = self.env.reset_env(key, self.params)
        return _strong(state), self._cast(observation)

    def step(self, key: Key, state: PyTree, action: jax.Array) -> Step:
        """Advance by one action."""
        observation, state, reward, terminated, info = self.env.step_env(key, state, action, self.params)
        return Step(
            _strong(state),
            self._cast(observation),
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminated, bool),
            jnp.asarray(self.env.is_truncated(state, self.params), bool),
            info,
        )

    def _cast(self, observation: PyTree) -> PyTree:
        if not isinstance(self.spaces.observation, spaces.Box):
            return _strong(observation)
        return jnp.asarray(observation, self.spaces.observation.dtype)


class BraxState(NamedTuple):
    """A brax state and the time since the reset."""

    brax: PyTree
    time: jax.Array  # int32, steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Brax(_Adapter):
    """A brax environment; made by `from_brax`."""

    episode_length: int = field(metadata={"static": True})

    def reset(self, key: Key) -> tuple[BraxState, PyTree]:
        """Begin an episode: `(state, observation)`."""
        state = _strong(self.env.reset(key))
        return BraxState(state, jnp.zeros((), jnp.int32)), state.obs

    def step(self, key: Key, state: BraxState, action: jax.Array) -> Step:
        """Advance by one action. The key is not used: brax's randomness is in its state."""
        brax, time = _strong(self.env.step(state.brax, action)), state.time + 1
        terminated = jnp.asarray(brax.done, bool)
        return Step(
            BraxState(brax, time), brax.obs, brax.reward, terminated, time >= self.episode_length, dict(brax.metrics)
        )


def _strong(tree: PyTree) -> PyTree:
    """Fix dtypes that JAX may promote (weak types): both libraries have some after a reset that others follow."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)
