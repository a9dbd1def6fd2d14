"""Best-of-n stage by stage: pools, curves, divergences against exact ones, and one round of rejection sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.lm import Prompts, Sampling
from rlx.lm.best_of_n import Pool, best_responses, bootstrap, curve, pool, pool_scores
from rlx.lm.enumerable import Language, TabularModel, divergence, frontier, string_log_probs, total_variation
from rlx.nets.transformer import Transformer, TransformerConfig

LANGUAGE = Language(vocabulary=3, max_tokens=3)  # 15 strings
MODEL = TabularModel(LANGUAGE)
START = {"params": {"table": jax.random.normal(jax.random.key(5), (13, 3))}}
SAMPLING = Sampling(LANGUAGE.max_tokens, LANGUAGE.end)
REFERENCE = string_log_probs(MODEL, START, LANGUAGE)
PROB = jnp.exp(REFERENCE)
GOLD = jax.random.normal(jax.random.key(6), REFERENCE.shape)
PROXY = GOLD + jax.random.normal(jax.random.key(7), REFERENCE.shape)
TIED = jnp.round(GOLD)
NS = (1, 2, 4, 16, 64)
SIZE = 20_000  # the pool's error is some 1 / sqrt(SIZE / n)


def scored_by(table):
    return lambda sequences: table[LANGUAGE.index(sequences)]


@functools.cache
def drawn():
    """One pool, of the one prompt there is, and the place of each response among the strings."""
    found = jax.jit(lambda key: pool(MODEL, START, key, LANGUAGE.prompts, SAMPLING, SIZE, at_once=4096))(
        jax.random.key(1)
    )
    return found, pool_scores(scored_by(jnp.arange(15)), found)


@functools.cache
def measured(name):
    found, index = drawn()
    proxy, gold = {"same": (GOLD, GOLD), "proxy": (PROXY, GOLD), "tied": (TIED, TIED)}[name]
    return curve(found, proxy[index], gold[index], NS)


def exact(table, n):
    return rlx.ops.best_of_n_distribution(PROB, table, n)


# Pools ----------------------------------------------------------------------------------------------------------------


def test_a_pool_is_of_the_policy():
    """Five rounds, of which the last is cut; log-probabilities are those of whole responses."""
    found, index = drawn()
    assert found.response.shape == (1, SIZE, 3)
    assert found.response_length.shape == found.log_prob.shape == (1, SIZE)
    np.testing.assert_allclose(found.log_prob[0], REFERENCE[index[0]], atol=1e-5)
    frequency = np.bincount(np.asarray(index[0]), minlength=15) / SIZE
    assert 0.5 * np.abs(frequency - PROB).sum() < 0.02  # expected: 0.01
    rounds = index[0, : 4 * 4096].reshape(4, 4096)
    assert len(np.unique(np.asarray(rounds), axis=0)) == 4  # each with a key of its own


def test_prompts_of_different_lengths_keep_their_samples():
    """The log-probabilities are those of the same responses after their own prompts."""
    network = Transformer(TransformerConfig(5, width=8, layers=1, heads=2))
    prompts = Prompts(jnp.array([[1, 2, 3], [4, 0, 0]], jnp.int32), jnp.array([3, 1], jnp.int32))

    @functools.partial(rlx.jit, once=True)
    def draw(key):
        params = network.init(key, prompts.tokens)
        found = pool(network, params, key, prompts, Sampling(4, 0), 5, at_once=4)
        logits = rlx.lm.response_logits(network, params, found.sequences)
        return found, rlx.lm.token_log_probs(logits, found.sequences).sum(1)

    found, again = draw(jax.random.key(1))
    np.testing.assert_array_equal(found.sequences.prompt_length, [3] * 5 + [1] * 5)
    np.testing.assert_allclose(found.log_prob.reshape(-1), again, atol=1e-5)
    assert len(np.unique(np.asarray(found.response[0]), axis=0)) > 2


def test_scores_do_not_depend_on_how_many_are_judged_at_once():
    found = jax.tree.map(lambda x: x[:, :10] if x.ndim > 1 else x, drawn()[0])._replace(prompts=LANGUAGE.prompts)
    whole = pool_scores(scored_by(GOLD), found)
    np.testing.assert_array_equal(pool_scores(scored_by(GOLD), found, at_once=3), whole)

    def on_the_host(sequences):
        assert isinstance(sequences.response, np.ndarray)
        return [float(GOLD[i]) for i in LANGUAGE.index(sequences)]

    on_the_host.host = True
    np.testing.assert_allclose(pool_scores(on_the_host, found), whole, rtol=1e-6)
    assert whole.shape == (1, 10)


# Curves against what is exactly so ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 16])
def test_the_best_of_every_n_are_draws_of_best_of_n(n):
    """Against the exact distribution, ties among different strings included: total variation."""
    found, index = drawn()
    for table in (PROXY, TIED):
        best = best_responses(found, table[index], n)
        frequency = np.bincount(np.asarray(LANGUAGE.index(best)), minlength=15) * n / SIZE
        wrong = 0.5 * np.abs(frequency - np.asarray(exact(table, n))).sum()
        assert wrong < 2.0 * np.sqrt(15 * n / SIZE / (2 * np.pi)) + 1e-3
        assert total_variation(jnp.log(jnp.maximum(frequency, 1e-9)), REFERENCE) > 0.1 or n == 1


@pytest.mark.parametrize("name", ["same", "proxy", "tied"])
def test_rewards_and_win_rates_are_the_exact_ones(name):
    table, gold = {"same": (GOLD, GOLD), "proxy": (PROXY, GOLD), "tied": (TIED, TIED)}[name]
    found = measured(name)
    better = jnp.where(gold[:, None] > gold, 1.0, jnp.where(gold[:, None] == gold, 0.5, 0.0)) @ PROB  # than one draw
    for k, n in enumerate(NS):
        chosen = exact(table, n)
        np.testing.assert_allclose(found.proxy.mean[k], chosen @ table, atol=0.03)
        np.testing.assert_allclose(found.gold.mean[k], chosen @ gold, atol=0.05)
        np.testing.assert_allclose(found.win_rate.mean[k], chosen @ better, atol=0.02)
    np.testing.assert_allclose(found.win_rate.mean[0], 0.5, atol=2e-5)
    if name != "proxy":  # J3
        assert np.all(found.win_rate.mean <= np.array(NS) / (np.array(NS) + 1) + 2e-5)


@pytest.mark.parametrize("name", ["same", "tied"])
def test_divergences_exact_estimated_and_bounded(name):
    """J1, J2: exact <= estimate <= bound; the pool's own comes to the exact one, and sees ties."""
    table, found = {"same": GOLD, "tied": TIED}[name], measured(name)
    kl = np.array([rlx.ops.best_of_n_kl(PROB, table, n) for n in NS])
    estimate = [exact(table, n) @ rlx.ops.best_of_n_kl_estimate(REFERENCE, n) for n in NS]
    np.testing.assert_allclose(found.kl.mean, kl, atol=0.03)
    np.testing.assert_allclose(found.kl_estimate.mean, estimate, atol=0.03)
    np.testing.assert_allclose(found.kl_bound, [np.log(n) - (n - 1) / n for n in NS], atol=1e-6)
    assert np.all(found.kl.mean <= found.kl_estimate.mean + 0.01)
    assert np.all(found.kl_estimate.mean <= found.kl_bound + 1e-6)
    assert found.kl_bound[-1] - kl[-1] > 0.5  # with so few strings the bound is far off
    if name == "tied":
        assert found.kl_estimate.mean[-1] - kl[-1] > 0.1


def test_the_pool_s_divergence_of_rewards_that_never_tie():
    """A pool of 500 different rewards has nearly the bound, up to n = N."""
    nothing = Pool(LANGUAGE.prompts, jnp.zeros((1, 500, 1)), jnp.ones((1, 500)), jnp.full((1, 500), -50.0))
    score = jax.random.normal(jax.random.key(0), (1, 500))
    ns = [1, 2, 10, 100, 500]
    found = curve(nothing, score, score, ns)
    assert np.all(found.kl.mean <= found.kl_bound + 1e-5)
    assert np.all(found.kl.mean >= found.kl_bound - 0.05)
    np.testing.assert_allclose(found.kl_estimate.mean, found.kl_bound, atol=1e-4)
    np.testing.assert_allclose(
        found.win_rate.mean, [n / (n + 1) for n in ns], atol=1e-5
    )  # of the proxy itself: for every pool


def test_a_pool_of_many_for_large_n():
    size = 30_000
    nothing = Pool(LANGUAGE.prompts, jnp.zeros((1, size, 1)), jnp.ones((1, size)), jnp.full((1, size), -50.0))
    score = jnp.linspace(0.0, 1.0, size)[None]
    found = curve(nothing, score, -score, (1, 100, 10_000))
    np.testing.assert_allclose(found.proxy.mean, [0.5, 100 / 101, 10_000 / 10_001], atol=5e-5)
    np.testing.assert_allclose(found.gold.mean, -found.proxy.mean, atol=1e-6)
    np.testing.assert_allclose(found.win_rate.mean, [1 / 2, 1 / 101, 1 / 10_001], atol=1e-4)


def test_by_hand():
    """Two prompts, three samples, n = 2: of the 3 pairs the best is in 2, the middle one in 1."""
    nothing = Pool(Prompts(*jnp.zeros((2, 2, 1))), jnp.zeros((2, 3, 1)), jnp.ones((2, 3)), jnp.zeros((2, 3)))
    proxy, gold = jnp.array([[3.0, 1.0, 2.0], [0.0, 0.0, 5.0]]), jnp.array([[1.0, 4.0, 7.0], [2.0, 4.0, 9.0]])
    found = curve(nothing, proxy, gold, (1, 2, 3))
    np.testing.assert_allclose(found.gold.mean, [(4 + 5) / 2, ((2 * 1 + 7) / 3 + (2 * 9 + 3) / 3) / 2, (1 + 9) / 2])
    np.testing.assert_allclose(found.win_rate.mean[2], (1 / 4 + 3 / 4) / 2)  # rank 1 and rank 3 of 3
    assert np.all(found.gold.low <= found.gold.mean)
    assert found.gold.low[0] == 4.0
    assert found.gold.high[0] == 5.0  # both times the same prompt


def test_intervals_cover_and_one_prompt_has_none():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (400, 60, 1))  # 400 experiments with 60 prompts
    covered = [low[0] < 3.0 < high[0] for _, low, high in map(bootstrap, rows)]
    assert 0.91 < np.mean(covered) < 0.98
    one = bootstrap(np.ones((1, 2)))
    np.testing.assert_array_equal(one.mean, [1, 1])
    assert np.all(np.isnan(one.low) & np.isnan(one.high))


def test_ties_go_to_the_first():
    found = jax.tree.map(lambda x: x[:, :4] if x.ndim > 1 else x, drawn()[0])._replace(prompts=LANGUAGE.prompts)
    best = best_responses(found, jnp.array([[1.0, 2.0, 2.0, 0.0]]))
    np.testing.assert_array_equal(best.response[0], found.response[0, 1])
    np.testing.assert_array_equal(best_responses(found, jnp.zeros((1, 4)), 2).response, found.response[0, ::2])


def test_wrong_sizes_are_one_clear_line():
    found, index = drawn()
    with pytest.raises(ValueError, match="n=3 does not divide the pool's 20000"):
        best_responses(found, index, 3)
    with pytest.raises(ValueError, match=r"scores of shapes \(1, 20000\) and \(20000,\) for a pool of 1 x 20000"):
        curve(found, index, index[0], (1, 2))
    with pytest.raises(ValueError, match="not all between 1 and the pool's 20000"):
        curve(found, index, index, (1, 20_001))


# Rejection sampling ---------------------------------------------------------------------------------------------------


def test_one_round_of_rejection_sampling_gains_and_stays_below_the_frontier():
    """Supervised fine-tuning on the best of four: the policy comes to the exact distribution of best-of-4."""
    found, index = drawn()
    best = best_responses(found, GOLD[index], 4)  # 5,000 sequences
    schedule = optax.cosine_decay_schedule(0.2, 60)
    algorithm = rlx.sft(MODEL, best, optax.adam(schedule), SAMPLING, rlx.SFTConfig(batch_size=1000), params=START)
    state, _ = rlx.jit(lambda key: rlx.train(algorithm, key, 60))(jax.random.key(2))
    log_prob = string_log_probs(MODEL, state.learner.params, LANGUAGE)
    before, after, target = PROB @ GOLD, jnp.exp(log_prob) @ GOLD, exact(GOLD, 4)
    assert after > before + 0.5 * (target @ GOLD - before) > before
    assert total_variation(log_prob, jnp.log(target)) < 0.05  # at first 0.4
    assert total_variation(REFERENCE, jnp.log(target)) > 0.2
    assert after < frontier(REFERENCE, GOLD).at(divergence(log_prob, REFERENCE)) + 1e-4
