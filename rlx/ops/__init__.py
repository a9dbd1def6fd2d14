"""Maths on arrays: elementwise over leading axes, time first, per-element values, gradients stopped on targets."""

from rlx.ops.bellman import (
    MDP,
    action_values,
    bellman_expectation,
    bellman_optimality,
    expected_return,
    expected_sarsa_target,
    occupancy,
    policy_gradient,
    policy_values,
    q_learning_target,
    sarsa_target,
    transition_matrix,
)
from rlx.ops.distributions import Categorical, MultiCategorical, Normal, TanhNormal, epsilon_greedy, mask_logits
from rlx.ops.dynamic_programming import Solution, policy_evaluation, policy_iteration, value_iteration
from rlx.ops.exploration import epsilon_policy, softmax_policy, ucb_policy
from rlx.ops.policy_gradients import clipped_surrogate, clipped_value_loss, k3, policy_gradient_loss, surrogate_loss
from rlx.ops.returns import explained_variance, gae, mean_return, reward_to_go, standardize
from rlx.ops.td import Quantiles, huber, mean_values, quantile_huber, select_action, td_target
from rlx.ops.trust_region import LineSearch, conjugate_gradient, fisher_vector_product, line_search, natural_step

__all__ = [
    "MDP",
    "Categorical",
    "LineSearch",
    "MultiCategorical",
    "Normal",
    "Quantiles",
    "Solution",
    "TanhNormal",
    "action_values",
    "bellman_expectation",
    "bellman_optimality",
    "clipped_surrogate",
    "clipped_value_loss",
    "conjugate_gradient",
    "epsilon_greedy",
    "epsilon_policy",
    "expected_return",
    "expected_sarsa_target",
    "explained_variance",
    "fisher_vector_product",
    "gae",
    "huber",
    "k3",
    "line_search",
    "mask_logits",
    "mean_return",
    "mean_values",
    "natural_step",
    "occupancy",
    "policy_evaluation",
    "policy_gradient",
    "policy_gradient_loss",
    "policy_iteration",
    "policy_values",
    "q_learning_target",
    "quantile_huber",
    "reward_to_go",
    "sarsa_target",
    "select_action",
    "softmax_policy",
    "standardize",
    "surrogate_loss",
    "td_target",
    "transition_matrix",
    "ucb_policy",
    "value_iteration",
]
