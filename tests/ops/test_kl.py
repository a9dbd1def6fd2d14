"""Every KL penalty's gradient by enumeration, in float64: what it is of, and what it is not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.ops import adaptive_kl, check_kl, exact_kl, k1, k2, k3, kl_loss, kl_reward

# Rounded to float32, as they were when the numbers of `shared/vectors` were made of them.
LOGITS, REF, OLD = np.array(
    [[0.3, -0.7, 1.1, 0.2, -0.4], [-0.2, 0.5, 0.4, 0.9, -1.0], [0.0, 0.1, 0.6, -0.3, 0.2]], np.float32
).astype(np.float64)
REVERSE = [0.0487579, -0.1072711, 0.1976261, -0.1732673, 0.0341544]
FORWARD = [0.07957, -0.1692802, 0.2257537, -0.1812577, 0.0452141]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def log_softmax(logits):
    return jax.nn.log_softmax(jnp.asarray(logits, float), axis=-1)


def gradient_in_loss(form, old=None):
    """Expected gradient of the loss, over tokens that pi_old draws (the policy itself unless given)."""
    old_log_prob = log_softmax(LOGITS if old is None else old)

    def loss(logits):
        return jnp.sum(jnp.exp(old_log_prob) * kl_loss(form, log_softmax(logits), log_softmax(REF), old_log_prob))

    return jax.jit(jax.grad(loss))(jnp.array(LOGITS))


def gradient_in_reward(form, logits=LOGITS):
    """Expected score-function gradient of a penalty in the reward."""
    drawn = log_softmax(logits)

    def loss(logits):
        return jnp.sum(jnp.exp(drawn) * kl_reward(form, drawn, log_softmax(REF)) * log_softmax(logits))

    return jax.jit(jax.grad(loss))(jnp.array(logits))


def reverse(logits=LOGITS):
    return jax.jit(jax.grad(exact_kl))(jnp.array(logits), jnp.array(REF))


def forward(logits=LOGITS):
    def kl(logits):
        log_p, log_ref = log_softmax(logits), log_softmax(REF)
        return jnp.sum(jnp.exp(log_ref) * (log_ref - log_p))

    return jax.jit(jax.grad(kl))(jnp.array(logits))


def cosine(a, b):
    return jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def test_exact_kl_and_its_gradient():
    """By calculus: dKL / dlogits_v = p_v (log p_v - log ref_v - KL)."""
    log_p, log_ref = log_softmax(LOGITS), log_softmax(REF)
    kl = exact_kl(jnp.array(LOGITS), jnp.array(REF))
    np.testing.assert_allclose(kl, 0.263029720166906, rtol=1e-12)
    np.testing.assert_allclose(reverse(), jnp.exp(log_p) * (log_p - log_ref - kl), atol=1e-15)
    np.testing.assert_allclose(reverse(), REVERSE, atol=6e-8)
    np.testing.assert_allclose(forward(), FORWARD, atol=6e-8)
    assert not np.any(jax.grad(exact_kl, 1)(jnp.array(LOGITS), jnp.array(REF)))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("k1", lambda: 0 * reverse()),
        ("k2", reverse),
        ("k3", forward),
        ("k3+", reverse),
        ("ratio_k1", reverse),
        ("ratio_k3", reverse),
    ],
)
def test_gradients_in_the_loss(form, expected):
    np.testing.assert_allclose(gradient_in_loss(form), expected(), atol=1e-15)


@pytest.mark.parametrize("form", ["ratio_k1", "ratio_k3"])
def test_ratios_are_right_off_policy(form):
    np.testing.assert_allclose(gradient_in_loss(form, OLD), reverse(), atol=1e-15)


def test_k2_is_biased_off_policy():
    biased = [0.0621405, -0.2327302, 0.1654739, -0.1088238, 0.1139395]
    np.testing.assert_allclose(gradient_in_loss("k2", OLD), biased, atol=6e-8)
    np.testing.assert_allclose(gradient_in_loss("k3+", OLD), biased, atol=6e-8)


def test_gradients_in_the_reward():
    np.testing.assert_allclose(gradient_in_reward("k1"), reverse(), atol=1e-15)
    np.testing.assert_allclose(gradient_in_reward("k3"), reverse() - forward(), atol=1e-15)
    k2_gradient = [-0.024605, 0.0339489, -0.0007061, -0.0019527, -0.0066851]
    np.testing.assert_allclose(gradient_in_reward("k2"), k2_gradient, atol=6e-8)
    np.testing.assert_allclose(cosine(gradient_in_reward("k2"), reverse()), -0.3951, atol=5e-5)
    np.testing.assert_allclose(cosine(gradient_in_reward("k3"), reverse()), -0.7022700377570691, rtol=1e-10)


def test_k3_in_the_reward_vanishes_near_the_reference():
    """A policy a tenth of the way from the reference: 2.4 percent of the true gradient's norm."""
    for share, ratio, angle in [(0.3, 0.05982410295606965, 0.2036850013), (0.1, 0.023770490510979445, 0.4085781038)]:
        near = jnp.array(REF) + share * (jnp.array(LOGITS) - jnp.array(REF))
        found = gradient_in_reward("k3", near)
        np.testing.assert_allclose(jnp.linalg.norm(found) / jnp.linalg.norm(reverse(near)), ratio, rtol=1e-10)
        np.testing.assert_allclose(cosine(found, reverse(near)), angle, rtol=1e-9)


def test_estimates_by_pencil():
    """p = 1/2 against ref = 1/4: log 2, half its square, 1/2 - 1 + log 2."""
    p, ref = jnp.log(0.5), jnp.log(0.25)
    np.testing.assert_allclose([k1(p, ref), k2(p, ref), k3(p, ref)], [0.693147, 0.240227, 0.193147], atol=1e-6)
    np.testing.assert_allclose(kl_loss("k3+", p, ref, p), k3(p, ref), rtol=1e-12)


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative():
    log_p, log_ref = log_softmax(jax.random.normal(jax.random.key(0), (2, 50, 4)))
    kl = exact_kl(log_p, log_ref)
    for estimate in (k1, k3):
        np.testing.assert_allclose(jnp.sum(jnp.exp(log_p) * estimate(log_p, log_ref), -1), kl, rtol=1e-10)
    assert k3(log_p, log_ref).min() >= 0
    assert not np.any(k3(log_p, log_p))


# Two tokens of three: log pi(a) is of the first, log pi(b | a) of the second, each from a table of logits.


def two_tokens(params):
    first, second = log_softmax(params[0]), log_softmax(params[1:])  # [a], [a, b]
    return jnp.stack([jnp.broadcast_to(first[:, None], second.shape), second])  # [T, a, b]


def two_token_gradient(loss, params):
    """Expected gradient over the nine sequences the policy draws."""
    probability = jnp.exp(jnp.sum(two_tokens(params), 0))
    return jax.jit(jax.grad(lambda now: jnp.sum(probability * loss(two_tokens(now)))))(params)


def reward_to_go(penalty):
    return jnp.cumsum(penalty[::-1], 0)[::-1]


@pytest.fixture
def sequences(float64):
    """Parameters of the policy `[4, 3]`, log pi_ref `[2, 3, 3]`, the exact gradient of the sequences' reverse KL."""
    params, ref_params = np.random.default_rng(3).normal(size=(2, 4, 3))
    ref = two_tokens(jnp.array(ref_params))

    def kl(params):
        log_prob = two_tokens(params)
        return jnp.sum(jnp.exp(jnp.sum(log_prob, 0)) * jnp.sum(log_prob - ref, 0))

    return jnp.array(params), ref, jax.jit(jax.grad(kl))(jnp.array(params))


def test_k1_in_the_reward_is_the_gradient_of_whole_sequences(sequences):
    params, ref, exact = sequences
    penalty = kl_reward("k1", two_tokens(params), ref)
    to_go = two_token_gradient(lambda log_prob: jnp.sum(reward_to_go(penalty) * log_prob, 0), params)
    whole = two_token_gradient(lambda log_prob: jnp.sum(penalty, 0) * jnp.sum(log_prob, 0), params)
    np.testing.assert_allclose(to_go, exact, atol=1e-12)
    np.testing.assert_allclose(whole, exact, atol=1e-12)


def test_k2_of_a_whole_sequence_in_the_loss_is_it_too(sequences):
    params, ref, exact = sequences
    found = two_token_gradient(lambda log_prob: k2(jnp.sum(log_prob, 0), jnp.sum(ref, 0)), params)
    np.testing.assert_allclose(found, exact, atol=1e-12)


def exact_per_state(params, ref):
    """KL of the first state's token, and of the second state's `[T, a, b]`, which the first token led to."""
    log_prob = two_tokens(params)
    first = exact_kl(log_prob[0, :, 0], ref[0, :, 0])
    second = exact_kl(log_prob[1], ref[1])
    return jnp.stack([jnp.full((3, 3), first), jnp.broadcast_to(second[:, None], (3, 3))])


@pytest.mark.parametrize("form", ["k2", "k3+", "ratio_k1", "ratio_k3"])
def test_token_losses_leave_out_what_a_token_does_to_later_states(sequences, form):
    """They agree with the exact KL of each state, and miss the same part of the sequences' gradient."""
    params, ref, exact = sequences
    drawn = two_tokens(params)
    found = two_token_gradient(lambda log_prob: jnp.sum(kl_loss(form, log_prob, ref, drawn), 0), params)
    probability = jnp.exp(jnp.sum(drawn, 0))
    per_state = jax.jit(jax.grad(lambda now: jnp.sum(probability * jnp.sum(exact_per_state(now, ref), 0))))(params)
    np.testing.assert_allclose(found, per_state, atol=1e-12)
    assert jnp.abs(found - exact).max() > 0.01
    np.testing.assert_allclose(found[1:], exact[1:], atol=1e-12)  # after the last token nothing comes


def test_exact_in_the_reward_and_in_the_loss_is_the_gradient_of_whole_sequences(sequences):
    params, ref, exact = sequences
    penalty = jax.lax.stop_gradient(exact_per_state(params, ref))
    in_reward = two_token_gradient(lambda log_prob: jnp.sum(reward_to_go(penalty) * log_prob, 0), params)
    probability = jnp.exp(jnp.sum(two_tokens(params), 0))
    in_loss = jax.grad(lambda now: jnp.sum(probability * jnp.sum(exact_per_state(now, ref), 0)))(params)
    np.testing.assert_allclose(in_reward + in_loss, exact, atol=1e-12)
    np.testing.assert_allclose(in_reward[1:], 0.0, atol=1e-12)  # alone it holds the last token back by nothing


def test_k3_in_the_reward_misses(sequences):
    params, ref, exact = sequences
    penalty = kl_reward("k3", two_tokens(params), ref)
    found = two_token_gradient(lambda log_prob: jnp.sum(reward_to_go(penalty) * log_prob, 0), params)
    assert cosine(found, exact) < 0.5
    zero = two_token_gradient(lambda log_prob: jnp.sum(kl_loss("k1", log_prob, ref, log_prob), 0), params)
    np.testing.assert_allclose(zero, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("form", "where", "words"),
    [
        ("k1", "loss", "gradient is zero"),
        ("k3", "loss", r"the forward KL's"),
        ("k2", "reward", "not that of any KL"),
        ("k3", "reward", "about zero near"),
        ("exact", "reward", "later states"),
    ],
)
def test_wrong_choices_warn(form, where, words):
    with pytest.warns(UserWarning, match=words):
        check_kl(form, where)


def test_right_choices_do_not_warn_and_unknown_ones_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in ("k2", "k3+", "ratio_k1", "ratio_k3", "exact"):
            check_kl(form, "loss")
        check_kl("k1", "reward")
        check_kl("exact", "both")
    with pytest.raises(ValueError, match="'k4' in 'loss' does not exist"):
        check_kl("k4", "loss")
    with pytest.raises(ValueError, match="'ratio_k2' is none of"):
        kl_loss("ratio_k2", jnp.zeros(1), jnp.zeros(1), jnp.zeros(1))
    with pytest.raises(ValueError, match="'k3\\+' is none of"):
        kl_reward("k3+", jnp.zeros(1), jnp.zeros(1))


def test_no_gradient_through_rewards_references_or_what_was_drawn():
    rows = jnp.array([-1.0]), jnp.array([-2.0]), jnp.array([-1.5])
    assert not np.any(jax.grad(lambda p: kl_reward("k1", p, rows[1]).sum())(rows[0]))
    slopes = jax.grad(lambda *rows: kl_loss("ratio_k3", *rows).sum(), (1, 2))(*rows)
    assert not np.any(slopes)


def test_adaptive_coefficient():
    """512 sequences a step, target 6: 0.15 (1 - 0.2 * 0.0512) = 0.148464; on target, nothing moves."""
    coef, found = 0.15, []
    for kl in (3.0, 6.0, 7.0, 20.0, 0.5):
        coef = adaptive_kl(coef, kl, 6.0, 10_000.0, 512)
        found.append(coef)
    np.testing.assert_allclose(found, [0.148464, 0.148464, 0.149730893, 0.151264137, 0.149715192], atol=1e-9)
