"""The overoptimisation laboratory piece by piece: its language, golds, proxies, methods, against slow twins."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.experiments.overoptimization import arms, golds, methods, proxies
from rlx.experiments.overoptimization import world as world_module
from rlx.experiments.overoptimization.arms import Bench, Outcome, load_outcome, save_outcome
from rlx.experiments.overoptimization.golds import GOLDS, bend, extremal, make_ingredients, normalized, preferred
from rlx.experiments.overoptimization.language import LanguageConfig, make_language
from rlx.experiments.overoptimization.methods import (
    MethodConfig,
    best_of_n_curves,
    direct_curves,
    iterated_curves,
    judge,
    numbers_of,
    reinforcement_curves,
)
from rlx.experiments.overoptimization.proxies import (
    Proxy,
    ProxyConfig,
    label,
    proxy_reward,
    recalibrate,
    scorer_of,
    train_proxy,
)
from rlx.experiments.overoptimization.scorers import WindowScorer
from rlx.experiments.overoptimization.world import WorldConfig, make_world, policy_model, world_keys
from rlx.lm.best_of_n import Pool
from rlx.lm.jsonl import DataError
from rlx.lm.rewards import score
from rlx.lm.sequences import Sequences, response_logits, sample, sampled_sequences, token_log_probs

CONFIG = WorldConfig(
    language=LanguageConfig(letters=5, response=6), width=8, prompts=3, samples=8, comparisons=96, held_out=32
)
PROXY = ProxyConfig(width=2, comparisons=64)
PUSH = MethodConfig("reinforce", updates=4, every=2, learning_rate=3e-2, warm_up=1, responses=16, judged=16)
SEEDS = 2


def count(sequences):
    """A reward of one's own: how many letters are the first or the second."""
    return jnp.sum(jnp.where(sequences.mask, sequences.response < 2, False), axis=-1).astype(jnp.float32)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Compile with the least optimisation: each program runs once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (world_module, golds, proxies, methods):
            patch.setattr(module, "jit", functools.partial(rlx.jit, once=True))
        yield


@pytest.fixture(scope="module")
def world():
    """A world round a policy of one's own, drawn at random, with the gold that the config names."""
    language = make_language(world_keys(CONFIG)["language"], CONFIG.language)
    model = policy_model(CONFIG, language, "logits")
    params = jax.tree.map(lambda x: 3.0 * x, model.init(jax.random.key(5), jnp.zeros((1, 1), int)))
    return make_world(CONFIG, params)


@pytest.fixture(scope="module")
def proxy(world):
    """Reward models of S seeds and M = 2 members that learnt nothing, with made-up scales."""
    init = jax.vmap(jax.vmap(lambda key: scorer_of(world, PROXY).init(key, jnp.zeros((1, 1), int))))
    nothing = jnp.zeros(SEEDS)
    shift, scale = jnp.array([[0.1, -0.2], [0.3, 0.0]]), jnp.array([[2.0, 30.0], [0.5, 1.0]])
    params = init(jax.random.split(jax.random.key(1), (SEEDS, 2)))
    return Proxy(params, shift, scale, jnp.array([0.25, 0.0]), nothing, nothing, nothing)


# Language and golds ---------------------------------------------------------------------------------------------------


def test_texts_follow_the_table_and_end_once():
    language = make_language(jax.random.key(3), LanguageConfig(letters=3, prompt=3, response=5, ending=0.2))
    begin, end = language.tokenizer.begin, language.tokenizer.end
    table = np.exp(language.table)
    np.testing.assert_allclose(table.sum(axis=-1), 1.0, rtol=1e-5)
    assert np.all(table[..., begin] == 0)
    assert 0.1 < table[:3, :3, end].mean() < 0.3

    texts = jax.tree.map(np.asarray, jax.jit(language.texts, static_argnums=1)(jax.random.key(4), 4096))
    assert np.all(texts.prompt[:, 0] == begin)
    assert np.all(texts.prompt[:, 1:] < 3)
    assert np.all(texts.prompt_length == 3)
    seen = np.zeros((5, 5, 5))
    for prompt, response, length in zip(texts.prompt, texts.response, texts.response_length, strict=True):
        assert end not in response[: length - 1]
        assert length == 5 or response[length - 1] == end
        text = [*prompt, *response[:length]]
        for place in range(3, len(text)):
            seen[text[place - 2], text[place - 1], text[place]] += 1
    times = seen.sum(axis=-1, keepdims=True)
    assert np.all(np.abs(seen - times * table) <= 5 * np.sqrt(times * table) + 1e-6)


def test_ingredients_by_hand():
    """A favoured letter counts one, the end nothing, what is beyond the length nothing; prompts matter."""
    language = make_language(jax.random.key(0), LanguageConfig(letters=3, prompt=2, response=3))
    end = language.tokenizer.end
    rows = jnp.array([[0, 1, 2], [1, 1, end], [2, end, 0], [2, end, 1], [0, 1, 2]])
    prompt = jnp.array([[4, 0]] * 4 + [[4, 1]])
    texts = Sequences(prompt, jnp.full(5, 2), rows, jnp.array([3, 3, 2, 2, 3]))
    key = jax.random.key(1)
    surface, substance = make_ingredients(key, language, texts)(texts)

    class_key, left_key, right_key, prompt_key = jax.random.split(key, 4)
    favoured = set(np.asarray(jax.random.permutation(class_key, 3)[:2]).tolist())
    follows = np.asarray(jax.random.normal(left_key, (5, 6)) @ jax.random.normal(right_key, (6, 5))) / np.sqrt(6)
    suits = np.asarray(jax.random.normal(prompt_key, (5, 5)))
    letters = [[0, 1, 2], [1, 1], [2], [2], [0, 1, 2]]
    first = [0, 0, 0, 0, 1]
    counts = np.array([sum(x in favoured for x in text) for text in letters], float)
    fit = np.array(
        [
            sum(follows[a, b] + 0.5 * suits[p, b] for a, b in itertools.pairwise([p, *text]))
            for p, text in zip(first, letters, strict=True)
        ]
    )
    np.testing.assert_allclose(surface, (counts - counts.mean()) / counts.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(substance, (fit - fit.mean()) / fit.std(), rtol=1e-4, atol=1e-5)


def test_bend_is_a_square_that_becomes_a_line():
    x = np.array([0.0, 1e-2, -1e-2, 4.0, 1e4])
    np.testing.assert_allclose(bend(x), [0, 1e-4, 1e-4, 32 * (2**0.5 - 1), 8e4 - 32], rtol=1e-2)


def test_golds_of_one_seed_share_all_but_the_gold():
    """Extremal gold is the plain one less what is far out, so the plain one is never below it."""
    language = make_language(jax.random.key(0), CONFIG.language)
    texts = jax.jit(language.texts, static_argnums=1)(jax.random.key(1), 64)

    @functools.partial(rlx.jit, once=True)
    def rewards(key):
        made = [gold(key, language, texts) for gold in (GOLDS["plain"], extremal(), GOLDS["teacher"])]
        return [made[0](texts), made[1](texts), normalized(made[2], texts)(texts)]

    plain, turned, found = rewards(jax.random.key(2))
    assert np.all(plain >= turned)
    near = np.argsort(np.abs(plain))[:8]
    assert np.corrcoef(plain, turned)[0, 1] > 0.7
    assert np.max((plain - turned)[near]) < np.max(plain - turned)
    np.testing.assert_allclose([np.mean(found), np.std(found)], [0, 1], atol=1e-5)


def test_gold_has_mean_0_and_variance_1_on_the_pool(world):
    np.testing.assert_allclose([world.pool_gold.mean(), world.pool_gold.std()], [0, 1], atol=1e-4)
    assert world.pool_gold.shape == (CONFIG.prompts, CONFIG.samples)
    np.testing.assert_allclose(world.gold(world.pool.sequences), world.pool_gold.ravel(), atol=1e-5)
    np.testing.assert_allclose(world.gold(world.pairs), world.pair_gold, atol=1e-5)
    np.testing.assert_array_equal(world.pairs.prompt[:, 0], world.pairs.prompt[:, 1])


def test_gold_of_a_users_comparisons(tmp_path):
    """Who prefers the letter a: the gold knows, of texts that it has not read. A letter of none is an error."""
    language = make_language(jax.random.key(0), CONFIG.language)
    texts = jax.jit(language.texts, static_argnums=1)(jax.random.key(1), 2048)
    decode = language.tokenizer.decode
    lines = []
    for first, second in zip(range(0, 1600, 2), range(1, 1600, 2), strict=True):
        a, b = ((decode(np.asarray(texts.response[i, : texts.response_length[i]]))) for i in (first, second))
        if a and b and a.count("a") != b.count("a"):
            chosen, rejected = sorted((a, b), key=lambda text: -text.count("a"))
            prompt = decode(np.asarray(texts.prompt[first, 1:]))
            lines.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    file = tmp_path / "comparisons.jsonl"
    file.write_text("\n".join(lines))
    make = preferred(file, width=8, epochs=2, learning_rate=3e-2)
    gold = make(jax.random.key(2), language, texts)
    pairs = jax.tree.map(lambda x: x[1600:].reshape(-1, 2, *x.shape[1:]), texts)
    pairs = pairs._replace(prompt=pairs.prompt.at[:, 1].set(pairs.prompt[:, 0]))  # comparisons are of one prompt
    more = np.diff(np.sum(np.where(pairs.mask, pairs.response == 0, False), axis=-1))
    assert np.mean((np.diff(gold(pairs)) * more > 0)[more != 0]) > 0.95
    file.write_text('{"prompt": "ab", "chosen": "Z", "rejected": "a"}')
    with pytest.raises(DataError, match=r"comparisons\.jsonl:1"):
        make(jax.random.key(2), language, texts)


# Proxies --------------------------------------------------------------------------------------------------------------


def labels(world, seed=0, **changes):
    return label(jax.random.key(seed), world, dataclasses.replace(PROXY, **changes))


def test_labels_are_of_the_gold_and_of_rows_of_their_own(world):
    """Each row once, none of those held out: they are marked by a token that is nowhere else."""
    marked = world.pairs._replace(response=world.pairs.response.at[-CONFIG.held_out :].set(99))
    place = jnp.arange(len(world.pair_gold))  # told by the prompt's length, which nobody reads here
    marked = marked._replace(prompt_length=jnp.stack([place, place], axis=1))
    found = labels(world._replace(pairs=marked), comparisons=CONFIG.comparisons)
    assert sorted(found.chosen.prompt_length.tolist()) == list(range(CONFIG.comparisons))
    assert not np.any(found.chosen.response == 99)
    np.testing.assert_array_equal(found.chosen.prompt_length, found.rejected.prompt_length)
    again, other = labels(world), labels(world, 1)
    assert np.all(world.gold(again.chosen) >= world.gold(again.rejected))
    np.testing.assert_array_equal(again.chosen.response, labels(world).chosen.response)
    assert not np.array_equal(again.chosen.response, other.chosen.response)
    with pytest.raises(ValueError, match="comparisons=97: the world has fewer"):
        labels(world, comparisons=97)


def test_share_of_labels_that_are_swapped_or_drawn(world):
    """Within 4 standard errors; half of all swapped is no information."""
    config = dataclasses.replace(CONFIG, comparisons=4000)
    gold = jnp.stack([jnp.linspace(-2, 2, 4032), jnp.zeros(4032)], axis=1)
    tokens = jnp.arange(2)[None, :, None] * jnp.ones((4032, 2, 1), int)
    pairs = Sequences(tokens, tokens[..., 0], tokens, tokens[..., 0])
    many = world._replace(config=config, pairs=pairs, pair_gold=gold)

    def share(**changes):
        """How often the second response is preferred."""
        return np.mean(labels(many, comparisons=4000, **changes).chosen.response)

    def error(p):
        return 4 * np.sqrt(p * (1 - p) / 4000)

    first = np.mean(np.linspace(-2, 2, 4032)[:4000] >= 0)
    assert share() == pytest.approx(1 - first)
    flipped = labels(many, comparisons=4000, flips=0.25), labels(many, comparisons=4000)
    assert np.mean(flipped[0].chosen.response != flipped[1].chosen.response) == pytest.approx(0.25, abs=error(0.25))
    drawn = np.mean(1 / (1 + np.exp(np.linspace(-2, 2, 4032)[:4000])))
    assert share(sampled=True) == pytest.approx(drawn, abs=error(0.5))


def test_the_gold_reaches_a_proxy_through_labels_alone(world):
    """Another gold of the same order leaves it as it is but for the one scalar; held-out pairs leave that alone too."""

    @functools.partial(rlx.jit, once=True)
    def trained(pairs, gold):
        return train_proxy(world._replace(pairs=pairs, pair_gold=gold), PROXY, jax.random.key(0))

    usual = trained(world.pairs, world.pair_gold)
    cubed = trained(world.pairs, world.pair_gold**3 + world.pair_gold)
    held = slice(-CONFIG.held_out, None)
    others = jax.tree.map(lambda x: x.at[held].set(x[:1]), world.pairs)
    elsewhere = trained(others, world.pair_gold.at[held].multiply(-1.0))
    for found in (cubed, elsewhere):
        jax.tree.map(np.testing.assert_array_equal, found.params, usual.params)
    assert cubed.accuracy == usual.accuracy
    assert cubed.scale[0] > 1.2 * usual.scale[0]
    usual_reward = proxy_reward(world, PROXY, usual)
    np.testing.assert_allclose(np.mean(usual_reward(world.pool.sequences)), 0, atol=1e-4)
    held_pairs = jax.tree.map(lambda x: x[held], world.pairs)
    right = np.sign(np.diff(usual_reward(held_pairs))) == np.sign(np.diff(world.pair_gold[held]))
    same = np.diff(usual_reward(held_pairs)) == 0
    assert usual.accuracy == pytest.approx(np.mean(np.where(same, 0.5, right)))


@pytest.mark.parametrize("truth", [0.02, 1.0, 40.0])
def test_recalibration_is_the_best_of_a_grid(truth):
    difference = np.random.default_rng(0).normal(size=500) / truth
    gold = difference * truth + np.random.default_rng(1).normal(size=500)
    grid = np.exp(np.linspace(-6, 6, 24_001))
    soft = 1 / (1 + np.exp(-gold))
    loss = [
        np.mean(soft * np.logaddexp(0, -s * difference) + (1 - soft) * np.logaddexp(0, s * difference)) for s in grid
    ]
    np.testing.assert_allclose(recalibrate(difference, gold), grid[np.argmin(loss)], rtol=2e-3)


def test_window_scores_by_a_slow_twin_and_without_padding():
    model, tokens = WindowScorer(7, 3), np.array([[6, 2, 5, 0, 1, 1], [6, 0, 0, 4, 3, 2]])
    params = model.init(jax.random.key(0), tokens)
    w = jax.tree.map(np.asarray, params["params"]["window"])

    def slow(text):
        total = np.zeros(3)
        for place, token in enumerate(text):
            before = [text[place - back] if place >= back else 0 for back in range(3)]
            assert before[0] == token
            window = sum(w["embedding"][i][t] for i, t in enumerate([text[1], *before]))
            total += np.maximum(window + w["bias"], 0) / 10
        hidden = np.asarray(jax.nn.gelu(total @ w["in"] + w["in_bias"]))
        return total @ w["skip"] + hidden @ w["out"]

    for text in tokens:
        for length in (2, 4, 6):
            padded = Sequences(
                jnp.array([[text[0], text[1], 3]]), jnp.array([2]), jnp.array([[*text[2:], 5]]), jnp.array([length - 2])
            )
            np.testing.assert_allclose(score(model, params, padded)[0], slow(text[:length]), rtol=1e-4, atol=1e-6)
    assert sum(x.size for x in jax.tree.leaves(params)) == 4 * 7 * 3 + 3 + 18 + 6 + 3 + 6


def test_members_are_brought_to_one_scale_before_the_least_is_taken(world, proxy):
    one = jax.tree.map(lambda x: x[0], proxy)
    scorer, texts = scorer_of(world, PROXY), world.pool.sequences
    raw = [np.asarray(score(scorer, jax.tree.map(lambda x, m=m: x[m], one.params), texts)) for m in range(2)]
    scaled = np.stack([(raw[m] - one.shift[m]) * one.scale[m] for m in range(2)])
    expected = {
        "mean": scaled.mean(axis=0),
        "min": scaled.min(axis=0),
        "uncertainty": scaled.mean(axis=0) - 0.5 * scaled.var(axis=0),
    }
    for objective, reward in expected.items():
        config = dataclasses.replace(PROXY, members=2, objective=objective)
        np.testing.assert_allclose(proxy_reward(world, config, one)(texts), reward - 0.25, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="'least' is none of"):
        dataclasses.replace(PROXY, objective="least")


# Methods --------------------------------------------------------------------------------------------------------------


def test_best_of_n_by_all_subsets_with_the_gold_of_what_the_ensemble_picks(world, proxy):
    """A pool of 2 prompts and 5 responses: every subset is looked at; of equals each is as likely."""
    few = Pool(jax.tree.map(lambda x: x[:2], world.pool.prompts), *(x[:2, :5] for x in world.pool[1:]))
    gold = world.pool_gold[:2, :5]
    here = world._replace(config=dataclasses.replace(CONFIG, samples=5), pool=few, pool_gold=gold)
    config = dataclasses.replace(PROXY, members=2, objective="min")
    curves = best_of_n_curves(here, config, proxy)
    assert curves.point.tolist() == [1, 2, 3, 4, 5] == list(numbers_of(5))
    np.testing.assert_allclose(curves.kl[1, 1], np.log(curves.point) - 1 + 1 / curves.point, atol=1e-6)
    for seed in range(SEEDS):
        reward = proxy_reward(here, config, jax.tree.map(lambda x, seed=seed: x[seed], proxy))
        scores = np.asarray(reward(few.sequences)).reshape(2, 5)
        for b in range(2):
            for k, n in enumerate(numbers_of(5)):
                found = []
                for subset in itertools.combinations(range(5), n):
                    best = [i for i in subset if scores[b, i] == max(scores[b, list(subset)])]
                    found.append([np.mean([x[b, i] for i in best]) for x in (scores, gold, few.response_length)])
                proxy_mean, gold_mean, length = np.mean(found, axis=0)
                np.testing.assert_allclose(curves.proxy[seed, b, k], proxy_mean - scores[b].mean(), atol=1e-4)
                np.testing.assert_allclose(curves.gold[seed, b, k], gold_mean - gold[b].mean(), atol=1e-4)
                np.testing.assert_allclose(curves.length[seed, b, k], length, rtol=1e-5)


def test_kl_is_0_at_the_first_policy_and_that_of_samples_elsewhere(world):
    look = functools.partial(rlx.jit, once=True)(lambda params, key: judge(world, params, key, count, 4096))
    there = look(world.params, jax.random.key(0))
    np.testing.assert_allclose(there["kl"], 0, atol=1e-6)
    np.testing.assert_allclose(np.mean(there["gold"]), 0, atol=0.5)
    moved = jax.tree.map(lambda x: 1.3 * x, world.params)
    found = look(moved, jax.random.key(1))

    @functools.partial(rlx.jit, once=True)
    def log_ratios(key):
        drawn = sample(world.model, moved, key, world.prompts, world.language.sampling, 4096)
        sequences = sampled_sequences(world.prompts, drawn)
        logits = response_logits(world.model, world.params, sequences)
        first = token_log_probs(logits, sequences)
        return jnp.sum(drawn.log_prob, axis=-1) - jnp.sum(first, axis=-1).reshape(len(drawn.response), -1)

    ratio = np.asarray(log_ratios(jax.random.key(2)))
    error = ratio.std(axis=1) / np.sqrt(4096)
    assert np.all(found["kl"] > 0.05)
    assert np.all(np.abs(found["kl"] - ratio.mean(axis=1)) < 5 * error)
    assert np.all(found["length"] <= CONFIG.language.response)


@pytest.mark.slow
def test_a_reward_and_a_gold_of_ones_own(world):
    """RL is judged before its first update, against the gold it is given, and learns from its reward."""
    here = world._replace(
        gold=lambda sequences: -count(sequences), pool_gold=-count(world.pool.sequences).reshape(3, 8)
    )
    curves = reinforcement_curves(here, PUSH, lambda _: count, jnp.arange(SEEDS))
    assert curves.point.tolist() == [0, 2, 4]
    assert curves.kl.shape == curves.gold.shape == (SEEDS, CONFIG.prompts, 3)
    np.testing.assert_allclose(curves.kl[..., 0], 0, atol=1e-6)
    assert np.all(curves.kl[..., 1:].mean(axis=1) > 1e-3)
    np.testing.assert_allclose(curves.gold, -curves.proxy, atol=1e-4)  # both are measured from the pool's mean
    assert np.all(curves.proxy[..., 2].mean(axis=1) > curves.proxy[..., 0].mean(axis=1))
    assert not np.array_equal(curves.proxy[0], curves.proxy[1])


def test_ones_own_gold_is_taken_as_it_is(world, monkeypatch):
    monkeypatch.setattr("rlx.experiments.overoptimization.world.pool", lambda *_, **__: world.pool)
    tiny = dataclasses.replace(CONFIG, comparisons=8, held_out=4)
    pairs = jax.tree.map(lambda x: x[:24], world.pool.sequences)
    monkeypatch.setattr(Pool, "sequences", property(lambda _: pairs))
    monkeypatch.setattr("rlx.experiments.overoptimization.world.pool_scores", lambda gold, _: gold(pairs).reshape(3, 8))
    scaled = make_world(tiny, world.params, make_gold=lambda key, language, sample: lambda texts: 7 * count(texts) + 1)
    np.testing.assert_allclose([scaled.pool_gold.mean(), scaled.pool_gold.std()], [0, 1], atol=1e-5)
    made = make_world(tiny, world.params, count)
    assert made.gold is count
    np.testing.assert_array_equal(made.pool_gold.ravel(), count(pairs))
    np.testing.assert_array_equal(made.pair_gold, count(made.pairs))


@pytest.mark.slow
def test_iterated_rounds_go_on_from_the_last_policy(world):
    """KL is from the very first policy: a round begins with the KL that the one before it ended with."""
    push = dataclasses.replace(PUSH, updates=6)  # 2 rounds of 2 updates: of 3 there would be half a point
    curves = iterated_curves(world, push, PROXY, SEEDS, rounds=2, restart=False)
    assert curves.point.tolist() == [0, 2, 2, 4]
    kl = curves.kl.mean(axis=1)
    np.testing.assert_allclose(kl[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(kl[:, 1], kl[:, 2], rtol=0.3)  # the same policy, judged by other samples
    assert np.all(kl[:, 1] > 1e-3)
    assert np.all(np.isfinite(curves.gold))


@pytest.mark.parametrize("restart", [False, True])
def test_each_round_learns_from_the_policy_it_begins_with(world, monkeypatch, restart):
    """Without learning: a push multiplies the policy's parameters by ten."""
    seen = []
    monkeypatch.setattr(methods, "sample", lambda model, params, *_: seen.append(params) or params)
    pairs = jax.tree.map(lambda x: x[:24], world.pool.sequences)
    monkeypatch.setattr(methods, "sampled_sequences", lambda asked, drawn: pairs)
    monkeypatch.setattr(methods, "train_proxy", lambda here, *_: seen.append(here))
    monkeypatch.setattr(methods, "proxy_reward", lambda *_: count)
    monkeypatch.setattr(methods, "reinforcement", lambda here, part, reward, prompts, start: start)

    def run_curve(here, part, start, *_):
        seen.append(here.params)
        return {name: jnp.zeros((3, 3)) for name in ("kl", "proxy", "gold", "length")}, grown(start)

    def grown(params):
        whole = methods.start_params(world.model, jax.random.key(0), params)
        return jax.tree.map(lambda x: 10.0 * x, whole)

    monkeypatch.setattr(methods, "run_curve", run_curve)
    config = dataclasses.replace(PROXY, comparisons=8, batch_size=8)
    here = world._replace(config=dataclasses.replace(CONFIG, held_out=4))
    iterated_curves(here, PUSH, config, 1, rounds=2, restart=restart)
    drawn_from, learned, judged = seen
    assert learned.config.comparisons == 8  # of 12 pairs: the last 4 are held out
    assert judged is world.params
    assert jax.tree.structure(drawn_from) == jax.tree.structure(grown(world.params))


@pytest.mark.slow
def test_direct_alignment_begins_at_its_reference(world):
    method = MethodConfig("ipo", updates=4, every=2, learning_rate=1e-2, warm_up=1, responses=16, kl_coef=0.2, judged=4)
    curves = direct_curves(world, method, PROXY, SEEDS)
    np.testing.assert_allclose(curves.kl[..., 0], 0, atol=1e-6)
    assert np.all(curves.kl[..., -1].mean(axis=1) > 1e-4)
    assert np.all((curves.proxy >= 0) & (curves.proxy <= 1))
    assert np.all(curves.proxy[:, 0] == curves.proxy[:, 1])  # an accuracy in training is of no prompt
    assert np.all(np.isfinite(curves.gold))


def test_settings_that_cannot_work_are_named():
    for settings, message in {
        ("dpo", ()): "needs a beta",
        ("ppo", (("updates", 7), ("every", 2))): "multiple of every",
        ("grpo", (("responses", 12),)): "multiple of 8",
        ("nothing", ()): "must be one of",
    }.items():
        with pytest.raises(ValueError, match=message):
            MethodConfig(settings[0], **dict(settings[1]))
    with pytest.raises(ValueError, match="must be one of extremal"):
        WorldConfig(gold="golden")


# Arms -----------------------------------------------------------------------------------------------------------------


def test_a_policy_of_another_size_keeps_gold_and_comparisons(world, monkeypatch):
    made = []
    monkeypatch.setattr(arms, "first_policy", lambda config: config.width)
    monkeypatch.setattr(
        arms,
        "make_world",
        lambda config, params, gold: made.append(config) or world._replace(config=config, params=params, gold=gold),
    )
    bench = Bench(world._replace(pairs="pairs", pair_gold="gold"), SEEDS)
    other = bench.with_policy(16)
    assert other.config == dataclasses.replace(CONFIG, width=16)
    assert (other.params, other.gold, other.pairs, other.pair_gold) == (16, world.gold, "pairs", "gold")
    assert bench.with_policy(None) is bench.with_policy(CONFIG.width) is bench.world
    bench.with_policy(16)
    assert len(made) == 1


def test_outcomes_on_disk(tmp_path):
    """What is not whole is not there, wherever it was cut or changed."""
    rng, file = np.random.default_rng(0), tmp_path / "arm-0.05.npz"
    curves = methods.Curves(np.arange(3), *rng.normal(size=(4, 2, 4, 3)))
    outcome = Outcome(curves, np.array(7), np.array([0.5, np.nan]), *rng.normal(size=(2, 2)))
    assert load_outcome(file) is None
    save_outcome(file, outcome)
    jax.tree.map(np.testing.assert_array_equal, load_outcome(file), outcome)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    whole = file.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert load_outcome(file) is None
    for place in rng.integers(len(whole), size=100):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        found = load_outcome(file)
        if found is not None:  # what was changed is not read
            jax.tree.map(np.testing.assert_array_equal, found, outcome)


def test_no_key_is_used_twice(world):
    with jax.debug_key_reuse(True):
        language = make_language(jax.random.key(0), CONFIG.language)
        texts = language.texts(jax.random.key(1), 8)
        make_ingredients(jax.random.key(2), language, texts)
        label(jax.random.key(3), world, dataclasses.replace(PROXY, sampled=True, flips=0.1))
        jax.jit(lambda key: train_proxy(world, PROXY, key).scale).lower(jax.random.key(4))
        names = world_keys(CONFIG)
        assert len({tuple(jax.random.key_data(key).tolist()) for key in names.values()}) == len(names)
