"""Networks that give the value of every action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnasium import spaces

from rlx.nets.actor_critic import encode, vector_or_inputs
from rlx.nets.inputs import Input
from rlx.nets.mlp import ACTIVATIONS, apply_mlp, init_mlps, parameter
from rlx.ops.distributions import mask_logits
from rlx.ops.td import Quantiles

if TYPE_CHECKING:
    from rlx.types import Spaces


class QNetwork(nn.Module):
    """Values of all actions from one MLP; images pass a CNN first. Actions that a mask rules out are worth -inf.

    Attributes:
        actions: A.
        hidden: widths of the hidden layers.
        activation: a name in `rlx.nets.mlp.ACTIVATIONS`.
        dueling: the last hidden layer is two, for V and for the advantages:
            `Q = V + advantage - mean advantage` (Wang et al. 2015, arXiv 1511.06581, eq. 9).
        quantiles: Q quantiles of each action's return (Dabney et al. 2017, arXiv 1710.10044); None: its mean alone.
        inputs: what an observation is made of, from `network_inputs`; None: it is one vector.
    """

    actions: int
    hidden: Sequence[int] = (64, 64)
    activation: str = "relu"
    dueling: bool = False
    quantiles: int | None = None
    inputs: tuple[Input, ...] | None = None

    @nn.compact
    def __call__(self, observation: Any) -> jax.Array | Quantiles:
        """An observation with any leading axes -> values `[..., A]`, or quantiles `[..., A, Q]`."""
        x, mask = encode(self.inputs, observation)
        width = self.quantiles or 1
        values = self._dueling(x, width) if self.dueling else self._plain(x, width)
        values = values.reshape(*values.shape[:-1], width, self.actions)
        if mask is not None:
            values = mask_logits(values, mask[..., None, :])
        return Quantiles(jnp.swapaxes(values, -1, -2)) if self.quantiles else values[..., 0, :]

    def _plain(self, x: jax.Array, width: int) -> jax.Array:
        mlps = {"values": ((x.shape[-1], *self.hidden, self.actions * width), 1.0)}
        return apply_mlp(parameter(self, "mlps", init_mlps, mlps)["values"], x, self.activation)

    def _dueling(self, x: jax.Array, width: int) -> jax.Array:
        *shared, last = (x.shape[-1], *self.hidden)
        mlps = {
            "value": ((shared[-1], last, width), 1.0),
            "advantage": ((shared[-1], last, self.actions * width), 1.0),
        }
        if shared[1:]:
            mlps |= {"shared": (shared, 2**0.5)}
        layers = parameter(self, "mlps", init_mlps, mlps)
        if shared[1:]:
            x = ACTIVATIONS[self.activation](apply_mlp(layers["shared"], x, self.activation))
        value = apply_mlp(layers["value"], x, self.activation)[..., None]  # [..., Q, 1]
        advantage = apply_mlp(layers["advantage"], x, self.activation)
        advantage = advantage.reshape(*advantage.shape[:-1], width, self.actions)
        values = value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)
        return values.reshape(*values.shape[:-2], -1)


def q_network(
    env: Spaces,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    dueling: bool = False,
    quantiles: int | None = None,
) -> QNetwork:
    """Make the network that fits an environment's spaces.

    Raises:
        ValueError: a space that is not supported: actions must be Discrete.
    """
    space = env.action_space
    if not isinstance(space, spaces.Discrete):
        raise ValueError(f"action space {space} is not supported: values of every action need a Discrete one")
    return QNetwork(int(space.n), hidden, activation, dueling, quantiles, vector_or_inputs(env.observation_space))
