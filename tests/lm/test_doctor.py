"""The doctor's numbers, against a language of which everything is known, and its words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.dpo import DPOConfig, dpo
from rlx.lm import Comparisons, Sampling, Sequences
from rlx.lm.doctor import Measured, ches_scores, correlation, diagnose, mean_states, report, summarize, warnings_of
from rlx.lm.enumerable import Language, TabularModel, divergence, string_log_probs
from rlx.lm.log_linear import LogLinearModel, next_token_logits

KEY = jax.random.key(0)
LANGUAGE = Language(3, 3)
SAMPLING = Sampling(3, 0)
START = jnp.zeros((1, 1), jnp.int32)


def compare(language, chosen, rejected, tie=False):
    sides = (jax.tree.map(lambda x, i=i: x[jnp.array(i)], language.strings) for i in (chosen, rejected))
    return Comparisons(*sides, jnp.zeros(len(chosen)), jnp.broadcast_to(jnp.asarray(tie), (len(chosen),)))


def two_tables():
    model = TabularModel(LANGUAGE)
    zeros = model.init(KEY, START)
    tables = (jax.tree.map(lambda x, k=k: jax.random.normal(k, x.shape), zeros) for k in jax.random.split(KEY))
    return model, *tables


CHOSEN, REJECTED = [0, 1, 5, 9, 14, 3], [2, 0, 6, 1, 3, 3]
PAIRS = compare(LANGUAGE, CHOSEN, REJECTED, [False] * 5 + [True])


def test_log_probabilities_and_displaced_mass_are_the_exact_ones():
    model, params, ref = two_tables()
    d = diagnose(model, params, ref, PAIRS, SAMPLING, KEY, batch_size=2)
    new, old = (np.asarray(string_log_probs(model, p, LANGUAGE), float) for p in (params, ref))
    chosen, rejected = CHOSEN[:5], REJECTED[:5]  # the sixth ties
    assert d.pairs == 5
    length = np.asarray(LANGUAGE.strings.response_length)
    for name, log_prob in (("", new), ("ref_", old)):
        found = d._asdict()
        np.testing.assert_allclose(found[f"{name}chosen_log_prob"], log_prob[chosen].mean(), rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}rejected_log_prob"], log_prob[rejected].mean(), rtol=1e-5)
        nll = -log_prob[chosen].sum() / length[chosen].sum()
        np.testing.assert_allclose(found[f"{name}chosen_nll"], nll, rtol=1e-5)
        nll = -log_prob[rejected].sum() / length[rejected].sum()
        np.testing.assert_allclose(found[f"{name}rejected_nll"], nll, rtol=1e-5)
    before, after = np.exp(old[chosen]) + np.exp(old[rejected]), np.exp(new[chosen]) + np.exp(new[rejected])
    lost = np.maximum(before - after, 0.0)
    assert 0 < np.sum(lost > 0) < 5
    np.testing.assert_allclose(d.displaced_mass, lost.mean(), rtol=1e-5)
    np.testing.assert_allclose(d.displaced, (lost / before).mean(), rtol=1e-5)
    ratio = new - old
    np.testing.assert_allclose(d.accuracy, np.mean(ratio[chosen] > ratio[rejected]))
    np.testing.assert_allclose(d.chosen_change, ratio[chosen].mean(), rtol=1e-4)
    np.testing.assert_allclose(d.chosen_error, ratio[chosen].std(ddof=1) / np.sqrt(5), rtol=1e-4)


def test_divergence_and_lengths_are_estimates_of_the_exact_ones():
    model, params, ref = two_tables()
    sampling = Sampling(3, 0, top_k=1)  # what `act` draws; the divergence is that of the policies themselves
    d = diagnose(model, params, ref, compare(LANGUAGE, [0] * 4000, [1] * 4000), sampling, KEY, 1000)
    new, old = (string_log_probs(model, p, LANGUAGE) for p in (params, ref))
    length = LANGUAGE.strings.response_length
    np.testing.assert_allclose(d.kl, divergence(new, old), atol=0.1)
    np.testing.assert_allclose(d.sampled_length, jnp.exp(new) @ length, atol=0.06)
    np.testing.assert_allclose(d.ref_sampled_length, jnp.exp(old) @ length, atol=0.06)


def test_batches_change_nothing_that_is_exact():
    model, params, ref = two_tables()
    one, all_at_once = (diagnose(model, params, ref, PAIRS, SAMPLING, KEY, size) for size in (1, 64))
    for name in ("chosen_log_prob", "rejected_nll", "displaced", "accuracy", "ches", "ches_correlation"):
        np.testing.assert_allclose(getattr(one, name), getattr(all_at_once, name), rtol=1e-4, atol=1e-6)


def test_fewer_than_two_pairs():
    model, params, ref = two_tables()
    pairs = compare(LANGUAGE, [0, 1], [1, 0], [True, False])
    with pytest.raises(ValueError, match="1 pairs that are not ties"):
        diagnose(model, params, ref, pairs, SAMPLING, KEY)


# Words ----------------------------------------------------------------------------------------------------------------

PHI = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]])  # the chosen response is like the rejected, the third is not
THREE = Language(3, 1)


def trained(features, **config):
    """The policy, its reference and the diagnosis, after training on one pair of three responses."""
    model = LogLinearModel(THREE, base=jnp.log(jnp.array([0.6, 0.2, 0.2])), string_features=features)
    params, pairs = model.init(KEY, START), compare(THREE, [1] * 4, [2] * 4)
    config = DPOConfig(batch_size=4, beta=0.1, **config)
    algorithm = dpo(model, pairs, optax.sgd(1.0), Sampling(1, 0), config, params)
    state, _ = rlx.jit(lambda key: rlx.train(algorithm, key, 200))(KEY)
    return diagnose(model, state.learner.params, params, pairs, Sampling(1, 0), KEY)


def test_the_doctor_says_that_both_fell_and_where_it_went():
    d = trained(PHI)
    assert d.chosen_change < -7
    assert d.rejected_change < -15
    assert d.accuracy == 1.0
    np.testing.assert_allclose((d.displaced, d.displaced_mass), (1.0, 0.4), atol=1e-3)
    first, *_ = warnings_of(d)
    assert first.startswith("Both log-probabilities fell: the chosen responses' by 7.4")
    assert "100% went to third responses" in first
    assert "WARNING: Both log-probabilities fell" in str(d)
    assert str(d) == report(d)


def test_the_doctor_is_silent_about_a_table_and_about_the_remedy():
    for d in (trained(np.eye(3)), trained(PHI, sft_coef=1.0)):
        assert d.chosen_change > 0
        assert d.displaced == 0
        assert warnings_of(d) == []


def diagnosis():
    """Of four pairs, by hand."""
    ratio = np.array([0.5, 1.0, 0.8, 0.6]), np.array([-0.5, -1.0, -0.2, -0.6])
    ref = np.full(4, -5.0), np.full(4, -5.0)
    lengths = jnp.array([2, 2, 3, 3]), jnp.array([3, 3, 2, 2])
    measured = Measured(
        tuple(map(np.add, ratio, ref)), ref, np.arange(4.0), np.full(4, 0.3), np.full(4, 2.5), np.full(4, 2.5)
    )
    nothing = jnp.zeros((4, 1), jnp.int32)
    sides = (Sequences(nothing, nothing[:, 0] + 1, jnp.zeros((4, 3), jnp.int32), length) for length in lengths)
    return summarize(Comparisons(*sides, jnp.zeros(4), jnp.zeros(4, bool)), measured)


def test_summary_by_hand():
    d = diagnosis()
    expected = {
        "pairs": 4,
        "chosen_log_prob": -5 + 2.9 / 4,
        "rejected_log_prob": -5 - 2.3 / 4,
        "chosen_nll": (20 - 2.9) / 10,
        "ref_rejected_nll": 2.0,
        "accuracy": 1.0,
        "length_accuracy": 0.5,
        "accuracy_error": np.std([0, 0, 1, 1], ddof=1) / 2,
        "kl": 0.3,
        "sampled_length": 2.5,
        "ches": 1.5,
        "displaced": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(d, name), value, rtol=1e-6, err_msg=name)
    change = np.array([0.25, 0.5, 0.8 / 3, 0.2])
    np.testing.assert_allclose(d.ches_correlation, np.corrcoef(np.arange(4.0), change)[0, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chosen_log_prob": -6.0}, ["Both log-probabilities fell"]),
        ({"chosen_log_prob": -6.0, "chosen_error": 0.6}, []),  # within two standard errors
        ({"chosen_log_prob": -6.0, "ches_correlation": -0.5}, ["Both", "The more alike the two responses"]),
        ({"chosen_log_prob": -6.0, "rejected_log_prob": -4.0}, ["The chosen responses' log-probability fell, by 1.00"]),
        ({"accuracy": 0.6, "length_accuracy": 0.55, "accuracy_error": 0.04}, ["The policy tells chosen from rejected"]),
        ({"accuracy": 0.6, "length_accuracy": 0.50, "accuracy_error": 0.04}, []),
        ({"sampled_length": 4.0}, ["Responses grew from 2.5 to 4.0 tokens"]),
    ],
)
def test_what_is_said_of_what(changes, words):
    healthy = diagnosis()._replace(accuracy_error=0.1, ches_correlation=0.0)
    assert warnings_of(healthy) == []
    found = warnings_of(healthy._replace(**changes))
    assert len(found) == len(words)
    for warning, start in zip(found, words, strict=True):
        assert warning.startswith(start)


def test_a_policy_that_learnt_length_alone():
    """Its log-ratio is the length: right exactly where length is."""
    length = np.asarray(LANGUAGE.strings.response_length, np.float32)
    model = LogLinearModel(LANGUAGE, base=jnp.zeros(15), string_features=length[:, None])
    params = model.init(KEY, START)
    longer = jax.tree.map(lambda x: x + 3.0, params)
    pairs = compare(LANGUAGE, [3, 4, 5, 7, 1, 8], [0, 0, 1, 2, 3, 9])  # longer 4 times, shorter and equal once each
    d = diagnose(model, longer, params, pairs, SAMPLING, KEY)
    np.testing.assert_allclose((d.accuracy, d.length_accuracy), 4.5 / 6, rtol=1e-6)
    assert d.accuracy_error == 0.0
    assert any("no better than their lengths do: 75.0% of 6 pairs against 75.0%" in w for w in warnings_of(d))


# CHES -----------------------------------------------------------------------------------------------------------------


def test_ches_of_hidden_states_by_a_slow_twin():
    """States from which the responses' tokens are predicted: those of the last token of the prompt and on."""
    model = rlx.nets.Transformer(rlx.nets.TransformerConfig(7, width=8, layers=1, heads=2, hidden=8))
    prompt, length = jnp.array([[1, 5, 2], [4, 0, 0], [3, 2, 0]]), jnp.array([3, 1, 2])
    params = model.init(KEY, prompt)
    chosen = Sequences(prompt, length, jnp.array([[1, 2, 6], [3, 4, 5], [2, 6, 0]]), jnp.array([3, 3, 2]))
    rejected = chosen._replace(response=chosen.response[::-1], response_length=jnp.array([1, 2, 3]))
    pairs = Comparisons(chosen, rejected, jnp.zeros(3), jnp.zeros(3, bool))
    expected = []
    for row in range(3):
        means = []
        for side in (chosen, rejected):
            before, after = int(length[row]), int(side.response_length[row])
            tokens = [*np.asarray(prompt)[row][:before], *np.asarray(side.response)[row][:after]]
            states = np.asarray(model.apply(params, jnp.array([tokens]), method="features"))[0]
            means.append(states[before - 1 : before + after - 1].mean(axis=0))
        expected.append(means[0] @ means[1] - means[0] @ means[0])
    np.testing.assert_allclose(ches_scores(model, params, pairs, 2), expected, rtol=1e-4, atol=1e-5)


def test_ches_of_a_table_counts_shared_contexts():
    """Contexts of (0,), (1, 0), (1, 2) and (2, 2, 2): the root, then what was written."""
    model, params, _ = two_tables()
    strings = {tuple(s[:n]): i for i, (s, n) in enumerate(zip(*map(np.asarray, LANGUAGE.strings[2:]), strict=True))}
    pairs = compare(
        LANGUAGE, [strings[1, 0], strings[1, 0], strings[0,]], [strings[2, 2, 2], strings[1, 1, 0], strings[0,]]
    )
    expected = [1 / 6 - 1 / 2, 2 / 6 - 1 / 2, 0.0]
    np.testing.assert_allclose(ches_scores(model, params, pairs), expected, atol=1e-6)
    chosen, _ = mean_states(model, params, pairs)
    np.testing.assert_allclose(chosen.sum(axis=1), 1.0, rtol=1e-6)


def test_correlation_of_what_does_not_vary_is_0():
    assert correlation(np.ones(3), np.arange(3.0)) == 0.0


def test_the_more_alike_the_two_the_more_goes_to_a_third():
    """Razin et al. 2024: fixed unembeddings, one trainable state; the third's is along chosen - rejected (fact K10)."""
    probabilities = []
    for cosine in (-0.5, 0.0, 0.8):
        chosen, rejected = np.array([1.0, 0.0]), np.array([cosine, np.sqrt(1 - cosine**2)])
        third = (chosen - rejected) / np.linalg.norm(chosen - rejected)
        base = jnp.log(jnp.array([0.16, 0.54, 0.3]))
        model = LogLinearModel(THREE, base=base, string_features=np.stack([third, chosen, rejected]))
        params, pairs = model.init(KEY, START), compare(THREE, [1, 1], [2, 2])
        algorithm = dpo(model, pairs, optax.sgd(0.5), Sampling(1, 0), DPOConfig(batch_size=2, beta=0.1), params)
        state, _ = rlx.jit(lambda key, algorithm=algorithm: rlx.train(algorithm, key, 300))(KEY)
        probabilities.append(jnp.exp(string_log_probs(model, state.learner.params, THREE)))
    third, chosen, rejected = np.stack(probabilities, axis=1)
    np.testing.assert_allclose(chosen, [0.53, 0.27, 0.14], atol=0.01)  # from 0.54
    np.testing.assert_allclose(third, [0.47, 0.73, 0.85], atol=0.01)  # from 0.16
    assert np.all(rejected < 0.01)


# A policy with features ----------------------------------------------------------------------------------------------


def test_a_log_linear_policy_is_its_scores():
    strings = LANGUAGE.strings
    base = jax.random.normal(KEY, (15,))
    features = jax.random.normal(jax.random.key(1), (15, 4))
    model = LogLinearModel(LANGUAGE, base=base, string_features=features)
    params = model.init(KEY, START)
    np.testing.assert_allclose(string_log_probs(model, params, LANGUAGE), jax.nn.log_softmax(base), atol=1e-5)
    weight = jnp.array([1.0, -2.0, 0.5, 3.0])
    params = {"params": {"weight": weight}}
    expected = jax.nn.log_softmax(base + features @ weight)
    np.testing.assert_allclose(string_log_probs(model, params, LANGUAGE), expected, atol=1e-5)
    gradient = jax.grad(lambda p: string_log_probs(model, p, LANGUAGE)[7])(params)["params"]["weight"]
    np.testing.assert_allclose(gradient, features[7] - jnp.exp(expected) @ features, atol=1e-5)
    assert next_token_logits(LANGUAGE, base).shape == (13, 3)
    drawn = rlx.lm.sample(model, params, KEY, LANGUAGE.prompts, SAMPLING, 4000)
    sequences = rlx.lm.sequences.sampled_sequences(LANGUAGE.prompts, drawn)
    counted = np.bincount(np.asarray(LANGUAGE.index(sequences)), minlength=len(strings.response)) / 4000
    np.testing.assert_allclose(counted, jnp.exp(expected), atol=0.03)
