"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477), with GAE (arXiv 1506.02438).

Axes: T time, B environments, N = T * B rows, M rows of a minibatch, P parameters of the actor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rlx.core.config import require, require_counts, require_finite, require_fraction, require_positive
from rlx.core.learn import gradient_step, init_learner, minibatches
from rlx.core.normalize import RewardScaler, normalize_observation, update_observation_moments
from rlx.core.on_policy import normalize_transitions, on_policy, start, successor_values, with_last
from rlx.core.rollout import RolloutState
from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.ops.policy_gradients import surrogate_loss
from rlx.ops.returns import explained_variance, gae, standardize
from rlx.ops.trust_region import LineSearch, fisher_vector_product, line_search, natural_step
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition


@dataclass(frozen=True)
class TRPOConfig:
    """Hyperparameters of TRPO. One step collects `num_envs * num_steps` rows and moves the policy once."""

    num_envs: int = 8  # environments side by side, B
    num_steps: int = 128  # steps of each environment per update, T; 128 to 2048
    discount: float = 0.99  # gamma; 0.9 to 0.999
    trace: float = 0.95  # lambda of GAE, from 0 (one-step, biased) to 1 (Monte Carlo, noisy)
    max_kl: float = 0.01  # radius of the trust region: mean KL(pi_old || pi) per update, nats; 0.001 to 0.05
    damping: float = 0.1  # added to the Fisher matrix's diagonal, so that directions without curvature stay short
    cg_iterations: int = 10  # of conjugate gradient, at most; 10 to 20
    cg_tolerance: float = 1e-5  # it ends at this residual, as a share of the gradient's norm
    line_search_tries: int = 10  # steps tried, at most
    line_search_shrink: float = 0.8  # factor from one try to the next, between 0 and 1
    critic_epochs: int = 10  # passes of the critic over the rows per update; 5 to 30
    critic_minibatches: int = 8  # minibatches per pass; must divide num_envs * num_steps
    natural: bool = False  # natural policy gradient: the step as it is, without a line search
    normalize_observation: bool = False  # give observations mean 0 and variance 1 by running statistics
    normalize_reward: bool = False  # divide rewards by the running deviation of the discounted return

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        counts = ("num_envs", "num_steps", "cg_iterations", "line_search_tries", "critic_epochs", "critic_minibatches")
        require_finite(self)
        require_counts(self, *counts)
        require_fraction(self, "discount", "trace", "line_search_shrink")
        require_positive(self, "max_kl", "line_search_shrink")
        for name in ("damping", "cg_tolerance"):
            require(self, getattr(self, name) >= 0, "must not be negative", name)
        sizes = ("num_envs", "num_steps", "critic_minibatches")
        divides = self.env_steps % self.critic_minibatches == 0
        require(self, divides, "critic_minibatches must divide num_envs * num_steps", *sizes)
        require(self, self.env_steps > 1, "the advantage of a single row cannot be normalised", *sizes[:2])

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class TRPOState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        actor: parameters of the policy, which no optimiser moves.
        critic: the critic's parameters, and the optimiser's state.
        rollout: where the environments stand.
        observation_moments: running statistics of observations, a `Moments` for each array of floats; or None.
        reward_scaler: running scale of returns, or None.
    """

    key: Key
    actor: PyTree
    critic: Learner
    rollout: RolloutState
    observation_moments: PyTree
    reward_scaler: RewardScaler | None


def critic_loss(params: PyTree, critic: Network, observation: PyTree, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """Half the mean squared error of V: observations `[M, ...]`, targets `[M]`."""
    loss = 0.5 * jnp.mean(jnp.square(critic.apply(params, observation) - target))
    return loss, {"value_loss": loss}


def trpo(
    env: Env | Gymnasium,
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: TRPOConfig = TRPOConfig(),
) -> Algorithm:
    """Make TRPO, or with `config.natural` the natural policy gradient, for an environment.

    An update maximises the surrogate E[pi(a|s) / pi_old(a|s) A] as far as mean KL(pi_old || pi) <= max_kl allows: along
    the natural gradient, found by conjugate gradient, and back by a line search until both hold. The policy has no
    learning rate. Advantages have mean 0 and variance 1; their scale would not matter to the step. Exploration comes
    from the policy's own entropy; rows are used for one update and dropped.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        actor: `apply` gives a distribution over actions; `rlx.nets.actor(env)` is one.
        critic: `apply` gives V(s); `rlx.nets.critic(env)` is one.
        optimizer: the critic's, from optax; it takes `critic_epochs * critic_minibatches` steps an update.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)

    def init(key: Key) -> TRPOState:
        key, actor_key, critic_key, env_key = jax.random.split(key, 4)
        rollout_state, moments, reward_scaler = start(envs, env_key, config)
        observation = normalize_observation(moments, rollout_state.observation)
        policy = init_learner(actor.init(actor_key, observation), optax.identity()).params
        value = init_learner(critic.init(critic_key, observation), optimizer)
        return TRPOState(key, policy, value, rollout_state, moments, reward_scaler)

    def learn(state: TRPOState, transitions: Transition, key: Key) -> tuple[TRPOState, Metrics]:
        return trpo_learn(state, transitions, key, actor, critic, optimizer, config)

    return on_policy(envs, init, lambda state: state.actor, actor.apply, learn, config.num_steps)


def trpo_learn(
    state: TRPOState,
    transitions: Transition,
    key: Key,
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: TRPOConfig,
) -> tuple[TRPOState, Metrics]:
    """Learn from one rollout `[T, B, ...]`: one step of the actor, then the critic, then the running statistics."""
    moments = state.observation_moments
    rows, reward_scaler = normalize_transitions(transitions, moments, state.reward_scaler, config.discount)
    value, advantage = advantages(state.critic.params, critic, rows, config.discount, config.trace)
    target = advantage + value
    params, metrics = move_actor(state.actor, actor, rows.observation, rows.action, standardize(advantage), config)
    fitted, value_loss = fit_critic(state.critic, critic, rows.observation, target, key, optimizer, config)
    metrics |= value_loss | {"explained_variance": explained_variance(value, target)}
    moments = update_observation_moments(moments, transitions.observation)  # for the next rollout
    state = state._replace(actor=params, critic=fitted, observation_moments=moments, reward_scaler=reward_scaler)
    return state, metrics


def advantages(
    params: PyTree, critic: Network, rows: Transition, discount: float, trace: float
) -> tuple[jax.Array, jax.Array]:
    """Ask the critic about a rollout: values and advantages `[T, B]`."""
    values = critic.apply(params, with_last(rows.observation, rows.next_observation))
    next_value = successor_values(lambda observation: critic.apply(params, observation), values, rows)
    advantage = gae(rows.reward, values[:-1], next_value, rows.terminated, rows.truncated, discount, trace)
    return values[:-1], advantage


def move_actor(
    params: PyTree,
    actor: Network,
    observation: PyTree,
    action: jax.Array,
    advantage: jax.Array,
    config: TRPOConfig,
) -> tuple[PyTree, Metrics]:
    """Take one step in the trust region on rows `[T, B, ...]`; without a safe one the parameters stay, bit for bit.

    The old policy is that of these parameters on these rows, so that the KL divergence and its gradient are 0 there.

    Returns:
        Parameters, and the metrics kl (of the step taken), surrogate_improvement, accepted (1 or 0), cg_residual (as a
        share of the gradient) and entropy (of the old policy).
    """
    flat, unravel = ravel_pytree(params)

    def policy(flat: jax.Array) -> Any:
        return actor.apply(unravel(flat), observation)

    old = policy(flat)
    old_log_prob = old.log_prob(action)

    def surrogate(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = policy(flat)
        loss = jnp.mean(surrogate_loss(new.log_prob(action), old_log_prob, advantage))
        return -loss, jnp.mean(old.kl(new))

    gradient = jax.grad(lambda flat: surrogate(flat)[0])(flat)
    fisher = fisher_vector_product(policy, flat)
    step, residual = natural_step(
        lambda vector: fisher(vector) + config.damping * vector,
        gradient,
        config.max_kl,
        config.cg_iterations,
        config.cg_tolerance,
    )
    if config.natural:
        found = take_whole(surrogate, flat, step)
    else:
        shrink, tries = config.line_search_shrink, config.line_search_tries
        found = line_search(surrogate, flat, step, config.max_kl, shrink, tries)
    metrics = {
        "kl": found.kl,
        "surrogate_improvement": found.improvement,
        "accepted": found.accepted.astype(jnp.float32),
        "cg_residual": residual,
        "entropy": jnp.mean(old.entropy()),
    }
    return unravel(found.params), metrics


def take_whole(surrogate: Callable, flat: jax.Array, step: jax.Array) -> LineSearch:
    """Take a step as it is, and measure what it did; one that is 0 or leads to a NaN is not taken."""
    (before, _), (after, kl) = surrogate(flat), surrogate(flat + step)
    taken = jnp.any(flat + step != flat) & jnp.isfinite(after) & jnp.isfinite(kl)
    improvement, kl = jnp.where(taken, after - before, 0.0), jnp.where(taken, kl, 0.0)
    return LineSearch(jnp.where(taken, flat + step, flat), taken, improvement, kl)


def fit_critic(
    learner: Learner,
    critic: Network,
    observation: PyTree,
    target: jax.Array,
    key: Key,
    optimizer: optax.GradientTransformation,
    config: TRPOConfig,
) -> tuple[Learner, Metrics]:
    """Fit V to targets `[T, B]` by epochs of minibatches; the metric value_loss is their mean."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (observation, target))
    rows = minibatches(key, target.size, config.critic_epochs, config.critic_minibatches)  # [steps, M]

    def one(learner: Learner, rows: jax.Array) -> tuple[Learner, jax.Array]:
        observation, target = jax.tree.map(lambda x: x[rows], flat)
        learner, metrics = gradient_step(critic_loss, optimizer, learner, critic, observation, target)
        return learner, metrics["value_loss"]

    learner, losses = jax.lax.scan(one, learner, rows)
    return learner, {"value_loss": jnp.mean(losses)}
