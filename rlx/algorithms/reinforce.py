"""REINFORCE, the policy gradient by Monte Carlo returns (Williams 1992, Machine Learning 8:229).

Axes: T time, B environments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

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
from rlx.ops.returns import explained_variance, mean_return, reward_to_go
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition

Baseline = Literal["none", "mean", "value"]


@dataclass(frozen=True)
class ReinforceConfig:
    """Hyperparameters of REINFORCE. One step collects `num_envs * num_steps` rows and takes one gradient step."""

    num_envs: int = 8  # environments side by side, B; more make the gradient less noisy
    num_steps: int = 256  # steps of each environment per update, T; several times 1 / (1 - discount), or an episode
    discount: float = 0.99  # gamma; 0.9 to 0.999
    baseline: Baseline = "value"  # taken off the return: none, its mean over the rollout, or a learned value
    value_coef: float = 0.5  # weight of the learned value's loss (half the squared error)
    entropy_coef: float = 0.0  # weight of the entropy bonus, per nat; 0 to 0.02
    normalize_advantage: bool = False  # divide what the policy follows by its root mean square over the rollout
    normalize_observation: bool = False  # give observations mean 0 and variance 1 by running statistics
    normalize_reward: bool = False  # divide rewards by the running deviation of the discounted return

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps")
        require_fraction(self, "discount")
        for name in ("value_coef", "entropy_coef"):
            require(self, getattr(self, name) >= 0, "must not be negative", name)
        names = get_args(Baseline)
        require(self, self.baseline in names, f"must be one of {', '.join(names)}", "baseline")

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class ReinforceState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        learner: the parameters of policy and learned value, and the optimiser's state.
        rollout: where the environments stand.
        observation_moments: running statistics of observations, a `Moments` for each array of floats; or None.
        reward_scaler: running scale of returns, or None.
    """

    key: Key
    learner: Learner
    rollout: RolloutState
    observation_moments: PyTree
    reward_scaler: RewardScaler | None


def reinforce_loss(
    params: PyTree,
    apply: Callable,
    transitions: Transition,
    discount: float,
    baseline: Baseline,
    value_coef: float,
    entropy_coef: float,
    normalize_advantage: bool,
) -> tuple[jax.Array, Metrics]:
    """Policy gradient by returns less a baseline, which a learned value follows by least squares.

        loss = mean(-(G - b) log pi(a|s)) + value_coef * mean(1/2 (V - G)^2) - entropy_coef * mean(entropy)

    b is 0, the mean of G, or V(s). The value's term is there only where V is the baseline.

    Args:
        params: of the network, the argument that learns.
        apply: `(params, observation) -> (distribution, value)`.
        transitions: `[T, B, ...]` a rollout, as the network takes it.
        discount: gamma.
        baseline: none, mean or value.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy.
        normalize_advantage: whether `G - b` is divided by its root mean square. No mean is taken off, as that would be
            a baseline.

    Returns:
        The scalar loss, and the metrics policy_loss, value_loss, entropy, mean_return (of G) and explained_variance (of
        G by b).
    """
    distribution, values = apply(params, with_last(transitions.observation, transitions.next_observation))  # [T + 1, B]
    fixed, fixed_values = jax.lax.stop_gradient((params, values))
    if baseline == "value":
        next_value = successor_values(lambda observation: apply(fixed, observation)[1], fixed_values, transitions)
    else:
        next_value = jnp.full_like(
            transitions.reward,
            mean_return(transitions.reward, transitions.terminated, transitions.truncated, discount),
        )
    returns = reward_to_go(transitions.reward, next_value, transitions.terminated, transitions.truncated, discount)
    expected = {"none": 0.0, "mean": jnp.mean(returns), "value": fixed_values[:-1]}[baseline]
    advantage = returns - expected
    if normalize_advantage:
        advantage = advantage / (jnp.sqrt(jnp.mean(jnp.square(advantage))) + 1e-8)
    log_prob = distribution.log_prob(with_last(transitions.action, transitions.action))[:-1]
    policy_loss = jnp.mean(policy_gradient_loss(log_prob, advantage))
    value_loss = 0.5 * jnp.mean(jnp.square(values[:-1] - returns)) if baseline == "value" else jnp.zeros(())
    entropy = jnp.mean(distribution.entropy()[:-1])
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "mean_return": jnp.mean(returns),
        "explained_variance": explained_variance(jnp.broadcast_to(expected, returns.shape), returns),
    }
    return policy_loss + value_coef * value_loss - entropy_coef * entropy, metrics


def reinforce(
    env: Env | Gymnasium,
    network: Network,
    optimizer: optax.GradientTransformation,
    config: ReinforceConfig = ReinforceConfig(),
) -> Algorithm:
    """Make REINFORCE for an environment.

    The estimator: an action is credited with all the discounted rewards after it, to its episode's end or to the
    rollout's. Where the rows end and the task does not (a time limit, the rollout's last row) the rest is unknown: it
    is not taken for 0, and the rows are not dropped, which would favour short episodes. The baseline's estimate stands
    for it, weighted by the discount up to there: the learned value of the true successor, or with the baselines none
    and mean the rollout's mean return, which agrees with itself (`rlx.ops.mean_return`). So the gradient is that of
    Monte Carlo but for a bias that falls with discount^T. Each row counts alike: the factor discount^t of the start
    state's objective is left out, as everywhere. With the learned value it is A2C at trace 1.

    Exploration comes from the policy's own entropy; rows are used for one gradient step and dropped.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        network: `apply` gives `(distribution, value)`; `rlx.nets.ActorCritic` is one. Only the baseline `value` uses
            the value.
        optimizer: optax's, with learning rate, clipping and annealing; it takes one step an update.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)

    def init(key: Key) -> ReinforceState:
        key, network_key, env_key = jax.random.split(key, 3)
        rollout_state, moments, reward_scaler = start(envs, env_key, config)
        params = network.init(network_key, normalize_observation(moments, rollout_state.observation))
        return ReinforceState(key, init_learner(params, optimizer), rollout_state, moments, reward_scaler)

    def distribution(params: PyTree, observation: PyTree) -> Any:
        return network.apply(params, observation)[0]

    def learn(state: ReinforceState, transitions: Transition, _: Key) -> tuple[ReinforceState, Metrics]:
        return reinforce_learn(state, transitions, network.apply, optimizer, config)

    return on_policy(envs, init, lambda state: state.learner.params, distribution, learn, config.num_steps)


def reinforce_learn(
    state: ReinforceState,
    transitions: Transition,
    apply: Callable,
    optimizer: optax.GradientTransformation,
    config: ReinforceConfig,
) -> tuple[ReinforceState, Metrics]:
    """Learn from one rollout `[T, B, ...]`: one gradient step, then the running statistics."""
    moments = state.observation_moments
    normalized, reward_scaler = normalize_transitions(transitions, moments, state.reward_scaler, config.discount)
    learner, metrics = gradient_step(
        reinforce_loss,
        optimizer,
        state.learner,
        apply,
        normalized,
        config.discount,
        config.baseline,
        config.value_coef,
        config.entropy_coef,
        config.normalize_advantage,
    )
    moments = update_observation_moments(moments, transitions.observation)  # for the next rollout
    return state._replace(learner=learner, observation_moments=moments, reward_scaler=reward_scaler), metrics
