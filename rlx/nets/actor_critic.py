"""Actor-critic networks, and the heads that turn features into distributions over actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rlx.nets.inputs import Features, Input, network_inputs, split_mask
from rlx.nets.mlp import apply_mlp, init_mlps, parameter
from rlx.ops.distributions import Categorical, MultiCategorical, Normal, TanhNormal, mask_logits

if TYPE_CHECKING:
    import gymnasium

    from rlx.types import Spaces

Distribution = Categorical | MultiCategorical | Normal
LOG_SCALE = (-20.0, 2.0)  # bounds on the log of a TanhNormal's standard deviation before tanh


class CategoricalHead(nn.Module):
    """Outputs of the actor as the logits of a choice among `outputs` actions."""

    outputs: int

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> Categorical:
        """`[..., A]`, and a mask `[..., A]` of allowed actions -> a distribution over `[...]`."""
        return Categorical(x if mask is None else mask_logits(x, mask))


class MultiCategoricalHead(nn.Module):
    """Outputs of the actor as the logits of K choices, one after the other.

    Attributes:
        sizes: number of actions of each choice.
    """

    sizes: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Logits of all choices."""
        return sum(self.sizes)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> MultiCategorical:
        """`[..., sum of sizes]`, and a mask alike -> a distribution over `[..., K]`."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        places = starts[:, None] + np.arange(max(self.sizes))  # [K, A]
        real = np.arange(max(self.sizes)) < np.array(self.sizes)[:, None]
        places = np.where(real, places, 0)
        logits = jnp.where(real, x[..., places], -jnp.inf)
        return MultiCategorical(logits if mask is None else mask_logits(logits, (mask[..., places] != 0) & real))


class NormalHead(nn.Module):
    """Outputs of the actor as the mean of a normal whose standard deviation is a parameter, 1 at first.

    The action is in the normalised box: -1 and 1 are the bounds of the environment's space.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> Normal:
        """`[..., D]` -> a distribution over `[..., D]`."""
        refuse(mask)
        return Normal(x, self.param("log_scale", nn.initializers.zeros, (self.outputs,)))


class TanhNormalHead(nn.Module):
    """Outputs of the actor as mean and log standard deviation of a normal before tanh, the latter clipped to LOG_SCALE.

    Attributes:
        dimensions: D.
    """

    dimensions: int

    @property
    def outputs(self) -> int:
        """Means, then log standard deviations."""
        return 2 * self.dimensions

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> TanhNormal:
        """`[..., 2 D]` -> a distribution over `[..., D]`."""
        refuse(mask)
        mean, log_scale = jnp.split(x, 2, axis=-1)
        return TanhNormal(mean, jnp.clip(log_scale, *LOG_SCALE))


class TanhHead(nn.Module):
    """Outputs of the actor through tanh: one action, drawn from nothing."""

    outputs: int

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`[..., D]` -> an action `[..., D]`."""
        refuse(mask)
        return jnp.tanh(x)


def refuse(mask: jax.Array | None) -> None:
    """Raise a ValueError where continuous actions have a mask."""
    if mask is not None:
        raise ValueError("an action mask needs a Discrete, MultiDiscrete or MultiBinary action space")


def policy_head(action_space: gymnasium.Space) -> CategoricalHead | MultiCategoricalHead | NormalHead:
    """Give the head whose distribution fits an action space; actions of several dimensions are flat, `[D]` or `[K]`.

    Raises:
        ValueError: a space other than Discrete, MultiDiscrete, MultiBinary and Box.
    """
    from gymnasium import spaces

    match action_space:
        case spaces.Discrete():
            return CategoricalHead(int(action_space.n))
        case spaces.MultiDiscrete():
            return MultiCategoricalHead(tuple(np.ravel(action_space.nvec).tolist()))
        case spaces.MultiBinary():
            return MultiCategoricalHead((2,) * math.prod(action_space.shape))
        case spaces.Box():
            return NormalHead(math.prod(action_space.shape))
    raise ValueError(f"action space {action_space} is not supported: use Discrete, MultiDiscrete, MultiBinary or Box")


class ActorCritic(nn.Module):
    """Two separate MLPs, as sharing layers couples the two losses (Andrychowicz et al. 2020, arXiv 2006.05990).

    Images pass one CNN for both, and actions that an action mask rules out are impossible.

    Attributes:
        head: makes the actor's outputs a distribution; `policy_head(env.action_space)` picks one.
        hidden: widths of the hidden layers of both.
        activation: a name in `rlx.nets.mlp.ACTIVATIONS`.
        inputs: what an observation is made of, from `network_inputs`; None: it is one vector.
    """

    head: CategoricalHead | MultiCategoricalHead | NormalHead
    hidden: Sequence[int] = (64, 64)
    activation: str = "tanh"
    inputs: tuple[Input, ...] | None = None

    @nn.compact
    def __call__(self, observation: Any) -> tuple[Distribution, jax.Array]:
        """An observation with any leading axes -> (distribution over actions, value `[...]`)."""
        x, mask = encode(self.inputs, observation)
        sizes = (x.shape[-1], *self.hidden)
        mlps = {"actor": ((*sizes, self.head.outputs), 0.01), "critic": ((*sizes, 1), 1.0)}  # the policy near uniform
        layers = parameter(self, "mlps", init_mlps, mlps)
        outputs = apply_mlp(layers["actor"], x, self.activation)
        value = apply_mlp(layers["critic"], x, self.activation)
        return self.head(outputs, mask), value[..., 0]


class Actor(nn.Module):
    """A policy alone: the actor of an `ActorCritic`, with the same names of parameters.

    Attributes: those of `ActorCritic`, and heads for actions in the box: a distribution, or with `TanhHead` an action.
    """

    head: CategoricalHead | MultiCategoricalHead | NormalHead | TanhNormalHead | TanhHead
    hidden: Sequence[int] = (64, 64)
    activation: str = "tanh"
    inputs: tuple[Input, ...] | None = None

    @nn.compact
    def __call__(self, observation: Any) -> Distribution | TanhNormal | jax.Array:
        """An observation with any leading axes -> a distribution over actions, or an action."""
        x, mask = encode(self.inputs, observation)
        mlps = {"actor": ((x.shape[-1], *self.hidden, self.head.outputs), 0.01)}
        layers = parameter(self, "mlps", init_mlps, mlps)
        return self.head(apply_mlp(layers["actor"], x, self.activation), mask)


class Critic(nn.Module):
    """A value alone: the critic of an `ActorCritic`, with the same names of parameters.

    Attributes: those of `ActorCritic`, which has the head besides.
    """

    hidden: Sequence[int] = (64, 64)
    activation: str = "tanh"
    inputs: tuple[Input, ...] | None = None

    @nn.compact
    def __call__(self, observation: Any) -> jax.Array:
        """An observation with any leading axes -> value `[...]`."""
        x, _ = encode(self.inputs, observation)
        layers = parameter(self, "mlps", init_mlps, {"critic": ((x.shape[-1], *self.hidden, 1), 1.0)})
        return apply_mlp(layers["critic"], x, self.activation)[..., 0]


def encode(inputs: tuple[Input, ...] | None, observation: Any) -> tuple[jax.Array, jax.Array | None]:
    """Give an observation as one vector, and its action mask; inside of a module, whose submodule it is."""
    observation, mask = split_mask(observation)
    return observation if inputs is None else Features(inputs, name="features")(observation), mask


def actor_critic(env: Spaces, hidden: Sequence[int] = (64, 64), activation: str = "tanh") -> ActorCritic:
    """Make the actor-critic that fits an environment's spaces (those of a gymnasium recipe too).

    Raises:
        ValueError: a space that is not supported.
    """
    return ActorCritic(policy_head(env.action_space), hidden, activation, vector_or_inputs(env.observation_space))


def actor(env: Spaces, hidden: Sequence[int] = (64, 64), activation: str = "tanh") -> Actor:
    """Make the policy that fits an environment's spaces.

    Raises:
        ValueError: a space that is not supported.
    """
    return Actor(policy_head(env.action_space), hidden, activation, vector_or_inputs(env.observation_space))


def critic(env: Spaces, hidden: Sequence[int] = (64, 64), activation: str = "tanh") -> Critic:
    """Make the critic that fits an environment's observations.

    Raises:
        ValueError: a space that is not supported.
    """
    return Critic(hidden, activation, vector_or_inputs(env.observation_space))


def vector_or_inputs(space: gymnasium.Space) -> tuple[Input, ...] | None:
    """What a network needs to know of an observation: None where it is one vector already.

    Raises:
        ValueError: a space that is not supported.
    """
    inputs = network_inputs(space)
    return None if len(inputs) == 1 and inputs[0] == Input("numbers", inputs[0].shape[:1]) else inputs
