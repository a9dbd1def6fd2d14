"""Value iteration, policy iteration and iterative evaluation against the exact solve and known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bellman import HAND, random_mdp, random_policy

import rlx


def best_by_enumeration(mdp, discount):
    """V* as the largest value over all deterministic policies."""
    states, actions = mdp.reward.shape[:2]
    choices = jnp.stack(jnp.meshgrid(*[jnp.arange(actions)] * states), -1).reshape(-1, states)
    values = jax.vmap(lambda c: rlx.ops.policy_values(mdp, jax.nn.one_hot(c, actions), discount))(choices)
    return values.max(0)


@pytest.mark.parametrize("seed", range(3))
def test_both_find_the_best_of_all_policies(seed):
    mdp = random_mdp(seed)
    best = best_by_enumeration(mdp, 0.9)
    by_value, by_policy = rlx.ops.value_iteration(mdp, 0.9), rlx.ops.policy_iteration(mdp, 0.9)
    np.testing.assert_allclose(by_policy.value, best, atol=1e-5)
    np.testing.assert_allclose(by_value.value, best, atol=1e-4)
    np.testing.assert_array_equal(by_value.action, by_policy.action)
    assert by_policy.iterations < by_value.iterations


@pytest.mark.parametrize("tolerance", [1.0, 1e-2, 1e-4])
def test_the_error_is_within_its_bound(tolerance):
    mdp, policy = random_mdp(), random_policy()
    exact, values = best_by_enumeration(mdp, 0.9), rlx.ops.policy_values(mdp, policy, 0.9)
    for right, found in (
        (exact, rlx.ops.value_iteration(mdp, 0.9, tolerance)),
        (values, rlx.ops.policy_evaluation(mdp, policy, 0.9, tolerance)),
    ):
        assert jnp.abs(found.value - right).max() <= found.error + 1e-5
        assert 0 < found.error <= tolerance
    # and one backup earlier the bound was not met
    fewer = rlx.ops.value_iteration(
        mdp, 0.9, tolerance, int(rlx.ops.value_iteration(mdp, 0.9, tolerance).iterations) - 1
    )
    assert fewer.error > tolerance


def test_without_discount_what_ends_has_a_value():
    cliff = rlx.envs.cliff_walking()
    solution = rlx.ops.value_iteration(cliff.mdp, 1.0)
    assert cliff.mdp.initial @ solution.value == -13
    assert solution.error == 0
    lake = rlx.ops.value_iteration(rlx.envs.frozen_lake().mdp, 1.0, max_iterations=1000)
    assert float(lake.value[0]) == pytest.approx(14 / 17, abs=1e-3)  # 0.8235 without a time limit


def test_max_iterations_stops():
    assert rlx.ops.value_iteration(HAND, 0.99, tolerance=0.0, max_iterations=7).iterations == 7
    assert rlx.ops.policy_iteration(random_mdp(), 0.9, max_iterations=1).iterations == 1


def test_ties_do_not_send_policy_iteration_round():
    same = HAND._replace(reward=jnp.ones_like(HAND.reward), terminated=jnp.zeros_like(HAND.terminated))
    solution = rlx.ops.policy_iteration(same, 0.99)
    assert solution.iterations == 1
    np.testing.assert_allclose(solution.value, 100, rtol=1e-4)


def test_discounts_are_vmapped():
    discounts = jnp.array([0.5, 0.9, 0.95])
    together = jax.jit(jax.vmap(lambda discount: rlx.ops.value_iteration(HAND, discount)))(discounts)
    for value, discount in zip(together.value, discounts, strict=True):
        np.testing.assert_allclose(value, rlx.ops.policy_iteration(HAND, discount).value, atol=2e-4)
