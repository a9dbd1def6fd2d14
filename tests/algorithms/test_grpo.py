"""GRPO and its relatives: which choices coincide, what has no gradient, and what a first step looks like."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.grpo import GRPOBatch, group_batch, grpo_loss, loss_penalty
from rlx.lm import Sampling, Sequences
from rlx.lm.enumerable import Language, TabularModel
from rlx.lm.generate_and_learn import Generated, generate
from rlx.lm.sequences import response_logits, token_log_probs

LANGUAGE = Language(vocabulary=4, max_tokens=4)
MODEL = TabularModel(LANGUAGE)
PARAMS = {"params": {"table": jax.random.normal(jax.random.key(5), (85, 4))}}
OTHER = {"params": {"table": jax.random.normal(jax.random.key(9), (85, 4))}}
SAMPLING = Sampling(LANGUAGE.max_tokens, LANGUAGE.end, temperature=0.9)
PLAIN = rlx.GRPOConfig(num_prompts=3, samples=4, kl_coef=0.0, scale="none")


def judge(sequences):
    """Reward: how many tokens are 2, plus a little for each 3."""
    of = lambda token: jnp.sum(sequences.mask & (sequences.response == token), axis=1)  # noqa: E731
    return of(2) + 0.3 * of(3)


@functools.partial(rlx.jit, once=True, static_argnums=(0, 1))
def draw(count, samples):
    return generate(MODEL, PARAMS, jax.random.key(2), LANGUAGE.prompts, SAMPLING, count, samples)


def generated(score=judge, config=PLAIN, times=1):
    drawn = draw(config.num_prompts * times, config.samples)
    return Generated(*drawn, score(drawn[0]))


@jax.jit
def log_probs(params, sequences):
    return token_log_probs(response_logits(MODEL, params, sequences), sequences, SAMPLING.temperature)


@functools.partial(rlx.jit, once=True, static_argnums=1)
def find(params, config, batch):
    penalty = loss_penalty(MODEL, OTHER, SAMPLING.temperature, config)
    settings = (SAMPLING.temperature, config.clip, config.clip_high, config.level, penalty)
    loss = lambda params, batch: grpo_loss(params, MODEL, *settings, batch)  # noqa: E731
    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch)
    return value, gradient["params"]["table"], metrics


def learnt(config, data=None, params=PARAMS):
    data = generated(config=config) if data is None else data
    batch, _ = group_batch(data, log_probs(OTHER, data.sequences), SAMPLING, config)
    return find(params, config, batch)


def close(x, y, **tolerance):
    np.testing.assert_allclose(x, y, **{"rtol": 1e-4, "atol": 1e-6} | tolerance)


def test_rloo_is_grpo_without_std_times_g_over_g_minus_1():
    mean, rloo = (dataclasses.replace(PLAIN, baseline=baseline) for baseline in ("mean", "leave_one_out"))
    close(learnt(rloo)[1], learnt(mean)[1] * 4 / 3)


def test_aggregations_coincide_where_all_responses_are_full():
    data = generated()
    full = data.sequences._replace(response_length=jnp.full(12, 4))
    data = data._replace(sequences=full, log_prob=log_probs(PARAMS, full))
    token = learnt(PLAIN, data)[1]
    for aggregation in ("sequence", "constant"):
        close(learnt(dataclasses.replace(PLAIN, aggregation=aggregation), data)[1], token)
    sums = learnt(dataclasses.replace(PLAIN, aggregation="sequence_sum"), data)[1]
    close(sums, 4 * token)
    assert np.abs(token).max() > 1e-3


def test_aggregations_differ_where_lengths_do():
    gradients = [learnt(dataclasses.replace(PLAIN, aggregation=a))[1] for a in ("token", "sequence", "constant")]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(gradients[i] - gradients[j]).max() > 1e-3


def test_gspo_is_grpo_for_responses_of_one_token():
    data = generated()
    short = data.sequences._replace(response_length=jnp.ones(12, jnp.int32))
    data = data._replace(sequences=short, log_prob=log_probs(PARAMS, short))
    levels = [dataclasses.replace(PLAIN, level=level) for level in ("token", "sequence", "sequence_token")]
    token, sequence, mixed = (learnt(level, data, OTHER)[1] for level in levels)
    close(sequence, token)
    close(mixed, token)
    longer = [learnt(level, None, OTHER)[1] for level in levels]
    assert np.abs(longer[0] - longer[1]).max() > 1e-3


def test_on_policy_the_loss_is_the_policy_gradient_and_the_ratio_one():
    data = generated()
    _, gradient, metrics = learnt(dataclasses.replace(PLAIN, aggregation="sequence_sum"), data)
    advantage = rlx.ops.group_advantage(data.score.reshape(3, 4)).reshape(-1)
    score = jax.grad(lambda p: jnp.sum(advantage * jnp.sum(log_probs(p, data.sequences), axis=1)) / 12)(PARAMS)
    close(gradient, -score["params"]["table"])
    assert metrics["clip_fraction"] == 0.0
    assert metrics["approx_kl"] < 1e-9


def test_equal_rewards_have_no_gradient():
    for name, preset in rlx.GRPO_PRESETS.items():
        config = dataclasses.replace(preset, num_prompts=3, samples=4, kl_coef=0.0, overlong_buffer=0)
        same = generated(lambda s: jnp.full(len(s.response), 0.7), config, max(config.dynamic_sampling, 1))
        assert not learnt(config, same)[1].any(), name


def test_the_penalty_pulls_to_the_reference_whatever_the_reward():
    """With equal rewards all that is left is the KL's gradient: its expectation is that of the exact one."""
    config = dataclasses.replace(PLAIN, num_prompts=1500, kl_coef=1.0, aggregation="sequence_sum")
    data = generated(lambda s: jnp.zeros(len(s.response)), config)
    exact = learnt(dataclasses.replace(config, kl_form="exact"), data)[1]
    for form in ("k2", "k3+", "ratio_k1", "ratio_k3"):
        found = learnt(dataclasses.replace(config, kl_form=form), data)[1]
        assert np.sum(found * exact) / np.linalg.norm(found) / np.linalg.norm(exact) > 0.95, form


def test_any_split_into_micro_batches_adds_up():
    data = generated()
    for aggregation in ("token", "sequence", "sequence_sum", "constant"):
        config = dataclasses.replace(PLAIN, aggregation=aggregation)
        batch, _ = group_batch(data, log_probs(OTHER, data.sequences), SAMPLING, config)
        whole = find(PARAMS, config, batch)[1]
        parts = [find(PARAMS, config, jax.tree.map(lambda x, i=i: x[3 * i : 3 * i + 3], batch))[1] for i in range(4)]
        close(sum(parts) / 4, whole)


def test_dynamic_sampling_keeps_groups_that_vary():
    config = dataclasses.replace(PLAIN, num_prompts=3, dynamic_sampling=2)
    data = generated(config=config, times=2)
    score = data.score.reshape(6, 4).at[jnp.array([0, 2])].set(1.0).reshape(-1)  # two of six are alike
    batch, metrics = group_batch(data._replace(score=score), log_probs(OTHER, data.sequences), SAMPLING, config)
    kept = jnp.array([1, 3, 4])[:, None] * 4 + jnp.arange(4)
    np.testing.assert_array_equal(batch.sequences.response, data.sequences.response[kept.reshape(-1)])
    assert metrics["effective_groups"] == pytest.approx(4 / 6)
    few = data.score.reshape(6, 4).at[:4].set(1.0).reshape(-1)
    batch, _ = group_batch(data._replace(score=few), log_probs(OTHER, data.sequences), SAMPLING, config)
    assert isinstance(batch, GRPOBatch)
    assert np.all(batch.weight.reshape(3, -1).sum(1)[:2] > 0)  # the two that vary
    assert not batch.weight.reshape(3, -1)[2].any()
    close(batch.weight.sum(), 12.0)  # the mean is over what is kept


def test_penalties_of_a_score():
    config = dataclasses.replace(PLAIN, missing_end_penalty=2.0, overlong_buffer=2, baseline="none")
    sequences = Sequences(
        jnp.zeros((4, 1), jnp.int32), jnp.ones(4, jnp.int32), jnp.ones((4, 4), jnp.int32), jnp.arange(1, 5)
    )
    sequences = sequences._replace(response=sequences.response.at[0, 0].set(0).at[2, 2].set(0))  # rows 0 and 2 end
    nothing = jnp.zeros((4, 4))
    config = dataclasses.replace(config, num_prompts=1)
    batch, _ = group_batch(Generated(sequences, nothing, jnp.zeros(4)), nothing, SAMPLING, config)
    close(batch.advantage, [0.0, -2.0, -0.5, -3.0])


def test_a_penalty_that_is_no_reverse_kl_warns():
    make = functools.partial(rlx.grpo, MODEL, LANGUAGE.prompts, judge, optax.sgd(1.0), SAMPLING)
    with pytest.warns(UserWarning, match="'k1' in the loss: its expected gradient is zero"):
        make(rlx.GRPOConfig(kl_form="k1"))
    with pytest.warns(UserWarning, match="forward KL"):
        make(rlx.GRPO_PRESETS["grpo"])
    make(dataclasses.replace(rlx.GRPO_PRESETS["grpo"], kl_coef=0.0))  # no penalty, no warning
    make(rlx.GRPO_PRESETS["rloo"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "samples=1, baseline='mean', scale='group': a group needs 2 or more"),
        ({"level": "word"}, "level='word': must be one of token, sequence, sequence_token"),
        ({"num_minibatches": 7}, "num_minibatches=7: responses must divide into minibatches"),
        ({"kl_coef": -1.0}, "kl_coef=-1.0: must be 0 or more"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        rlx.GRPOConfig(**changes)


def test_top_k_is_refused():
    with pytest.raises(ValueError, match="they are not the policy's"):
        rlx.grpo(MODEL, LANGUAGE.prompts, judge, optax.sgd(1.0), Sampling(4, 0, top_k=2), PLAIN)


class OnHost:
    """The same reward, in Python."""

    host = True

    def __init__(self, broken=False):
        self.broken = broken

    def __call__(self, sequences):
        assert isinstance(sequences.response, np.ndarray)
        score = [float(sum(row[:n] == 2) + 0.3 * sum(row[:n] == 3)) for row, n in zip(*sequences[2:], strict=True)]
        return [np.nan, *score[1:]] if self.broken else score


def test_a_reward_in_python_makes_the_same_step_in_two_programs():
    states = []
    for reward in (judge, OnHost()):
        algorithm = rlx.grpo(MODEL, LANGUAGE.prompts, reward, optax.adam(0.1), SAMPLING, PLAIN, PARAMS)
        assert algorithm.host == (reward is not judge)
        ((state, metrics),) = rlx.chunks(algorithm, algorithm.init(jax.random.key(0)), 2, every=2)
        states.append((state.learner, metrics))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), *states)
    broken = rlx.grpo(MODEL, LANGUAGE.prompts, OnHost(broken=True), optax.adam(0.1), SAMPLING, PLAIN, PARAMS)
    with pytest.raises(ValueError, match=r"shape \(12,\), 1 of it not finite: .* each of 12 responses"):
        broken.step(broken.init(jax.random.key(0)))


def test_one_program_vmaps_over_seeds_and_over_beta():
    def reward_of(beta, key):
        config = dataclasses.replace(PLAIN, kl_coef=beta, kl_form="k1", kl_where="reward", num_prompts=16)
        algorithm = rlx.grpo(MODEL, LANGUAGE.prompts, judge, optax.adam(0.1), SAMPLING, config, PARAMS)
        _, metrics = rlx.train(algorithm, key, 40)
        return metrics["episode_return"][-1], metrics["kl"][-1]

    grid = jax.vmap(jax.vmap(reward_of, (None, 0)), (0, None))
    score, kl = rlx.jit(grid, once=True)(jnp.array([0.1, 10.0]), jax.random.split(jax.random.key(0), 3))
    assert score.shape == kl.shape == (2, 3)
    assert np.all(score[0] > score[1] + 1.0)
    assert np.all(kl[0] > 1.0)
    assert np.all(np.abs(kl[1]) < 0.5)
