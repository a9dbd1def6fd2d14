"""Collecting experience: one loop for every algorithm. It takes a policy function and knows no algorithm.

Axes: T time, B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from rlx.nets.actor_critic import NormalHead, policy_head
from rlx.nets.inputs import split_mask
from rlx.ops.random import uniform
from rlx.types import Key, Metrics, PyTree, Transition, VectorEnv

Policy = Callable[[PyTree, Key, PyTree], jax.Array]  # (actor, key, observation [B, ...]) -> action [B, ...]


def uniform_policy(action_space: gymnasium.Space) -> Policy:
    """Make the policy that draws every allowed action alike, and a Box's uniformly from [-1, 1]; its actor is empty.

    Raises:
        ValueError: a space that is not supported.
    """
    head = policy_head(action_space)

    def draw(actor: PyTree, key: Key, observation: PyTree) -> jax.Array:
        observation, mask = split_mask(observation)
        shape = (jax.tree.leaves(observation)[0].shape[0], head.outputs)
        if isinstance(head, NormalHead):
            return 2.0 * uniform(key, shape) - 1.0
        return head(jnp.zeros(shape), mask).sample(key)

    return draw


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
    if not env.host:  # an environment may show its state as it is, but no buffer is given twice
        observation = jax.tree.map(jnp.copy, observation)
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
    begun, (state, transitions) = state, run(env, policy, actor, state, key, num_steps)
    episodes = (transitions.terminated | transitions.truncated).sum()
    ended = episodes.clip(1)
    # What was there and what came, less what the running episodes hold, belongs to the episodes that ended.
    returns = begun.episode_return.sum() + transitions.reward.sum() - state.episode_return.sum()
    lengths = begun.episode_length.sum() + transitions.reward.size - state.episode_length.sum()
    returns = jnp.where(episodes > 0, returns, 0.0)  # not a rounding error, where none ended
    return (
        state,
        transitions,
        {"episodes": episodes, "episode_return": returns / ended, "episode_length": lengths / ended},
    )


def _scan_rollout(
    env: VectorEnv, policy: Policy, actor: PyTree, state: RolloutState, key: Key, num_steps: int
) -> tuple[RolloutState, Transition]:
    def one(state: RolloutState, keys: tuple[Key, Key]) -> tuple[RolloutState, Transition]:
        action_key, env_keys = keys
        action = policy(actor, action_key, state.observation)
        env_state, observation, step = env.step(env_keys, state.env_state, action)
        transition = Transition(
            state.observation, action, step.reward, step.terminated, step.truncated, step.observation
        )
        done = step.terminated | step.truncated
        episode_return = jnp.where(done, 0.0, state.episode_return + step.reward)
        episode_length = jnp.where(done, 0, state.episode_length + 1)
        return RolloutState(env_state, observation, episode_return, episode_length), transition

    keys = jax.random.split(key, num_steps * (1 + 2 * env.num_envs)).reshape(num_steps, -1)  # no draw in the loop
    return jax.lax.scan(one, state, (keys[:, 0], keys[:, 1:].reshape(num_steps, 2, env.num_envs)))


@partial(jax.jit, static_argnums=0)
def _act(policy: Policy, actor: PyTree, key: Key, t: int, observation: PyTree) -> jax.Array:
    return policy(actor, jax.random.fold_in(key, t), observation)


def _host_rollout(
    env: VectorEnv, policy: Policy, actor: PyTree, state: RolloutState, key: Key, num_steps: int
) -> tuple[RolloutState, Transition]:
    env_state, observation = state.env_state, jax.tree.map(np.asarray, state.observation)
    rows = []
    for t in range(num_steps):
        action: Any = np.asarray(_act(policy, actor, key, t, observation))
        env_state, next_observation, step = env.step(key, env_state, action)
        rows.append(Transition(observation, action, step.reward, step.terminated, step.truncated, step.observation))
        observation = next_observation
    transitions: Transition = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    done: Any = transitions.terminated | transitions.truncated
    running = ~np.logical_or.accumulate(done[::-1])[::-1]  # [T, B], rows of the episodes that go on
    through = ~done.any(axis=0)  # [B], these began before this rollout
    episode_return = (transitions.reward * running).sum(axis=0) + state.episode_return * through
    episode_length = running.sum(axis=0, dtype=np.int32) + state.episode_length * through
    return RolloutState(env_state, observation, episode_return, episode_length), transitions
