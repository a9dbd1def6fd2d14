"""Collecting experience: one loop for every algorithm. It takes a policy function and knows no algorithm.

Axes: T time, B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.types import Key, Metrics, PyTree, Transition, VectorEnv

Policy = Callable[[PyTree, Key, PyTree], jax.Array]  # (actor, key, observation [B, ...]) -> action [B, ...]


class RolloutState(NamedTuple):
    """Where the environments stand between two rollouts.

    Attributes:
        env_state: of the B environments; empty for host environments, which live outside.
        observation: `[B, ...]` to act on next.
        episode_return: `[B]` sum of rewards of the running episodes.
        episode_length: `[B]` int32 steps of the running episodes.
    """

    env_state: PyTree
    observation: PyTree
    episode_return: jax.Array
    episode_length: jax.Array


def start_rollout(env: VectorEnv, key: Key) -> RolloutState:
    """Begin an episode in every environment."""
    env_state, observation = env.reset(key)
    return RolloutState(env_state, observation, jnp.zeros(env.num_envs), jnp.zeros(env.num_envs, jnp.int32))


def rollout(
    env: VectorEnv, policy: Policy, actor: PyTree, state: RolloutState, key: Key, num_steps: int
) -> tuple[RolloutState, Transition, Metrics]:
    """Let a policy act for T = `num_steps` steps in every environment.

    Args:
        env: the environments; host ones are driven from Python, JAX ones by a scan.
        policy: `(actor, key, observation [B, ...]) -> action [B, ...]`.
        actor: what the policy needs (parameters, statistics), fixed for the rollout.
        state: where the environments stand.
        key: for the policy and the environments.
        num_steps: T.

    Returns:
        Where the environments stand now, transitions `[T, B, ...]`, and the metrics `episodes` (how many ended),
        `episode_return` and `episode_length` (their means, 0 where none ended).
    """
    run = _host_rollout if env.host else _scan_rollout
    state, transitions, return_sum, length_sum = run(env, policy, actor, state, key, num_steps)
    episodes = (transitions.terminated | transitions.truncated).sum()
    ended = episodes.clip(1)
    metrics = {"episodes": episodes, "episode_return": return_sum / ended, "episode_length": length_sum / ended}
    return state, transitions, metrics


def _scan_rollout(
    env: VectorEnv, policy: Policy, actor: PyTree, state: RolloutState, key: Key, num_steps: int
) -> tuple[RolloutState, Transition, jax.Array, jax.Array]:
    def one(carry: tuple, keys: tuple[Key, Key]) -> tuple[tuple, Transition]:
        state, return_sum, length_sum = carry
        action_key, env_key = keys
        action = policy(actor, action_key, state.observation)
        env_state, observation, step = env.step(env_key, state.env_state, action)
        transition = Transition(
            state.observation, action, step.reward, step.terminated, step.truncated, step.observation
        )
        done = step.terminated | step.truncated
        episode_return, episode_length = state.episode_return + step.reward, state.episode_length + 1
        return_sum += jnp.sum(jnp.where(done, episode_return, 0.0))
        length_sum += jnp.sum(jnp.where(done, episode_length, 0))
        state = RolloutState(
            env_state, observation, jnp.where(done, 0.0, episode_return), jnp.where(done, 0, episode_length)
        )
        return (state, return_sum, length_sum), transition

    keys = jax.random.split(key, (2, num_steps))  # all at once: a draw in the loop costs more than the step
    carry = (state, jnp.zeros(()), jnp.zeros((), jnp.int32))
    (state, return_sum, length_sum), transitions = jax.lax.scan(one, carry, (keys[0], keys[1]))
    return state, transitions, return_sum, length_sum


@partial(jax.jit, static_argnums=0)
def _act(policy: Policy, actor: PyTree, key: Key, t: int, observation: PyTree) -> jax.Array:
    return policy(actor, jax.random.fold_in(key, t), observation)


def _host_rollout(
    env: VectorEnv, policy: Policy, actor: PyTree, state: RolloutState, key: Key, num_steps: int
) -> tuple[RolloutState, Transition, float, int]:
    env_state, observation = state.env_state, jax.tree.map(np.asarray, state.observation)
    episode_return: Any = np.array(state.episode_return)
    episode_length: Any = np.array(state.episode_length)
    return_sum, length_sum, rows = 0.0, 0, []
    for t in range(num_steps):
        action: Any = np.asarray(_act(policy, actor, key, t, observation))
        env_state, next_observation, step = env.step(key, env_state, action)
        rows.append(Transition(observation, action, step.reward, step.terminated, step.truncated, step.observation))
        observation = next_observation
        episode_return += step.reward
        episode_length += 1
        done = step.terminated | step.truncated
        if done.any():
            return_sum += float(episode_return[done].sum())
            length_sum += int(episode_length[done].sum())
            episode_return[done], episode_length[done] = 0.0, 0
    transitions = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return RolloutState(env_state, observation, episode_return, episode_length), transitions, return_sum, length_sum
