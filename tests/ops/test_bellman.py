"""Bellman operators, exact values and gradients, and one-step targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.ops import MDP

# Two states. In 0: action 0 stays and pays 1; action 1 leads to 1 (paying 0) or ends (paying 4), each half of the time.
# In 1: either action pays 2 and leads back to 0.
HAND = MDP(
    probability=jnp.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]]),
    next_state=jnp.array([[[0, 0], [1, 0]], [[0, 0], [0, 0]]]),
    reward=jnp.array([[[1.0, 9.0], [0.0, 4.0]], [[2.0, 9.0], [2.0, 9.0]]]),
    terminated=jnp.array([[[False, False], [False, True]], [[False, False], [False, False]]]),
    initial=jnp.array([0.75, 0.25]),
)
EVEN = jnp.full((2, 2), 0.5)


def random_mdp(seed=0, states=5, actions=3, outcomes=2):
    rng = np.random.default_rng(seed)
    shape = states, actions, outcomes
    return MDP(
        jnp.array(rng.dirichlet(np.ones(outcomes), shape[:2]), jnp.float32),
        jnp.array(rng.integers(0, states, shape), jnp.int32),
        jnp.array(rng.normal(size=shape), jnp.float32),
        jnp.array(rng.random(shape) < 0.2),
        jnp.array(rng.dirichlet(np.ones(states)), jnp.float32),
    )


def random_policy(seed=0, states=5, actions=3):
    return jnp.array(np.random.default_rng(seed).dirichlet(np.ones(actions), states), jnp.float32)


def test_backups_by_hand():
    value = jnp.array([10.0, 20.0])
    q = [[1 + 9, 0.5 * (0 + 18) + 0.5 * 4], [2 + 9, 2 + 9]]  # discount 0.9
    np.testing.assert_allclose(rlx.ops.action_values(HAND, value, 0.9), q)
    np.testing.assert_allclose(rlx.ops.bellman_optimality(HAND, value, 0.9), [11, 11])
    np.testing.assert_allclose(rlx.ops.bellman_expectation(HAND, EVEN, value, 0.9), [10.5, 11])
    np.testing.assert_allclose(rlx.ops.transition_matrix(HAND, EVEN), [[0.5, 0.25], [1, 0]])


def test_exact_values_by_hand():
    """Under the even policy at discount 0.5: V0 = 1/2 (1 + V0/2) + 1/2 (V1/4 + 2), V1 = 2 + V0/2."""
    v0 = (0.5 + 1 + 0.25) / (1 - 0.25 - 0.0625)
    value = [v0, 2 + v0 / 2]
    np.testing.assert_allclose(rlx.ops.policy_values(HAND, EVEN, 0.5), value, rtol=1e-6)
    np.testing.assert_allclose(rlx.ops.expected_return(HAND, EVEN, 0.5), 0.75 * value[0] + 0.25 * value[1], rtol=1e-6)
    # d = initial + discount * P^T d
    d0 = (0.75 + 0.5 * 0.25) / (1 - 0.25 - 0.0625)
    np.testing.assert_allclose(rlx.ops.occupancy(HAND, EVEN, 0.5), [d0, 0.25 + 0.125 * d0], rtol=1e-6)


def slow_action_values(mdp, value, discount):
    q = np.zeros(mdp.reward.shape[:2])
    for s, a, k in np.ndindex(*mdp.reward.shape):
        following = 0.0 if mdp.terminated[s, a, k] else value[mdp.next_state[s, a, k]]
        q[s, a] += mdp.probability[s, a, k] * (mdp.reward[s, a, k] + discount * following)
    return q


def test_backups_equal_a_slow_twin():
    mdp, policy = random_mdp(), random_policy()
    value = np.random.default_rng(1).normal(size=5)
    q = slow_action_values(jax.tree.map(np.asarray, mdp), value, 0.9)
    value = jnp.float32(value)
    np.testing.assert_allclose(rlx.ops.action_values(mdp, value, 0.9), q, atol=1e-5)
    np.testing.assert_allclose(rlx.ops.bellman_optimality(mdp, value, 0.9), q.max(1), atol=1e-5)
    np.testing.assert_allclose(rlx.ops.bellman_expectation(mdp, policy, value, 0.9), (policy * q).sum(1), atol=1e-5)


def test_backups_contract():
    mdp, policy = random_mdp(), random_policy()
    x, y = jax.random.normal(jax.random.key(0), (2, 5))
    apart = jnp.abs(x - y).max()
    for backup in (
        lambda v: rlx.ops.bellman_optimality(mdp, v, 0.9),
        lambda v: rlx.ops.bellman_expectation(mdp, policy, v, 0.9),
    ):
        assert jnp.abs(backup(x) - backup(y)).max() <= 0.9 * apart
        assert jnp.all(backup(x + 1) >= backup(x))  # monotone


def test_a_dense_tensor_is_the_case_of_all_states():
    mdp, policy = random_mdp(), random_policy()
    mdp = mdp._replace(
        terminated=jnp.zeros_like(mdp.terminated), reward=jnp.broadcast_to(mdp.reward[..., :1], (5, 3, 2))
    )
    dense = np.zeros((5, 3, 5), np.float32)
    for s, a, k in np.ndindex(5, 3, 2):
        dense[s, a, mdp.next_state[s, a, k]] += mdp.probability[s, a, k]
    shape = dense.shape
    same = MDP(
        jnp.array(dense),
        jnp.broadcast_to(jnp.arange(5), shape),
        jnp.broadcast_to(mdp.reward[..., :1], shape),
        jnp.zeros(shape, bool),
        mdp.initial,
    )
    np.testing.assert_allclose(
        rlx.ops.policy_values(same, policy, 0.9), rlx.ops.policy_values(mdp, policy, 0.9), rtol=1e-5
    )


def test_exact_values_are_the_fixed_point_and_what_simulation_finds():
    mdp, policy = random_mdp(), random_policy()
    value = rlx.ops.policy_values(mdp, policy, 0.9)
    np.testing.assert_allclose(rlx.ops.bellman_expectation(mdp, policy, value, 0.9), value, atol=1e-5)

    env = rlx.envs.TabularEnv(mdp)
    envs = rlx.vectorize(env, 2000)
    act = lambda policy, key, position: jax.random.categorical(key, jnp.log(policy[position]))  # noqa: E731
    begun = rlx.start_rollout(envs, jax.random.key(0))
    _, rows, _ = rlx.rollout(envs, act, policy, begun, jax.random.key(1), 60)
    over = jnp.cumsum(rows.terminated, axis=0) - rows.terminated > 0  # rows of later episodes
    weight = 0.9 ** jnp.arange(60)[:, None] * ~over
    returns = (weight * rows.reward).sum(0)
    error = returns.std() / np.sqrt(2000)
    assert abs(returns.mean() - rlx.ops.expected_return(mdp, policy, 0.9)) < 4 * error
    visits = jax.vmap(lambda state: (weight * (rows.observation == state)).sum() / 2000)(jnp.arange(5))
    np.testing.assert_allclose(visits, rlx.ops.occupancy(mdp, policy, 0.9), atol=0.1)


def test_policy_gradient_is_the_theorem_autodiff_and_finite_differences():
    mdp = random_mdp()
    logits = jax.random.normal(jax.random.key(0), (5, 3))
    j = lambda logits: rlx.ops.expected_return(mdp, jax.nn.softmax(logits), 0.9)  # noqa: E731
    by_theorem, by_autodiff = rlx.ops.policy_gradient(mdp, logits, 0.9), jax.grad(j)(logits)
    np.testing.assert_allclose(by_theorem, by_autodiff, atol=1e-6)

    # the sum over states and actions of d(s) pi(a|s) A(s, a) dlog pi(a|s) / dtheta, with every derivative taken
    policy = jax.nn.softmax(logits)
    value = rlx.ops.policy_values(mdp, policy, 0.9)
    weight = rlx.ops.occupancy(mdp, policy, 0.9)[:, None] * policy * rlx.ops.action_values(mdp, value, 0.9)
    scores = jax.jacobian(jax.nn.log_softmax)(logits)  # [S, A, S, A]
    np.testing.assert_allclose(jnp.einsum("sa,sabc->bc", weight, scores), by_theorem, atol=1e-6)

    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, mdp)
        exact = exact._replace(probability=exact.probability / exact.probability.sum(-1, keepdims=True))
        wide, step = jnp.asarray(np.asarray(logits), jnp.float64), 1e-5
        j = jax.jit(lambda logits: rlx.ops.expected_return(exact, jax.nn.softmax(logits), 0.9))
        units = step * jnp.eye(15, dtype=jnp.float64).reshape(15, 5, 3)
        difference = jnp.stack([(j(wide + unit) - j(wide - unit)) / (2 * step) for unit in units])
    np.testing.assert_allclose(difference.reshape(5, 3), by_theorem, atol=1e-6)
    assert jnp.abs(by_theorem).max() > 0.1


ROW = {
    "reward": jnp.array([1.0, 1.0]),
    "terminated": jnp.array([False, True]),
    "next_q": jnp.array([[2.0, 4.0, 0.0], [2.0, 4.0, 0.0]]),
    "next_policy": jnp.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]),
    "next_action": jnp.array([0, 0]),
    "discount": 0.5,
}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (rlx.ops.q_learning_target, 1 + 0.5 * 4),
        (rlx.ops.sarsa_target, 1 + 0.5 * 2),
        (rlx.ops.expected_sarsa_target, 1 + 0.5 * (1 + 1)),
    ],
)
def test_targets_by_hand(target, expected):
    np.testing.assert_allclose(target(**ROW), [expected, 1.0])
    one = {name: x[0] if name != "discount" else x for name, x in ROW.items()}
    np.testing.assert_allclose(target(**one), expected)  # no leading axis
    slope = jax.grad(lambda next_q: target(**ROW | {"next_q": next_q}).sum())(ROW["next_q"])
    np.testing.assert_array_equal(slope, 0)


def test_targets_reduce_to_one_another():
    q = jax.random.normal(jax.random.key(0), (7, 3))
    action = jax.random.randint(jax.random.key(1), (7,), 0, 3)
    row = {"reward": q[:, 0], "terminated": jnp.zeros(7, bool), "next_q": q, "next_action": action, "discount": 0.9}
    expected, sarsa = rlx.ops.expected_sarsa_target, rlx.ops.sarsa_target
    np.testing.assert_allclose(
        expected(**row, next_policy=jax.nn.one_hot(q.argmax(-1), 3)),
        rlx.ops.q_learning_target(**row, next_policy=None),
        rtol=1e-6,
    )
    taken = jax.nn.one_hot(action, 3)
    np.testing.assert_allclose(expected(**row, next_policy=taken), sarsa(**row, next_policy=None), rtol=1e-6)
    # SARSA's targets, averaged over the draw, are expected SARSA's
    policy = jax.nn.softmax(q)
    each = [sarsa(**row | {"next_action": jnp.full(7, a)}, next_policy=None) for a in range(3)]
    np.testing.assert_allclose((policy.T * jnp.stack(each)).sum(0), expected(**row, next_policy=policy), atol=1e-6)
