"""Best-of-n as an algorithm: its sums against every subset of the pools, and what it picks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.algorithms.best_of_n import BestOfNConfig, best_of_n
from rlx.lm.generate_and_learn import generate
from rlx.lm.sequences import Prompts, Sampling
from rlx.nets.transformer import Transformer, TransformerConfig

MODEL = Transformer(TransformerConfig(6, width=8, layers=1, heads=2))
SAMPLING, CONFIG = Sampling(3, 5), BestOfNConfig(num_prompts=2, samples=4)
PROMPTS = Prompts(jnp.array([[0, 1], [2, 0], [3, 3]]), jnp.array([2, 1, 2]))


def proxy(sequences):
    return 0.1 * sequences.response[:, 0] + 0.01 * sequences.response[:, -1]


def gold(sequences):
    return jnp.cos(3.0 * sequences.response[:, 1])


@pytest.fixture(scope="module")
def case():
    params = MODEL.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return params, best_of_n(MODEL, PROMPTS, proxy, gold, SAMPLING, CONFIG, params)


def test_step_is_the_mean_over_all_subsets(case):
    params, algorithm = case
    state = algorithm.init(jax.random.key(1))
    sequences, _ = generate(MODEL, params, jax.random.split(state.key)[1], PROMPTS, SAMPLING, 2, 4)
    first, metrics = jax.jit(algorithm.step)(state)
    scores, worth = (np.asarray(f(sequences), float).reshape(2, 4) for f in (proxy, gold))
    for k, n in enumerate(CONFIG.ns):
        proxies, golds = [], []
        for row, value in zip(scores, worth, strict=True):
            subsets = [list(subset) for subset in itertools.combinations(range(4), n)]
            best = [row[s].max() for s in subsets]
            proxies.append(np.mean(best))
            golds.append(np.mean([value[s][np.isclose(row[s], row[s].max())].mean() for s in subsets]))
        np.testing.assert_allclose(metrics[f"proxy_{n}"], np.mean(proxies), rtol=1e-5)
        np.testing.assert_allclose(first.proxy[k], np.sum(proxies), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"gold_{n}"], np.mean(golds), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(first.gold_square[k], np.sum(np.square(golds)), rtol=1e-4, atol=1e-5)


def test_sums_go_on(case):
    _, algorithm = case
    step = jax.jit(algorithm.step)
    state, total = algorithm.init(jax.random.key(2)), 0.0
    for _ in range(3):
        state, metrics = step(state)
        total += 2 * float(metrics["gold_2"])
    assert state.prompts == 6
    assert state.gold[1] == pytest.approx(total, rel=1e-5)


def test_act_is_no_worse_by_the_proxy_than_any_draw(case):
    _, algorithm = case
    response = algorithm.act(algorithm.init(jax.random.key(3)), jax.random.key(4), PROMPTS)
    assert response.shape == (3, 3)
    one = best_of_n(MODEL, PROMPTS, lambda s: -proxy(s), gold, SAMPLING, CONFIG, case[0])
    worst = one.act(one.init(jax.random.key(3)), jax.random.key(4), PROMPTS)  # of the same pools
    assert (0.1 * response[:, 0] + 0.01 * response[:, 2] >= 0.1 * worst[:, 0] + 0.01 * worst[:, 2]).all()
    assert not np.array_equal(response, worst)


def test_ns():
    assert BestOfNConfig(samples=6).ns == (1, 2, 4, 6)
    assert BestOfNConfig(samples=8).ns == (1, 2, 4, 8)
    assert BestOfNConfig(samples=2).ns == (1, 2)
    with pytest.raises(ValueError, match="samples=1"):
        BestOfNConfig(samples=1)
    with pytest.raises(ValueError, match="top-k"):
        best_of_n(MODEL, PROMPTS, proxy, gold, Sampling(3, 5, top_k=2), CONFIG, {})
