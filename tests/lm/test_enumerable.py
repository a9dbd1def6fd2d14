"""The language that can be listed: probabilities that add up, the optimum, exact gradients, and who reaches it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.lm import Sampling, Sequences, sample
from rlx.lm.enumerable import (
    Language,
    TabularModel,
    divergence,
    exact_gradient,
    frontier,
    objective,
    optimal_policy,
    string_log_probs,
    total_variation,
)
from rlx.nets.transformer import Transformer, TransformerConfig

LANGUAGE = Language(vocabulary=4, max_tokens=4)
MODEL = TabularModel(LANGUAGE)
START = {"params": {"table": jax.random.normal(jax.random.key(5), (85, 4))}}  # 1 + 4 + 16 + 64 contexts
REFERENCE = string_log_probs(MODEL, START, LANGUAGE)
REWARD = jax.random.normal(jax.random.key(6), REFERENCE.shape)
BETA = 0.5
BEST = optimal_policy(REFERENCE, REWARD, BETA)
SAMPLING = Sampling(LANGUAGE.max_tokens, LANGUAGE.end)


def judge(sequences):
    return REWARD[LANGUAGE.index(sequences)]


def test_every_string_is_listed_once():
    strings = LANGUAGE.strings
    listed = [tuple(map(int, row[:n])) for row, n in zip(strings.response, strings.response_length, strict=True)]
    expected = {
        string[: string.index(0) + 1] if 0 in string else string for string in itertools.product(range(4), repeat=4)
    }
    assert set(listed) == expected
    assert len(listed) == len(expected) == 121
    np.testing.assert_array_equal(LANGUAGE.index(strings), jnp.arange(121))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_probabilities_of_all_strings_add_up_to_one(temperature):
    assert jnp.sum(jnp.exp(string_log_probs(MODEL, START, LANGUAGE, temperature))) == pytest.approx(1.0, abs=1e-5)
    network = Transformer(TransformerConfig(4, width=8, layers=1, heads=2))
    params = network.init(jax.random.key(0), LANGUAGE.prompts.tokens)
    assert jnp.sum(jnp.exp(string_log_probs(network, params, LANGUAGE, temperature))) == pytest.approx(1.0, abs=1e-5)


def test_the_table_samples_what_it_says():
    """20,000 samples, as the sampler draws them, against the exact probability of each string."""
    drawn = sample(MODEL, START, jax.random.key(1), LANGUAGE.prompts, SAMPLING, 20_000)
    sequences = Sequences(
        *(jnp.repeat(x, 20_000, 0) for x in LANGUAGE.prompts), drawn.response[0], drawn.response_length[0]
    )
    index = LANGUAGE.index(sequences)
    found = np.bincount(np.asarray(index), minlength=121) / 20_000
    assert 0.5 * np.abs(found - np.exp(REFERENCE)).sum() < 0.05  # expected: 0.02
    np.testing.assert_allclose(jnp.sum(drawn.log_prob[0], -1), REFERENCE[index], atol=1e-5)


def test_the_optimum_is_the_best_of_all_and_worth_beta_log_z():
    value = objective(BEST, REFERENCE, REWARD, BETA)
    log_z = jax.nn.logsumexp(REFERENCE + REWARD / BETA)
    np.testing.assert_allclose(value, BETA * log_z, rtol=1e-5)
    for seed in range(20):
        near = jax.nn.log_softmax(BEST + 0.05 * jax.random.normal(jax.random.key(seed), BEST.shape))
        assert objective(near, REFERENCE, REWARD, BETA) < value
    assert total_variation(REFERENCE, BEST) > 0.3  # there is something to learn


def test_divergence_and_variation_by_hand():
    p, q = jnp.log(jnp.array([0.5, 0.5, 0.0])), jnp.log(jnp.array([0.25, 0.5, 0.25]))
    np.testing.assert_allclose(divergence(p, q), 0.5 * np.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(total_variation(p, q), 0.25, rtol=1e-6)


def test_the_exact_gradient_is_the_score_functions():
    """The enumeration of E[(r - beta log pi/ref - beta) grad log pi], string by string."""
    jacobian = jax.jacobian(lambda p: string_log_probs(MODEL, p, LANGUAGE))(START)["params"]["table"]
    log_prob = string_log_probs(MODEL, START, LANGUAGE)
    other = jax.nn.log_softmax(jax.random.normal(jax.random.key(8), log_prob.shape))
    advantage = jnp.exp(log_prob) * (REWARD - BETA * (log_prob - other))
    twin = jnp.einsum("n,ncv->cv", advantage, jacobian)
    found = exact_gradient(MODEL, START, LANGUAGE, other, REWARD, BETA)["params"]["table"]
    np.testing.assert_allclose(found, twin, atol=1e-5)
    assert np.abs(twin).max() > 1e-2


def test_the_frontier_holds_the_optima_and_best_of_n_below_it():
    line = frontier(REFERENCE, REWARD)
    for beta in (0.1, 0.5, 3.0):
        best = optimal_policy(REFERENCE, REWARD, beta)
        assert jnp.sum(jnp.exp(best) * REWARD) == pytest.approx(float(line.at(divergence(best, REFERENCE))), abs=2e-3)
    assert np.all(np.diff(line.kl) >= -1e-6)
    assert line.reward[-1] == pytest.approx(float(REWARD.max()), abs=1e-3)
    p = jnp.exp(REFERENCE)
    for n in (2, 4, 16, 64):
        chosen = rlx.ops.best_of_n_distribution(p, REWARD, n)
        kl, reward = divergence(jnp.log(chosen), REFERENCE), jnp.sum(chosen * REWARD)
        assert reward < line.at(kl)
        assert reward > jnp.sum(p * REWARD)


def test_near_the_reference_reward_grows_with_the_root_of_the_divergence():
    """K4: a tilt gains sqrt(2 Var r) a root of a nat, at first; so does the natural gradient, sqrt(2 g F^-1 g)."""
    with jax.enable_x64(True):
        ref, reward = jax.nn.log_softmax(REFERENCE.astype(float)), REWARD.astype(float)
        p = jnp.exp(ref)
        variance = p @ jnp.square(reward - p @ reward)
        shares = []
        for tilt in (1e-3, 1.0, 3.0):
            best = optimal_policy(ref, reward, 1.0 / tilt)
            gain = (jnp.exp(best) - p) @ reward
            shares.append(gain / jnp.sqrt(2.0 * variance * divergence(best, ref)))
        np.testing.assert_allclose(shares[0], 1.0, atol=2e-3)
        assert 0.7 < shares[2] < shares[1] < 0.98
        start = jax.tree.map(lambda x: x.astype(float), START)
        of_strings = jax.jacobian(lambda params: string_log_probs(MODEL, params, LANGUAGE))(start)
        scores = of_strings["params"]["table"].reshape(len(p), -1)  # [N, parameters]
        gradient, fisher = scores.T @ (p * reward), scores.T @ (p[:, None] * scores)
        np.testing.assert_allclose(gradient @ jnp.linalg.pinv(fisher, hermitian=True) @ gradient, variance, rtol=1e-6)


@pytest.mark.parametrize("tilt", [0.3, 1.0, 2.5])
def test_an_exploited_proxy_rises_and_falls_by_a_law(tilt):
    """K6: of normal x and y the proxy is x, gold x - c (a x + b y)^2, a^2 + b^2 = 1: gain d (sqrt 2 - 2 c a^2 d)."""
    x, y = (axis.ravel() for axis in jnp.meshgrid(*[jnp.linspace(-8.0, 8.0, 161)] * 2))  # d is the root of the KL
    c, a, b = 0.5, 0.6, 0.8
    ref, gold = jax.nn.log_softmax(-0.5 * (x**2 + y**2)), x - c * (a * x + b * y) ** 2
    best = optimal_policy(ref, x, 1.0 / tilt)
    kl = divergence(best, ref)
    np.testing.assert_allclose(kl, 0.5 * tilt**2, rtol=1e-3)
    gain = (jnp.exp(best) - jnp.exp(ref)) @ gold
    np.testing.assert_allclose(gain, jnp.sqrt(kl) * (2**0.5 - 2 * c * a**2 * jnp.sqrt(kl)), atol=2e-3)


# Who reaches the optimum ----------------------------------------------------------------------------------------------

STEPS = 250
SCHEDULE = optax.linear_schedule(0.1, 0.0, STEPS)
PLAIN = {"num_prompts": 1024, "num_epochs": 1, "num_minibatches": 1, "whiten": False, "kl_coef": BETA}
CRITIC = {"value_coef": 1.0, "value_clip": None}
GROUPS = {"num_prompts": 64, "samples": 16, "kl_coef": BETA}
WITH_VALUES = TabularModel(LANGUAGE, "both")


def grpo(**config):
    config = rlx.GRPOConfig(**GROUPS, **{"scale": "none", "aggregation": "sequence_sum"} | config)
    return MODEL, rlx.grpo(MODEL, LANGUAGE.prompts, judge, optax.adam(SCHEDULE), SAMPLING, config, START)


def rlhf(model=MODEL, **config):
    config = rlx.RLHFConfig(**PLAIN | config)
    return model, rlx.rlhf(model, LANGUAGE.prompts, judge, optax.adam(SCHEDULE), SAMPLING, config, START)


REACHES = {
    "PPO": functools.partial(rlhf, WITH_VALUES, **CRITIC),
    "PPO, exact KL": functools.partial(rlhf, WITH_VALUES, kl_form="exact", **CRITIC),
    "REINFORCE": functools.partial(rlhf, advantage="mean"),
    "RLOO": functools.partial(rlhf, advantage="leave_one_out", num_prompts=64, samples=16),
    "GRPO without std": functools.partial(grpo, kl_form="k1", kl_where="reward"),
    "RLOO, of GRPO": functools.partial(grpo, baseline="leave_one_out", kl_form="k1", kl_where="reward"),
}


@functools.cache
def trained(name):
    """Log-probabilities of all strings after training, of three seeds."""
    model, algorithm = REACHES[name]()

    @jax.jit
    @jax.vmap
    def run(key):
        state, _ = rlx.train(algorithm, key, STEPS)
        return string_log_probs(model, state.learner.params, LANGUAGE)

    return run(jax.random.split(jax.random.key(0), 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHES)
def test_reaches_the_known_optimum_and_never_beats_the_frontier(name):
    line = frontier(REFERENCE, REWARD)
    for log_prob in trained(name):
        assert total_variation(log_prob, BEST) < 0.02  # at first 0.5
        kl, reward = divergence(log_prob, REFERENCE), jnp.sum(jnp.exp(log_prob) * REWARD)
        assert reward < line.at(kl) + 1e-4
