"""What a run is: the dataclasses behind the flags, the presets, and the one table from names to functions."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optax

import rlx
from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.envs.host import Gymnasium, unknown
from rlx.nets.mlp import ACTIVATIONS
from rlx.types import Algorithm, Env, Network, PyTree


@dataclass(frozen=True)
class RunOptions:
    """What to run and where to put it."""

    seeds: int = 1  # how many seeds to train at once
    seed: int = 0  # the first of them; the others count up from it
    steps: int = 100_000  # environment steps per seed; never exceeded
    out: Path | None = None  # run folder; default: runs/ALGORITHM-ENV-TIME
    gymnasium: bool = False  # train in gymnasium's own environment, also where rlx has a JAX one
    log_every: int | None = None  # updates per line of metrics.jsonl; default: about 100 lines a run
    checkpoint_seconds: float = 15.0  # time between two checkpoints, s
    keep_checkpoints: int = 3  # how many of the last ones to keep
    progress: bool = True  # show the progress bar
    tensorboard: bool = False  # write the metrics as TensorBoard's event files too, below RUN/tensorboard

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_counts(self, "seeds", "steps", "keep_checkpoints")
        require(self, 0 <= self.seed < 2**31, "must be from 0 to 2**31 - 1", "seed")
        require(self, self.log_every is None or self.log_every > 0, "must be above 0", "log_every")
        require(self, self.checkpoint_seconds >= 0, "must not be negative", "checkpoint_seconds")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam behind a clip of the gradient's global norm."""

    learning_rate: float = 3e-4  # Adam's step size; 1e-4 to 3e-3
    anneal: bool = True  # bring the learning rate down to 0 in a straight line over the run
    max_grad_norm: float | None = 0.5  # scale gradients down to this global norm; None: leave them
    eps: float = 1e-5  # added to Adam's denominator

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require_finite(self)
        require_positive(self, "learning_rate", "eps")
        require(self, self.max_grad_norm is None or self.max_grad_norm > 0, "must be above 0 or None", "max_grad_norm")

    def build(self, num_steps: int) -> optax.GradientTransformation:
        """Make the optimiser for a run of `num_steps` gradient steps."""
        rate = optax.linear_schedule(self.learning_rate, 0.0, num_steps) if self.anneal else self.learning_rate
        clip = optax.identity() if self.max_grad_norm is None else optax.clip_by_global_norm(self.max_grad_norm)
        return optax.flatten(optax.chain(clip, optax.adam(rate, eps=self.eps)))  # one vector: fewer, larger kernels


@dataclass(frozen=True)
class NetworkConfig:
    """Multilayer perceptrons, one for the actor and one for the critic."""

    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers
    activation: Literal["tanh", "relu", "gelu", "silu"] = "tanh"  # between the layers

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        require(self, all(width > 0 for width in self.hidden), "widths must be above 0", "hidden")
        require(self, self.activation in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}", "activation")


@dataclass(frozen=True)
class QNetworkConfig(NetworkConfig):
    """A multilayer perceptron for the values of all actions."""

    dueling: bool = False  # two last hidden layers, for the value and for the advantages
    quantiles: int | None = None  # of each action's return, learnt as a distribution; 50 to 200; None: its mean alone

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        require(self, self.quantiles is None or self.quantiles > 0, "must be above 0 or None", "quantiles")


class Entry(NamedTuple):
    """How the command line makes an algorithm.

    Attributes:
        config: its dataclass, with the property `env_steps`, environment steps per algorithm step.
        build: `(env, networks, optimizer config, config, updates) -> Algorithm`.
        networks: `(env, network config) -> tuple of Network`, the policy's first.
        network: dataclass of the network's options; None: it has no network and no optimiser.
        prefill: environment steps that `init` takes, from the config.
        policy: from the state, the policy network's parameters and the running statistics of observations.
    """

    config: type
    build: Callable[..., Algorithm]
    networks: Callable[..., tuple[Network, ...]]
    network: type | None = NetworkConfig
    prefill: Callable[[Any], int] = lambda config: 0
    policy: Callable[[PyTree], tuple[PyTree, PyTree]] = lambda state: (state.learner.params, state.observation_moments)


def actor_critic(env: Env | Gymnasium, config: NetworkConfig) -> tuple[Network, ...]:
    """Make the actor-critic that fits the spaces."""
    return (rlx.nets.actor_critic(env, config.hidden, config.activation),)


def build_ppo(
    env: Env | Gymnasium,
    networks: tuple[Network, ...],
    optimizer: OptimizerConfig,
    config: rlx.PPOConfig,
    updates: int,
) -> Algorithm:
    """Make PPO."""
    return rlx.ppo(env, networks[0], optimizer.build(updates * config.num_epochs * config.num_minibatches), config)


def build_reinforce(
    env: Env | Gymnasium,
    networks: tuple[Network, ...],
    optimizer: OptimizerConfig,
    config: rlx.ReinforceConfig,
    updates: int,
) -> Algorithm:
    """Make REINFORCE."""
    return rlx.reinforce(env, networks[0], optimizer.build(updates), config)


def build_a2c(
    env: Env | Gymnasium,
    networks: tuple[Network, ...],
    optimizer: OptimizerConfig,
    config: rlx.A2CConfig,
    updates: int,
) -> Algorithm:
    """Make A2C."""
    return rlx.a2c(env, networks[0], optimizer.build(updates), config)


def actor_and_critic(env: Env | Gymnasium, config: NetworkConfig) -> tuple[Network, ...]:
    """Make an actor and a critic, apart, that fit the spaces."""
    return tuple(make(env, config.hidden, config.activation) for make in (rlx.nets.actor, rlx.nets.critic))


def build_trpo(
    env: Env | Gymnasium,
    networks: tuple[Network, ...],
    optimizer: OptimizerConfig,
    config: rlx.TRPOConfig,
    updates: int,
) -> Algorithm:
    """Make TRPO, whose optimiser is the critic's."""
    steps = updates * config.critic_epochs * config.critic_minibatches
    actor, critic = networks
    return rlx.trpo(env, actor, critic, optimizer.build(steps), config)


def q_network(env: Env | Gymnasium, config: QNetworkConfig) -> tuple[Network, ...]:
    """Make the network that gives the value of every action."""
    return (rlx.nets.q_network(env, config.hidden, config.activation, config.dueling, config.quantiles),)


def build_dqn(
    env: Env | Gymnasium,
    networks: tuple[Network, ...],
    optimizer: OptimizerConfig,
    config: rlx.DQNConfig,
    updates: int,
) -> Algorithm:
    """Make DQN."""
    return rlx.dqn(env, networks[0], optimizer.build(updates * config.gradient_steps), config)


def tabular(target: Callable) -> Entry:
    """Learners of a table: they have no network, and no optimiser."""

    def build(
        env: Env, networks: tuple[Network, ...], optimizer: None, config: rlx.TabularConfig, updates: int
    ) -> Algorithm:
        return rlx.td_control(env, target, config=config)

    return Entry(rlx.TabularConfig, build, lambda env, config: (), network=None)


def soft_actor_and_critic(env: Env | Gymnasium, config: NetworkConfig) -> tuple[Network, ...]:
    """Make SAC's policy and twin critics, for continuous or discrete actions as the spaces have it."""
    sizes = config.hidden, config.activation
    return rlx.nets.soft_actor(env, *sizes), rlx.nets.q_critic(env, *sizes)


def deterministic_actor_and_critic(
    env: Env | Gymnasium, config: NetworkConfig, critics: int = 2
) -> tuple[Network, ...]:
    """Make the policy and the critics of TD3, or of DDPG, which has one."""
    sizes = config.hidden, config.activation
    return rlx.nets.deterministic_actor(env, *sizes), rlx.nets.q_critic(env, *sizes, critics)


def off_policy(config: type, make: Callable, networks: Callable) -> Entry:
    """SAC and its relatives: an actor and critics that learn from a replay."""

    def build(
        env: Env | Gymnasium, networks: tuple[Network, ...], optimizer: OptimizerConfig, config: Any, updates: int
    ) -> Algorithm:
        actor, critic = networks
        return make(env, actor, critic, optimizer.build(updates * config.gradient_steps), config)

    prefill, policy = lambda config: config.prefill, lambda state: (state.actor.params, None)
    return Entry(config, build, networks, prefill=prefill, policy=policy)


ALGORITHMS = {
    "ddpg": off_policy(rlx.TD3Config, rlx.td3, partial(deterministic_actor_and_critic, critics=1)),
    "dqn": Entry(
        rlx.DQNConfig,
        build_dqn,
        q_network,
        QNetworkConfig,
        prefill=lambda config: config.prefill,
        policy=lambda state: (state.learner.params, None),
    ),
    "dyna": tabular(rlx.ops.q_learning_target),
    "expected_sarsa": tabular(rlx.ops.expected_sarsa_target),
    "ppo": Entry(rlx.PPOConfig, build_ppo, actor_critic),
    "q_learning": tabular(rlx.ops.q_learning_target),
    "sarsa": tabular(rlx.ops.sarsa_target),
    "a2c": Entry(rlx.A2CConfig, build_a2c, actor_critic),
    "reinforce": Entry(rlx.ReinforceConfig, build_reinforce, actor_critic),
    "trpo": Entry(
        rlx.TRPOConfig,
        build_trpo,
        actor_and_critic,
        policy=lambda state: (state.actor, state.observation_moments),
    ),
    "sac": off_policy(rlx.SACConfig, rlx.sac, soft_actor_and_critic),
    "td3": off_policy(rlx.TD3Config, rlx.td3, deterministic_actor_and_critic),
}


@dataclass(frozen=True)
class Spec:
    """A whole run as data: what config.json holds."""

    algorithm: str
    env: str
    run: RunOptions
    config: Any
    optimizer: OptimizerConfig | None
    network: Any

    @property
    def seeds(self) -> list[int]:
        """The seeds of the run."""
        return list(range(self.run.seed, self.run.seed + self.run.seeds))

    @property
    def updates(self) -> int:
        """Algorithm steps of the run."""
        return (self.run.steps - self.prefill) // self.config.env_steps

    @property
    def prefill(self) -> int:
        """Environment steps per seed before the first update."""
        return ALGORITHMS[self.algorithm].prefill(self.config)

    def env_steps(self, updates: int) -> int:
        """Environment steps per seed after some updates."""
        return self.prefill + updates * self.config.env_steps

    def make_env(self) -> Env | Gymnasium:
        """Make the environment to train in."""
        return rlx.envs.gymnasium(self.env) if self.run.gymnasium else rlx.make(self.env)

    def build(self, env: Env | Gymnasium) -> Algorithm:
        """Make the algorithm.

        Raises:
            ValueError: something about the run cannot work.
        """
        if self.updates < 1:
            before = f" after {self.prefill} to fill the replay" if self.prefill else ""
            raise ValueError(
                f"steps={self.run.steps} is less than one update, {self.config.env_steps} environment steps{before}"
            )
        entry = ALGORITHMS[self.algorithm]
        return entry.build(env, entry.networks(env, self.network), self.optimizer, self.config, self.updates)

    def to_json(self) -> dict[str, Any]:
        """Give the run as JSON values."""
        return {**dataclasses.asdict(self), "run": {**dataclasses.asdict(self.run), "out": str(self.run.out)}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spec:
        """Read what `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        entry = ALGORITHMS[data["algorithm"]]
        optimizer, network = data["optimizer"], data["network"]
        return cls(
            data["algorithm"],
            data["env"],
            RunOptions(**{**data["run"], "out": Path(data["run"]["out"])}),
            entry.config(**data["config"]),
            entry.network and OptimizerConfig(**optimizer),
            entry.network and entry.network(**{**network, "hidden": tuple(network["hidden"])}),
        )


def read_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Give the tuned values: algorithm, environment, field; `default` is every environment's; "none" is None."""
    found = tomllib.loads(files("rlx.cli").joinpath("presets.toml").read_text())
    none = {"none": None}  # TOML has no word for it
    return {
        algorithm: {
            env: {name: none.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
            for env, values in envs.items()
        }
        for algorithm, envs in found.items()
    }


def preset(algorithm: str, env: str) -> Spec:
    """Give the run that `rlx train ALGORITHM ENV` does without flags: tuned values where there are any.

    Raises:
        ValueError: an unknown algorithm or environment; the nearest names are offered.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(unknown("algorithm", algorithm, ALGORITHMS) + f" (there are: {', '.join(ALGORITHMS)})")
    rlx.make(env)
    tuned = read_presets().get(algorithm, {})
    return fill(algorithm, env, {**tuned.get("default", {}), **tuned.get(env, {})})


def fill(algorithm: str, env: str, values: dict[str, Any]) -> Spec:
    """Make a run whose fields have these values, and the dataclasses' own where there are none."""
    entry, known = ALGORITHMS[algorithm], set()

    def part(kind: type) -> Any:
        names = {field.name for field in dataclasses.fields(kind)} & values.keys()
        known.update(names)
        return kind(**{name: tuple(v) if isinstance(v := values[name], list) else v for name in names})

    learns = (OptimizerConfig, entry.network) if entry.network else ()
    run, config, *rest = map(part, (RunOptions, entry.config, *learns))
    if values.keys() - known:
        raise ValueError(f"presets.toml: {algorithm}.{env} has no field {', '.join(values.keys() - known)}")
    optimizer, network = rest or (None, None)
    return Spec(algorithm, env, run, config, optimizer, network)
