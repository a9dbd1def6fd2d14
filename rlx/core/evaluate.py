"""Evaluation: whole episodes, an exact number of them.

Axes: E episodes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.types import Algorithm, Env, Key, PyTree


class Episodes(NamedTuple):
    """What whole episodes came to.

    Attributes:
        episode_return: `[E]` undiscounted sums of raw rewards.
        episode_length: `[E]` steps.
    """

    episode_return: jax.Array
    episode_length: jax.Array


def evaluate(
    algorithm: Algorithm,
    env: Env | Gymnasium,
    state: PyTree,
    key: Key,
    num_episodes: int = 100,
    greedy: bool = True,
    max_steps: int = 100_000,
) -> Episodes:
    """Play `num_episodes` whole episodes, each in an environment of its own, with the policy of a state.

    One episode an environment: counting the first E to end among fewer environments would favour short ones.

    Args:
        algorithm: whose `act` plays.
        env: may be another than it learned in: gymnasium's own, or other constants.
        state: the algorithm's, not donated.
        key: for resets and sampled actions.
        num_episodes: E.
        greedy: take the mode of the policy, else sample.
        max_steps: an episode that goes on after so many steps is cut off: a greedy policy may go round in circles for
            ever where there is no time limit (CliffWalking-v1).

    Returns:
        Returns and lengths `[E]`. For a JAX environment it can be jitted and vmapped over states.
    """
    if num_episodes < 1:
        raise ValueError(f"num_episodes={num_episodes} must be 1 or more")
    envs = vectorize(env, num_episodes)
    xp: Any = np if envs.host else jnp
    reset_key, loop_key = jax.random.split(key)
    env_state, observation = envs.reset(reset_key)

    def one(carry: tuple) -> tuple:
        key, env_state, observation, over, total, length = carry
        keys = jax.random.split(key, 2 + 2 * num_episodes)
        key, action_key, env_keys = keys[0], keys[1], keys[2:].reshape(2, num_episodes)
        action = act(state, None if greedy else action_key, observation)
        env_state, observation, step = envs.step(env_keys, env_state, action)
        total, length = total + xp.where(over, 0.0, step.reward), length + ~over
        over = over | step.terminated | step.truncated
        return key, env_state, observation, over, total, length

    def going_on(carry: tuple) -> Any:
        _, _, _, over, _, length = carry
        return (~over & (length < max_steps)).any()

    carry = (
        loop_key,
        env_state,
        observation,
        xp.zeros(num_episodes, bool),
        xp.zeros(num_episodes, xp.float32),
        xp.zeros(num_episodes, xp.int32),
    )
    if envs.host:
        act = jax.jit(algorithm.act)
        while going_on(carry):
            carry = one(carry)
    else:
        act = algorithm.act
        carry = jax.lax.while_loop(going_on, one, carry)
    return Episodes(carry[4], carry[5])
