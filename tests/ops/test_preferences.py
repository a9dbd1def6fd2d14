"""Direct alignment: closed forms, other libraries' numbers, and the small worlds that show what the losses do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import (
    apo_down_loss,
    apo_zero_loss,
    ches_score,
    dpo_loss,
    dpop_loss,
    exo_loss,
    ipo_loss,
    log_odds_ratio,
    nca_loss,
    robust_dpo_loss,
    simpo_loss,
    slic_loss,
    sppo_loss,
)

CHOSEN, REJECTED = jnp.array([-10.0, -12, -7]), jnp.array([-11.0, -9, -15])
REF_CHOSEN, REF_REJECTED = jnp.array([-10.5, -11, -8]), jnp.array([-10.0, -10, -14])
LENGTHS = jnp.array([5, 8, 4]), jnp.array([6, 3, 9])
RATIOS = CHOSEN - REF_CHOSEN, REJECTED - REF_REJECTED  # (0.5, -1, 1) and (-1, 1, -1)
MARGIN = RATIOS[0] - RATIOS[1]
MEAN_RATIOS = RATIOS[0] / LENGTHS[0], RATIOS[1] / LENGTHS[1]
MEANS = CHOSEN / LENGTHS[0], REJECTED / LENGTHS[1]

NUMBERS = {  # beta 0.1
    "dpo": (dpo_loss(MARGIN, 0.1), [0.620957, 0.7981389, 0.5981389]),
    "dpo_b0_5": (dpo_loss(MARGIN, 0.5), [0.386871, 1.3132617, 0.3132617]),
    "cdpo_ls0_1": (dpo_loss(MARGIN, 0.1, 0.1), [0.635957, 0.7781389, 0.6181389]),
    "ipo_sum_beta0_1": (ipo_loss(MARGIN, 0.1), [12.25, 49.0, 9.0]),
    "ref_free": (dpo_loss(CHOSEN - REJECTED, 0.1), [0.6443967, 0.8543552, 0.3711007]),
    "hinge(slic)": (slic_loss(MARGIN, 0.1), [0.85, 1.2, 0.8]),
    "ipo_length_normalised(TRL)": (
        ipo_loss(MEAN_RATIOS[0] - MEAN_RATIOS[1], 0.1),
        [22.4044444, 29.7934028, 21.5192901],
    ),
    "robust_e.1": (robust_dpo_loss(MARGIN, 0.1, 0.1), [0.602207, 0.8231389, 0.5731389]),
    "exo_pair_e.1": (exo_loss(MARGIN, 0.1, 0.1), [0.4313885, 0.6252972, 0.4063043]),
    "nca_pair": (nca_loss(*RATIOS, 0.1), [1.3498878, 1.4387933, 1.3387933]),
    "sppo_hard": (sppo_loss(*RATIOS, 0.1), [36.25, 72.0, 32.0]),
    "apo_zero": (apo_zero_loss(*RATIOS, 0.1), [0.9625234, 1.0499584, 0.9500416]),
    "apo_down": (apo_down_loss(*RATIOS, 0.1), [0.9750676, 1.0248548, 0.9751452]),
    "sigmoid_norm": (dpo_loss(MEAN_RATIOS[0] - MEAN_RATIOS[1], 0.1), [0.6799027, 0.7163264, 0.6752546]),
    "simpo_b2_g1(TRL cpo: logits=avg_c-avg_r - gamma/beta)": (
        simpo_loss(*MEANS, 2.0, 1.0),
        [1.5672959, 0.126928, 1.4377644],
    ),
    "orpo_log_odds(avg logp)": (log_odds_ratio(*MEANS), [-0.1954634, 1.7014133, -0.1017803]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_losses_equal_other_libraries(name):
    found, expected = NUMBERS[name]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_the_gradient_of_dpo_is_its_closed_form():
    """G1: -beta sigma(r_l - r_w) (grad log pi(y_w) - grad log pi(y_l)), less e where labels are smoothed."""
    beta, smoothing = 0.3, 0.1
    for e in (0.0, smoothing):
        slopes = jax.vmap(jax.grad(lambda w, l, e=e: dpo_loss(w - l, beta, e), (0, 1)))(*RATIOS)  # noqa: E741
        weight = 1 / (1 + np.exp(beta * np.array(MARGIN)))
        np.testing.assert_allclose(slopes[0], -beta * (weight - e), rtol=1e-5)
        np.testing.assert_allclose(slopes[1], beta * (weight - e), rtol=1e-5)


def test_far_margins_stay_finite():
    for loss in (dpo_loss, lambda h, beta: robust_dpo_loss(h, beta, 0.1), lambda h, beta: exo_loss(h, beta, 0.1)):
        found = jax.vmap(jax.value_and_grad(lambda h: loss(h, 1.0)))(jnp.array([-1e4, 1e4]))  # noqa: B023
        assert np.all(np.isfinite(found))
    assert dpo_loss(jnp.float32(-1e4), 1.0) == 1e4
    assert np.isfinite(log_odds_ratio(jnp.float32(0.0), jnp.float32(-1e4)))  # a response that is certain


def test_smoothed_labels_have_an_end():
    """cDPO's least loss is at sigma(beta h) = 1 - e; a tie, e = 1/2, wants no margin."""
    slope = jax.grad(dpo_loss)
    np.testing.assert_allclose(slope(jnp.log(9.0) / 0.5, 0.5, 0.1), 0.0, atol=1e-7)
    np.testing.assert_allclose(slope(jnp.float32(0.0), 0.5, 0.5), 0.0, atol=1e-7)


def test_robust_dpo_is_unbiased():
    """Over labels that are wrong with probability 0.2 its mean is DPO's loss on clean ones."""
    mean = 0.8 * robust_dpo_loss(MARGIN, 0.1, 0.2) + 0.2 * robust_dpo_loss(-MARGIN, 0.1, 0.2)
    np.testing.assert_allclose(mean, dpo_loss(MARGIN, 0.1), rtol=1e-5)


def test_exo_is_a_kl():
    np.testing.assert_allclose(exo_loss(jnp.log(9.0), 1.0, 0.1), 0.0, atol=1e-6)  # sigma(h) = 1 - e
    p = 1 / (1 + np.exp(-0.7))
    by_hand = p * np.log(p / 0.9) + (1 - p) * np.log((1 - p) / 0.1)
    np.testing.assert_allclose(exo_loss(jnp.float32(0.7), 1.0, 0.1), by_hand, rtol=1e-5)


def test_dpop_costs_what_makes_the_chosen_fall():
    chosen, rejected = jnp.array([0.5, -0.5]), jnp.array([-1.0, -2.0])
    plain = dpo_loss(chosen - rejected, 0.1)
    found = dpop_loss(chosen, rejected, 0.1, 5.0)
    np.testing.assert_allclose(found[0], plain[0])  # it has not fallen
    np.testing.assert_allclose(found[1], np.log1p(np.exp(-0.1 * (1.5 - 2.5))), rtol=1e-6)
    fall = jnp.array([-0.5, -2.0]), jnp.array([-0.4, -0.4])  # both fall by 0.1: the margin is as it was
    assert dpop_loss(fall[0][0] - 0.1, fall[1][0] - 0.1, 0.1, 5.0) > dpop_loss(fall[0][0], fall[1][0], 0.1, 5.0)


def test_the_rejected_side_is_pushed_ever_harder():
    """Feng et al. 2024: with x = pi / pi_ref, |dL/dx_w| / |dL/dx_l| = x_l / x_w."""
    x = jnp.array([1.3, 0.2])
    slope = jax.grad(lambda x: dpo_loss(jnp.log(x[0]) - jnp.log(x[1]), 0.4))(x)
    np.testing.assert_allclose(-slope[0] / slope[1], x[1] / x[0], rtol=1e-5)


# Small worlds: gradient descent on one pair, everything enumerable.


def descend(loss, params, steps, rate=1.0):
    return jax.lax.fori_loop(0, steps, lambda _, params: params - rate * jax.grad(loss)(params), params)


def test_shared_features_make_both_fall_and_a_table_never():
    """phi_w = (1, 1), phi_l = (2, 1), a third response at 0: the margin rises while both log-probabilities fall."""
    features, prob = jnp.array([[1.0, 1.0], [2.0, 1.0], [0.0, 0.0]]), jnp.array([0.2, 0.2, 0.6])
    start = jnp.log(prob)

    def loss(log_prob):
        return dpo_loss((log_prob[0] - start[0]) - (log_prob[1] - start[1]), 0.1)

    linear = lambda weights: jax.nn.log_softmax(start + features @ weights)  # noqa: E731
    first = linear(descend(lambda weights: loss(linear(weights)), jnp.zeros(2), 1, rate=0.1)) - start
    assert first[0] < 0  # (phi_w - E phi)(phi_w - phi_l) = -0.4
    slope = jax.jvp(linear, (jnp.zeros(2),), (features[0] - features[1],))[1][0]
    np.testing.assert_allclose(slope, -0.4, rtol=1e-5)
    found = linear(descend(lambda weights: loss(linear(weights)), jnp.zeros(2), 199))  # looked at before the 200th step
    np.testing.assert_allclose(found, [-8.996, -16.892, -0.000124], atol=1e-3)
    np.testing.assert_allclose(found[2], -0.0001, atol=5e-5)  # the third response has it all
    np.testing.assert_allclose(0.1 * (found[0] - found[1]), 0.790, atol=6e-4)

    table = jax.nn.log_softmax(descend(lambda logits: loss(jax.nn.log_softmax(logits)), start, 199))
    np.testing.assert_allclose(table[0], -0.0044, atol=5e-5)  # up, to nearly 0
    assert table[1] < start[1]


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_certain_preferences_ipo_stops_and_dpo_does_not(beta):
    """G6: of two arms IPO ends at sigma(0.5 / tau); DPO at 1, whatever beta is, and still pushes there."""

    def margin(logit):  # log p - log (1 - p), against a uniform reference
        return jax.nn.log_sigmoid(logit) - jax.nn.log_sigmoid(-logit)

    ipo = descend(lambda logit: ipo_loss(margin(logit), beta), jnp.float32(0.0), 200, rate=0.3)
    np.testing.assert_allclose(jax.nn.sigmoid(ipo), jax.nn.sigmoid(0.5 / beta), rtol=1e-5)
    early, late = (
        descend(lambda logit: dpo_loss(margin(logit), beta), jnp.float32(0.0), steps, rate=10.0) for steps in (10, 2000)
    )
    assert late > early + 2
    assert jax.nn.sigmoid(late) > 0.999
    assert jax.grad(lambda logit: dpo_loss(margin(logit), beta))(late) < 0


def displace(cosine):
    """One hidden state is trained, unembeddings are fixed; a third token lies along W_w - W_l (K10)."""
    chosen = jnp.array([1.0, 0.0])
    rejected = jnp.array([cosine, jnp.sqrt(1 - cosine**2)])
    along = (chosen - rejected) / jnp.linalg.norm(chosen - rejected)
    unembedding = jnp.stack([chosen, rejected, 1.5 * along, jnp.zeros(2)])
    start = jnp.array([1.0, 0.3])  # the chosen is probable to begin with

    def log_prob(hidden):
        return jax.nn.log_softmax(unembedding @ hidden)

    def loss(hidden):
        ratio = log_prob(hidden) - log_prob(start)
        return dpo_loss(ratio[0] - ratio[1], 1.0)

    return log_prob(start), log_prob(descend(loss, start, 300))


def test_alike_embeddings_displace_the_chosen():
    """K10: the more alike chosen and rejected are, the more of the chosen's mass goes to a third token."""
    change, third = [], []
    for cosine in (-0.9, 0.0, 0.8):
        before, after = displace(cosine)
        assert after[0] - after[1] > before[0] - before[1]  # the margin rises each time
        change.append(after[0] - before[0])
        third.append(jnp.exp(after[2]))
    assert change[0] > change[1] > change[2]
    assert change[2] < -1.0
    assert third[2] > 0.9


def test_ches_by_pencil():
    """Alike: 0 of equal ones, beyond where the rejected is the longer along it; opposite ones far below."""
    chosen = jnp.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    rejected = jnp.array([[1.0, 2.0], [2.0, 4.0], [-1.0, 0.0]])
    np.testing.assert_allclose(ches_score(chosen, rejected), [0.0, 5.0, -6.0])
    np.testing.assert_allclose(ches_score(chosen / 2, rejected / 4), [-0.625, 0.0, -1.375])  # of means: 2 and 4 tokens
