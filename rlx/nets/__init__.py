"""Networks in flax linen."""

from rlx.nets.action_value import (
    PolicyNetwork,
    QCritic,
    TanhHead,
    TanhNormalHead,
    deterministic_actor,
    q_critic,
    soft_actor,
)
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
    "PolicyNetwork",
    "QCritic",
    "QNetwork",
    "TanhHead",
    "TanhNormalHead",
    "actor_critic",
    "deterministic_actor",
    "from_nnx",
    "network_inputs",
    "policy_head",
    "q_critic",
    "q_network",
    "soft_actor",
]
