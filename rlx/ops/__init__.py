"""Maths on arrays: elementwise over leading axes, time first, per-element values, gradients stopped on targets."""

from rlx.ops.distributions import Categorical, MultiCategorical, Normal, TanhNormal, epsilon_greedy, mask_logits
from rlx.ops.policy_gradients import clipped_surrogate, clipped_value_loss, k3
from rlx.ops.returns import explained_variance, gae
from rlx.ops.td import Quantiles, huber, mean_values, quantile_huber, select_action, td_target

__all__ = [
    "Categorical",
    "MultiCategorical",
    "Normal",
    "Quantiles",
    "TanhNormal",
    "clipped_surrogate",
    "clipped_value_loss",
    "epsilon_greedy",
    "explained_variance",
    "gae",
    "huber",
    "k3",
    "mask_logits",
    "mean_values",
    "quantile_huber",
    "select_action",
    "td_target",
]
