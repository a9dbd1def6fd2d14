"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1801.01290 and 1812.05905), for continuous and discrete actions.

It maximises return plus temperature times entropy. Both forms share every line but two: a continuous action is sampled
with its log-probability, and over discrete ones the expectations are exact (Christodoulou 2019, arXiv 1910.07207).
Axes: T time, B environments, N rows of a batch, A actions, D dimensions of an action, K critics, G gradient steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from rlx.ops.distributions import Categorical, TanhNormal
from rlx.ops.td import select_action, td_target
from rlx.types import Algorithm, Env, Key, Learner, Metrics, Network, PyTree, Transition


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC. One step collects `num_envs * num_steps` rows, then learns from batches of the replay."""

    num_envs: int = 1  # environments side by side, B
    num_steps: int = 1  # steps of each environment between two rounds of learning, T; 1 to 64
    gradient_steps: int = 1  # gradient steps a round, G; num_envs * num_steps, or less to save time
    batch_size: int = 256  # rows a gradient step, N; 64 to 512
    replay_size: int = 100_000  # rows the replay holds; a multiple of num_envs
    prefill: int = 1_000  # environment steps by random actions before learning begins; a multiple of num_envs
    prefill_hold: int = 1  # steps for which each of them is held: more reaches further where rewards are rare; 1 to 50
    discount: float = 0.99  # gamma; 0.9 to 0.9999
    n_step: int = 1  # rewards before the bootstrap; 1 to 5. Above 1 it is biased, and misses entropies in between
    tau: float = 0.005  # how far each gradient step brings the target critics to the critics; 0.001 to 0.05
    temperature: float | None = None  # alpha, worth of a nat of entropy in units of the reward; None: learnt
    init_temperature: float = 1.0  # alpha at first, where it is learnt; 0.01 to 1
    target_entropy: float | None = None  # nats that a learnt alpha aims at; None: see `default_target_entropy`

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_counts(self, "num_envs", "num_steps", "gradient_steps", "batch_size", "replay_size", "prefill")
        require_counts(self, "prefill_hold", "n_step")
        require_fraction(self, "discount", "tau")
        require_replay(self)
        fits = self.prefill % (self.num_envs * self.prefill_hold) == 0
        require(self, fits, "prefill must be a multiple of both", "prefill", "num_envs", "prefill_hold")
        require_positive(self, "init_temperature")
        require(self, self.temperature is None or self.temperature >= 0, "must not be negative", "temperature")

    @property
    def env_steps(self) -> int:
        """Environment steps that one algorithm step takes."""
        return self.num_envs * self.num_steps


class SACState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: the PRNG key.
        actor: the policy's parameters, and the optimiser's state.
        critic: the critics', likewise.
        target_params: of the target critics.
        temperature: log alpha, likewise; None where alpha is fixed.
        rollout: where the environments stand.
        replay: the last rows.
    """

    key: Key
    actor: Learner
    critic: Learner
    target_params: PyTree
    temperature: Learner | None
    rollout: RolloutState
    replay: Replay


def default_target_entropy(space: gymnasium.Space) -> float:
    """Entropy of a policy, in nats, that a learnt temperature aims at where the config names none.

    For a Box it is -D in the normalised box [-1, 1]^D, where the densities are: the environment's units do not matter.
    (Haarnoja et al. 2018b, appendix D; code whose densities are in units of an action space of -2 to 2 aims at
    -D - D log 2 = -1.69 D here.) The uniform policy has D log 2. For Discrete it is 0.3 log A, 0.3 of the uniform
    policy's; Christodoulou's 0.98 leaves hardly a preference.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return 0.3 * math.log(int(space.n))
    return -float(math.prod(space.shape or ()))


def value_and_entropy(
    policy: TanhNormal | Categorical, critic: Callable, observation: PyTree, key: Key
) -> tuple[jax.Array, jax.Array]:
    """Value `[N]` of a policy by the least of the critics, and its entropy `[N]` in nats; gradients reach the policy.

        E_a[min_k Q_k(s, a)]   and   E_a[-log pi(a|s)]

    Of a Categorical both are exact, by log-softmax; of a TanhNormal they come from one sample, the same for both.

    Args:
        policy: over `[N]` rows.
        critic: `(observation, action [N, D]) -> [K, N]`, or `(observation) -> [K, N, A]`.
        observation: `[N, ...]`.
        key: for the sample.
    """
    if isinstance(policy, Categorical):
        return policy.expectation(jnp.min(critic(observation), axis=0)), policy.entropy()
    action, log_prob = policy.sample_and_log_prob(key)
    return jnp.min(critic(observation, action), axis=0), -log_prob


def sac_target(
    policy: TanhNormal | Categorical, target_critic: Callable, batch: Batch, key: Key, temperature: float | jax.Array
) -> jax.Array:
    """Soft Bellman target `[N]` (arXiv 1812.05905, eq. 5), with gradients stopped.

        y = r + discount (1 - terminated) (E_a[min_k Q_k(s', a)] + alpha H(pi(.|s')))

    The policy is that of the next observations; critic and key are as in `value_and_entropy`, temperature is alpha.
    """
    value, entropy = value_and_entropy(policy, target_critic, batch.next_observation, key)
    return td_target(batch.reward, batch.terminated, value + temperature * entropy, batch.discount)


def sac_critic_loss(params: PyTree, apply: Callable, batch: Batch, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """Half the squared error (arXiv 1812.05905, eq. 5), mean over rows, sum over critics.

    Args:
        params: of the critics, the argument that learns.
        apply: `(params, observation, action) -> [K, N]`, or for discrete actions `(params, observation) -> [K, N, A]`.
        batch: rows.
        target: `[N]`, from `sac_target`.

    Returns:
        The scalar loss; the metric q_value.
    """
    if jnp.issubdtype(batch.action.dtype, jnp.integer):
        value = select_action(apply(params, batch.observation), batch.action)
    else:
        value = apply(params, batch.observation, batch.action)
    loss = jnp.sum(jnp.mean(0.5 * jnp.square(target - value), axis=-1))
    return loss, {"q_value": jnp.mean(value)}


def sac_actor_loss(
    params: PyTree, apply: Callable, critic: Callable, observation: PyTree, key: Key, temperature: float | jax.Array
) -> tuple[jax.Array, Metrics]:
    """Less the soft value of the policy (arXiv 1812.05905, eq. 7 to 9), mean over rows.

        L = -mean(E_a[min_k Q_k(s, a)] + alpha H(pi(.|s)))

    Args:
        params: of the policy, the argument that learns.
        apply: `(params, observation) -> TanhNormal or Categorical`.
        critic: as in `value_and_entropy`, like observation and key.
        observation: `[N, ...]`.
        key: for the sample.
        temperature: alpha.

    Returns:
        The scalar loss; the metric entropy.
    """
    value, entropy = value_and_entropy(apply(params, observation), critic, observation, key)
    return -jnp.mean(value + temperature * entropy), {"entropy": jnp.mean(entropy)}


def temperature_loss(
    log_temperature: jax.Array, entropy: jax.Array, target_entropy: float
) -> tuple[jax.Array, Metrics]:
    """Raises alpha where the entropy is below its target, and lowers it where it is above.

        L = log alpha (H - target)

    Of arXiv 1812.05905, eq. 18, this takes the gradient by log alpha without its factor alpha: the same zero, and no
    slower where alpha is small.
    """
    return log_temperature * (entropy - target_entropy), {}


def sac(
    env: Env | Gymnasium,
    actor: Network,
    critic: Network,
    optimizer: optax.GradientTransformation,
    config: SACConfig = SACConfig(),
) -> Algorithm:
    """Make SAC for an environment whose actions are a bounded Box or Discrete.

    It is off-policy: rows are kept and learnt from many times. A gradient step moves the critics, whose target has
    the actor as it was; then the actor by the new critics; then the temperature by the entropy that the actor had;
    then the target critics.

    Args:
        env: a JAX environment, or `rlx.envs.gymnasium(...)`, which makes a host algorithm.
        actor: `apply(params, observation)` gives a TanhNormal or a Categorical; `rlx.nets.soft_actor(env)` is one.
        critic: `apply(params, observation, action)` gives `[K, ...]`, or without an action `[K, ..., A]`;
            `rlx.nets.q_critic(env)` is one.
        optimizer: optax's; actor, critics and temperature each have a state of their own, and take `gradient_steps`
            steps an update.
        config: hyperparameters.

    Raises:
        ValueError: a space that is not supported, a network with mutable collections.
    """
    envs = vectorize(env, config.num_envs)
    discrete = isinstance(envs.action_space, gymnasium.spaces.Discrete)
    if not discrete and not isinstance(envs.action_space, gymnasium.spaces.Box):
        raise ValueError(f"action space {envs.action_space} is not supported: use Discrete or a bounded Box")
    default = default_target_entropy(envs.action_space)
    target_entropy = default if config.target_entropy is None else config.target_entropy
    explore = uniform_policy(envs.action_space)

    def init(key: Key) -> SACState:
        key, actor_key, critic_key, env_key = jax.random.split(key, 4)
        sizes = config.prefill, config.replay_size, config.prefill_hold
        rollout_state, replay = prefill(envs, explore, (), env_key, *sizes)
        observation, action = rollout_state.observation, replay.rows.action[0]
        params = critic.init(critic_key, observation, *(() if discrete else (action,)))
        target_params, actor_params = jax.tree.map(jnp.copy, params), actor.init(actor_key, observation)
        log_alpha = jnp.log(jnp.asarray(config.init_temperature, jnp.float32))
        temperature = init_learner(log_alpha, optimizer) if config.temperature is None else None
        learners = init_learner(actor_params, optimizer), init_learner(params, optimizer)
        return SACState(key, *learners, target_params, temperature, rollout_state, replay)

    def policy(params: PyTree, key: Key | None, observation: PyTree) -> jax.Array:
        distribution = actor.apply(params, observation)
        return distribution.mode() if key is None else distribution.sample(key)

    def learn(state: SACState, transitions: Transition, key: Key) -> tuple[SACState, Metrics]:
        return sac_learn(state, transitions, key, actor.apply, critic.apply, optimizer, config, target_entropy)

    return act_and_learn(envs, init, lambda state: state.actor.params, policy, learn, config.num_steps, keeps=True)


def sac_learn(
    state: SACState,
    transitions: Transition,
    key: Key,
    actor: Callable,
    critic: Callable,
    optimizer: optax.GradientTransformation,
    config: SACConfig,
    target_entropy: float,
) -> tuple[SACState, Metrics]:
    """Put a rollout `[T, B, ...]` into the replay, then take G gradient steps; metrics are means over them."""
    replay = add(state.replay, transitions)
    rows_key, noise_key = jax.random.split(key)
    rows = sample_rows(rows_key, replay, (config.gradient_steps, config.batch_size))
    keys = jax.random.split(noise_key, (config.gradient_steps, 2))

    def one(carry: tuple, draw: tuple[jax.Array, Key]) -> tuple[tuple, Metrics]:
        actor_learner, critic_learner, target_params, temperature = carry
        rows, (target_key, actor_key) = draw
        batch = read(replay, rows, config.discount, config.n_step)
        alpha = jnp.asarray(config.temperature) if temperature is None else jnp.exp(temperature.params)
        next_policy = actor(actor_learner.params, batch.next_observation)
        target = sac_target(next_policy, partial(critic, target_params), batch, target_key, alpha)
        critic_learner, about_critic = gradient_step(sac_critic_loss, optimizer, critic_learner, critic, batch, target)
        judge = partial(critic, critic_learner.params)
        actor_learner, about_actor = gradient_step(
            sac_actor_loss, optimizer, actor_learner, actor, judge, batch.observation, actor_key, alpha
        )
        entropy = about_actor.pop("entropy")
        metrics = {"q_value": about_critic.pop("q_value"), "entropy": entropy, "temperature": alpha}
        if temperature is not None:
            temperature, _ = gradient_step(temperature_loss, optimizer, temperature, entropy, target_entropy)
        target_params = optax.incremental_update(critic_learner.params, target_params, config.tau)
        metrics |= {f"critic_{name}": x for name, x in about_critic.items()}
        metrics |= {f"actor_{name}": x for name, x in about_actor.items()}
        return (actor_learner, critic_learner, target_params, temperature), metrics

    carry = (state.actor, state.critic, state.target_params, state.temperature)
    carry, metrics = jax.lax.scan(one, carry, (rows, keys))  # the replay is not carried: it would be copied
    return SACState(state.key, *carry, state.rollout, replay), jax.tree.map(jnp.mean, metrics)
