"""Actor-critic networks for vector observations, and the heads that turn features into distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax

from rlx.nets.mlp import apply_mlp, init_mlps, parameter
from rlx.ops.distributions import Categorical, Normal

if TYPE_CHECKING:
    import gymnasium


class CategoricalHead(nn.Module):
    """Outputs of the actor as the logits of a choice among `outputs` actions."""

    outputs: int

    def __call__(self, x: jax.Array) -> Categorical:
        """`[..., A]` -> a distribution over `[...]`."""
        return Categorical(x)


class NormalHead(nn.Module):
    """Outputs of the actor as the mean of a normal whose standard deviation is a parameter, 1 at first.

    The action is in the normalised box: -1 and 1 are the bounds of the environment's space.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Normal:
        """`[..., D]` -> a distribution over `[..., D]`."""
        return Normal(x, self.param("log_scale", nn.initializers.zeros, (self.outputs,)))


def policy_head(action_space: gymnasium.Space) -> CategoricalHead | NormalHead:
    """Give the head whose distribution fits an action space.

    Raises:
        ValueError: a space other than Discrete and one-dimensional Box.
    """
    import gymnasium

    if isinstance(action_space, gymnasium.spaces.Discrete):
        return CategoricalHead(int(action_space.n))
    if isinstance(action_space, gymnasium.spaces.Box) and len(action_space.shape) == 1:
        return NormalHead(action_space.shape[0])
    raise ValueError(f"action space {action_space} is not supported: use Discrete or a one-dimensional Box")


class ActorCritic(nn.Module):
    """Two separate MLPs, as sharing layers couples the two losses (Andrychowicz et al. 2020, arXiv 2006.05990).

    Attributes:
        head: makes the actor's outputs a distribution; `policy_head(env.action_space)` picks one.
        hidden: widths of the hidden layers of both.
        activation: a name in `rlx.nets.mlp.ACTIVATIONS`.
    """

    head: CategoricalHead | NormalHead
    hidden: Sequence[int] = (64, 64)
    activation: str = "tanh"

    @nn.compact
    def __call__(self, observation: jax.Array) -> tuple[Categorical | Normal, jax.Array]:
        """`[..., O]` -> (distribution over actions, value `[...]`)."""
        sizes = (observation.shape[-1], *self.hidden)
        mlps = {"actor": ((*sizes, self.head.outputs), 0.01), "critic": ((*sizes, 1), 1.0)}  # the policy near uniform
        layers = parameter(self, "mlps", init_mlps, mlps)
        outputs = apply_mlp(layers["actor"], observation, self.activation)
        value = apply_mlp(layers["critic"], observation, self.activation)
        return self.head(outputs), value[..., 0]
