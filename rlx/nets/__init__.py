"""Networks in flax linen."""

from rlx.nets.actor_critic import ActorCritic, CategoricalHead, NormalHead, policy_head
from rlx.nets.mlp import MLP

__all__ = ["MLP", "ActorCritic", "CategoricalHead", "NormalHead", "policy_head"]
