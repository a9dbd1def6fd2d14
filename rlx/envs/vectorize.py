"""The one maker of `VectorEnv`: B environments that reset themselves, from a JAX `Env` or a gymnasium recipe.

Auto-reset, and the way from a policy's action to the environment's, happen here and nowhere else.
Axes: B environments, D dimensions of a continuous action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.envs.host import Gymnasium
from rlx.types import Env, Key, PyTree, Step, VectorEnv


def vectorize(env: Env | Gymnasium, num_envs: int) -> VectorEnv:
    """Put `num_envs` copies of an environment side by side; where an episode ends, a fresh random one begins.

    Actions arrive as the policy drew them: for a bounded Box they are clipped to [-1, 1] and scaled to the bounds, for
    a Box without bounds they pass as they are, choices count from 0.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which gives a host `VectorEnv`.
        num_envs: B.

    Raises:
        ValueError: a space that is not supported.
    """
    if isinstance(env, Gymnasium):
        return _vectorize_host(env, num_envs)
    to_env = action_to_space(env.action_space)

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def step(keys: Key, state: PyTree, action: jax.Array) -> tuple[PyTree, PyTree, Step]:
        step_keys, reset_keys = keys
        out = jax.vmap(env.step)(step_keys, state, to_env(action))
        done = out.terminated | out.truncated

        def begin(going_on: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            def where_done(new: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(done.reshape(num_envs, *(1,) * (new.ndim - 1)), new, old)

            return jax.tree.map(where_done, jax.vmap(env.reset)(reset_keys), going_on)

        # Most steps end no episode: then no random bits are drawn. Under vmap both sides run.
        state, observation = jax.lax.cond(jnp.any(done), begin, lambda same: same, (out.state, out.observation))
        return state, observation, out

    return VectorEnv(reset, step, num_envs, env.observation_space, env.action_space, host=False)


def action_to_space(space: gymnasium.Space) -> Callable[[Any], Any]:
    """Give the function from a policy's action (jax or numpy, any leading axes) to an action in `space`.

    A policy's actions of several dimensions are flat, `[..., D]`; they come out in the space's shape.

    Raises:
        ValueError: a space other than Discrete, MultiDiscrete, MultiBinary and Box.
    """
    match space:
        case spaces.Discrete():
            start = int(space.start)
            return (lambda action: action + start) if start else (lambda action: action)
        case spaces.MultiDiscrete() | spaces.MultiBinary():
            starts = np.ravel(getattr(space, "start", 0)).astype(np.int32)
            return lambda action: (action + starts).reshape(*action.shape[:-1], *space.shape)
        case spaces.Box():
            return _to_box(space)
    raise ValueError(f"action space {space} is not supported: use Discrete, MultiDiscrete, MultiBinary or Box")


def _to_box(space: spaces.Box) -> Callable[[Any], Any]:
    lowest, highest, half, middle = box_scale(space)
    return lambda action: (action.clip(lowest, highest) * half + middle).reshape(*action.shape[:-1], *space.shape)


def box_scale(space: spaces.Box) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What brings a policy's action to a Box: `clip(action, lowest, highest) * half + middle`, each float32 `[D]`.

    Where there are two bounds, -1 and 1 become them; where there is one, it holds.
    """
    low, high = space.low.ravel(), space.high.ravel()
    bounded = np.isfinite(low) & np.isfinite(high)
    bottom, top = (np.where(bounded, bound, 0.0).astype(np.float64) for bound in (low, high))
    lowest, highest = np.where(bounded, -1, low), np.where(bounded, 1, high)
    half, middle = np.where(bounded, (top - bottom) / 2.0, 1.0), (top + bottom) / 2.0
    return lowest.astype(np.float32), highest.astype(np.float32), half.astype(np.float32), middle.astype(np.float32)


def _vectorize_host(recipe: Gymnasium, num_envs: int) -> VectorEnv:
    """Drive gymnasium's environments.

    They live in this closure, not in the state, which is empty: `reset` starts them anew.
    """
    # Else JAX hands every small program to another thread, for 15 to 40 us a step that is waited for at once. It holds
    # if nothing was computed before.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    envs = recipe.build(num_envs)
    to_env = action_to_space(envs.action_space)

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        seeds = np.asarray(jax.random.bits(key, (num_envs,)) >> 1).tolist()  # 31 bits: gymnasium wants small ints
        return (), envs.reset(seeds)

    def step(keys: Key, state: PyTree, action: jax.Array) -> tuple[PyTree, PyTree, Step]:
        out = envs.step(to_env(np.asarray(action)).astype(envs.action_space.dtype, copy=False))
        return (), out.observation, Step((), out.successor, out.reward, out.terminated, out.truncated, {})

    return VectorEnv(reset, step, num_envs, envs.observation_space, envs.action_space, host=True)
