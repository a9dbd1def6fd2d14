"""The way out: a JAX environment as a gymnasium one, alone or B of them side by side (`vector_env`)."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode

from rlx.envs.convert import draw_seed, make_key, to_action, to_host
from rlx.envs.render import Window, check_render_mode, find_renderer
from rlx.envs.vector_env import JaxVectorEnv
from rlx.types import Env, Key, PyTree, Step


def to_gymnasium(
    env: Env,
    num_envs: int | None = None,
    *,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
) -> JaxEnv | JaxVectorEnv:
    """Turn a JAX environment into gymnasium's, for other libraries, wrappers and videos.

    Spaces are the environment's own, and actions are in the units of `action_space`: nothing is rescaled or clipped.
    Random numbers come from a key drawn from `np_random`, so that a seeded `reset` settles the resets after it too.
    It runs on JAX's default device: for one small environment the CPU is the fastest.

    Args:
        env: any JAX environment. It has its own time limit; gymnasium's `TimeLimit` can add one.
        num_envs: B, for a `gymnasium.vector.VectorEnv`; None for one `gymnasium.Env`.
        autoreset_mode: of a vector environment, as gymnasium defines them. NEXT_STEP: the step after the end resets,
            its action is not used, its reward is 0 and its flags are False. SAME_STEP: the step that ends an episode
            gives the first observation of the next, the last one is in `info["final_obs"]`. DISABLED: resets are
            the caller's, `reset(options={"reset_mask": mask})` with a bool `[B]`.
        render_mode: "rgb_array", or "human" for a window (not for a vector environment). An environment draws itself
            by a method `render(state)` that returns a uint8 array `[H, W, 3]`; classic control has gymnasium's look,
            an image observation is drawn as it is.

    Raises:
        ValueError: `num_envs` below 1, an environment that nothing draws, or an unknown mode.
        ImportError: pygame is missing where it is needed.
    """
    if num_envs is None:
        return JaxEnv(env, render_mode)
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} must be 1 or more")
    return JaxVectorEnv(env, num_envs, AutoresetMode(autoreset_mode), render_mode)


class JaxEnv(gymnasium.Env):
    """One JAX environment as gymnasium's; made by `to_gymnasium`."""

    def __init__(self, env: Env, render_mode: str | None) -> None:
        """Wrap `env`."""
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._renderer = find_renderer(env)
        modes = ["human", "rgb_array"]
        if render_mode is not None:
            check_render_mode(env, self._renderer, modes, render_mode)
        fps = self._renderer.fps if self._renderer else 30
        self.metadata = {"render_modes": modes if self._renderer else [], "render_fps": fps}
        self.render_mode = render_mode
        self._window = Window(fps)
        self._last: tuple[PyTree, PyTree, Any] | None = None  # state, observation and action, for the next step
        self._key: Key | None = None

        def reset(seed: jax.Array) -> tuple[Key, PyTree, PyTree]:
            key, reset_key = jax.random.split(make_key(seed))
            return key, *env.reset(reset_key)

        def step(key: Key, state: PyTree, action: PyTree) -> tuple[Key, Step]:
            key, step_key = jax.random.split(key)
            return key, env.step(step_key, state, action)

        self._reset, self._step = jax.jit(reset), jax.jit(step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; there are no options."""
        super().reset(seed=seed)
        self._key, state, observation = self._reset(draw_seed(self.np_random))
        return self._shown(state, observation, None), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance by one action; what follows the end of an episode, before a reset, is not defined.

        Raises:
            ValueError: an action of the wrong shape, or one that a discrete space does not have.
            gymnasium.error.ResetNeeded: there was no reset yet.
        """
        if self._last is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        action = to_action(self.action_space, action)
        self._key, out = self._step(self._key, self._last[0], action)
        info = jax.tree.map(lambda x: np.array(x)[()], out.info)
        observation = self._shown(out.state, out.observation, action)
        return observation, float(out.reward), bool(out.terminated), bool(out.truncated), info

    def render(self) -> np.ndarray | None:
        """Draw the present state: `[H, W, 3]` uint8 where the mode is "rgb_array"."""
        if self._last is None:
            raise gymnasium.error.ResetNeeded("call reset before render")
        if self._renderer is None or self.render_mode is None:
            gymnasium.logger.warn("render was called without a render_mode: name one when you make the environment")
            return None
        frame = self._renderer.frame(*self._last)
        if self.render_mode == "rgb_array":
            return frame
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Close the window and free what draws."""
        self._window.close()
        if self._renderer:
            self._renderer.close()

    def _shown(self, state: PyTree, observation: PyTree, action: Any) -> Any:
        self._last = state, observation, action
        if self.render_mode == "human":
            self.render()
        return to_host(self.observation_space, observation)
