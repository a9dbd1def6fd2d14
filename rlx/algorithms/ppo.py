"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

Axes: T time, B environments, N = T * B rows, M rows of a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require, require_counts, require_finite, require_fraction, require_positive
from rlx.core.learn import gradient_step, init_learner, minibatches
from rlx.core.normalize import RewardScaler, normalize_observation, update_observation_moments
from rlx.core.on_policy import normalize_transitions, on_policy, over_time, start, successor_values, with_last
from rlx.core.rollout import RolloutState
from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.ops.kl import k3
from rlx.ops.policy_gradients import clipped_surrogate, clipped_value_loss
from rlx.ops.returns import explained_variance, gae, standardize
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO. One step collects `num_envs * num_steps` rows and learns from them."""

    num_envs: int = 8  # environments side by side, B
    num_steps: int = 128  # steps of each environment per update, T; 32 to 2048
    num_epochs: int = 4  # passes over the rows per update; 1 to 20
    num_minibatches: int = 4  # minibatches per pass; must divide num_envs * num_steps
    discount: float = 0.99  # gamma; 0.9 to 0.999
    trace: float = 0.95  # lambda of GAE, from 0 (one-step, biased) to 1 (Monte Carlo, noisy)
    clip: float = 0.2  # half width of the probability ratio's range; 0.1 to 0.3
    value_clip: float | None = None  # how far a value may move per update, in units of the return; None: freely
    value_coef: float = 0.5  # weight of half the squared value error; Adam undoes it where nothing is shared or clipped
    entropy_coef: float = 0.0  # weight of the entropy bonus, per nat; 0 to 0.02
    target_kl: float | None = None  # end the update once approx_kl exceeds it, nats; 0.01 to 0.05; None: never
    normalize_advantage: bool = True  # give each minibatch's advantages mean 0 and variance 1
    normalize_observation: bool = False  # give observations mean 0 and variance 1 by running statistics
    normalize_reward: bool = False  # divide rewards by the running deviation of the discounted return

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps", "num_epochs", "num_minibatches")
        require_positive(self, "clip")
        require_fraction(self, "discount", "trace")
        for name in ("value_coef", "entropy_coef"):
            require(self, getattr(self, name) >= 0, "must not be negative", name)
        for name in ("value_clip", "target_kl"):
            require(self, getattr(self, name) is None or getattr(self, name) > 0, "must be above 0 or None", name)
        divides = (self.num_envs * self.num_steps) % self.num_minibatches == 0
        require(
            self,
            divides,
            "num_minibatches must divide num_envs * num_steps",
            "num_envs",
            "num_steps",
            "num_minibatches",
        )
        many = self.num_envs * self.num_steps // self.num_minibatches > 1 or not self.normalize_advantage
        require(
            self, many, "advantages of a single row cannot be normalised", "num_envs", "num_steps", "num_minibatches"
        )

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class PPOState(NamedTuple):
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


class PPOBatch(NamedTuple):
    """Rows to learn from, `[M, ...]`; what a policy network said of them is from before the update.

    Attributes:
        observation: `[M, ...]` as the network takes it.
        action: `[M, ...]` as the policy drew it.
        log_prob: `[M]` log pi_old(a|s).
        value: `[M]` V_old(s).
        advantage: `[M]`.
        target: `[M]` what V(s) should be.
    """

    observation: PyTree
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array


def ppo_loss(
    params: PyTree,
    apply: Callable,
    batch: PPOBatch,
    clip: float,
    value_clip: float | None,
    value_coef: float,
    entropy_coef: float,
) -> tuple[jax.Array, Metrics]:
    """Clipped surrogate, value error and entropy bonus (arXiv 1707.06347, eq. 9, as a loss).

        loss = mean(L_clip) + value_coef * mean(L_value) - entropy_coef * mean(entropy)

    Args:
        params: of the network, the argument that learns.
        apply: `(params, observation) -> (distribution, value)`.
        batch: `[M, ...]` rows.
        clip: half width of the ratio's range.
        value_clip: how far a value may move from `batch.value`, or None.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy.

    Returns:
        The scalar loss, and the metrics policy_loss, value_loss, entropy, approx_kl (nats) and clip_fraction.
    """
    distribution, value = apply(params, batch.observation)
    log_prob = distribution.log_prob(batch.action)
    policy_loss = jnp.mean(clipped_surrogate(log_prob, batch.log_prob, batch.advantage, clip))
    if value_clip is None:
        value_loss = 0.5 * jnp.mean(jnp.square(value - batch.target))
    else:
        value_loss = jnp.mean(clipped_value_loss(value, batch.value, batch.target, value_clip))
    entropy = jnp.mean(distribution.entropy())
    log_prob = jax.lax.stop_gradient(log_prob)
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": jnp.mean(k3(batch.log_prob, log_prob)),
        "clip_fraction": jnp.mean(jnp.abs(jnp.expm1(log_prob - batch.log_prob)) > clip),
    }
    return policy_loss + value_coef * value_loss - entropy_coef * entropy, metrics


def ppo(
    env: Env | Gymnasium,
    network: Network,
    optimizer: optax.GradientTransformation,
    config: PPOConfig = PPOConfig(),
) -> Algorithm:
    """Make PPO for an environment.

    Exploration comes from the policy's own entropy. It is on-policy: rows are used for one update and dropped.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        network: `apply` gives `(distribution, value)`; `rlx.nets.ActorCritic` is one.
        optimizer: optax's, with learning rate, clipping and annealing; it takes
            `num_epochs * num_minibatches` steps an update.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)

    def init(key: Key) -> PPOState:
        key, network_key, env_key = jax.random.split(key, 3)
        rollout_state, moments, reward_scaler = start(envs, env_key, config)
        params = network.init(network_key, normalize_observation(moments, rollout_state.observation))
        return PPOState(key, init_learner(params, optimizer), rollout_state, moments, reward_scaler)

    def distribution(params: PyTree, observation: PyTree) -> Any:
        return network.apply(params, observation)[0]

    def learn(state: PPOState, transitions: Transition, key: Key) -> tuple[PPOState, Metrics]:
        return ppo_learn(state, transitions, key, network.apply, optimizer, config)

    return on_policy(envs, init, lambda state: state.learner.params, distribution, learn, config.num_steps)


def ppo_learn(
    state: PPOState,
    transitions: Transition,
    key: Key,
    apply: Callable,
    optimizer: optax.GradientTransformation,
    config: PPOConfig,
) -> tuple[PPOState, Metrics]:
    """Learn from one rollout `[T, B, ...]`: advantages, then epochs of minibatches, then the running statistics."""
    moments = state.observation_moments
    normalized, reward_scaler = normalize_transitions(transitions, moments, state.reward_scaler, config.discount)
    batch = make_batch(state.learner.params, apply, normalized, config.discount, config.trace)
    explained = explained_variance(batch.value, batch.target)
    learner, metrics = fit_batch(state.learner, batch, key, apply, optimizer, config)
    moments = update_observation_moments(moments, transitions.observation)  # for the next rollout
    state = state._replace(learner=learner, observation_moments=moments, reward_scaler=reward_scaler)
    return state, metrics | {"explained_variance": explained}


def make_batch(params: PyTree, apply: Callable, transitions: Transition, discount: float, trace: float) -> PPOBatch:
    """Turn a rollout `[T, B, ...]` into rows `[N, ...]` with log-probabilities, values, advantages and targets.

    The network sees the rollout at once, or in large blocks, which is faster than asking it at every step.
    """

    def log_prob_and_value(observation: PyTree, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        distribution, value = apply(params, observation)
        return distribution.log_prob(action), value

    def critic(observation: PyTree) -> jax.Array:
        return over_time(lambda observation: apply(params, observation)[1], observation)

    # One row more at the end, for the value that follows the last row; its log-probability is dropped.
    observations = with_last(transitions.observation, transitions.next_observation)
    actions = with_last(transitions.action, transitions.action)
    log_prob, values = over_time(log_prob_and_value, observations, actions)
    log_prob, value = log_prob[:-1], values[:-1]
    next_value = successor_values(critic, values, transitions)
    advantage = gae(
        transitions.reward, value, next_value, transitions.terminated, transitions.truncated, discount, trace
    )
    batch = PPOBatch(
        transitions.observation,
        transitions.action,
        log_prob,
        value,
        advantage,
        advantage + value,
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def fit_batch(
    learner: Learner,
    batch: PPOBatch,
    key: Key,
    apply: Callable,
    optimizer: optax.GradientTransformation,
    config: PPOConfig,
) -> tuple[Learner, Metrics]:
    """Take `num_epochs * num_minibatches` gradient steps on rows `[N, ...]`; metrics are means over the steps."""

    rows = minibatches(key, batch.value.shape[0], config.num_epochs, config.num_minibatches)  # [steps, M]
    # What is one number a row is brought into order for all steps at once; observations, which are large, step by step.
    ordered = jax.tree.map(lambda x: x[rows], batch._replace(observation=()))
    if config.normalize_advantage:
        ordered = ordered._replace(advantage=standardize(ordered.advantage, axis=1))

    def loss(params: PyTree, minibatch: PPOBatch) -> tuple[jax.Array, Metrics]:
        weights = (config.clip, config.value_clip, config.value_coef, config.entropy_coef)
        return ppo_loss(params, apply, minibatch, *weights)

    def one(carry: tuple[Learner, jax.Array], x: tuple[jax.Array, PPOBatch]) -> tuple[tuple, Metrics]:
        learner, stopped = carry
        rows, minibatch = x
        minibatch = minibatch._replace(observation=jax.tree.map(lambda x: x[rows], batch.observation))
        updated, metrics = gradient_step(loss, optimizer, learner, rows=minibatch)
        if config.target_kl is None:
            return (updated, stopped), metrics
        stopped |= metrics["approx_kl"] > config.target_kl
        learner = jax.tree.map(lambda old, new: jnp.where(stopped, old, new), learner, updated)
        return (learner, stopped), metrics

    (learner, _), metrics = jax.lax.scan(one, (learner, jnp.zeros((), bool)), (rows, ordered))
    return learner, jax.tree.map(jnp.mean, metrics)
