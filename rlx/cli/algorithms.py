"""The one table from names to algorithms, and how the command line makes each from its options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import rlx
from rlx.cli.options import NetworkConfig, OptimizerConfig, QNetworkConfig
from rlx.envs.host import Gymnasium
from rlx.types import Algorithm, Env, Network, PyTree


def actor_critic(env: Env | Gymnasium, config: NetworkConfig) -> tuple[Network, ...]:
    """Make the actor-critic that fits the spaces."""
    return (rlx.nets.actor_critic(env, config.hidden, config.activation),)


def actor_and_critic(env: Env | Gymnasium, config: NetworkConfig) -> tuple[Network, ...]:
    """Make an actor and a critic, apart, that fit the spaces."""
    return tuple(make(env, config.hidden, config.activation) for make in (rlx.nets.actor, rlx.nets.critic))


def q_network(env: Env | Gymnasium, config: QNetworkConfig) -> tuple[Network, ...]:
    """Make the network that gives the value of every action."""
    return (rlx.nets.q_network(env, config.hidden, config.activation, config.dueling, config.quantiles),)


def soft_actor_and_critic(env: Env | Gymnasium, config: NetworkConfig) -> tuple[Network, ...]:
    """Make SAC's policy and twin critics, for continuous or discrete actions as the spaces have it."""
    return tuple(make(env, config.hidden, config.activation) for make in (rlx.nets.soft_actor, rlx.nets.q_critic))


def deterministic_actor_and_critic(
    env: Env | Gymnasium, config: NetworkConfig, critics: int = 2
) -> tuple[Network, ...]:
    """Make the policy and the critics of TD3, or of DDPG, which has one."""
    sizes = config.hidden, config.activation
    return rlx.nets.deterministic_actor(env, *sizes), rlx.nets.q_critic(env, *sizes, critics)


class Entry(NamedTuple):
    """How the command line makes an algorithm.

    Attributes:
        config: its dataclass, with the property `env_steps`, environment steps per algorithm step.
        make: `(env, *networks, optimizer, config) -> Algorithm`; `(env, config)` where there is no network.
        gradient_steps: that the optimiser takes per algorithm step, from the config.
        networks: `(env, network config) -> tuple of Network`, the policy's first.
        network: dataclass of the network's options; None: it has no network and no optimiser.
        prefill: environment steps that `init` takes, from the config.
        policy: from the state, the policy network's parameters and the running statistics of observations.
    """

    config: type
    make: Callable[..., Algorithm]
    gradient_steps: Callable[[Any], int] = lambda config: 1
    networks: Callable[..., tuple[Network, ...]] = actor_critic
    network: type | None = NetworkConfig
    prefill: Callable[[Any], int] = lambda config: 0
    policy: Callable[[PyTree], tuple[PyTree, PyTree]] = lambda state: (state.learner.params, state.observation_moments)

    def build(
        self, env: Env | Gymnasium, config: Any, optimizer: OptimizerConfig | None, network: Any, updates: int
    ) -> Algorithm:
        """Make it for a run of so many updates."""
        if optimizer is None:
            return self.make(env, config)
        steps = updates * self.gradient_steps(config)
        return self.make(env, *self.networks(env, network), optimizer.build(steps), config)


def tabular(target: Callable) -> Entry:
    """A learner of a table, by its target."""
    return Entry(rlx.TabularConfig, lambda env, config: rlx.td_control(env, target, config=config), network=None)


def off_policy(config: type, make: Callable, networks: Callable, **more: Any) -> Entry:
    """A learner from a replay; but for DQN with an actor and critics."""
    more = {"policy": lambda state: (state.actor.params, None)} | more
    return Entry(config, make, lambda config: config.gradient_steps, networks, prefill=lambda c: c.prefill, **more)


ALGORITHMS = {
    "a2c": Entry(rlx.A2CConfig, rlx.a2c),
    "ddpg": off_policy(rlx.TD3Config, rlx.td3, partial(deterministic_actor_and_critic, critics=1)),
    "dqn": off_policy(
        rlx.DQNConfig,
        rlx.dqn,
        q_network,
        network=QNetworkConfig,
        policy=lambda state: (state.learner.params, None),
    ),
    "dyna": tabular(rlx.ops.q_learning_target),
    "expected_sarsa": tabular(rlx.ops.expected_sarsa_target),
    "ppo": Entry(rlx.PPOConfig, rlx.ppo, lambda config: config.num_epochs * config.num_minibatches),
    "q_learning": tabular(rlx.ops.q_learning_target),
    "reinforce": Entry(rlx.ReinforceConfig, rlx.reinforce),
    "sac": off_policy(rlx.SACConfig, rlx.sac, soft_actor_and_critic),
    "sarsa": tabular(rlx.ops.sarsa_target),
    "td3": off_policy(rlx.TD3Config, rlx.td3, deterministic_actor_and_critic),
    "trpo": Entry(
        rlx.TRPOConfig,
        rlx.trpo,
        lambda config: config.critic_epochs * config.critic_minibatches,
        actor_and_critic,
        policy=lambda state: (state.actor, state.observation_moments),
    ),
}
