"""Scores at the last real token, by slow twins; what padding must not change; rewards of ensembles and of Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.lm import (
    ByteTokenizer,
    CharacterTokenizer,
    Normalization,
    RewardError,
    Sequences,
    TextReward,
    member_scores,
    normalize_reward,
    reward_of,
    score,
)
from rlx.nets.transformer import Transformer, TransformerConfig

END = 6
MODEL = Transformer(TransformerConfig(vocabulary=7, width=16, layers=2, heads=2, hidden=24), head="score")
ROWS = Sequences(
    jnp.array([[1, 6, 2, 3], [4, 9, 9, 9], [5, 6, 9, 9]]),  # ends inside of prompts, padding beyond the vocabulary
    jnp.array([4, 1, 2]),
    jnp.array([[1, 2, 6, 0], [3, 4, 5, 1], [6, 0, 0, 0]]),
    jnp.array([3, 4, 0]),  # ended, cut off, and empty
)


def params(*seeds):
    """Parameters `[M, ...]` of one model for each seed."""
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return jax.vmap(MODEL.init, in_axes=(0, None))(keys, ROWS.prompt)


def one(tree, index=0):
    return jax.tree.map(lambda x: x[index], tree)


@functools.partial(rlx.jit, once=True)
@jax.value_and_grad
def scored(params, rows):
    """A number that depends on every score, and its gradient; compiled once for a shape."""
    return jnp.sum(jnp.sin(score(MODEL, params, rows)))


def test_scores_are_read_at_the_last_token_of_the_text():
    """Text by text, without padding."""
    found = score(MODEL, one(params(0)), ROWS)
    for index in range(3):
        prompt, prompt_length, response, response_length = (np.asarray(x[index]) for x in ROWS)
        text = np.concatenate([prompt[:prompt_length], response[:response_length]])
        np.testing.assert_allclose(found[index], MODEL.apply(one(params(0)), text[None])[0, -1], rtol=1e-5)
    assert found.dtype == jnp.float32


def test_the_end_of_a_response_is_part_of_what_is_scored():
    ended, cut = ROWS, ROWS._replace(response_length=jnp.array([2, 4, 0]))
    change = np.abs(score(MODEL, one(params(0)), ended) - score(MODEL, one(params(0)), cut))
    assert change[0] > 1e-3
    np.testing.assert_array_equal(change[1:], 0.0)


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
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_scores_and_their_gradient_do_not_see(change):
    expected, found = scored(one(params(0)), ROWS), scored(one(params(0)), change(ROWS))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), found, expected)


def test_scores_go_with_their_rows_and_take_any_leading_axes():
    order = jnp.array([2, 0, 1])
    found = score(MODEL, one(params(0)), ROWS)
    np.testing.assert_allclose(score(MODEL, one(params(0)), one(ROWS, order)), found[order], rtol=1e-5)
    np.testing.assert_allclose(score(MODEL, one(params(0)), one(ROWS, 1)), found[1], rtol=1e-5)
    both = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), ROWS)
    np.testing.assert_allclose(score(MODEL, one(params(0)), both), jnp.stack([found, found[::-1]]), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 5])
def test_members_score_as_each_alone_however_many_at_once(batch_size):
    three = params(0, 1, 2)
    both = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), ROWS)
    found = member_scores(MODEL, three, both, batch_size)
    assert found.shape == (3, 2, 3)
    for index in range(3):
        np.testing.assert_allclose(found[index], score(MODEL, one(three, index), both), rtol=1e-5)


def test_a_language_model_has_no_score():
    with pytest.raises(ValueError, match=r'Transformer\(config, head="score"\), not head=\'logits\''):
        score(Transformer(MODEL.config), one(params(0)), ROWS)


def test_rewards_of_ensembles():
    three = params(0, 1, 2)
    scores = np.asarray(member_scores(MODEL, three, ROWS))
    for options, expected in [
        ({}, scores.mean(0)),
        ({"how": "min"}, scores.min(0)),
        ({"how": "uncertainty", "amount": 0.5}, scores.mean(0) - 0.5 * scores.var(0)),
        ({"how": "uncertainty", "amount": 0.5, "ddof": 1}, scores.mean(0) - 0.5 * scores.var(0, ddof=1)),
        ({"how": "quantile", "amount": 0.5}, np.median(scores, 0)),
    ]:
        np.testing.assert_allclose(reward_of(MODEL, three, **options)(ROWS), expected, rtol=1e-5, atol=1e-6)


def test_a_reward_that_cannot_be_is_refused_when_it_is_made():
    for options in ({"how": "uncertainty"}, {"how": "quantile", "amount": 2.0}, {"how": "most"}):
        with pytest.raises(ValueError, match="ensemble_score by"):
            reward_of(MODEL, params(0, 1), **options)
    with pytest.raises(ValueError, match="1 members have no variance with ddof 1"):
        reward_of(MODEL, params(0), "uncertainty", 0.5, ddof=1)


def test_rewards_trace_and_vmap_over_amounts():
    three = params(0, 1, 2)
    amounts = jnp.array([0.0, 0.5])
    find = jax.jit(jax.vmap(lambda amount: reward_of(MODEL, three, "uncertainty", amount, batch_size=2)(ROWS)))
    for found, amount in zip(find(amounts), amounts, strict=True):
        expected = reward_of(MODEL, three, "uncertainty", float(amount))(ROWS)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_normalized_rewards_have_mean_0_and_deviation_1():
    three = params(0, 1, 2)
    raw = reward_of(MODEL, three)
    found = reward_of(MODEL, three, normalization=normalize_reward(lambda s: member_scores(MODEL, three, s), ROWS))
    scores = np.asarray(member_scores(MODEL, three, ROWS))
    expected = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    np.testing.assert_allclose(found(ROWS), expected.mean(0), rtol=1e-4, atol=1e-5)  # each member on its own scale
    whole = normalize_reward(raw, ROWS)
    np.testing.assert_allclose([*whole], [raw(ROWS).mean(), raw(ROWS).std()], rtol=1e-5)
    np.testing.assert_allclose(whole.apply(raw(ROWS)).std(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(whole.apply(raw(ROWS)).mean(), 0.0, atol=1e-6)
    np.testing.assert_array_equal(normalize_reward(lambda s: jnp.full(3, 2.0), ROWS), Normalization(2.0, 1.0))


def test_normalization_is_by_pencil():
    found = Normalization(jnp.array([1.0, 2.0]), jnp.array([2.0, 0.5])).apply(jnp.array([[3.0, 1.0], [2.0, 3.0]]))
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(Normalization(1.0, 2.0).apply(jnp.array([3.0, 1.0])), [1.0, 0.0])


# Rewards written in Python --------------------------------------------------------------------------------------------

LETTERS = CharacterTokenizer("abcd")  # ids 0 to 3, the end 4, the beginning 5
TEXTS = Sequences(
    np.array([[5, 0, 1], [5, 2, 4], [5, 3, 0]]),
    np.array([3, 2, 3]),
    np.array([[2, 2, 4], [3, 4, 4], [0, 0, 0]]),
    np.array([3, 2, 0]),
)  # "ab" -> "cc", "c" -> "d", "da" -> ""


def test_a_reward_in_python_sees_texts():
    seen = []

    def length(prompts, responses):
        seen.append((prompts, responses))
        return [len(response) for response in responses]

    reward = TextReward(length, LETTERS)
    found = reward(TEXTS)
    assert seen == [(["ab", "c", "da"], ["cc", "d", ""])]
    np.testing.assert_array_equal(found, [2.0, 1.0, 0.0])
    assert found.dtype == np.float32
    assert isinstance(found, np.ndarray)
    assert reward.host
    both = jax.tree.map(lambda x: jnp.stack([x, x]), TEXTS)
    np.testing.assert_array_equal(reward(both), [[2.0, 1.0, 0.0]] * 2)


def test_texts_that_are_no_utf8_are_texts():
    broken = Sequences(np.array([[257]]), np.array([1]), np.array([[0xC3, 256]]), np.array([2]))
    assert TextReward(lambda prompts, responses: [float(responses == ["�"])], ByteTokenizer())(broken) == [1.0]


@pytest.mark.parametrize(
    "given", [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3]), jnp.array([1.0, 2.0, 3.0]), map(float, [1, 2, 3])]
)
def test_numbers_of_any_kind_are_rewards(given):
    np.testing.assert_array_equal(TextReward(lambda prompts, responses: given, LETTERS)(TEXTS), [1.0, 2.0, 3.0])


def test_right_and_wrong_are_1_and_0():
    found = TextReward(lambda prompts, responses: [True, np.bool_(True), False], LETTERS)(TEXTS)
    np.testing.assert_array_equal(found, [1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "the reward bad gave NoneType: must be a list of 3 numbers"),
        (1.0, "the reward bad gave float: must be a list of 3 numbers"),
        ([1.0, 2.0], "the reward bad gave 2 numbers for 3 responses: one each"),
        ([1.0, float("nan"), 0.0], "the reward bad gave nan for response 1 of 3, 'd': must be a finite number"),
        ([float("inf"), 0.0, 0.0], "the reward bad gave inf for response 0 of 3, 'cc': must be a finite number"),
        ([0.0, 0.0, 1e300], "the reward bad gave 1e+300 for response 2 of 3, '': must be a finite number"),
        ([0.0, None, 0.0], "the reward bad gave None for response 1 of 3, 'd': must be a finite number"),
        (["1", 0.0, 0.0], "the reward bad gave 1 for response 0 of 3, 'cc': must be a finite number"),
        (np.zeros((3, 2)), "the reward bad gave [0. 0.] for response 0 of 3, 'cc': must be a finite number"),
    ],
)
def test_what_is_no_reward_is_named(given, message):
    def bad(prompts, responses):
        return given

    with pytest.raises(RewardError) as error:
        TextReward(bad, LETTERS)(TEXTS)
    assert str(error.value) == message


def test_public_names():
    assert rlx.lm.score is score
    assert rlx.lm.TextReward is TextReward
