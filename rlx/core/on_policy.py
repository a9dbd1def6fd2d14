"""What on-policy algorithms share: the policy acts for T steps, learns from them, and they are dropped.

Axes: T time, B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlx.core.act_and_learn import Learn, act_and_learn
from rlx.core.learn import BLOCK
from rlx.core.normalize import (
    RewardScaler,
    init_observation_moments,
    init_reward_scaler,
    normalize_observation,
    scale_reward,
    update_reward_scaler,
)
from rlx.core.rollout import RolloutState, start_rollout
from rlx.types import Algorithm, Key, PyTree, Transition, VectorEnv


def start(env: VectorEnv, key: Key, config: Any) -> tuple[RolloutState, PyTree, RewardScaler | None]:
    """Begin an episode in every environment: where they stand, statistics of observations, scale of returns.

    The statistics have seen the first observations. Each is None where `config.normalize_observation` or
    `config.normalize_reward` is False.
    """
    rollout_state = start_rollout(env, key)
    moments = init_observation_moments(rollout_state.observation) if config.normalize_observation else None
    return rollout_state, moments, init_reward_scaler(env.num_envs) if config.normalize_reward else None


def on_policy(
    env: VectorEnv,
    init: Callable[[Key], Any],
    actor: Callable[[Any], PyTree],
    distribution: Callable[[PyTree, PyTree], Any],
    learn: Learn,
    num_steps: int,
) -> Algorithm:
    """Make the algorithm whose step is a rollout of T = `num_steps` and learning from it.

    Args:
        env: the environments.
        init: `(key) -> state` with at least the fields `key`, `rollout` and `observation_moments`.
        actor: from the state, the parameters that the policy needs.
        distribution: `(those parameters, normalised observation) -> distribution` over actions.
        learn: `(state, raw transitions [T, B, ...], key) -> (state, metrics)`; it leaves `key` and `rollout` alone.
        num_steps: T.
    """

    def policy(actor: tuple, key: Key | None, observation: PyTree) -> jax.Array:
        params, moments = actor
        choice = distribution(params, normalize_observation(moments, observation))
        return choice.mode() if key is None else choice.sample(key)

    def acting(state: Any) -> tuple:
        return actor(state), state.observation_moments

    return act_and_learn(env, init, acting, policy, learn, num_steps)


def normalize_transitions(
    transitions: Transition, moments: PyTree, scaler: RewardScaler | None, discount: float
) -> tuple[Transition, RewardScaler | None]:
    """Bring a raw rollout `[T, B, ...]` to what the networks take, and take its rewards into their scale.

    The scale takes the rollout in before it is used, as nothing that acted depends on it. The statistics of
    observations must not: within one update the policy has to see what it saw when it acted.
    """
    reward = transitions.reward
    if scaler is not None:
        scaler = update_reward_scaler(scaler, reward, transitions.terminated | transitions.truncated, discount)
        reward = scale_reward(scaler, reward)
    normalized = transitions._replace(
        observation=normalize_observation(moments, transitions.observation),
        next_observation=normalize_observation(moments, transitions.next_observation),
        reward=reward,
    )
    return normalized, scaler


def with_last(rows: PyTree, last: PyTree) -> PyTree:
    """Rows `[T, ...]` and one more, the last row of `last` `[T, ...]`: `[T + 1, ...]`.

    Observations with the last successor are what a critic is asked for, all at once.
    """
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[-1:]]), rows, last)


def over_time(function: Callable[..., PyTree], *rows: PyTree) -> PyTree:
    """Give `function(*rows)` of a rollout `[T, B, ...]`; on a CPU by blocks, so that a large one stays in its cache.

    Args:
        function: what it says of a row depends on that row alone, and has its axes first: `[T, B, ...]`.
        *rows: of the rollout.
    """
    steps, num_envs = jax.tree.leaves(rows)[0].shape[:2]
    if jax.default_backend() != "cpu" or steps * num_envs <= BLOCK:
        return function(*rows)
    return jax.lax.map(lambda rows: function(*rows), rows, batch_size=max(1, BLOCK // num_envs))


def successor_values(critic: Callable[[PyTree], jax.Array], values: jax.Array, transitions: Transition) -> jax.Array:
    """V(s_{t+1}) `[T, B]` of the true successors, from the values `[T + 1, B]` of the rows and the last successor.

    A row's successor is the next row, but where an episode was cut off. Few rollouts have one: only then is the critic,
    `(observation) -> value`, asked again. (What it says of a successor that ends the task is not looked at.)
    """
    return jax.lax.cond(
        jnp.any(transitions.truncated), lambda: critic(transitions.next_observation), lambda: values[1:]
    )
