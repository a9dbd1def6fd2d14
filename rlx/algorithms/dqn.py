"""Deep Q-learning (Mnih et al. 2015, doi 10.1038/nature14236), with what was added to it as numbers and networks.

Double Q-learning, n-step targets and sampling by priority are fields of the config; dueling heads and a distribution
over returns belong to the network. Axes: T time, B environments, N rows of a batch, A actions, Q quantiles, G gradient
steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.act_and_learn import act_and_learn
from rlx.core.config import require, require_counts, require_finite, require_fraction
from rlx.core.learn import gradient_step, init_learner
from rlx.core.replay import (
    Batch,
    Priorities,
    Replay,
    add,
    held_rows,
    importance_weights,
    init_priorities,
    prefill,
    prioritize_new,
    read,
    require_replay,
    sample_by_priority,
    sample_rows,
    set_priorities,
)
from rlx.core.rollout import RolloutState, uniform_policy
from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.ops.distributions import epsilon_greedy
from rlx.ops.td import Quantiles, huber, mean_values, quantile_huber, select_action, td_target
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN. One step collects `num_envs * num_steps` rows, then learns from batches of the replay."""

    num_envs: int = 1  # environments side by side, B
    num_steps: int = 4  # steps of each environment between two rounds of learning, T; 1 to 256
    gradient_steps: int = 1  # gradient steps a round, G; 1 to num_envs * num_steps
    batch_size: int = 32  # rows a gradient step, N; 32 to 256
    replay_size: int = 100_000  # rows the replay holds; a multiple of num_envs
    prefill: int = 1_000  # environment steps by random actions before learning begins; a multiple of num_envs
    discount: float = 0.99  # gamma; 0.9 to 0.999
    n_step: int = 1  # rewards before the bootstrap; 1 to 5. Above 1 it is biased, as the actions are off the policy
    double: bool = True  # let the learning network choose the next action and the target network value it
    target_every: int = 250  # gradient steps between two updates of the target network
    tau: float = 1.0  # how far an update brings it to the learning one; 1: a copy; 0.005 with target_every 1: Polyak
    epsilon_start: float = 1.0  # share of random actions at first
    epsilon_end: float = 0.05  # share of random actions at last; 0.01 to 0.1
    epsilon_steps: int = 10_000  # environment steps after the prefill over which it falls; a tenth to half of the run
    huber: float | None = 1.0  # error from which on the loss is linear, in units of the return; None: squared errors
    reward_clip: float | None = None  # learn from rewards clipped to +-this; 1 for Atari; None: as they are
    priority_exponent: float | None = None  # alpha of sampling by priority; 0.5 to 0.7; None: uniformly
    importance_exponent: float = 0.4  # beta, how far weights undo the bias of sampling by priority; 0.4 to 1

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps", "gradient_steps", "batch_size", "replay_size", "prefill")
        require_counts(self, "n_step", "target_every", "epsilon_steps")
        require_fraction(self, "discount", "tau", "epsilon_start", "epsilon_end", "importance_exponent")
        require_replay(self)
        for name in ("huber", "reward_clip", "priority_exponent"):
            require(self, getattr(self, name) is None or getattr(self, name) > 0, "must be above 0 or None", name)

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class DQNState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        learner: the network's parameters, and the optimiser's state.
        target_params: of the target network.
        rollout: where the environments stand.
        replay: the last rows.
        priorities: of the rows; None where they are drawn uniformly.
        env_steps: scalar int32, environment steps after the prefill.
        updates: scalar int32, gradient steps.
    """

    key: Key
    learner: Learner
    target_params: PyTree
    rollout: RolloutState
    replay: Replay
    priorities: Priorities | None
    env_steps: jax.Array
    updates: jax.Array


def dqn_loss(
    params: PyTree,
    target_params: PyTree,
    apply: Callable,
    batch: Batch,
    weight: jax.Array,
    double: bool,
    delta: float | None,
) -> tuple[jax.Array, Metrics]:
    """Weighted mean of the TD errors' losses (Mnih et al. 2015, eq. 2; van Hasselt et al. 2015, arXiv 1509.06461).

    Args:
        params: of the network, the argument that learns.
        target_params: of the target network.
        apply: `(params, observation) -> [N, A]`, or `Quantiles`.
        batch: `[N, ...]` rows.
        weight: `[N]` of the rows.
        double: whether `params` choose the next action.
        delta: of the Huber loss, or None.

    Returns:
        The scalar loss; the metric q_value, and td_error `[N]` for the priorities.
    """
    values, next_values = apply(params, batch.observation), apply(target_params, batch.next_observation)
    judge = apply(jax.lax.stop_gradient(params), batch.next_observation) if double else next_values
    best = jnp.argmax(mean_values(judge), axis=-1)
    value = select_action(values, batch.action)
    target = td_target(batch.reward, batch.terminated, select_action(next_values, best), batch.discount)
    error = target - value
    if isinstance(values, Quantiles):
        loss, error = quantile_huber(value, target, delta), jnp.mean(error, axis=-1)
    else:
        loss = huber(error, delta)
    return jnp.mean(weight * loss), {"q_value": jnp.mean(value), "td_error": error}


def dqn(
    env: Env | Gymnasium,
    network: Network,
    optimizer: optax.GradientTransformation,
    config: DQNConfig = DQNConfig(),
) -> Algorithm:
    """Make DQN for an environment with Discrete actions.

    It explores epsilon-greedily. It is off-policy: rows are kept and learnt from many times.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        network: `apply` gives values `[..., A]`, or `rlx.ops.Quantiles` of the return, learnt by quantile regression;
            `rlx.nets.q_network(env, dueling=..., quantiles=...)` is one.
        optimizer: optax's; it takes `gradient_steps` steps an update.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)
    explore = uniform_policy(envs.action_space)

    def init(key: Key) -> DQNState:
        key, network_key, env_key = jax.random.split(key, 3)
        rollout_state, replay = prefill(envs, explore, (), env_key, config.prefill, config.replay_size)
        params = network.init(network_key, rollout_state.observation)
        learner = init_learner(params, optimizer)
        priorities = None if config.priority_exponent is None else init_priorities(replay)
        target_params = jax.tree.map(jnp.copy, params)
        counts = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return DQNState(key, learner, target_params, rollout_state, replay, priorities, *counts)

    def policy(acting: tuple, key: Key | None, observation: PyTree) -> jax.Array:
        params, epsilon = acting
        choice = epsilon_greedy(mean_values(network.apply(params, observation)), epsilon)
        return choice.mode() if key is None else choice.sample(key)

    def actor(state: DQNState) -> tuple:
        return state.learner.params, epsilon_at(state.env_steps, config)

    def learn(state: DQNState, transitions: Transition, key: Key) -> tuple[DQNState, Metrics]:
        return dqn_learn(state, transitions, key, network.apply, optimizer, config)

    return act_and_learn(envs, init, actor, policy, learn, config.num_steps, keeps=True)


def epsilon_at(env_steps: jax.Array, config: DQNConfig) -> jax.Array:
    """Share of random actions: from `epsilon_start` in a straight line to `epsilon_end`, then as it is."""
    progress = jnp.minimum(env_steps / config.epsilon_steps, 1.0)
    return config.epsilon_start + progress * (config.epsilon_end - config.epsilon_start)


def dqn_learn(
    state: DQNState,
    transitions: Transition,
    key: Key,
    apply: Callable,
    optimizer: optax.GradientTransformation,
    config: DQNConfig,
) -> tuple[DQNState, Metrics]:
    """Put a rollout `[T, B, ...]` into the replay, then take G gradient steps; metrics are means over them."""
    if config.reward_clip is not None:
        transitions = transitions._replace(reward=transitions.reward.clip(-config.reward_clip, config.reward_clip))
    replay, priorities = add(state.replay, transitions), state.priorities
    if priorities is None:  # all draws at once
        draws = sample_rows(key, replay, (config.gradient_steps, config.batch_size))
    else:
        priorities = prioritize_new(priorities, state.replay, config.num_steps)
        draws = jax.random.split(key, config.gradient_steps)

    def one(carry: tuple, draw: jax.Array) -> tuple[tuple, Metrics]:
        learner, target_params, priorities, updates = carry
        rows, weight = draw, jnp.ones(())
        if priorities is not None:
            rows, probability = sample_by_priority(draw, priorities, config.batch_size)
            weight = importance_weights(probability, held_rows(replay), config.importance_exponent)
        batch = read(replay, rows, config.discount, config.n_step)
        learner, metrics = gradient_step(
            dqn_loss, optimizer, learner, target_params, apply, batch, weight, config.double, config.huber
        )
        error = metrics.pop("td_error")
        if priorities is not None and config.priority_exponent is not None:
            priorities = set_priorities(priorities, rows, (jnp.abs(error) + 1e-6) ** config.priority_exponent)
        updates += 1
        step_size = jnp.where(updates % config.target_every == 0, config.tau, 0.0)
        target_params = optax.incremental_update(learner.params, target_params, step_size)
        return (learner, target_params, priorities, updates), metrics

    carry = (state.learner, state.target_params, priorities, state.updates)
    carry, metrics = jax.lax.scan(one, carry, draws)  # the replay is not carried: it would be copied
    learner, target_params, priorities, updates = carry
    epsilon = epsilon_at(state.env_steps, config)
    state = DQNState(
        state.key,
        learner,
        target_params,
        state.rollout,
        replay,
        priorities,
        state.env_steps + config.env_steps,
        updates,
    )
    return state, jax.tree.map(jnp.mean, metrics) | {"epsilon": epsilon}
