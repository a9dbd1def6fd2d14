"""Maths on arrays: elementwise over leading axes, time first, per-element values, gradients stopped on targets."""

from rlx.ops.distributions import Categorical, MultiCategorical, Normal, mask_logits
from rlx.ops.policy_gradients import clipped_surrogate, clipped_value_loss, k3, policy_gradient, surrogate_loss
from rlx.ops.returns import explained_variance, gae, mean_return, reward_to_go, standardize
from rlx.ops.trust_region import LineSearch, conjugate_gradient, fisher_vector_product, line_search, natural_step

__all__ = [
    "Categorical",
    "LineSearch",
    "MultiCategorical",
    "Normal",
    "clipped_surrogate",
    "clipped_value_loss",
    "conjugate_gradient",
    "explained_variance",
    "fisher_vector_product",
    "gae",
    "k3",
    "line_search",
    "mask_logits",
    "mean_return",
    "natural_step",
    "policy_gradient",
    "reward_to_go",
    "standardize",
    "surrogate_loss",
]
