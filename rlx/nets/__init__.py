"""Networks in flax linen."""

from rlx.nets.actor_critic import (
    ActorCritic,
    CategoricalHead,
    MultiCategoricalHead,
    NormalHead,
    actor_critic,
    policy_head,
)
from rlx.nets.inputs import CNN, Features, network_inputs
from rlx.nets.mlp import MLP
from rlx.nets.nnx import from_nnx
from rlx.nets.q_network import QNetwork, q_network

__all__ = [
    "CNN",
    "MLP",
    "ActorCritic",
    "CategoricalHead",
    "Features",
    "MultiCategoricalHead",
    "NormalHead",
    "QNetwork",
    "actor_critic",
    "from_nnx",
    "network_inputs",
    "policy_head",
    "q_network",
]
