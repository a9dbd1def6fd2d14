"""Policies in the box [-1, 1]^D, and critics of actions: the networks of SAC, TD3 and DDPG.

Axes: A actions, D dimensions of a continuous action, K critics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rlx.nets.actor_critic import Actor, CategoricalHead, TanhHead, TanhNormalHead, encode, vector_or_inputs
from rlx.nets.inputs import Input
from rlx.nets.mlp import apply_mlp, init_mlps, parameter

if TYPE_CHECKING:
    import gymnasium

    from rlx.types import Spaces


class QCritic(nn.Module):
    """K critics that share nothing but, where there are images, a CNN.

    Attributes:
        actions: A, of a Discrete space; None: actions are vectors.
        critics: K: 2 for the lesser of two (Fujimoto et al. 2018, arXiv 1802.09477), 1 for DDPG.
        hidden: widths of the hidden layers.
        activation: a name in `rlx.nets.mlp.ACTIVATIONS`.
        inputs: what an observation is made of, from `network_inputs`; None: it is one vector.
    """

    actions: int | None
    critics: int = 2
    hidden: Sequence[int] = (256, 256)
    activation: str = "relu"
    inputs: tuple[Input, ...] | None = None

    @nn.compact
    def __call__(self, observation: Any, action: jax.Array | None = None) -> jax.Array:
        """Values `[K, ...]` of an action `[..., D]` of a Box, or `[K, ..., A]` of all actions of a Discrete space."""
        x, _ = encode(self.inputs, observation)
        if action is not None:
            x = jnp.concatenate([x, action], axis=-1)
        sizes = (x.shape[-1], *self.hidden, self.actions or 1)
        mlps = {f"critic_{index}": (sizes, 1.0) for index in range(self.critics)}
        layers = parameter(self, "mlps", init_mlps, mlps)
        values = jnp.stack([apply_mlp(layers[name], x, self.activation) for name in mlps])  # batched dots are slower
        return values if self.actions else values[..., 0]


def soft_actor(env: Spaces, hidden: Sequence[int] = (256, 256), activation: str = "relu") -> Actor:
    """Make the policy of SAC that fits an environment: a TanhNormal for a bounded Box, a Categorical for Discrete.

    Raises:
        ValueError: a space that is not supported.
    """
    space = env.action_space
    head = CategoricalHead(int(space.n)) if isinstance(space, spaces.Discrete) else TanhNormalHead(_dimensions(space))
    return Actor(head, hidden, activation, vector_or_inputs(env.observation_space))


def deterministic_actor(env: Spaces, hidden: Sequence[int] = (256, 256), activation: str = "relu") -> Actor:
    """Make the policy of TD3 and DDPG that fits an environment with a bounded Box of actions.

    Raises:
        ValueError: a space that is not supported.
    """
    head = TanhHead(_dimensions(env.action_space))
    return Actor(head, hidden, activation, vector_or_inputs(env.observation_space))


def q_critic(env: Spaces, hidden: Sequence[int] = (256, 256), activation: str = "relu", critics: int = 2) -> QCritic:
    """Make the critics that fit an environment with a bounded Box or a Discrete space of actions.

    Raises:
        ValueError: a space that is not supported.
    """
    space = env.action_space
    actions = int(space.n) if isinstance(space, spaces.Discrete) else None
    if actions is None:
        _dimensions(space)
    return QCritic(actions, critics, hidden, activation, vector_or_inputs(env.observation_space))


def _dimensions(space: gymnasium.Space) -> int:
    """D of a bounded Box."""
    if not isinstance(space, spaces.Box):
        raise ValueError(f"action space {space} is not supported: use a bounded Box (SAC takes Discrete too)")
    if not np.all(np.isfinite(space.low) & np.isfinite(space.high)):
        raise ValueError(f"action space {space} is not supported: tanh needs bounds on both sides")
    return math.prod(space.shape)
