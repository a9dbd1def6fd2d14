"""Group advantages, ratios and the losses made of them, by pencil and against verl's and OpenRLHF's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import (
    cispo_loss,
    clipped_surrogate,
    dual_clip,
    effective_groups,
    group_advantage,
    importance_log_ratio,
    length_mask,
    overlong_penalty,
    token_weights,
    varied_groups,
)

REWARD = jnp.array([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0], [0.1, 0.9, -0.4, 0.3]])


def test_group_advantages_equal_verl():
    grpo = [0.8660239, -0.8660239, -0.8660239, 0.8660239, 0, 0, 0, 0, -0.232453, 1.2552459, -1.1622648, 0.1394718]
    np.testing.assert_allclose(group_advantage(REWARD, "mean", "group", 1e-6).ravel(), grpo, atol=1e-6)
    dr_grpo = [0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0, -0.125, 0.675, -0.625, 0.075]
    np.testing.assert_allclose(group_advantage(REWARD).ravel(), dr_grpo, atol=1e-6)
    rloo = [2 / 3, -2 / 3, -2 / 3, 2 / 3, 0, 0, 0, 0, -0.16666667, 0.9, -0.83333333, 0.1]
    np.testing.assert_allclose(group_advantage(REWARD, "leave_one_out").ravel(), rloo, atol=1e-6)


def test_leave_one_out_is_the_mean_of_the_others():
    expected = [[r - np.delete(row, i).mean() for i, r in enumerate(row)] for row in np.array(REWARD)]
    np.testing.assert_allclose(group_advantage(REWARD, "leave_one_out"), expected, atol=1e-6)


def test_scales():
    np.testing.assert_allclose(group_advantage(REWARD, "none", "none"), REWARD)
    batch = group_advantage(REWARD, "mean", "batch", 0.0)
    np.testing.assert_allclose(batch * np.array(REWARD).std(ddof=1), group_advantage(REWARD), rtol=1e-5, atol=1e-7)
    group = group_advantage(REWARD, "mean", "group", 0.0)
    np.testing.assert_allclose(group.std(axis=1, ddof=1), [1, 0, 1], rtol=1e-5)
    np.testing.assert_allclose(group.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(
        group_advantage(REWARD, "mean", "group", 0.5)[0, 0], 0.5 / (np.sqrt(1 / 3) + 0.5), rtol=1e-6
    )


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_equal_rewards_have_exactly_no_advantage(baseline, scale):
    equal = jnp.full((2, 7), 0.1)  # 0.1 added up seven times and divided is not 0.1
    assert not np.any(group_advantage(equal, baseline, scale))
    assert not np.any(group_advantage(equal.at[1, 0].set(5.0), baseline, scale)[0])


def test_difficulty_weighs_most_where_rewards_hardly_vary():
    """H4: of 8 responses 1 or 4 right; per group, the rare success of a hard prompt has the greater advantage."""
    reward = jnp.array([[1.0] + [0.0] * 7, [1.0] * 4 + [0.0] * 4])
    scaled = group_advantage(reward, "mean", "group")
    assert scaled[0, 0] > 2.5 * scaled[1, 0]
    assert group_advantage(reward)[0, 0] < 2 * group_advantage(reward)[1, 0]


def test_groups_of_one_are_an_error():
    one = jnp.array([[1.0], [3.0]])
    for choice in [("mean", "none"), ("leave_one_out", "none"), ("none", "group"), ("mean", "batch")]:
        with pytest.raises(ValueError, match="groups of 1"):
            group_advantage(one, *choice)
    np.testing.assert_array_equal(group_advantage(one, "none"), one)
    assert group_advantage(one.astype(int), "none").dtype == jnp.float32
    with pytest.raises(ValueError, match="baseline 'median' is none of"):
        group_advantage(REWARD, "median")
    with pytest.raises(ValueError, match="scale 'std' is none of"):
        group_advantage(REWARD, "mean", "std")


def test_groups_that_teach():
    np.testing.assert_array_equal(varied_groups(REWARD), [True, False, True])
    np.testing.assert_allclose(effective_groups(REWARD), 2 / 3)
    assert effective_groups(jnp.zeros((4, 3))) == 0


def test_dynamic_sampling_leaves_the_mean_of_what_is_kept():
    """H1: a loss over three groups, one without spread, is the loss over the other two alone."""
    mask = length_mask(jnp.array([3, 1, 2, 3, 1, 2, 3, 3, 1, 1, 2, 3]), 3)
    loss = jax.random.normal(jax.random.key(0), (12, 3))
    kept = jnp.repeat(varied_groups(REWARD), 4)
    for aggregation in ("token", "sequence", "sequence_sum"):
        found = jnp.sum(token_weights(mask & kept[:, None], aggregation) * loss)
        alone = jnp.sum(token_weights(mask[kept], aggregation) * loss[kept])
        np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_log_ratios_by_pencil():
    old = jnp.array([[-1.0, -2.0, -9.0], [-1.0, -9.0, -9.0]])
    log_prob, mask = old + jnp.array([[0.2, 0.6, 5.0], [-0.3, 5.0, 5.0]]), length_mask(jnp.array([2, 1]), 3)
    tokens = importance_log_ratio(log_prob, old, mask, "token")
    np.testing.assert_allclose(tokens, [[0.2, 0.6, 0], [-0.3, 0, 0]], atol=1e-6)
    whole = importance_log_ratio(log_prob, old, mask, "sequence")
    np.testing.assert_allclose(whole, [[0.4, 0.4, 0], [-0.3, 0, 0]], atol=1e-6)
    both = importance_log_ratio(log_prob, old, mask, "sequence_token")
    np.testing.assert_allclose(both, whole, atol=1e-6)
    first = lambda log_prob, level: importance_log_ratio(log_prob, old, mask, level)[0, 0]  # noqa: E731
    np.testing.assert_allclose(jax.grad(first)(log_prob, "sequence"), [[0.5, 0.5, 0], [0, 0, 0]])
    np.testing.assert_allclose(jax.grad(first)(log_prob, "sequence_token"), [[1, 0, 0], [0, 0, 0]])
    assert not np.any(jax.grad(lambda old: importance_log_ratio(log_prob, old, mask, "sequence").sum())(old))
    with pytest.raises(ValueError, match="level 'word' is none of"):
        importance_log_ratio(log_prob, old, mask, "word")


def test_gspo_and_gspo_token_have_one_gradient_where_advantages_are_per_response():
    """As their paper says of it."""
    old, new = jax.random.normal(jax.random.key(1), (2, 4, 5))
    mask, advantage = (
        length_mask(jnp.array([5, 2, 1, 4]), 5),
        jnp.array([[1.0], [-1.0], [0.5], [2.0]]) * jnp.ones((4, 5)),
    )

    def loss(new, level):
        ratio = importance_log_ratio(new, old, mask, level)
        surrogate = clipped_surrogate(ratio, jnp.zeros_like(ratio), advantage, 0.2)
        return jnp.sum(token_weights(mask, "sequence") * surrogate)

    found = [jax.value_and_grad(loss)(new, level) for level in ("sequence", "sequence_token")]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-6)
    assert np.any(np.array(found[0][1]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [(1.25, 1.0, -1.25, -1.25), (1.3, 1.0, -1.28, 0.0), (0.75, -1.0, 0.8, 0.0), (1.3, -1.0, 1.3, 1.3)],
)
def test_clip_higher_by_pencil(ratio, advantage, loss, slope):
    rows = jnp.log(ratio), jnp.float32(0.0), jnp.float32(advantage)
    found = jax.value_and_grad(clipped_surrogate)(*rows, 0.2, 0.28)
    np.testing.assert_allclose(found, (loss, slope), rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [(4.0, -2.0, 6.0, 0.0), (2.0, -2.0, 4.0, 4.0), (4.0, 2.0, -2.4, 0.0), (0.5, 2.0, -1.0, -1.0)],
)
def test_dual_clip_by_pencil(ratio, advantage, loss, slope):
    """A bad action four times as probable counts three times."""

    def clipped(log_prob, advantage):
        return dual_clip(clipped_surrogate(log_prob, jnp.float32(0.0), advantage, 0.2), advantage, 3.0)

    np.testing.assert_allclose(
        jax.value_and_grad(clipped)(jnp.log(ratio), jnp.float32(advantage)), (loss, slope), rtol=1e-5
    )
    assert jax.grad(dual_clip, 1)(jnp.float32(9.0), jnp.float32(-2.0), 3.0) == 0


@pytest.mark.parametrize(("ratio", "weight"), [(0.1, 0.8), (0.9, 0.9), (1.2, 1.2), (7.0, 1.28)])
def test_cispo_by_pencil(ratio, weight):
    """Its gradient is -weight A everywhere: beyond the range too."""
    slopes = jax.grad(cispo_loss, (0, 1, 2))(jnp.log(ratio), jnp.float32(0.0), jnp.float32(-3.0), 0.2, 0.28)
    np.testing.assert_allclose(slopes, (3.0 * weight, 0.0, 0.0), rtol=1e-5)
    free = jax.grad(cispo_loss)(jnp.log(0.01), jnp.float32(0.0), jnp.float32(1.0), 1.0, 0.28)
    np.testing.assert_allclose(free, -0.01, rtol=1e-5)  # clip = 1: free below


def test_overlong_penalty_by_pencil():
    """Of at most 20 tokens the last 4 cost: a quarter more each."""
    found = overlong_penalty(jnp.array([0, 16, 17, 18, 20, 25]), 20, 4)
    np.testing.assert_allclose(found, [0, 0, -0.25, -0.5, -1, -1])
    np.testing.assert_allclose(overlong_penalty(jnp.array([18, 20]), 20, 4, 3.0), [-1.5, -3])


def test_a_grpo_step_of_equal_rewards_has_no_gradient():
    log_prob, length = jnp.full((4, 3), -1.0), jnp.array([3, 2, 1, 3])
    mask = length_mask(length, 3)

    def loss(log_prob, reward):
        advantage = jnp.where(mask, group_advantage(reward[None], "mean", "group").ravel()[:, None], 0.0)
        return jnp.sum(
            token_weights(mask, "token") * clipped_surrogate(log_prob, jnp.full((4, 3), -1.0), advantage, 0.2)
        )

    assert not np.any(jax.grad(loss)(log_prob, jnp.full(4, 0.3)))
    assert np.any(jax.grad(loss)(log_prob, jnp.array([1.0, 0.0, 0.0, 0.0])))
