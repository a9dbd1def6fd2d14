"""Sampling and log-probabilities: the cached sampler against teacher forcing, and what padding must not change."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.lm.sequences import (
    Prompts,
    Sampling,
    Sequences,
    at_response,
    complete,
    response_logits,
    restrict,
    rows,
    sample,
    sampled_sequences,
    token_log_probs,
)
from rlx.nets.transformer import Transformer, TransformerConfig

once = functools.partial(rlx.jit, once=True)  # what compiles sooner, as all here is small
CONFIG = TransformerConfig(vocabulary=7, width=16, layers=2, heads=4, kv_heads=2, hidden=24)
END = 6
PROMPT = jnp.array(
    [[1, 6, 2, 3], [4, 9, 9, 9], [5, 6, 9, 9]]
)  # ends inside of prompts, and padding beyond the vocabulary
LENGTH = jnp.array([4, 1, 2])
PROMPTS = Prompts(PROMPT, LENGTH)


def policy(**changes):
    model = Transformer(dataclasses.replace(CONFIG, **changes))
    params = jax.tree.map(lambda x: 1.5 * x, model.init(jax.random.key(0), PROMPT))
    return model, params


def draw(model, params, key=0, tokens=8, samples=3, **options):
    key = None if key is None else jax.random.key(key)
    sampling = Sampling(tokens, END, **options)
    return once(lambda p: sample(model, p, key, PROMPTS, sampling, samples))(params)


@functools.partial(rlx.jit, once=True, static_argnums=0)
def teach(model, params, sequences, temperature=1.0):
    """Logits of the response's tokens, and their log-probabilities by teacher forcing."""
    logits = response_logits(model, params, sequences)
    return logits, token_log_probs(logits, sequences, temperature)


def test_rows_put_a_response_behind_its_prompt():
    sequences = Sequences(PROMPT, LENGTH, jnp.array([[7, 8], [5, 6], [3, 4]]), jnp.array([2, 0, 1]))
    np.testing.assert_array_equal(rows(sequences), [[1, 6, 2, 3, 7, 8], [4, 0, 0, 0, 0, 0], [5, 6, 3, 0, 0, 0]])
    np.testing.assert_array_equal(sequences.mask, [[1, 1], [0, 0], [1, 0]])
    places = jnp.broadcast_to(jnp.arange(6), (3, 6))
    np.testing.assert_array_equal(at_response(places, sequences), [[3, 4], [0, 1], [1, 2]])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("changes", [{}, {"tied": False, "qkv_bias": True}, {"qk_norm": True, "kv_heads": None}])
def test_the_samplers_log_probs_are_the_teacher_forced_ones(changes, temperature):
    model, params = policy(**changes)
    samples = draw(model, params, temperature=temperature)
    sequences = sampled_sequences(PROMPTS, samples)
    _, forced = teach(model, params, sequences, temperature)
    np.testing.assert_allclose(samples.log_prob.reshape(9, 8), forced, atol=1e-5)
    assert np.all(forced[sequences.mask] < 0.0)
    ratio = jnp.exp(forced - samples.log_prob.reshape(9, 8))
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)


def test_a_response_ends_with_its_first_end():
    model, params = policy()
    samples = draw(model, params, samples=50)
    lengths = set()
    for response, length in zip(samples.response.reshape(-1, 8), samples.response_length.reshape(-1), strict=True):
        kept = [int(token) for token in response[:length]]
        assert END not in kept[:-1]
        assert length == 8 or kept[-1] == END
        assert np.all(response[length:] == END)
        lengths.add(int(length))
    assert lengths >= {1, 2, 3, 8}  # some end at once, some never


class Counted:
    """A model that notes every token it reads."""

    def __init__(self, model):
        self.model, self.steps = model, []

    def apply(self, params, *args, method):
        if method == "decode":
            jax.debug.callback(lambda step: self.steps.append(int(step)), args[-1])
        return self.model.apply(params, *args, method=method)


def test_sampling_leaves_as_soon_as_all_have_ended():
    """With an end that is certain the loop makes one step of eight; with one that never comes, all."""
    model, params = policy(tied=False)
    weights = params["params"]["transformer"] | {"norm": jnp.ones(16)}
    weights["embedding"] = jnp.abs(weights["embedding"]) + 1.0  # positive features: so is the end's logit
    weights["layers"] = jax.tree.map(jnp.zeros_like, weights["layers"])
    for logit, length in ((100.0, 1), (-100.0, 8)):
        weights["unembedding"] = jnp.zeros((16, 7)).at[:, END].set(logit)
        counted = Counted(model)
        samples = draw(counted, {"params": {"transformer": weights}})
        jax.effects_barrier()
        np.testing.assert_array_equal(samples.response_length, length)
        assert len(counted.steps) == length


def test_samples_follow_the_policy():
    """The first two tokens of 4,000 samples, against their probabilities."""
    model, params = policy()
    samples = draw(model, params, samples=4000, tokens=2)
    first = jax.nn.softmax(once(model.apply)(params, rows_of(PROMPT, LENGTH)))
    for row in range(3):
        expected = first[row, LENGTH[row] - 1]
        found = np.bincount(np.asarray(samples.response[row, :, 0]), minlength=7) / 4000
        np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 4000))
        ended = samples.response[row, :, 0] == END
        assert np.all(samples.response_length[row] == np.where(ended, 1, 2))


def rows_of(prompt, length):
    nothing = jnp.zeros((len(prompt), 0), jnp.int32)
    return rows(Sequences(prompt, length, nothing, jnp.zeros(len(prompt), jnp.int32)))


def test_samples_of_one_prompt_share_its_cache_and_differ():
    model, params = policy()
    samples = draw(model, params, samples=16)
    assert len({tuple(np.asarray(response)) for response in samples.response[0]}) > 8
    _, cache = model.apply(params, PROMPT, LENGTH, 16, 8, method="prefill")
    assert len(cache.layers) == 2
    assert cache.layers[0].prompt_key.shape == (3, 2, 4, 4)  # once for all samples
    assert cache.layers[0].key.shape == (3 * 16 * 2, 4, 8)


def test_without_a_key_the_most_probable_token_is_taken():
    model, params = policy()
    greedy = draw(model, params, key=None, samples=1)
    sequences = sampled_sequences(PROMPTS, greedy)
    logits, _ = teach(model, params, sequences)
    np.testing.assert_array_equal(jnp.where(sequences.mask, logits.argmax(-1), END), sequences.response)
    cold = draw(model, params, samples=1, temperature=1e-4)
    np.testing.assert_array_equal(cold.response, greedy.response)


def test_top_k_and_top_p():
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
    left = lambda *options: list(np.isfinite(restrict(logits, *options)))  # noqa: E731
    assert left(2, None) == [True, True, False, False]
    assert left(9, None) == left(None, 1.0) == [True] * 4
    assert left(None, 0.4) == [True, False, False, False]
    assert left(None, 0.41) == [True, True, False, False]
    assert left(None, 1e-6) == [True, False, False, False]
    assert left(None, 0.75) == [True, True, True, False]
    assert left(3, 0.75) == [True, True, False, False]  # of the three that are left, two have 0.78
    np.testing.assert_array_equal(restrict(jnp.zeros(3), 1, None), 0.0)  # equals stay


def test_log_probs_are_over_the_whole_vocabulary_also_under_top_k():
    model, params = policy()
    samples = draw(model, params, top_k=2)
    sequences = sampled_sequences(PROMPTS, samples)
    _, forced = teach(model, params, sequences)
    np.testing.assert_allclose(samples.log_prob.reshape(9, 8), forced, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "max_tokens=0: must be an integer above 0"),
        ({"temperature": 0.0}, "temperature=0.0: must be above 0"),
        ({"top_k": 0}, "top_k=0: must be above 0"),
        ({"top_p": 1.5}, "top_p=1.5: must be above 0 and at most 1"),
    ],
)
def test_bad_sampling_is_refused(options, message):
    model, params = policy()
    with pytest.raises(ValueError, match=message):
        draw(model, params, **options)


# What padding, order and splitting must not change -------------------------------------------------------------------

ROWS = Sequences(
    PROMPT,
    LENGTH,
    jnp.array([[1, 2, 6, 0], [3, 4, 5, 1], [6, 0, 0, 0]]),
    jnp.array([3, 4, 0]),  # ended, full, and empty
)


def loss(params, sequences, model):
    log_prob = token_log_probs(response_logits(model, params, sequences), sequences)
    return -jnp.sum(log_prob) / 7.0


FIND = once(jax.value_and_grad(functools.partial(loss, model=Transformer(CONFIG))))  # compiled once for a shape


def wider(x, by, fill):
    return jnp.pad(x, ((0, 0), (0, by)), constant_values=fill)


CHANGES = {
    "more padding on the left": lambda s: s._replace(prompt=wider(s.prompt, 3, 0)),
    "more padding on the right": lambda s: s._replace(response=wider(s.response, 3, 0)),
    "the end as padding": lambda s: s._replace(
        prompt=jnp.where(jnp.arange(4) < s.prompt_length[:, None], s.prompt, END),
        response=jnp.where(s.mask, s.response, END),
    ),
    "padding beyond the vocabulary": lambda s: s._replace(response=jnp.where(s.mask, s.response, -100)),
    "another order": lambda s: jax.tree.map(lambda x: x[jnp.array([2, 0, 1])], s),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_loss_and_gradient_do_not_see(change):
    _, params = policy()
    expected, found = FIND(params, ROWS), FIND(params, change(ROWS))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected)
    assert expected[0] > 1.0


def test_micro_batches_add_up():
    _, params = policy()
    parts = [FIND(params, jax.tree.map(lambda x, i=i: x[i : i + 1], ROWS)) for i in range(3)]
    total = jax.tree.map(lambda *x: sum(x), *parts)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), total, FIND(params, ROWS))


def test_the_end_counts_once_and_is_trained_on():
    model, params = policy()
    logits, log_prob = teach(model, params, ROWS)
    assert np.all((log_prob != 0.0) == ROWS.mask)
    np.testing.assert_allclose(log_prob[0, 2], rlx.ops.Categorical(logits[0, 2]).log_prob(jnp.int32(END)), rtol=1e-6)


def test_sampling_vmaps_over_policies_and_keys():
    model, params = policy()
    both = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), params)
    keys = jax.random.split(jax.random.key(3), 2)
    run = lambda p, key: sample(model, p, key, PROMPTS, Sampling(5, END), 2)  # noqa: E731
    many, alone = once(jax.vmap(run))(both, keys), once(run)
    for index in range(2):
        one = alone(jax.tree.map(lambda x, i=index: x[i], both), keys[index])
        np.testing.assert_array_equal(many.response[index], one.response)
        np.testing.assert_allclose(many.log_prob[index], one.log_prob, atol=1e-5)


def test_completions_take_any_leading_axes_and_are_filled_up_with_ends():
    model, params = policy()
    prompts = jax.tree.map(lambda x: jnp.stack([x, x]), PROMPTS)
    found = once(lambda params: complete(model, params, None, prompts, Sampling(5, END)))(params)
    assert found.shape == (2, 3, 5)
    np.testing.assert_array_equal(found[0], draw(model, params, None, 5, 1).response[:, 0])


def test_whether_a_response_ended():
    responses = ROWS._replace(response_length=jnp.array([3, 4, 0]))
    np.testing.assert_array_equal(responses.ended(END), [True, False, False])
