"""Supervised fine-tuning: its loss token by token, what it must not see, and a small language learned from nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.lm import Prompts, Sampling, Sequences, windows
from rlx.lm.enumerable import Language, TabularModel, string_log_probs, total_variation
from rlx.nets.transformer import Transformer, TransformerConfig
from rlx.ops.sequences import token_weights

END = 0
MODEL = Transformer(TransformerConfig(5, width=8, layers=1, heads=2, hidden=8))
ROWS = Sequences(
    jnp.array([[1, 0, 2], [3, 0, 0], [0, 4, 0]]),  # ends inside of prompts, and as padding
    jnp.array([3, 1, 2]),
    jnp.array([[1, 2, 0, 0], [4, 3, 3, 1], [0, 0, 0, 0]]),
    jnp.array([3, 4, 0]),  # ended, full, empty
)
PARAMS = MODEL.init(jax.random.key(0), ROWS.prompt)
once = functools.partial(rlx.jit, once=True)  # what compiles sooner, as all here is small
FIND = once(jax.value_and_grad(lambda params, batch: rlx.sft_loss(params, MODEL, batch), has_aux=True))


def batch(rows):
    return rows, len(rows.prompt) * token_weights(rows.mask, "token")


def test_the_loss_is_that_of_the_tokens_of_responses():
    (loss, metrics), _ = FIND(PARAMS, batch(ROWS))
    losses, right = [], []
    read = once(MODEL.apply)
    for prompt, before, response, after in zip(*map(np.asarray, ROWS), strict=True):
        text = np.zeros(7, np.int32)
        text[: before + after] = [*prompt[:before], *response[:after]]
        logits = np.asarray(read(PARAMS, text[None])[0], np.float64)
        for place in range(before, before + after):
            p = np.exp(logits[place - 1])
            losses.append(-np.log(p[text[place]] / p.sum()))
            right.append(logits[place - 1].argmax() == text[place])
    assert len(losses) == 7  # the end once, the empty response never
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(right), rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s._replace(prompt=jnp.where(jnp.arange(3) < s.prompt_length[:, None], s.prompt, 4)),
        lambda s: s._replace(response=jnp.where(s.mask, s.response, -1)),
        lambda s: jax.tree.map(lambda x: x[::-1], s),
    ],
    ids=["padding of prompts", "padding of responses", "order"],
)
def test_loss_and_gradient_do_not_see(change):
    expected, found = FIND(PARAMS, batch(ROWS)), FIND(PARAMS, batch(change(ROWS)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected)


def test_it_comes_to_the_distribution_of_its_data():
    """Every string as often as it is probable: to a total variation of 0.01, from 0.3."""
    language = Language(3, 2)  # 7 strings
    model, counts = TabularModel(language), jnp.array([30, 5, 20, 10, 5, 20, 10])
    data = jax.tree.map(lambda x: jnp.repeat(x, counts, axis=0, total_repeat_length=100), language.strings)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.3, 80))
    algorithm = rlx.sft(model, data, optimizer, Sampling(2, END), rlx.SFTConfig(batch_size=100))
    state, _ = once(lambda key: rlx.train(algorithm, key, 80))(jax.random.key(0))
    found = string_log_probs(model, state.learner.params, language)
    assert total_variation(found, jnp.log(counts / 100)) < 0.01


def test_a_language_model_from_nothing_comes_to_the_entropy_of_its_text():
    """Text of a Markov chain: no model can lose less than the entropy of the next token, and this one hardly more."""
    chain = np.array([[0.85, 0.05, 0.05, 0.05], [0.0, 0.1, 0.9, 0.0], [0.5, 0.0, 0.0, 0.5], [0.05, 0.85, 0.05, 0.05]])
    random, text = np.random.default_rng(0), [0]
    for _ in range(16 * 512):
        text.append(random.choice(4, p=chain[text[-1]]))
    share = np.bincount(text, minlength=4) / len(text)
    entropy = share @ -(chain * np.log(np.maximum(chain, 1e-30))).sum(axis=1)
    data = jax.tree.map(jnp.asarray, windows(np.array(text, np.int32), 16))
    model = Transformer(TransformerConfig(4, width=16, layers=1, heads=2, hidden=16))
    algorithm = rlx.sft(model, data, optax.adam(1e-2), Sampling(16, 4), rlx.SFTConfig(batch_size=64))
    state, metrics = rlx.jit(lambda key: rlx.train(algorithm, key, 120))(jax.random.key(1))
    assert metrics["loss"][0] > entropy + 0.5
    assert entropy - 0.03 < metrics["loss"][-16:].mean() < entropy + 0.05  # the last two epochs
    logits = once(model.apply)(state.learner.params, jnp.arange(4)[:, None])[:, 0]
    np.testing.assert_allclose(jax.nn.softmax(logits), chain, atol=0.1)
    greedy = once(algorithm.act)(state, None, Prompts(jnp.array([[1]]), jnp.array([1])))
    assert greedy[0, 0] == 2  # after 1 comes 2


def test_it_begins_where_it_is_told():
    algorithm = rlx.sft(MODEL, ROWS, optax.sgd(0.0), Sampling(4, END), rlx.SFTConfig(batch_size=3), PARAMS)
    state, metrics = once(algorithm.step)(algorithm.init(jax.random.key(7)))
    jax.tree.map(np.testing.assert_array_equal, state.learner.params, PARAMS)
    np.testing.assert_allclose(metrics["loss"], FIND(PARAMS, batch(ROWS))[0][0], rtol=1e-5)
    with pytest.raises(ValueError, match="batch_size=0: must be an integer above 0"):
        rlx.SFTConfig(batch_size=0)
