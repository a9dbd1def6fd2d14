"""B JAX environments in one program as a `gymnasium.vector.VectorEnv`.

What goes out is NumPy; the state stays on JAX's device. Axes: B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode

from rlx.envs.convert import draw_seed, make_key, to_action, to_host
from rlx.envs.render import check_render_mode, find_renderer
from rlx.types import Env, Key, PyTree, Step


class Batch(NamedTuple):
    """What B environments carry from step to step.

    Attributes:
        key: one key.
        state: leaves `[B, ...]`.
        observation: leaves `[B, ...]`, of `state`.
        done: `[B]` bool, whose episodes are over and not begun anew.
    """

    key: Key
    state: PyTree
    observation: PyTree
    done: jax.Array


class JaxVectorEnv(gymnasium.vector.VectorEnv):
    """B JAX environments in one program as gymnasium's vector environment; made by `to_gymnasium`."""

    def __init__(self, env: Env, num_envs: int, autoreset_mode: AutoresetMode, render_mode: str | None) -> None:
        """Wrap `env`."""
        self.num_envs, self.autoreset_mode = num_envs, autoreset_mode
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(env.observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(env.action_space, num_envs)
        self._renderer = find_renderer(env)
        modes = ["rgb_array"]
        if render_mode is not None:
            check_render_mode(env, self._renderer, modes, render_mode)
        self.metadata = {
            "render_modes": modes if self._renderer else [],
            "render_fps": self._renderer.fps if self._renderer else 30,
            "autoreset_mode": autoreset_mode,
        }
        self.render_mode = render_mode
        self._batch: Batch | None = None
        self._done = np.zeros(num_envs, bool)  # [B], on the host
        self._action: Any = None
        self._reset, self._step = map(jax.jit, _batched(env, num_envs, autoreset_mode))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes everywhere, or where `options["reset_mask"]`, a bool array `[B]`, is True.

        Raises:
            TypeError, ValueError: a mask that is no bool array, of another shape, or False everywhere.
            gymnasium.error.ResetNeeded: a mask before the first reset.
        """
        super().reset(seed=seed)
        mask = np.ones(self.num_envs, bool)
        if options is not None and "reset_mask" in options:
            mask = self._valid_mask(options["reset_mask"])
        self._batch = batch = self._reset(draw_seed(self.np_random), mask, self._batch)
        self._done, self._action = self._done & ~mask, None
        return to_host(self.observation_space, batch.observation), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance by one action each: observations, rewards float64 `[B]`, flags bool `[B]`, infos.

        Raises:
            ValueError: actions of the wrong shape, or that a discrete space does not have.
            AssertionError: with DISABLED, an episode is over and was not reset.
            gymnasium.error.ResetNeeded: there was no reset yet.
        """
        if self._batch is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._done.any():
            over = np.flatnonzero(self._done).tolist()
            raise AssertionError(f"the episodes of environments {over} are over: reset them with a reset_mask")
        self._action = to_action(self.action_space, actions)
        batch, begun, out = self._step(self._batch, self._action)
        begun, terminated, truncated = np.array(begun), np.array(out.terminated), np.array(out.truncated)
        infos = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and begun.any():
            final = to_host(self.observation_space, out.observation)
            infos = {"final_obs": np.full(self.num_envs, None), "_final_obs": begun.copy()}
            for index in np.flatnonzero(begun):
                infos["final_obs"][index] = jax.tree.map(lambda x, i=index: x[i].copy(), final)
            infos |= {"final_info": _masked(out.info, begun), "_final_info": begun.copy()}
        infos |= _masked(out.info, ~begun)
        self._batch, self._done = batch, (terminated | truncated) & ~begun
        observation = to_host(self.observation_space, batch.observation)
        return observation, np.array(out.reward, np.float64), terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw the present states: B arrays `[H, W, 3]` uint8."""
        if self._batch is None:
            raise gymnasium.error.ResetNeeded("call reset before render")
        if self._renderer is None or self.render_mode is None:
            gymnasium.logger.warn("render was called without a render_mode: name one when you make the environment")
            return None
        shown = self._batch.state, self._batch.observation
        frames = []
        for index in range(self.num_envs):
            state, observation = jax.tree.map(lambda x, i=index: x[i], shown)
            action = None if self._action is None else jax.tree.map(lambda x, i=index: x[i], self._action)
            frames.append(self._renderer.frame(state, observation, action))
        return tuple(frames)

    def close_extras(self, **kwargs: Any) -> None:
        """Free what draws."""
        if self._renderer:
            self._renderer.close()

    def _valid_mask(self, mask: Any) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask has to be a NumPy array of bool, not {getattr(mask, 'dtype', type(mask))}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask has to have shape ({self.num_envs},) and a True somewhere, got {mask}")
        if self._batch is None:
            raise gymnasium.error.ResetNeeded("call reset without a reset_mask first")
        return mask


def _batched(env: Env, num_envs: int, mode: AutoresetMode) -> tuple[Callable[..., Batch], Callable[..., Any]]:
    """Make the two programs of a vector environment, the same however many episodes end.

    Returns:
        `reset(seed, mask [B], batch or None) -> batch` and `step(batch, action) -> (batch, begun [B], step)`.
    """

    def where(mask: jax.Array, new: PyTree, old: PyTree) -> PyTree:
        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(mask.reshape(num_envs, *(1,) * (new.ndim - 1)), new, old)

        return jax.tree.map(choose, new, old)

    def begin(key: Key) -> tuple[PyTree, PyTree]:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def reset(seed: jax.Array, mask: jax.Array, batch: Batch | None) -> Batch:
        key, reset_key = jax.random.split(make_key(seed))
        state, observation = begin(reset_key)
        if batch is None:
            return Batch(key, state, observation, jnp.zeros(num_envs, bool))
        state, observation = where(mask, (state, observation), (batch.state, batch.observation))
        return Batch(key, state, observation, batch.done & ~mask)

    def step(batch: Batch, action: PyTree) -> tuple[Batch, jax.Array, Step]:
        key, step_key, reset_key = jax.random.split(batch.key, 3)
        out = jax.vmap(env.step)(jax.random.split(step_key, num_envs), batch.state, action)
        nobody = jnp.zeros(num_envs, bool)
        ghost = batch.done if mode == AutoresetMode.NEXT_STEP else nobody  # their step is a reset
        out = out._replace(
            reward=jnp.where(ghost, 0.0, out.reward),
            terminated=out.terminated & ~ghost,
            truncated=out.truncated & ~ghost,
        )
        over = out.terminated | out.truncated
        begun = over if mode == AutoresetMode.SAME_STEP else ghost
        going_on = out.state, out.observation
        state, observation = jax.lax.cond(  # most steps end no episode: then no random bits are drawn
            jnp.any(begun), lambda: where(begun, begin(reset_key), going_on), lambda: going_on
        )
        return Batch(key, state, observation, over & ~begun), begun, out._replace(state=None)

    return reset, step


def _masked(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Give infos `[B, ...]` as gymnasium does: zero where `mask` is False, each with `_name`, the mask."""
    if not mask.any():
        return {}
    infos = {}
    for name, value in info.items():
        if isinstance(value, dict):
            infos[name] = _masked(value, mask)
        else:
            array = np.array(value)
            array[~mask] = 0
            infos[name] = array
        infos[f"_{name}"] = mask.copy()
    return infos
