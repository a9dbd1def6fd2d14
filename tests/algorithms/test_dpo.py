"""Direct Preference Optimization, offline and online, on a language of which everything is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.dpo import DPOConfig, dpo
from rlx.algorithms.online_dpo import OnlineDPOConfig, best_and_worst, online_dpo
from rlx.lm import Comparisons, Prompts, Sampling, Sequences
from rlx.lm.enumerable import (
    Language,
    TabularModel,
    divergence,
    frontier,
    optimal_policy,
    string_log_probs,
    total_variation,
)
from rlx.lm.generate_and_learn import Generated
from rlx.lm.log_linear import LogLinearModel
from rlx.lm.pairs import DPO, batched, both, pair_log_probs, preference_loss
from rlx.ops import apo_zero_loss, dpo_loss, dpop_loss, implicit_reward, ipo_loss, nca_loss, of_margin, slic_loss

KEY = jax.random.key(0)


def table(language, key=KEY, scale=0.7):
    """A table, and random logits in it."""
    model = TabularModel(language)
    params = model.init(key, jnp.zeros((1, 1), jnp.int32))
    return model, jax.tree.map(lambda x: scale * jax.random.normal(key, x.shape), params)


def compare(language, chosen, rejected, tie=False):
    """Pairs of strings, by their numbers."""
    sides = (jax.tree.map(lambda x, i=i: x[jnp.array(i)], language.strings) for i in (chosen, rejected))
    return Comparisons(*sides, jnp.zeros(len(chosen)), jnp.broadcast_to(jnp.asarray(tie), (len(chosen),)))


def judged(key, language, log_prob, reward, count):
    """Pairs drawn from a policy and judged by Bradley and Terry's model."""
    pair_key, label_key = jax.random.split(key)
    first, second = jnp.searchsorted(jnp.cumsum(jnp.exp(log_prob))[:-1], jax.random.uniform(pair_key, (2, count)))
    won = jax.random.uniform(label_key, (count,)) < jax.nn.sigmoid(reward[first] - reward[second])
    return compare(language, jnp.where(won, first, second), jnp.where(won, second, first), first == second)


def learn(algorithm, steps, key=KEY):
    """Train, and read the metrics."""
    return rlx.jit(lambda key: rlx.train(algorithm, key, steps), once=True)(key)


# The loss -------------------------------------------------------------------------------------------------------------

CHOSEN, REJECTED = jnp.array([-10.0, -12.0, -7.0]), jnp.array([-11.0, -9.0, -15.0])  # of other libraries' numbers
REF_CHOSEN, REF_REJECTED = jnp.array([-10.5, -11.0, -8.0]), jnp.array([-10.0, -10.0, -14.0])
LENGTHS = jnp.array([5, 8, 4]), jnp.array([6, 3, 9])


class Fixed:
    """A model whose token log-probabilities add up to given ones: of each row the logits of its first token do."""

    def __init__(self, log_prob):
        self.log_prob = log_prob

    def apply(self, params, x, method):
        if method == "features":
            return jnp.broadcast_to(jnp.arange(len(x))[:, None], x.shape)  # the row's number
        p = jnp.exp(self.log_prob[x] / jnp.concatenate(LENGTHS)[x])  # as much for each of its tokens, all of them 0
        return jnp.log(jnp.stack([p, 1.0 - p], axis=-1))


def given(loss, beta, smoothing=0.0, average=False, tie=(False, False, False)):
    """The loss of the three pairs, each alone, by the whole chain from logits."""

    def sequences(length):
        return Sequences(jnp.zeros((3, 1), jnp.int32), jnp.ones(3, jnp.int32), jnp.zeros((3, 9), jnp.int32), length)

    model = Fixed(jnp.concatenate([CHOSEN, REJECTED]))
    pairs = Comparisons(*map(sequences, LENGTHS), jnp.zeros(3), jnp.array(tie))
    args = (model, pairs, (REF_CHOSEN, REF_REJECTED), loss, beta, smoothing, 0.0, average)
    return preference_loss({}, *args)


@pytest.mark.parametrize(
    ("loss", "beta", "smoothing", "average", "expected"),
    [
        (DPO, 0.1, 0.0, False, [0.620957, 0.7981389, 0.5981389]),
        (DPO, 0.5, 0.0, False, [0.386871, 1.3132617, 0.3132617]),
        (DPO, 0.1, 0.1, False, [0.635957, 0.7781389, 0.6181389]),  # conservative DPO
        (of_margin(ipo_loss), 0.1, 0.0, False, [12.25, 49.0, 9.0]),
        (of_margin(ipo_loss), 0.1, 0.0, True, [22.4044444, 29.7934028, 21.5192901]),  # TRL's
        (of_margin(slic_loss), 0.1, 0.0, False, [0.85, 1.2, 0.8]),
        (nca_loss, 0.1, 0.0, False, [1.3498878, 1.4387933, 1.3387933]),
        (DPO, 0.1, 0.0, True, [0.6799027, 0.7163264, 0.6752546]),  # Tulu's
    ],
)
def test_numbers_of_other_libraries(loss, beta, smoothing, average, expected):
    for index in range(3):  # alone: the others tie
        tie = [other != index for other in range(3)]
        np.testing.assert_allclose(given(loss, beta, smoothing, average, tie)[0], expected[index], rtol=1e-5)
    np.testing.assert_allclose(given(loss, beta, smoothing, average)[0], np.mean(expected), rtol=1e-5)


def test_numbers_are_those_of_the_vectors(vectors):
    for name, loss, smoothing in (("DPO_dpo", DPO, 0.0), ("DPO_cdpo_ls0_1", DPO, 0.1)):
        np.testing.assert_allclose(given(loss, 0.1, smoothing)[0], np.mean(vectors[name]["losses"]), rtol=1e-5)
    metrics = given(DPO, 0.1)[1]
    np.testing.assert_allclose(metrics["chosen_reward"], np.mean(vectors["DPO_dpo"]["chosen_rewards"]), rtol=1e-5)
    np.testing.assert_allclose(metrics["rejected_reward"], np.mean(vectors["DPO_dpo"]["rejected_rewards"]), rtol=1e-5)


def test_metrics_by_hand():
    metrics = given(DPO, 0.1)[1]
    expected = {
        "margin": (1.5 - 2.0 + 2.0) / 3,
        "accuracy": 2 / 3,
        "chosen_log_prob": -29 / 3,
        "rejected_log_prob": -35 / 3,
        "chosen_token_log_prob": (-2.0 - 1.5 - 1.75) / 3,
        "rejected_token_log_prob": (-11 / 6 - 3.0 - 15 / 9) / 3,
        "chosen_reward": 0.1 * (0.5 - 1.0 + 1.0) / 3,
        "rejected_reward": 0.1 * (-1.0 + 1.0 - 1.0) / 3,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    rewards = implicit_reward(CHOSEN, REF_CHOSEN, 0.1)
    np.testing.assert_allclose(metrics["chosen_reward"], rewards.mean(), rtol=1e-5)


LANGUAGE = Language(4, 4)
PAIRS = compare(LANGUAGE, [0, 7, 50, 120, 3], [9, 2, 100, 1, 3], [False, False, False, False, True])


def test_gradient_is_the_closed_form():
    """-beta mean of sigma(-beta h) (grad log pi(chosen) - grad log pi(rejected)), arXiv 2305.18290, sec. 4."""
    model, ref = table(LANGUAGE)
    params = table(LANGUAGE, jax.random.key(1))[1]
    reference = pair_log_probs(model, ref, PAIRS)
    found = jax.grad(lambda p: preference_loss(p, model, PAIRS, reference, DPO, 0.7)[0])(params)["params"]["table"]
    new, old = np.asarray(params["params"]["table"], float), np.asarray(ref["params"]["table"], float)
    expected = np.zeros_like(new)

    def walk(side, row):
        """Contexts and tokens of a response."""
        context = 0
        for token in np.asarray(side.response)[row][: int(side.response_length[row])]:
            yield context, token
            context = 4 * context + token + 1

    def log_softmax(x):
        return x - np.log(np.exp(x).sum())

    for row in range(4):  # the fifth is a tie
        ratio = [
            sum(log_softmax(new[c])[v] - log_softmax(old[c])[v] for c, v in walk(side, row))
            for side in (PAIRS.chosen, PAIRS.rejected)
        ]
        weight = 1.0 / (1.0 + np.exp(0.7 * (ratio[0] - ratio[1])))
        for sign, side in ((1.0, PAIRS.chosen), (-1.0, PAIRS.rejected)):
            for c, v in walk(side, row):
                expected[c] -= 0.7 / 4 * weight * sign * (np.eye(4)[v] - np.exp(log_softmax(new[c])))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected).max() > 0.05


def test_ties_weigh_nothing():
    model, params = table(LANGUAGE)
    other = table(LANGUAGE, jax.random.key(1))[1]

    def find(pairs):
        return preference_loss(params, model, pairs, pair_log_probs(model, other, pairs), DPO, 0.3, 0.1, 0.5)

    expected = find(jax.tree.map(lambda x: x[:4], PAIRS))  # the fifth ties
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), find(PAIRS), expected)


def widen(x, by, fill):
    return jnp.pad(x, ((0, 0), (0, by)), constant_values=fill)


PADDINGS = {
    "more on the left": lambda s: s._replace(prompt=widen(s.prompt, 3, 0)),
    "more on the right": lambda s: s._replace(response=widen(s.response, 3, 2)),
    "another id": lambda s: s._replace(response=jnp.where(s.mask, s.response, -7)),
    "another order": lambda s: jax.tree.map(lambda x: x[::-1], s),
}


WRITER = rlx.nets.Transformer(rlx.nets.TransformerConfig(7, width=8, layers=1, heads=2, hidden=8))
PROMPT, LENGTH = jnp.array([[1, 6, 2], [4, 0, 0], [5, 6, 0]]), jnp.array([3, 1, 2])


@functools.partial(rlx.jit, once=True)
def loss_and_gradient(pairs):
    params = jax.tree.map(lambda x: 1.5 * x, WRITER.init(KEY, PROMPT))
    reference = pair_log_probs(WRITER, jax.tree.map(lambda x: 0.7 * x, params), pairs)
    differentiate = jax.value_and_grad(preference_loss, has_aux=True)
    return differentiate(params, WRITER, pairs, reference, DPO, 0.5, 0.1, 0.5, True)


@pytest.mark.parametrize("change", PADDINGS.values(), ids=PADDINGS)
def test_loss_and_gradient_do_not_see_padding(change):
    """An ended response, a full one and an empty one, on either side."""
    chosen = Sequences(PROMPT, LENGTH, jnp.array([[1, 2, 6, 0], [3, 4, 5, 1], [6, 0, 0, 0]]), jnp.array([3, 4, 0]))
    rejected = chosen._replace(response=chosen.response[::-1], response_length=jnp.array([1, 2, 4]))
    pairs = Comparisons(chosen, rejected, jnp.zeros(3), jnp.zeros(3, bool))
    expected = loss_and_gradient(pairs)
    found = loss_and_gradient(pairs._replace(chosen=change(chosen), rejected=change(rejected)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, expected)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected[1])) > 1e-3


def test_batches_cover_all_rows_in_order():
    data = {"x": jnp.arange(7), "y": jnp.arange(14.0).reshape(7, 2)}
    for size in (2, 3, 7, 9):
        found = batched(lambda rows: (2 * rows["x"], rows["y"].sum(axis=1)), data, size)
        np.testing.assert_array_equal(found[0], 2 * jnp.arange(7))
        np.testing.assert_array_equal(found[1], data["y"].sum(axis=1))


def test_one_forward_pass_takes_both_sides():
    sequences = both(PAIRS)
    np.testing.assert_array_equal(sequences.response[:5], PAIRS.chosen.response)
    np.testing.assert_array_equal(sequences.response_length[5:], PAIRS.rejected.response_length)


# The algorithm --------------------------------------------------------------------------------------------------------

SAMPLING = Sampling(4, 0)


def test_the_reference_is_what_it_began_with_and_stays():
    model, params = table(LANGUAGE)
    algorithm = dpo(model, PAIRS, optax.adam(0.1), SAMPLING, DPOConfig(batch_size=2, beta=0.5), params)
    state, metrics = learn(algorithm, 10)
    expected = pair_log_probs(model, params, PAIRS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), state.reference, expected)
    np.testing.assert_allclose(metrics["margin"][0], 0.0, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"][0], np.log(2.0), rtol=1e-5)
    assert metrics["margin"][-1] > 1.0
    assert set(metrics) >= {"accuracy", "chosen_reward", "rejected_token_log_prob", "gradient_norm", "episodes"}


@pytest.mark.slow
@pytest.mark.parametrize(("language", "beta"), [(LANGUAGE, 1.0), (Language(4, 3), 0.5)], ids=["121", "40"])
def test_reaches_the_optimum_that_rl_has(language, beta):
    """300,000 pairs from the reference, judged by Bradley and Terry's model, three draws of them."""
    model, params = table(language)
    ref = string_log_probs(model, params, language)
    reward = beta * jax.random.normal(jax.random.key(5), ref.shape)
    optimum, best = optimal_policy(ref, reward, beta), frontier(ref, reward)
    assert total_variation(ref, optimum) > 0.3

    @rlx.jit
    def run(key):
        data_key, key = jax.random.split(key)
        pairs = judged(data_key, language, ref, reward, 300_000)
        optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 300))
        sampling = Sampling(language.max_tokens, language.end)
        algorithm = dpo(model, pairs, optimizer, sampling, DPOConfig(batch_size=2000, beta=beta), params)
        state, metrics = rlx.train(algorithm, key, 300)
        return string_log_probs(model, state.learner.params, language), metrics

    for seed in range(3):
        log_prob, metrics = run(jax.random.key(seed))
        assert total_variation(log_prob, optimum) < 0.02
        kl, expected = divergence(log_prob, ref), jnp.exp(log_prob) @ reward
        assert best.at(kl) - 0.02 * beta < expected < best.at(kl) + 1e-4 * beta
        assert metrics["accuracy"][-1] > 0.55


ARMS = Language(2, 1)  # two strings


BETAS = jnp.array([0.5, 2.0])


def two_arms(loss, steps=300, learning_rate=0.1, **config):
    """For each beta, the first's probability after it has always been preferred, from 1/2, and the last margin."""
    model, params = table(ARMS, scale=0.0)

    def run(beta):
        optimizer, pairs = optax.adam(learning_rate), compare(ARMS, [0, 0], [1, 1])
        settings = DPOConfig(batch_size=2, beta=beta, **config)
        algorithm = dpo(model, pairs, optimizer, Sampling(1, 0), settings, params, loss)
        state, metrics = rlx.train(algorithm, KEY, steps)
        return jnp.exp(string_log_probs(model, state.learner.params, ARMS))[0], metrics["margin"][-1]

    return rlx.jit(jax.vmap(run), once=True)(BETAS)


@pytest.mark.slow
def test_of_two_arms_one_of_which_always_wins():
    """DPO forgets beta, IPO stops at sigmoid(1 / (2 beta)) (Azar et al. 2023), cDPO at a margin, SLiC at 1 / beta."""
    assert np.all(two_arms(DPO, 2000)[0] > 0.99)
    np.testing.assert_allclose(two_arms(of_margin(ipo_loss))[0], jax.nn.sigmoid(0.5 / BETAS), atol=1e-3)
    found, margin = two_arms(DPO, 500, label_smoothing=0.2)
    np.testing.assert_allclose(margin, np.log(0.8 / 0.2) / BETAS, atol=0.01)
    np.testing.assert_allclose(found, jax.nn.sigmoid(np.log(0.8 / 0.2) / BETAS), atol=1e-3)
    _, margin = two_arms(of_margin(slic_loss), 300, 0.01)
    np.testing.assert_allclose(margin, 1.0 / BETAS, atol=0.3)
    assert np.all(margin >= 1.0 / BETAS)


THREE = Language(3, 1)  # the third response, the chosen one, the rejected one
BASE = jnp.log(jnp.array([0.6, 0.2, 0.2]))
SHARED = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]])  # facts: the chosen is like the rejected, the third is not


@functools.cache
def plain():
    """Of responses that share features, without any remedy."""
    return three(SHARED)


def three(features, loss=DPO, steps=200, **config):
    """Log-probabilities of the three responses after training on one pair, by gradient descent."""
    model = LogLinearModel(THREE, base=BASE, string_features=features)
    params = model.init(KEY, jnp.zeros((1, 1), jnp.int32))
    config = DPOConfig(**{"batch_size": 2, "beta": 0.1} | config)
    algorithm = dpo(model, compare(THREE, [1, 1], [2, 2]), optax.sgd(1.0), Sampling(1, 0), config, params, loss)
    state, metrics = learn(algorithm, steps)
    return string_log_probs(model, state.learner.params, THREE), metrics


def test_both_fall_where_responses_share_features_and_not_in_a_table():
    found, metrics = plain()
    np.testing.assert_allclose(0.1 * metrics["margin"][-1], 0.790, atol=1e-3)
    np.testing.assert_allclose(found, [-0.0001, -9.03, -16.95], atol=0.02)
    first = metrics["chosen_log_prob"][1] - metrics["chosen_log_prob"][0]
    expected = (SHARED[1] - jnp.exp(BASE) @ SHARED) @ (SHARED[1] - SHARED[2])  # -0.4: it falls from the first step
    np.testing.assert_allclose(expected, -0.4, rtol=1e-5)
    np.testing.assert_allclose(first, 0.05 * expected, rtol=0.1)
    assert np.all(np.diff(metrics["margin"]) > 0)
    assert np.all(np.diff(metrics["chosen_log_prob"]) < 0)
    found, metrics = three(np.eye(3))
    np.testing.assert_allclose(found[1], -0.0044, atol=2e-4)
    assert np.all(np.diff(metrics["chosen_log_prob"]) > 0)


def test_a_falling_chosen_response_is_no_harm_by_itself():
    """K12: pairs of all strings, judged by a reward that the features express: gold rises to the end all the same."""
    language = Language(3, 2)  # 7 strings
    features = np.random.default_rng(0).normal(size=(7, 3))
    reward = features @ np.array([1.0, -2.0, 0.5])
    model = LogLinearModel(language, base=jnp.zeros(7), string_features=features)
    params = model.init(KEY, jnp.zeros((1, 1), jnp.int32))
    better, worse = np.nonzero(reward[:, None] > reward)
    config = DPOConfig(batch_size=len(better), beta=0.1)
    pairs = compare(language, list(better), list(worse))

    @functools.partial(rlx.jit, once=True)
    def run(key):
        algorithm = dpo(model, pairs, optax.sgd(5.0), Sampling(2, 0), config, params)
        state, golds = algorithm.init(key), []
        for _ in range(4):
            state, metrics = jax.lax.scan(lambda state, _: algorithm.step(state), state, length=100)
            log_prob = string_log_probs(model, state.learner.params, language)
            golds.append((jnp.exp(log_prob) @ reward, divergence(log_prob, jax.nn.log_softmax(jnp.zeros(7)))))
        return jnp.array(golds), metrics

    golds, metrics = run(KEY)
    assert np.all(np.diff(golds[:, 0]) > 0)
    assert golds[-1, 0] > 0.9 * reward.max()
    assert np.all(np.diff(golds[:, 1]) > 0)  # ever further from the reference
    assert metrics["chosen_log_prob"][-1] < np.log(1 / 7) - 5.0
    assert metrics["rejected_log_prob"][-1] < metrics["chosen_log_prob"][-1]


@pytest.mark.parametrize(
    ("loss", "config"),
    [
        (DPO, {"sft_coef": 1.0}),
        (functools.partial(dpop_loss, penalty=5.0), {}),
        (of_margin(ipo_loss), {"beta": 1.0}),
    ],
    ids=["sft", "dpop", "ipo"],
)
def test_what_keeps_the_chosen_where_it_was(loss, config):
    found, metrics = three(SHARED, loss, **config)
    assert found[1] > BASE[1] - 0.03
    assert metrics["margin"][-1] >= 0.99


def test_losses_of_each_log_ratio_are_taken():
    for loss in (nca_loss, apo_zero_loss):
        assert three(SHARED, loss)[0][1] > plain()[0][1] + 1.0


def test_the_pretraining_mix_keeps_what_it_holds():
    model, params = table(LANGUAGE)
    ptx = jax.tree.map(lambda x: x[jnp.array([60, 61])], LANGUAGE.strings)

    def after(coef):
        config = DPOConfig(batch_size=4, beta=0.5, ptx_coef=coef)
        pairs = jax.tree.map(lambda x: x[:4], PAIRS)
        algorithm = dpo(model, pairs, optax.adam(0.1), SAMPLING, config, params, ptx=ptx)
        state, metrics = learn(algorithm, 50)
        return string_log_probs(model, state.learner.params, LANGUAGE)[60:62].sum(), metrics["ptx_loss"]

    (without, _), (with_it, loss) = after(0.0), after(1.0)
    assert with_it > without + 2.0
    assert loss[-1] < loss[0]


def test_vmaps_over_seeds_and_beta():
    model, params = table(LANGUAGE)

    def run(beta, key):
        config = DPOConfig(batch_size=2, beta=beta, label_smoothing=beta / 10, sft_coef=beta)
        algorithm = dpo(model, PAIRS, optax.adam(0.1), SAMPLING, config, params)
        return rlx.train(algorithm, key, 3)[1]["loss"]

    betas, keys = jnp.array([0.1, 1.0]), jax.random.split(KEY, 2)
    both_at_once, one = rlx.jit(jax.vmap(run), once=True)(betas, keys), rlx.jit(run, once=True)
    for index in range(2):
        np.testing.assert_allclose(both_at_once[index], one(betas[index], keys[index]), rtol=1e-5)
    assert np.all(both_at_once[0] != both_at_once[1])


def test_bad_input_is_refused():
    model, params = table(LANGUAGE)

    def make(data=PAIRS, **config):
        return dpo(model, data, optax.sgd(0.1), SAMPLING, DPOConfig(**{"batch_size": 2} | config), params)

    with pytest.raises(ValueError, match="all 5 pairs are ties"):
        make(PAIRS._replace(tie=jnp.ones(5, bool)))
    with pytest.raises(ValueError, match="differ in shape"):
        make(PAIRS._replace(chosen=jax.tree.map(lambda x: x[:3], PAIRS.chosen)))
    with pytest.raises(ValueError, match=r"ptx_coef=0.5: needs sequences of pretraining: ptx="):
        make(ptx_coef=0.5)
    with pytest.raises(ValueError, match=r"beta=0.0: must be above 0"):
        make(beta=0.0)
    with pytest.raises(ValueError, match=r"label_smoothing=0.5"):
        make(label_smoothing=0.5)
    with pytest.raises(ValueError, match="batch_size=64: there are 5 pairs"):
        make(batch_size=64)
    with pytest.raises(ValueError, match=r"samples=1: a pair needs 2 or more"):
        OnlineDPOConfig(samples=1)


def test_data_may_be_numpy_arrays():
    model, params = table(LANGUAGE)
    data = jax.tree.map(np.asarray, PAIRS)
    learn(dpo(model, data, optax.sgd(0.1), SAMPLING, DPOConfig(batch_size=2), params), 2)


# Online ---------------------------------------------------------------------------------------------------------------


def test_the_best_and_the_worst_make_the_pair():
    strings = jax.tree.map(lambda x: x[:6], LANGUAGE.strings)
    score = jnp.array([0.0, 2.0, -1.0, 3.0, 3.0, 3.0])
    pairs, best, worst = best_and_worst(Generated(strings, jnp.zeros((6, 4)), score), 3)
    np.testing.assert_array_equal(pairs.tie, [False, True])
    assert (best[0], worst[0]) == (1, 2)
    np.testing.assert_array_equal(pairs.margin, [3.0, 0.0])
    np.testing.assert_array_equal(pairs.chosen.response[0], strings.response[1])
    np.testing.assert_array_equal(pairs.rejected.response[0], strings.response[2])


def online(reward, steps=100, **config):
    model, params = table(LANGUAGE)
    config = OnlineDPOConfig(**{"num_prompts": 512} | config)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    judge = lambda sequences: reward[LANGUAGE.index(sequences)]  # noqa: E731
    return online_dpo(model, LANGUAGE.prompts, judge, optimizer, SAMPLING, config, params)


@pytest.mark.slow
def test_online_with_bradley_terry_labels_reaches_the_optimum():
    model, params = table(LANGUAGE)
    ref = string_log_probs(model, params, LANGUAGE)
    reward = jax.random.normal(jax.random.key(5), ref.shape)
    run = rlx.jit(lambda key: rlx.train(online(reward, 200, beta=0.5, label_noise=2.0), key, 200))
    for seed in range(3):
        state, metrics = run(jax.random.key(seed))
        log_prob = string_log_probs(model, state.learner.params, LANGUAGE)
        assert total_variation(log_prob, optimal_policy(ref, reward, 0.5 * 2.0)) < 0.02
        np.testing.assert_allclose(metrics["kl"][-10:].mean(), divergence(log_prob, ref), atol=0.05)
        np.testing.assert_allclose(metrics["episode_return"][-10:].mean(), jnp.exp(log_prob) @ reward, atol=0.05)


@pytest.mark.parametrize("samples", [2, 4])
def test_online_improves_the_exact_expected_reward(samples):
    model, params = table(LANGUAGE)
    ref = string_log_probs(model, params, LANGUAGE)
    reward = jax.random.normal(jax.random.key(5), ref.shape)
    best = frontier(ref, reward)
    algorithm = online(reward, 60, beta=0.3, samples=samples, num_prompts=128)
    states, metrics = rlx.jit(jax.vmap(lambda key: rlx.train(algorithm, key, 60)))(jax.random.split(KEY, 3))
    for seed in range(3):
        log_prob = string_log_probs(model, jax.tree.map(lambda x, s=seed: x[s], states.learner.params), LANGUAGE)
        expected = jnp.exp(log_prob) @ reward
        assert expected > jnp.exp(ref) @ reward + 0.7
        assert expected < best.at(divergence(log_prob, ref)) + 1e-4
    assert np.all(metrics["episodes"] == 128 * samples)


def test_equal_rewards_teach_nothing():
    algorithm = online(jnp.ones(121), num_prompts=8)
    state, metrics = learn(algorithm, 3)
    start = algorithm.init(KEY)
    jax.tree.map(np.testing.assert_array_equal, state.learner.params, start.learner.params)
    np.testing.assert_array_equal(metrics["tie"], 1.0)
    np.testing.assert_array_equal(metrics["loss"], 0.0)


def test_online_is_at_the_sampling_temperature():
    """Before the first step policy and reference are one: a ratio other than 1 would show."""
    model, params = table(LANGUAGE)
    sampling = Sampling(4, 0, temperature=0.5)
    reward = lambda sequences: sequences.response_length.astype(jnp.float32)  # noqa: E731
    algorithm = online_dpo(
        model, LANGUAGE.prompts, reward, optax.sgd(1.0), sampling, OnlineDPOConfig(num_prompts=8), params
    )
    _, metrics = learn(algorithm, 2)
    np.testing.assert_allclose(metrics["kl"][0], 0.0, atol=1e-6)
    np.testing.assert_allclose(metrics["margin"][0], 0.0, atol=1e-6)
    assert metrics["margin"][1] != 0.0


def test_a_reward_in_python_makes_a_host_algorithm():
    model, params = table(LANGUAGE)

    def reward(sequences):
        return [len(set(row.tolist())) for row in sequences.response]

    reward.host = True
    algorithm = online_dpo(
        model, LANGUAGE.prompts, reward, optax.sgd(1.0), SAMPLING, OnlineDPOConfig(num_prompts=8), params
    )
    assert algorithm.host
    ((_, metrics),) = rlx.chunks(algorithm, algorithm.init(KEY), 2, every=2)
    assert np.all(metrics["episode_return"] > 1.0)


def test_act_draws_completions():
    model, params = table(LANGUAGE)
    algorithm = dpo(model, PAIRS, optax.sgd(0.1), SAMPLING, DPOConfig(batch_size=2), params)
    state = algorithm.init(KEY)
    prompts = Prompts(jnp.zeros((2, 3, 1), jnp.int32), jnp.ones((2, 3), jnp.int32))
    assert algorithm.act(state, KEY, prompts).shape == (2, 3, 4)
    greedy = algorithm.act(state, None, prompts)
    np.testing.assert_array_equal(greedy, jnp.broadcast_to(greedy[0, 0], greedy.shape))


def test_conservative_dpo_is_dpos_own_smoothing():
    margin = jnp.array([-3.0, 0.0, 2.0])
    mixed = 0.8 * DPO(margin, jnp.zeros(3), 0.3) + 0.2 * DPO(jnp.zeros(3), margin, 0.3)
    np.testing.assert_allclose(mixed, dpo_loss(margin, 0.3, 0.2), rtol=1e-6)
