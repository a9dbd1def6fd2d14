"""Networks in flax linen."""

from rlx.nets.action_value import QCritic, deterministic_actor, q_critic, soft_actor
from rlx.nets.actor_critic import (
    Actor,
    ActorCritic,
    CategoricalHead,
    Critic,
    MultiCategoricalHead,
    NormalHead,
    TanhHead,
    TanhNormalHead,
    actor,
    actor_critic,
    critic,
    policy_head,
)
from rlx.nets.inputs import CNN, Features, network_inputs
from rlx.nets.mlp import MLP
from rlx.nets.nnx import from_nnx
from rlx.nets.q_network import QNetwork, q_network
from rlx.nets.transformer import Transformer, TransformerConfig

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
    "QCritic",
    "QNetwork",
    "TanhHead",
    "TanhNormalHead",
    "Transformer",
    "TransformerConfig",
    "actor",
    "actor_critic",
    "critic",
    "deterministic_actor",
    "from_nnx",
    "network_inputs",
    "policy_head",
    "q_critic",
    "q_network",
    "soft_actor",
]
