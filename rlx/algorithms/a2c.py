"""Advantage actor-critic, the synchronous A3C (Mnih et al. 2016, arXiv 1602.01783, algorithm S3).

Axes: T time, B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require, require_counts, require_finite, require_fraction
from rlx.core.learn import gradient_step, init_learner
from rlx.core.normalize import RewardScaler, normalize_observation, update_observation_moments
from rlx.core.on_policy import normalize_transitions, on_policy, start, successor_values, with_last
from rlx.core.rollout import RolloutState
from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.ops.policy_gradients import policy_gradient_loss
from rlx.ops.returns import explained_variance, gae, standardize
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition


@dataclass(frozen=True)
class A2CConfig:
    """Hyperparameters of A2C. One step collects `num_envs * num_steps` rows and takes one gradient step on them."""

    num_envs: int = 8  # environments side by side, B; more make the gradient less noisy
    num_steps: int = 8  # steps of each environment per update, T; 5 to 128
    discount: float = 0.99  # gamma; 0.9 to 0.999
    trace: float = 0.95  # lambda of GAE, from 0 (one-step, biased) to 1 (all T steps, noisy)
    value_coef: float = 0.5  # weight of the value loss (half the squared error)
    entropy_coef: float = 0.0  # weight of the entropy bonus, per nat; 0 to 0.02
    normalize_advantage: bool = False  # give each rollout's advantages mean 0 and variance 1
    normalize_observation: bool = False  # give observations mean 0 and variance 1 by running statistics
    normalize_reward: bool = False  # divide rewards by the running deviation of the discounted return

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps")
        require_fraction(self, "discount", "trace")
        for name in ("value_coef", "entropy_coef"):
            require(self, getattr(self, name) >= 0, "must not be negative", name)
        many = self.env_steps > 1 or not self.normalize_advantage
        require(self, many, "the advantage of a single row cannot be normalised", "num_envs", "num_steps")

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class A2CState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        learner: actor's and critic's parameters, and the optimiser's state.
        rollout: where the environments stand.
        observation_moments: running statistics of observations, a `Moments` for each array of floats; or None.
        reward_scaler: running scale of returns, or None.
    """

    key: Key
    learner: Learner
    rollout: RolloutState
    observation_moments: PyTree
    reward_scaler: RewardScaler | None


def a2c_loss(
    params: PyTree,
    apply: Callable,
    transitions: Transition,
    discount: float,
    trace: float,
    value_coef: float,
    entropy_coef: float,
    normalize_advantage: bool,
) -> tuple[jax.Array, Metrics]:
    """Policy gradient, value error and entropy bonus of a whole rollout, which passes the network once.

        loss = mean(-A log pi(a|s)) + value_coef * mean(1/2 (V - (A + V))^2) - entropy_coef * mean(entropy)

    The advantages A are those of the critic that learns, with gradients stopped: nothing has changed since it acted.

    Args:
        params: of the network, the argument that learns.
        apply: `(params, observation) -> (distribution, value)`.
        transitions: `[T, B, ...]` a rollout, as the network takes it.
        discount: gamma.
        trace: lambda of GAE.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy.
        normalize_advantage: whether the policy's advantages have mean 0 and variance 1; the critic's targets stay.

    Returns:
        The scalar loss, and the metrics policy_loss, value_loss, entropy and explained_variance.
    """
    distribution, values = apply(params, with_last(transitions.observation, transitions.next_observation))  # [T + 1, B]
    fixed, fixed_values = jax.lax.stop_gradient((params, values))
    next_value = successor_values(lambda observation: apply(fixed, observation)[1], fixed_values, transitions)
    flags = transitions.terminated, transitions.truncated
    advantage = gae(transitions.reward, fixed_values[:-1], next_value, *flags, discount, trace)
    target = advantage + fixed_values[:-1]
    log_prob = distribution.log_prob(with_last(transitions.action, transitions.action))[:-1]
    policy_loss = jnp.mean(policy_gradient_loss(log_prob, standardize(advantage) if normalize_advantage else advantage))
    value_loss = 0.5 * jnp.mean(jnp.square(values[:-1] - target))
    entropy = jnp.mean(distribution.entropy()[:-1])
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "explained_variance": explained_variance(fixed_values[:-1], target),
    }
    return policy_loss + value_coef * value_loss - entropy_coef * entropy, metrics


def a2c(
    env: Env | Gymnasium,
    network: Network,
    optimizer: optax.GradientTransformation,
    config: A2CConfig = A2CConfig(),
) -> Algorithm:
    """Make A2C for an environment.

    It is PPO with one epoch and one minibatch, where every ratio is 1 and nothing is clipped (Huang et al. 2022, arXiv
    2205.09123), or REINFORCE with a critic that also says what comes after T steps. Exploration comes from the policy's
    own entropy; rows are used for one gradient step and dropped.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        network: `apply` gives `(distribution, value)`; `rlx.nets.ActorCritic` is one.
        optimizer: optax's, with learning rate, clipping and annealing; it takes one step an update.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)

    def init(key: Key) -> A2CState:
        key, network_key, env_key = jax.random.split(key, 3)
        rollout_state, moments, reward_scaler = start(envs, env_key, config)
        params = network.init(network_key, normalize_observation(moments, rollout_state.observation))
        return A2CState(key, init_learner(params, optimizer), rollout_state, moments, reward_scaler)

    def distribution(params: PyTree, observation: PyTree) -> Any:
        return network.apply(params, observation)[0]

    def learn(state: A2CState, transitions: Transition, _: Key) -> tuple[A2CState, Metrics]:
        return a2c_learn(state, transitions, network.apply, optimizer, config)

    return on_policy(envs, init, lambda state: state.learner.params, distribution, learn, config.num_steps)


def a2c_learn(
    state: A2CState,
    transitions: Transition,
    apply: Callable,
    optimizer: optax.GradientTransformation,
    config: A2CConfig,
) -> tuple[A2CState, Metrics]:
    """Learn from one rollout `[T, B, ...]`: one gradient step, then the running statistics."""
    moments = state.observation_moments
    normalized, reward_scaler = normalize_transitions(transitions, moments, state.reward_scaler, config.discount)
    learner, metrics = gradient_step(
        a2c_loss,
        optimizer,
        state.learner,
        apply,
        normalized,
        config.discount,
        config.trace,
        config.value_coef,
        config.entropy_coef,
        config.normalize_advantage,
    )
    moments = update_observation_moments(moments, transitions.observation)  # for the next rollout
    return state._replace(learner=learner, observation_moments=moments, reward_scaler=reward_scaler), metrics
