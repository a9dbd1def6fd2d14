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

from rlx.envs.host import Gymnasium
from rlx.types import Env, Key, PyTree, Step, VectorEnv


def vectorize(env: Env | Gymnasium, num_envs: int) -> VectorEnv:
    """Put `num_envs` copies of an environment side by side; where an episode ends, a fresh random one begins.

    Actions arrive as the policy drew them: for a bounded Box they are clipped to [-1, 1] and scaled to the bounds, for
    a Box without bounds they pass as they are, for Discrete they count from 0.

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

    Raises:
        ValueError: a space other than Discrete and Box.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        start = int(space.start)
        return (lambda action: action + start) if start else (lambda action: action)
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"action space {space} is not supported: use Discrete or Box")
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = (np.where(bounded, bound, 0.0).astype(np.float64) for bound in (space.low, space.high))
    half = np.where(bounded, (high - low) / 2.0, 1.0).astype(space.dtype)
    middle = ((high + low) / 2.0).astype(space.dtype)
    lowest, highest = np.where(bounded, -1, space.low), np.where(bounded, 1, space.high)
    return lambda action: action.clip(lowest, highest) * half + middle


def _vectorize_host(recipe: Gymnasium, num_envs: int) -> VectorEnv:
    """Drive gymnasium's vector environment, which restarts an episode on the step that ends it (SAME_STEP).

    The environments live in this closure, not in the state, which is empty: `reset` starts them anew.
    """
    envs = recipe.build(num_envs)
    to_env = action_to_space(envs.single_action_space)

    def observed(observation: np.ndarray) -> np.ndarray:
        # float64 has no place on a device; copied, as gymnasium reuses its buffer
        dtype = np.float32 if observation.dtype == np.float64 else observation.dtype
        return np.array(observation, dtype)

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        seeds = np.asarray(jax.random.bits(key, (num_envs,)) >> 1).tolist()  # 31 bits: gymnasium wants small ints
        observation, _ = envs.reset(seed=seeds)
        return (), observed(observation)

    def step(keys: Key, state: PyTree, action: jax.Array) -> tuple[PyTree, PyTree, Step]:
        out: Any = envs.step(to_env(np.asarray(action)))
        observation, reward, terminated, truncated, info = out
        observation = observed(observation)
        successor = observation
        if "final_obs" in info:
            successor = observation.copy()
            for index in np.flatnonzero(info["_final_obs"]):
                successor[index] = info["final_obs"][index]
        return (), observation, Step((), successor, reward.astype(np.float32), terminated, truncated, {})

    return VectorEnv(reset, step, num_envs, envs.single_observation_space, envs.single_action_space, host=True)
