"""Networks in flax linen."""

from rlx.nets.actor_critic import (
    Actor,
    ActorCritic,
    CategoricalHead,
    Critic,
    MultiCategoricalHead,
    NormalHead,
    actor,
    actor_critic,
    critic,
    policy_head,
)
from rlx.nets.inputs import CNN, Features, network_inputs
from rlx.nets.mlp import MLP
from rlx.nets.nnx import from_nnx
from rlx.nets.q_network import QNetwork, q_network

__all__ = [
    "CNN",
    "MLP",
    "Actor",
    "ActorCritic",
    "CategoricalHead",
    "Critic",
    "Features",
    "MultiCategoricalHead",
    "NormalHead",
    "QNetwork",
    "actor",
    "actor_critic",
    "critic",
    "from_nnx",
    "network_inputs",
    "policy_head",
    "q_network",
]
