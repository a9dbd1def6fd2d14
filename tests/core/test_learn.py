"""Gradient steps by pencil; minibatches as permutations. Axes: N rows, M rows of a minibatch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import rlx

KEY = jax.random.key(0)


def test_gradient_step_by_pencil():
    def loss(params, scale):
        return scale * (jnp.square(params["a"]) + 2 * params["b"]).sum(), {"seen": params["a"].sum()}

    optimizer = optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(0.1))
    learner = rlx.init_learner({"a": jnp.array([1.0, -2.0]), "b": jnp.ones(2)}, optimizer)
    learner, metrics = rlx.gradient_step(loss, optimizer, learner, 3.0)
    # gradients a: 3 * 2a = [6, -12], b: [6, 6]
    np.testing.assert_allclose(learner.params["a"], [0.4, -0.8], rtol=1e-6)
    np.testing.assert_allclose(learner.params["b"], [0.4, 0.4], rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], np.sqrt(36 + 144 + 36 + 36), rtol=1e-6)
    assert (metrics["loss"], metrics["seen"]) == (27, -1)


def test_gradient_norm_is_from_before_clipping_and_steps_are_counted():
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    learner = rlx.init_learner(jnp.array([3.0, 4.0]), optimizer)
    for _ in range(2):
        learner, metrics = rlx.gradient_step(lambda x: (50 * jnp.square(x).sum(), {}), optimizer, learner)
    assert metrics["gradient_norm"] > 400
    assert optax.tree.get(learner.opt_state, "count") == 2


@pytest.mark.parametrize("num_rows", [24, 23])  # six blocks of 4; 23 has no divisors, and is taken whole
def test_means_by_blocks_are_those_of_all_rows(num_rows, monkeypatch):
    sizes = []

    def loss(params, scale, rows):
        sizes.append(rows["x"].shape[0])
        error = rows["x"] @ params - rows["y"]
        return scale * jnp.mean(jnp.square(error)), {"error": jnp.mean(error), "most": {"x": jnp.mean(rows["x"], 0)}}

    rows = {"x": jax.random.normal(KEY, (num_rows, 3)), "y": jnp.arange(1.0 * num_rows)}
    learner = rlx.init_learner(jnp.ones(3), optax.sgd(0.1))
    whole, expected = rlx.gradient_step(lambda params: loss(params, 2.0, rows), optax.sgd(0.1), learner)
    monkeypatch.setattr("rlx.core.learn.BLOCK", 5)
    sizes.clear()
    blocks, metrics = rlx.gradient_step(loss, optax.sgd(0.1), learner, 2.0, rows=rows)
    assert set(sizes) == {4 if num_rows == 24 else 23}
    np.testing.assert_allclose(blocks.params, whole.params, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), metrics, expected)


def test_means_by_blocks_are_summed_in_float32_and_are_of_floats(monkeypatch):
    monkeypatch.setattr("rlx.core.learn.BLOCK", 4)
    ones = jnp.ones((4096, 1), jnp.bfloat16)
    learner = rlx.init_learner(jnp.ones(1, jnp.bfloat16), optax.sgd(1.0))
    after, metrics = rlx.gradient_step(
        lambda params, rows: (jnp.mean(rows @ params), {}), optax.sgd(1.0), learner, rows=ones
    )
    assert (metrics["loss"], after.params[0], after.params.dtype) == (1, 0, jnp.bfloat16)
    with pytest.raises(TypeError, match="not int32"):
        rlx.gradient_step(
            lambda params, rows: (jnp.mean(rows @ params), {"count": jnp.int32(1)}), optax.sgd(1.0), learner, rows=ones
        )


def test_mutable_collections_are_refused():
    params = nn.BatchNorm(use_running_average=False).init(KEY, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="batch_stats"):
        rlx.init_learner(params, optax.sgd(0.1))


def test_each_epoch_visits_every_row_once_in_a_new_order():
    order = jax.jit(rlx.minibatches, static_argnums=(1, 2, 3))(KEY, 12, 5, 3)
    assert order.shape == (15, 4)
    assert order.dtype == jnp.int32
    epochs = np.array(order.reshape(5, 12))
    np.testing.assert_array_equal(np.sort(epochs), [np.arange(12)] * 5)
    assert len(np.unique(epochs, axis=0)) == 5
    assert not np.array_equal(order, rlx.minibatches(jax.random.key(1), 12, 5, 3))


def test_orders_are_uniform():
    """Each row is as often in each place, and the pair in the first two places is any."""
    order = np.array(rlx.minibatches(KEY, 5, 4000, 1))  # [4000, 5]
    for place in order.T:
        assert scipy.stats.chisquare(np.bincount(place, minlength=5)).pvalue > 0.001
    pairs = np.bincount(5 * order[:, 0] + order[:, 1], minlength=25).reshape(5, 5)
    assert scipy.stats.chisquare(pairs[~np.eye(5, dtype=bool)]).pvalue > 0.001


def test_minibatches_under_vmap_equal_a_loop():
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: rlx.minibatches(key, 8, 2, 2))(keys)
    np.testing.assert_array_equal(together, [rlx.minibatches(key, 8, 2, 2) for key in keys])


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="10 rows do not divide into 3"):
        rlx.minibatches(KEY, 10, 1, 3)
