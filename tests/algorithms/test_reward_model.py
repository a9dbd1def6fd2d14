"""Reward models: losses by loops over pairs, ensembles member by member, and a known reward found again."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.reward_model import ranked_sequences
from rlx.lm import Comparisons, Rankings, Sequences, member_scores, score
from rlx.lm.enumerable import Language
from rlx.nets.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(vocabulary=7, width=16, layers=2, heads=2, hidden=24)
MODEL = Transformer(CONFIG, head="score")
SIZE = 12


def written(key, *leading, prompt=3, response=4):
    """Random texts with ends inside of prompts and padding beyond the vocabulary."""
    keys = jax.random.split(key, 4)
    tokens, replies = (jax.random.randint(k, (*leading, n), 0, 7) for k, n in zip(keys, (prompt, response)))  # noqa: B905
    lengths = jax.random.randint(keys[2], leading, 1, prompt + 1), jax.random.randint(keys[3], leading, 0, response + 1)
    tokens = jnp.where(jnp.arange(prompt) < lengths[0][..., None], tokens, 9)
    replies = jnp.where(jnp.arange(response) < lengths[1][..., None], replies, 9)
    return Sequences(tokens, lengths[0], replies, lengths[1])


def compared(seed=0, size=SIZE):
    chosen, rejected = written(jax.random.key(seed), size), written(jax.random.key(seed + 100), size)
    rejected = rejected._replace(prompt=chosen.prompt, prompt_length=chosen.prompt_length)
    return Comparisons(chosen, rejected, jnp.arange(size) % 3 * 0.5, jnp.arange(size) % 4 == 1)


def ranked(seed=0, size=SIZE, most=4):
    first = written(jax.random.key(seed), size)
    replies = written(jax.random.key(seed + 100), size, most)
    count = 2 + jnp.arange(size) % (most - 1)
    length = jnp.where(jnp.arange(most) < count[:, None], replies.response_length, 0)
    return Rankings(first.prompt, first.prompt_length, replies.response, length, count)


COMPARED, RANKED = compared(), ranked()
PARAMS = MODEL.init(jax.random.key(5), COMPARED.chosen.prompt)


once = functools.partial(rlx.jit, once=True)  # what compiles sooner, as all here is small
SCORE = once(lambda sequences: score(MODEL, PARAMS, sequences))
FIND = {  # loss and gradient, compiled once for a shape
    kind: once(jax.value_and_grad(lambda params, data, loss=loss: loss(params, MODEL, data)[0]))
    for kind, loss in {
        "plain": rlx.comparison_loss,
        "comparisons": functools.partial(rlx.comparison_loss, centring=0.1, tie=0.5),
        "rankings": functools.partial(rlx.rankings_loss, centring=0.1),
    }.items()
}


def row(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize("tie", [None, 0.7])
def test_the_loss_of_comparisons_is_a_loop_over_them(tie):
    loss = once(lambda params: rlx.comparison_loss(params, MODEL, COMPARED, centring=0.1, margin=2.0, tie=tie))
    found, metrics = loss(PARAMS)
    losses, rights, gaps, everything = [], [], [], []
    for index in range(SIZE):
        one = row(COMPARED, index)
        chosen, rejected = (float(SCORE(side)) for side in (one.chosen, one.rejected))
        everything += [chosen, rejected]
        gap = chosen - rejected - 2.0 * float(one.margin) * (not one.tie)
        likelihood = sigmoid(gap) if not one.tie else np.sqrt(sigmoid(gap) * sigmoid(-gap))
        if tie is not None:
            ways = np.exp(gap / 2), tie, np.exp(-gap / 2)
            likelihood = (ways[1] if one.tie else ways[0]) / sum(ways)
        losses.append(-np.log(likelihood) + 0.1 * (chosen + rejected) ** 2)
        if not one.tie:
            rights.append(np.heaviside(round(chosen - rejected, 5), 0.5))
            gaps.append(chosen - rejected)
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(rights), rtol=1e-6)
    np.testing.assert_allclose(metrics["margin"], np.mean(gaps), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["score"], np.mean(everything), rtol=1e-4, atol=1e-6)
    assert 0 < len(rights) < SIZE


@pytest.mark.parametrize("ranking", ["pairs", "plackett_luce"])
def test_the_loss_of_rankings_is_a_loop_over_pairs_or_choices(ranking):
    loss = once(lambda params: rlx.rankings_loss(params, MODEL, RANKED, centring=0.1, ranking=ranking))
    found, metrics = loss(PARAMS)
    losses, rights, gaps = [], [], []
    for index in range(SIZE):
        one = row(RANKED, index)
        scores = [
            float(SCORE(Sequences(one.prompt, one.prompt_length, one.response[k], one.response_length[k])))
            for k in range(one.count)
        ]
        pairs = list(itertools.combinations(scores, 2))
        if ranking == "pairs":
            loss = np.mean([-np.log(sigmoid(i - j)) for i, j in pairs])
        else:
            loss = sum(np.log(np.sum(np.exp(scores[k:]))) - scores[k] for k in range(len(scores)))
        losses.append(loss + 0.1 * np.mean([(i + j) ** 2 for i, j in pairs]))
        rights += [np.heaviside(round(i - j, 5), 0.5) for i, j in pairs]  # two may be empty
        gaps += [i - j for i, j in pairs]
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(rights), rtol=1e-6)
    np.testing.assert_allclose(metrics["margin"], np.mean(gaps), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ranking", ["pairs", "plackett_luce"])
def test_rankings_of_two_are_comparisons(ranking):
    plain = COMPARED._replace(margin=jnp.zeros(SIZE), tie=jnp.zeros(SIZE, bool))
    two = [jnp.stack(sides, axis=1) for sides in zip(plain.chosen[2:], plain.rejected[2:], strict=True)]
    rankings = Rankings(*plain.chosen[:2], *two, jnp.full(SIZE, 2))
    found = once(lambda p: rlx.rankings_loss(p, MODEL, rankings, 0.1, ranking))(PARAMS)
    expected = once(lambda p: rlx.comparison_loss(p, MODEL, plain, 0.1))(PARAMS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, expected)


def test_a_margin_makes_the_loss_greater_and_pulls_further():
    plain = COMPARED._replace(tie=jnp.zeros(SIZE, bool), margin=jnp.zeros(SIZE))
    clear = plain._replace(margin=jnp.full(SIZE, 1.0))
    (less, small), (more, large) = FIND["plain"](PARAMS, plain), FIND["plain"](PARAMS, clear)
    assert more > less + 0.3
    assert optax.tree.norm(large) > optax.tree.norm(small)
    unread = once(lambda p: rlx.comparison_loss(p, MODEL, clear, margin=0.0)[0])(PARAMS)
    np.testing.assert_allclose(unread, less, rtol=1e-6)


@pytest.mark.parametrize("tie", [None, 1.0])
def test_ties_draw_scores_together(tie):
    """Gradient steps on ties alone: the two scores of each come closer, whichever is called chosen."""
    data = COMPARED._replace(tie=jnp.ones(SIZE, bool))
    algorithm = rlx.reward_model(MODEL, data, optax.adam(1e-3), rlx.RewardModelConfig(SIZE, tie=tie))
    state = once(algorithm.init)(jax.random.key(0))
    act, step = (once(function) for function in (algorithm.act, algorithm.step))
    gaps = lambda state: jnp.abs(act(state, None, data.chosen) - act(state, None, data.rejected))  # noqa: E731
    before = gaps(state)
    for _ in range(3):
        state, metrics = step(state)
    assert jnp.mean(gaps(state)) < 0.9 * jnp.mean(before)
    assert metrics["accuracy"] == 0.0  # of no comparison
    swapped = data._replace(chosen=data.rejected, rejected=data.chosen)
    loss = once(lambda data: rlx.comparison_loss(PARAMS, MODEL, data, tie=tie)[0])
    found, expected = loss(swapped), loss(data)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def wider(x, by, fill):
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, by)], constant_values=fill)


def changed_sides(change):
    return lambda c: c._replace(chosen=change(c.chosen), rejected=change(c.rejected))


CHANGES = {
    "more padding on the left": changed_sides(lambda s: s._replace(prompt=wider(s.prompt, 3, 0))),
    "more padding on the right": changed_sides(lambda s: s._replace(response=wider(s.response, 3, 0))),
    "another padding": changed_sides(lambda s: s._replace(response=jnp.where(s.mask, s.response, 6))),
    "another order": lambda c: row(c, jnp.arange(SIZE)[::-1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_loss_of_comparisons_does_not_see(change):
    expected, found = FIND["comparisons"](PARAMS, COMPARED), FIND["comparisons"](PARAMS, change(COMPARED))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, expected)


def test_the_loss_of_rankings_does_not_see_what_is_beyond_their_count():
    find = FIND["rankings"]
    beyond = jnp.arange(4) >= RANKED.count[:, None]
    other = RANKED._replace(
        response=jnp.where(beyond[..., None], 3, RANKED.response),
        response_length=jnp.where(beyond, 2, RANKED.response_length),
    )
    more = RANKED._replace(
        response=jnp.pad(RANKED.response, ((0, 0), (0, 2), (0, 3))),
        response_length=jnp.pad(RANKED.response_length, ((0, 0), (0, 2))),
    )
    expected = find(PARAMS, RANKED)
    for change in (other, more):
        found = find(PARAMS, change)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, expected)


def test_rankings_as_sequences():
    sequences = ranked_sequences(RANKED)
    assert sequences.prompt.shape == (SIZE, 4, 3)
    np.testing.assert_array_equal(sequences.prompt[:, 2], RANKED.prompt)
    np.testing.assert_array_equal(sequences.prompt_length[:, 3], RANKED.prompt_length)


# Ensembles ------------------------------------------------------------------------------------------------------------


@functools.cache
def training(config, steps):
    """A whole run `(key, data) -> (state, metrics)`, compiled once for all data."""
    start = lambda key, data: rlx.train(rlx.reward_model(MODEL, data, optax.adam(1e-2), config), key, steps)  # noqa: E731
    return once(start)


def trained(config, steps, data=COMPARED):
    return training(config, steps)(jax.random.key(0), data)


def test_a_member_is_a_run_of_its_own():
    """Cut out of an ensemble, it goes on as it would have in there, to the end of its epoch; the first one for ever."""
    config = rlx.RewardModelConfig(4, members=3, bootstrap=True)
    alone = dataclasses.replace(config, members=1)
    start, _ = trained(config, 1)
    after, _ = trained(config, 3)
    single = rlx.reward_model(MODEL, COMPARED, optax.adam(1e-2), alone)
    step = once(single.step)
    for member in range(3):
        cut = lambda tree, m=member: jax.tree.map(lambda x: x[m : m + 1], tree)  # noqa: E731
        order = start.epochs.order[member : member + 1]
        state = start._replace(
            learner=cut(start.learner), epochs=start.epochs._replace(order=order), sample=cut(start.sample)
        )
        for _ in range(2):
            state, _ = step(state)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), state.learner, cut(after.learner)
        )
    state = once(single.init)(jax.random.key(0))
    for _ in range(8):
        state, _ = step(state)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[:1], y, rtol=1e-4, atol=1e-5),
        trained(config, 8)[0].learner.params,
        state.learner.params,
    )


def test_members_differ_in_start_order_and_sample():
    state, _ = trained(rlx.RewardModelConfig(4, members=3, bootstrap=True), 1)
    for tree in (state.learner.params, state.epochs.order, state.sample):
        for leaf in (leaf for leaf in jax.tree.leaves(tree) if np.ptp(leaf) > 0):
            assert all(np.any(leaf[i] != leaf[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_a_bootstrap_leaves_out_a_share_of_1_over_e():
    large = compared(size=600)
    state, _ = trained(rlx.RewardModelConfig(4, members=3, bootstrap=True), 0, large)
    left_out = [1.0 - len(np.unique(rows)) / 600 for rows in state.sample]
    np.testing.assert_allclose(left_out, np.exp(-1), atol=4 * 0.0127)  # standard deviation: sqrt(e^-1 - 2 e^-2) / 600
    whole, _ = trained(rlx.RewardModelConfig(4, members=2), 0, large)
    np.testing.assert_array_equal(whole.sample, [np.arange(600)] * 2)


def test_a_member_learns_from_its_sample_alone():
    """Rows that none of its draws is are never read: spoil them, and nothing changes."""
    config = rlx.RewardModelConfig(4, bootstrap=True)
    state, _ = trained(config, 6)
    seen = jnp.isin(jnp.arange(SIZE), state.sample)
    assert 0 < seen.sum() < SIZE
    spoilt = COMPARED._replace(margin=jnp.where(seen, COMPARED.margin, 1e6))
    again, _ = trained(config, 6, spoilt)
    jax.tree.map(np.testing.assert_array_equal, again.learner.params, state.learner.params)
    other, _ = trained(config, 6, COMPARED._replace(margin=jnp.where(seen, 1e3, COMPARED.margin)))
    assert np.any(other.learner.params["params"]["score"] != state.learner.params["params"]["score"])


def test_the_score_of_an_ensemble_is_its_mean_with_any_leading_axes():
    config = rlx.RewardModelConfig(4, members=3)
    state, _ = trained(config, 1)
    algorithm = rlx.reward_model(MODEL, COMPARED, optax.adam(1e-2), config)
    texts = written(jax.random.key(9), 2, 5)
    act = once(algorithm.act)
    found = act(state, None, texts)
    assert found.shape == (2, 5)
    assert found.dtype == jnp.float32
    scores = once(lambda params: member_scores(MODEL, params, texts))(state.learner.params)
    np.testing.assert_allclose(found, scores.mean(0), rtol=1e-5)
    np.testing.assert_allclose(act(state, None, row(texts, (1, 2))), found[1, 2], rtol=1e-4)


# A trunk --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_members_begin_with_a_language_models_trunk_and_scores_of_their_own(tied):
    language_model = Transformer(dataclasses.replace(CONFIG, tied=tied))
    trunk = language_model.init(jax.random.key(1), COMPARED.chosen.prompt)
    model = Transformer(language_model.config, head="score")
    algorithm = rlx.reward_model(model, COMPARED, optax.adam(1e-2), rlx.RewardModelConfig(4, members=2), trunk)
    start = once(algorithm.init)(jax.random.key(0)).learner.params["params"]
    assert start["score"].shape == (2, 16)
    assert np.any(start["score"][0] != start["score"][1])
    for member in range(2):
        kept = {k: v for k, v in trunk["params"]["transformer"].items() if k != "unembedding"}
        jax.tree.map(np.testing.assert_array_equal, row(start["transformer"], member), kept)
    one = rlx.scorer_params(model, jax.random.key(2), trunk)
    assert jax.tree.structure(one) == jax.tree.structure({"params": start})


def test_a_trunk_of_another_shape_is_named():
    trunk = Transformer(dataclasses.replace(CONFIG, hidden=32)).init(jax.random.key(1), COMPARED.chosen.prompt)
    with pytest.raises(ValueError, match=r"\['layers'\]\['down'\] is of shape \(2, 32, 16\): .* needs \(2, 24, 16\)"):
        rlx.scorer_params(MODEL, jax.random.key(0), trunk)
    with pytest.raises(ValueError, match=r"\['embedding'\] is missing"):
        rlx.scorer_params(MODEL, jax.random.key(0), trunk["params"]["transformer"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be an integer above 0"),
        ({"members": 0}, "members=0: must be an integer above 0"),
        ({"centring": -0.1}, "centring=-0.1: must be 0 or more"),
        ({"margin": -1.0}, "margin=-1.0: must be 0 or more"),
        ({"tie": 0.0}, "tie=0.0: must be above 0, or None"),
        ({"ranking": "best"}, "ranking='best': must be one of pairs, plackett_luce"),
        ({"tie": float("nan")}, "tie=nan: must be finite"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rlx.RewardModelConfig(**options)


def test_more_in_a_batch_than_there_is():
    algorithm = rlx.reward_model(MODEL, COMPARED, optax.adam(1e-2))
    with pytest.raises(ValueError, match="batch_size=64: there are 12 rows in the data"):
        jax.eval_shape(lambda key: algorithm.step(algorithm.init(key)), jax.random.key(0))


# Learning -------------------------------------------------------------------------------------------------------------

LANGUAGE = Language(vocabulary=4, max_tokens=3)
STRINGS = LANGUAGE.strings
WEIGHTS = jnp.array([0.3, 1.0, -1.5, 0.5])  # of each token in a string, the end included


def true_reward(sequences):
    return jnp.sum(jnp.where(sequences.mask, WEIGHTS[sequences.response], 0.0), axis=-1)


def agreement(scores, truth):
    """Share of the pairs of strings of different reward that scores put in the right order."""
    differs = truth[:, None] > truth
    return jnp.sum((scores[:, None] > scores) & differs) / jnp.sum(differs)


def pairs_of_strings(key, count, scale=1.0):
    """Uniform pairs, of which one is preferred with probability sigmoid(scale * difference of rewards)."""
    pair_key, choice_key = jax.random.split(key)
    first, second = jax.random.randint(pair_key, (2, count), 0, len(STRINGS.response))
    truth = true_reward(STRINGS)
    swap = jax.random.bernoulli(choice_key, jax.nn.sigmoid(scale * (truth[second] - truth[first])))
    chosen, rejected = jnp.where(swap, second, first), jnp.where(swap, first, second)
    return Comparisons(row(STRINGS, chosen), row(STRINGS, rejected), jnp.zeros(count), jnp.zeros(count, bool))


def rankings_of_strings(key, count, most=4):
    """Drawn without replacement by rewards and Gumbel noise: Plackett and Luce's rankings."""
    pick_key, noise_key = jax.random.split(key)
    picked = jax.random.randint(pick_key, (count, most), 0, len(STRINGS.response))
    noisy = true_reward(STRINGS)[picked] + rlx.ops.random.gumbel(noise_key, (count, most))
    picked = jnp.take_along_axis(picked, jnp.argsort(-noisy, axis=1), axis=1)
    response, length = STRINGS.response[picked], STRINGS.response_length[picked]
    return Rankings(
        jnp.zeros((count, 1), jnp.int32), jnp.ones(count, jnp.int32), response, length, jnp.full(count, most)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["comparisons", "pairs", "plackett_luce"])
def test_finds_a_known_reward_again(kind):
    """All pairs of the 40 strings, and the reward itself up to a constant; three seeds."""
    data = (
        pairs_of_strings(jax.random.key(0), 4000)
        if kind == "comparisons"
        else rankings_of_strings(jax.random.key(0), 1500)
    )
    model = Transformer(TransformerConfig(vocabulary=4, width=16, layers=1, heads=2), head="score")
    config = rlx.RewardModelConfig(100, members=3, ranking="pairs" if kind == "comparisons" else kind)
    algorithm = rlx.reward_model(model, data, optax.adam(optax.cosine_decay_schedule(1e-2, 300)), config)
    state, _ = jax.jit(lambda key: rlx.train(algorithm, key, 300))(jax.random.key(1))
    truth = true_reward(STRINGS)
    for scores in member_scores(model, state.learner.params, STRINGS):  # measured: 0.984 and more, 0.118 to 0.174
        assert agreement(scores, truth) > 0.96
        assert jnp.std(scores - truth) < 0.3 * jnp.std(truth)
