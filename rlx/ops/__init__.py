"""Maths on arrays: elementwise over leading axes, time first, per-element values, gradients stopped on targets."""

from rlx.ops.distributions import Categorical, MultiCategorical, Normal, mask_logits
from rlx.ops.policy_gradients import clipped_surrogate, clipped_value_loss, k3, policy_gradient
from rlx.ops.returns import explained_variance, gae, standardize

__all__ = [
    "Categorical",
    "MultiCategorical",
    "Normal",
    "clipped_surrogate",
    "clipped_value_loss",
    "explained_variance",
    "gae",
    "k3",
    "mask_logits",
    "policy_gradient",
    "standardize",
]
