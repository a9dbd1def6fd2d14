"""TD3 (Fujimoto et al. 2018, arXiv 1802.09477), and as a setting of it DDPG (Lillicrap et al. 2015, arXiv 1509.02971).

Twin delayed DDPG. The actor gives one action, and noise is added to explore. DDPG is this with
`policy_delay=1`, `target_noise=0` and one critic, `rlx.nets.q_critic(env, critics=1)`; its noise is normal here too.
Axes: T time, B environments, N rows of a batch, D dimensions of an action, K critics, G gradient steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import optax

from rlx.core.act_and_learn import act_and_learn
from rlx.core.config import require, require_counts, require_finite, require_fraction, require_positive
from rlx.core.learn import gradient_step, init_learner
from rlx.core.replay import Batch, Replay, add, prefill, read, require_replay, sample_rows
from rlx.core.rollout import RolloutState, uniform_policy
from rlx.envs.host import Gymnasium
from rlx.envs.vectorize import vectorize
from rlx.ops.random import normal
from rlx.ops.td import td_target
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition


@dataclass(frozen=True)
class TD3Config:
    """Hyperparameters of TD3. One step collects `num_envs * num_steps` rows, then learns from batches of the replay.

    Noises are standard deviations in the box [-1, 1]^D, whatever the units of the environment's actions.
    """

    num_envs: int = 1  # environments side by side, B
    num_steps: int = 1  # steps of each environment between two rounds of learning, T; 1 to 64
    gradient_steps: int = 1  # gradient steps of the critics a round, G; num_envs * num_steps, or less to save time
    batch_size: int = 256  # rows a gradient step, N; 64 to 256
    replay_size: int = 100_000  # rows the replay holds; a multiple of num_envs
    prefill: int = 1_000  # environment steps by random actions before learning begins; a multiple of num_envs
    discount: float = 0.99  # gamma; 0.9 to 0.999
    n_step: int = 1  # rewards before the bootstrap; 1 to 5. Above 1 it is biased, as the actions are off the policy
    tau: float = 0.005  # how far an update brings the target networks to the learning ones; 0.001 to 0.05
    exploration_noise: float = 0.1  # added to the actions that are taken; 0.05 to 0.3
    policy_delay: int = 2  # gradient steps of the critics to one of the actor and the targets; 1 (DDPG) or 2
    target_noise: float = 0.2  # added to the target's actions, so that the values of near actions agree; 0: DDPG
    target_noise_clip: float = 0.5  # bound on that noise

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps", "gradient_steps", "batch_size", "replay_size", "prefill")
        require_counts(self, "n_step", "policy_delay")
        require_fraction(self, "discount", "tau")
        require_replay(self)
        require_positive(self, "target_noise_clip")
        for name in ("exploration_noise", "target_noise"):
            require(self, getattr(self, name) >= 0, "must not be negative", name)

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class TD3State(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        actor: the policy's parameters, and the optimiser's state.
        critic: the critics', likewise.
        target_params: of the target actor and the target critics, a pair.
        rollout: where the environments stand.
        replay: the last rows.
        updates: scalar int32, gradient steps of the critics.
    """

    key: Key
    actor: Learner
    critic: Learner
    target_params: tuple[PyTree, PyTree]
    rollout: RolloutState
    replay: Replay
    updates: jax.Array


def td3_target(
    target_params: tuple[PyTree, PyTree],
    actor: Callable,
    critic: Callable,
    batch: Batch,
    noise: jax.Array,
) -> jax.Array:
    """Target `[N]` of the critics by the least of the target critics (arXiv 1802.09477, eq. 14), gradients stopped.

        y = r + discount (1 - terminated) min_k Q_k(s', clip(pi(s') + noise, -1, 1))

    Args:
        target_params: of the target actor and the target critics.
        actor: `(params, observation) -> [N, D]`.
        critic: `(params, observation, action) -> [K, N]`.
        batch: rows.
        noise: `[N, D]`, clipped already.
    """
    actor_params, critic_params = target_params
    action = jnp.clip(actor(actor_params, batch.next_observation) + noise, -1.0, 1.0)
    value = jnp.min(critic(critic_params, batch.next_observation, action), axis=0)
    return td_target(batch.reward, batch.terminated, value, batch.discount)


def td3_critic_loss(params: PyTree, apply: Callable, batch: Batch, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """Half the squared error, mean over rows, sum over critics.

    Args:
        params: of the critics, the argument that learns.
        apply: `(params, observation, action) -> [K, N]`.
        batch: rows.
        target: `[N]`, from `td3_target`.

    Returns:
        The scalar loss; the metric q_value.
    """
    value = apply(params, batch.observation, batch.action)
    loss = jnp.sum(jnp.mean(0.5 * jnp.square(target - value), axis=-1))
    return loss, {"q_value": jnp.mean(value)}


def td3_actor_loss(
    params: PyTree, apply: Callable, critic_params: PyTree, critic: Callable, observation: PyTree
) -> tuple[jax.Array, Metrics]:
    """Less the first critic's value of the actor's actions: its gradient is the deterministic policy gradient.

    L = -mean(Q_1(s, pi(s)))      (Silver et al. 2014; arXiv 1509.02971, eq. 6)
    """
    return -jnp.mean(critic(critic_params, observation, apply(params, observation))[0]), {}


def td3(
    env: Env | Gymnasium,
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: TD3Config = TD3Config(),
) -> Algorithm:
    """Make TD3, or by its numbers DDPG, for an environment whose actions are a bounded Box.

    It is off-policy: rows are kept and learnt from many times. Every gradient step moves the critics; every
    `policy_delay` of them the actor by the new critics, then the target networks.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        actor: `apply(params, observation)` gives actions in [-1, 1]; `rlx.nets.deterministic_actor(env)` is one.
        critic: `apply(params, observation, action)` gives `[K, ...]`; `rlx.nets.q_critic(env, critics=K)` is one.
        optimizer: optax's; actor and critics each have a state of their own.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)
    if not isinstance(envs.action_space, gymnasium.spaces.Box):
        raise ValueError(f"action space {envs.action_space} is not supported: use a bounded Box")
    explore = uniform_policy(envs.action_space)

    def init(key: Key) -> TD3State:
        key, actor_key, critic_key, env_key = jax.random.split(key, 4)
        rollout_state, replay = prefill(envs, explore, (), env_key, config.prefill, config.replay_size)
        observation, action = rollout_state.observation, replay.rows.action[0]
        params = actor.init(actor_key, observation), critic.init(critic_key, observation, action)
        actor_learner, critic_learner = (init_learner(each, optimizer) for each in params)
        target_params, updates = jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32)
        return TD3State(key, actor_learner, critic_learner, target_params, rollout_state, replay, updates)

    def policy(params: PyTree, key: Key | None, observation: PyTree) -> jax.Array:
        action = actor.apply(params, observation)
        if key is None:
            return action
        noise = config.exploration_noise * normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    def learn(state: TD3State, transitions: Transition, key: Key) -> tuple[TD3State, Metrics]:
        return td3_learn(state, transitions, key, actor.apply, critic.apply, optimizer, config)

    return act_and_learn(envs, init, lambda state: state.actor.params, policy, learn, config.num_steps, keeps=True)


def td3_learn(
    state: TD3State,
    transitions: Transition,
    key: Key,
    actor: Callable,
    critic: Callable,
    optimizer: optax.GradientTransformation,
    config: TD3Config,
) -> tuple[TD3State, Metrics]:
    """Put a rollout `[T, B, ...]` into the replay, then take G gradient steps; metrics are means over them."""
    replay = add(state.replay, transitions)
    rows_key, noise_key = jax.random.split(key)
    rows = sample_rows(rows_key, replay, (config.gradient_steps, config.batch_size))
    noise = config.target_noise * normal(noise_key, (*rows.shape, replay.rows.action.shape[-1]))
    noise = jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip)

    def one(carry: tuple, draw: tuple[jax.Array, jax.Array]) -> tuple[tuple, Metrics]:
        actor_learner, critic_learner, target_params, updates = carry
        rows, noise = draw
        batch = read(replay, rows, config.discount, config.n_step)
        target = td3_target(target_params, actor, critic, batch, noise)
        critic_learner, about_critic = gradient_step(td3_critic_loss, optimizer, critic_learner, critic, batch, target)

        def improve(learner: Learner, targets: PyTree) -> tuple[Learner, PyTree]:
            learner, _ = gradient_step(
                td3_actor_loss, optimizer, learner, actor, critic_learner.params, critic, batch.observation
            )
            return learner, optax.incremental_update((learner.params, critic_learner.params), targets, config.tau)

        updates += 1
        actor_learner, target_params = jax.lax.cond(
            updates % config.policy_delay == 0, improve, lambda *same: same, actor_learner, target_params
        )
        metrics = {"q_value": about_critic.pop("q_value")}
        metrics |= {f"critic_{name}": x for name, x in about_critic.items()}
        return (actor_learner, critic_learner, target_params, updates), metrics

    carry = (state.actor, state.critic, state.target_params, state.updates)
    carry, metrics = jax.lax.scan(one, carry, (rows, noise))  # the replay is not carried: it would be copied
    actor_learner, critic_learner, target_params, updates = carry
    state = TD3State(state.key, actor_learner, critic_learner, target_params, state.rollout, replay, updates)
    return state, jax.tree.map(jnp.mean, metrics)
