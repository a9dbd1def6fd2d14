"""PPO for language, stage by stage: the published numbers, slow twins, and what each option does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.rlhf import RLHFBatch
from rlx.lm import Prompts, Sampling, Sequences
from rlx.lm.enumerable import Language, TabularModel
from rlx.lm.feedback import response_advantages, shape_scores, token_advantages, token_rewards
from rlx.lm.sequences import response_values, rows
from rlx.nets.transformer import Transformer, TransformerConfig

LANGUAGE = Language(vocabulary=4, max_tokens=4)
PARAMS = {"params": {"table": jax.random.normal(jax.random.key(5), (85, 4))}}
SAMPLING = Sampling(LANGUAGE.max_tokens, LANGUAGE.end)
PLAIN = rlx.RLHFConfig(num_prompts=16, num_epochs=2, num_minibatches=2)
LENGTHS = jnp.array([5, 3, 1])
RESPONSES = Sequences(jnp.zeros((3, 1), jnp.int32), jnp.ones(3, jnp.int32), jnp.ones((3, 5), jnp.int32), LENGTHS)

# What verl gives for these (its numbers are of a public run in float32)
OLD = [[-1.764, -0.4, -0.979, -2.241, -1.868], [-0.977, -0.95, -0.151, 0, 0], [-0.144, 0, 0, 0, 0]]
REF = [[-1.733, -0.324, -1.157, -2.637, -1.938], [-0.946, -0.704, 0.089, 0, 0], [-0.354, 0, 0, 0, 0]]
VALUES = [[-0.438, -1.253, 0.777, -1.614, -0.213], [-0.895, 0.387, -0.511, -1.181, -0.028], [0.428, 0.067, 0, 0, 0]]
REWARDS = [[0.0031, 0.0076, -0.0178, -0.0396, 0.993], [0.0031, 0.0246, -0.476, 0, 0], [1.979, 0, 0, 0, 0]]
WHITE = [[0.193369, 1.0451027, -0.8580803, 1.5073304, 0.2928681], [-0.3782948, -1.6170329, -0.8001574, 0, 0]]
WHITE += [[0.6148952, 0, 0, 0, 0]]
RETURNS = [[0.6614029, 0.7588977, 0.749945, 0.8931, 0.993], [-0.4080425, -0.45315, -0.476, 0, 0], [1.979, 0, 0, 0, 0]]


def judge(sequences):
    return jnp.sum(sequences.mask & (sequences.response == 2), axis=1).astype(jnp.float32)


def test_rewards_of_tokens():
    penalty = jnp.array(OLD) - jnp.array(REF)
    found = token_rewards(jnp.array([1.0, -0.5, 2.0]), penalty, LENGTHS, jnp.float32(0.1))
    np.testing.assert_allclose(found, REWARDS, atol=1e-6)


def test_advantages_and_returns():
    advantage, target = token_advantages(jnp.array(REWARDS), jnp.array(VALUES), LENGTHS, "gae", 1.0, 0.95, 1, True)
    np.testing.assert_allclose(advantage, WHITE, atol=2e-6)
    np.testing.assert_allclose(target, RETURNS, atol=1e-6)


def test_advantages_of_whole_responses():
    advantage = response_advantages(jnp.array(REWARDS), LENGTHS, "mean", 1)
    total = np.array([0.9463, -0.4483, 1.979])
    np.testing.assert_allclose(advantage[0], total[0] - total.mean(), atol=1e-5)
    np.testing.assert_allclose(advantage[1], [total[1] - total.mean()] * 3 + [0, 0], atol=1e-5)
    advantage = response_advantages(jnp.array(REWARDS), LENGTHS, "leave_one_out", 3)
    np.testing.assert_allclose(advantage[2, 0], total[2] - total[:2].mean(), atol=1e-5)
    _, target = token_advantages(jnp.array(REWARDS), jnp.array(VALUES), LENGTHS, "mean", 1.0, 0.95, 1, True)
    assert not target.any()


def test_scores_are_shaped():
    score, ended = jnp.array([4.0, -1.0, 0.5]), jnp.array([False, True, False])
    np.testing.assert_allclose(shape_scores(score, ended, 0.0), [4.0, -1.0, 0.5])
    np.testing.assert_allclose(shape_scores(score, ended, 0.0, clip=0.7), [0.7, -0.7, 0.5])
    np.testing.assert_allclose(shape_scores(score, ended, 1.0), [3.0, -1.0, -0.5])
    assert np.std(shape_scores(score, ended, 0.0, whiten=True)) == pytest.approx(1.0, rel=1e-4)


def test_a_value_is_of_what_stands_before_its_token():
    critic = Transformer(TransformerConfig(5, width=8, layers=1, heads=2), "score")
    prompts = Prompts(jnp.array([[1, 2, 3], [4, 9, 9]]), jnp.array([3, 1]))
    sequences = Sequences(*prompts, jnp.array([[1, 2], [3, 4]]), jnp.array([2, 2]))
    params = critic.init(jax.random.key(0), prompts.tokens)
    found = response_values(critic, params, sequences)
    for row, written in enumerate(([[1, 2, 3], [1, 2, 3, 1]], [[4], [4, 3]])):
        for place, text in enumerate(written):
            np.testing.assert_allclose(found[row, place], critic.apply(params, jnp.array([text]))[0, -1], rtol=1e-4)
    assert rows(sequences).shape == (2, 5)


def make(config=PLAIN, model=None, **options):
    model = TabularModel(LANGUAGE, "both") if model is None else model
    return rlx.rlhf(model, LANGUAGE.prompts, judge, optax.adam(0.05), SAMPLING, config, PARAMS, **options)


@functools.cache
def run(steps=30, **changes):
    algorithm = make(dataclasses.replace(PLAIN, **changes))
    return rlx.jit(lambda key: rlx.train(algorithm, key, steps), once=True)(jax.random.key(0))


def test_it_learns_and_reports():
    _, metrics = run()
    assert metrics["episode_return"][-5:].mean() > metrics["episode_return"][:5].mean() + 0.5
    assert metrics["kl"][0] == pytest.approx(0.0, abs=1e-5)  # the policy begins as the reference
    assert metrics["kl"][-1] > 0.3
    assert metrics["explained_variance"][-5:].mean() > 0.3
    assert np.all(metrics["episodes"] == 16)


def test_the_coefficient_is_steered_as_ziegler_has_it():
    _, metrics = run(kl_target=0.1, kl_horizon=160.0)
    kl, coef = np.asarray(metrics["kl"], np.float64), np.asarray(metrics["kl_coef"], np.float64)
    error = np.clip(kl / 0.1 - 1, -0.2, 0.2)
    np.testing.assert_allclose(coef[1:], coef[:-1] * (1 + error[:-1] * 16 / 160), rtol=1e-5)
    assert coef[-1] > coef[0]


def test_a_higher_price_keeps_it_nearer():
    assert run(kl_coef=5.0)[1]["kl"][-5:].mean() < 0.5 * run()[1]["kl"][-5:].mean()


def test_pretraining_text_keeps_its_likelihood():
    text = LANGUAGE.strings
    losses = []
    for coef in (0.0, 3.0):
        algorithm = make(dataclasses.replace(PLAIN, ptx_coef=coef), ptx=text)
        run = rlx.jit(lambda key, a=algorithm: rlx.train(a, key, 30), once=True)
        losses.append(run(jax.random.key(0))[1]["ptx_loss"])
    assert losses[1][-5:].mean() < losses[0][-5:].mean() - 0.1


def test_one_program_vmaps_over_seeds_and_over_beta():
    """A shared trunk with text, a critic of its own, none: each is traced once. (Alone or many: test_conformance.)"""
    ways = [
        ({"ptx_coef": 0.1}, {"ptx": LANGUAGE.strings}),
        ({}, {"model": TabularModel(LANGUAGE), "critic": TabularModel(LANGUAGE, "both")}),
        ({"advantage": "leave_one_out", "samples": 2}, {"model": TabularModel(LANGUAGE)}),
    ]
    betas, keys = jnp.array([0.01, 5.0]), jax.random.split(jax.random.key(0), 3)
    for changes, parts in ways:
        traces = []

        def run(beta, key, changes=changes, parts=parts, traces=traces):
            traces.append(beta)
            config = rlx.RLHFConfig(num_prompts=4, num_epochs=1, num_minibatches=2, kl_coef=beta, **changes)
            return rlx.train(make(config, **parts), key, 3)[1]

        found = rlx.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)), once=True)(betas, keys)
        assert len(traces) == 1
        assert found["kl"].shape == (2, 3, 3)
        assert np.all(found["entropy"][0, :, 2] != found["entropy"][1, :, 2])  # at first there is no KL
        assert len(np.unique(found["entropy"][0, :, 0])) == 3


def test_a_critic_of_its_own_may_begin_as_the_reward_model():
    model, critic = TabularModel(LANGUAGE), TabularModel(LANGUAGE, "both")
    judged = {"params": {"scores": jnp.arange(85.0)}}
    algorithm = make(model=model, critic=critic, critic_params=judged)
    state = algorithm.init(jax.random.key(0))
    np.testing.assert_array_equal(state.critic.params["params"]["scores"], jnp.arange(85.0))
    np.testing.assert_array_equal(state.learner.params["params"]["table"], PARAMS["params"]["table"])
    after, metrics = rlx.jit(algorithm.step, once=True)(state)
    assert np.abs(after.critic.params["params"]["scores"] - jnp.arange(85.0)).max() > 1e-3
    assert np.isfinite(metrics["value_loss"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='GAE needs a critic: give one, or a model with head="both"'):
        make(model=TabularModel(LANGUAGE))
    with pytest.raises(ValueError, match="advantage='mean' needs no critic"):
        make(dataclasses.replace(PLAIN, advantage="mean"), critic=TabularModel(LANGUAGE, "both"))
    with pytest.raises(ValueError, match=r"ptx_coef=1.0 needs text: give ptx"):
        make(dataclasses.replace(PLAIN, ptx_coef=1.0))
    with pytest.raises(ValueError, match="a group needs 2 responses or more"):
        rlx.RLHFConfig(advantage="leave_one_out")
    with pytest.raises(ValueError, match="parameters reward have no place in the model"):
        rlx.lm.sequences.start_params(TabularModel(LANGUAGE), jax.random.key(0), {"params": {"reward": 0}})
    with pytest.warns(UserWarning, match="'k3' in the reward") as warned:
        make(dataclasses.replace(PLAIN, kl_form="k3"))
    assert [warning.filename for warning in warned] == [__file__]  # where the choice was made


def test_the_critics_loss_against_a_published_number():
    """verl's, of values clipped at 0.2: half the mean over tokens."""
    weight = 3 * rlx.ops.token_weights(RESPONSES.mask, "token")
    batch = RLHFBatch(RESPONSES, *map(jnp.array, (OLD, WHITE, RETURNS, VALUES)), weight)
    predicted = [[-0.707, -1.397, 0.452, -2.305, -0.142], [-1.056, -0.265, -0.326, 0, 0], [0.72, 0, 0, 0, 0]]
    assert rlx.critic_loss(jnp.array(predicted), batch, 0.2) == pytest.approx(1.1557002, abs=1e-5)


def test_the_actors_loss_is_that_of_its_tokens():
    logits = jax.random.normal(jax.random.key(1), (3, 5, 4))
    weight = 3 * rlx.ops.token_weights(RESPONSES.mask, "token")
    batch = RLHFBatch(RESPONSES, *map(jnp.array, (OLD, WHITE, RETURNS, VALUES)), weight)
    loss, metrics = rlx.actor_loss(logits, None, batch, 0.7, 0.2, 0.5, 0.0)
    losses, entropies, clipped = [], [], []
    for row, length in enumerate(LENGTHS):
        for place in range(int(length)):
            p = np.exp(np.asarray(logits[row, place], np.float64) / 0.7)
            p /= p.sum()
            ratio, advantage = p[1] / np.exp(OLD[row][place]), WHITE[row][place]
            losses.append(-min(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage))
            entropies.append(-(p * np.log(p)).sum())
            clipped.append(abs(ratio - 1) > 0.2)
    assert loss == pytest.approx(np.mean(losses) - 0.5 * np.mean(entropies), rel=1e-5)
    assert metrics["clip_fraction"] == pytest.approx(np.mean(clipped))
