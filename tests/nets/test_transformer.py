"""The transformer against a slow twin in numpy, and what it promises: sizes, causality, dtypes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.nets.transformer import Transformer, TransformerConfig, init_transformer, rotation

once = functools.partial(rlx.jit, once=True)  # what compiles sooner, as all here is small
TINY = TransformerConfig(vocabulary=11, width=16, layers=2, heads=4, kv_heads=2, hidden=24)
VARIANTS = {
    "plain": {},
    "one group a head": {"kv_heads": None},
    "free head": {"tied": False},
    "qwen2": {"qkv_bias": True, "tied": False, "rope_base": 1e6},
    "qwen3": {"qk_norm": True, "head_width": 6},
    "llama3": {"rope_scaling": (8.0, 1.0, 4.0, 4)},
}


def stirred(params):
    """Parameters none of which is 0 or 1, as trained ones: so that none can be left out unnoticed."""
    random = np.random.default_rng(7)
    return jax.tree.map(lambda x: x + 0.3 * random.normal(size=x.shape).astype(np.float32), jax.device_get(params))


def setting(head="logits", **changes):
    model = Transformer(dataclasses.replace(TINY, **changes), head)
    tokens = jax.random.randint(jax.random.key(1), (3, 9), 0, 11)
    return model, stirred(once(model.init)(jax.random.key(0), tokens)), tokens


def numpy_transformer(c, weights, tokens):
    """One row `[S]`, token by token and head by head, in float64: logits `[S, V]`."""
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), weights)
    norm = lambda x, gain: x / np.sqrt(np.mean(x**2) + c.norm_eps) * gain  # noqa: E731

    def turn(x, position):
        frequency = c.rope_base ** (-np.arange(0, c.head, 2) / c.head)
        if c.rope_scaling:
            factor, low, high, length = c.rope_scaling
            wavelength = 2 * np.pi / frequency
            smooth = (length / wavelength - low) / (high - low)
            between = (1 - smooth) * frequency / factor + smooth * frequency
            frequency = np.where(
                wavelength > length / low, frequency / factor, np.where(wavelength < length / high, frequency, between)
            )
        pairs = (x[: c.head // 2] + 1j * x[c.head // 2 :]) * np.exp(1j * position * frequency)
        return np.concatenate([pairs.real, pairs.imag])

    def split(x, heads, position=None, gain=None):
        out = x.reshape(heads, c.head)
        out = [norm(row, gain) if gain is not None else row for row in out]
        return [turn(row, position) if position is not None else row for row in out]

    xs = [w["embedding"][token] for token in tokens]
    for i in range(c.layers):
        p = {name: value[i] for name, value in w["layers"].items()}
        keys, values, after = [], [], []
        for position, x in enumerate(xs):
            y = norm(x, p["attention_norm"])
            q, k, v = (y @ p[name] + p.get(f"{name}_bias", 0.0) for name in ("query", "key", "value"))
            queries = split(q, c.heads, position, p.get("query_norm"))
            keys.append(split(k, c.groups, position, p.get("key_norm")))
            values.append(split(v, c.groups))
            attended = []
            for head, query in enumerate(queries):
                group = head * c.groups // c.heads
                scores = np.array([query @ key[group] for key in keys]) / np.sqrt(c.head)
                weights = np.exp(scores - scores.max())
                attended.append(sum(a * value[group] for a, value in zip(weights / weights.sum(), values, strict=True)))
            x = x + np.concatenate(attended) @ p["attention_out"]
            y = norm(x, p["ffn_norm"])
            gate = y @ p["gate"]
            after.append(x + (gate / (1 + np.exp(-gate)) * (y @ p["up"])) @ p["down"])
        xs = after
    out = w["embedding"].T if c.tied else w["unembedding"]
    return np.stack([norm(x, w["norm"]) @ out for x in xs])


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_logits_equal_the_slow_twins(changes):
    model, params, tokens = setting(**changes)
    logits = once(model.apply)(params, tokens)
    for row, found in zip(tokens, logits, strict=True):
        twin = numpy_transformer(model.config, params["params"]["transformer"], np.asarray(row))
        np.testing.assert_allclose(found, twin, rtol=2e-4, atol=2e-4)


def test_a_token_sees_nothing_of_what_follows():
    model, params, tokens = setting()
    apply = once(model.apply)
    logits, other = apply(params, tokens), apply(params, tokens.at[:, 5].add(1) % 11)
    np.testing.assert_array_equal(logits[:, :5], other[:, :5])
    assert np.all(np.abs(logits[:, 5:] - other[:, 5:]).max(-1) > 1e-3)


def test_remat_changes_nothing():
    model, params, tokens = setting()
    again = Transformer(dataclasses.replace(model.config, remat=True))
    gradient = lambda model: once(jax.grad(lambda p: jnp.sum(jnp.square(model.apply(p, tokens)))))(params)  # noqa: E731
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), gradient(model), gradient(again))


def test_bfloat16_computes_logits_in_float32():
    model, _, tokens = setting()
    half = Transformer(dataclasses.replace(model.config, dtype="bfloat16"))
    fresh = model.init(jax.random.key(0), tokens)
    exact, logits = once(model.apply)(fresh, tokens), once(half.apply)(fresh, tokens)
    assert logits.dtype == jnp.float32
    assert half.apply(fresh, tokens, method="features").dtype == jnp.bfloat16
    assert jax.tree.leaves(fresh)[0].dtype == jnp.float32
    assert 1e-5 < np.abs(exact - logits).max() < 0.1


def test_heads():
    model, params, tokens = setting("both")
    logits, score = model.apply(params, tokens)
    assert logits.shape == (3, 9, 11)
    assert score.shape == (3, 9)
    alone = Transformer(model.config, "score")
    np.testing.assert_array_equal(alone.apply(params, tokens), score)  # the same trunk and the same head
    zero = Transformer(model.config, "both", score_gain=0.0)
    assert not zero.apply(zero.init(jax.random.key(0), tokens), tokens)[1].any()
    with pytest.raises(ValueError, match="head='reward': use logits, score or both"):
        Transformer(model.config, "reward").init(jax.random.key(0), tokens)


def test_a_scorer_has_no_last_layer_of_its_own():
    model, _, tokens = setting(tied=False)
    assert "unembedding" in model.init(jax.random.key(0), tokens)["params"]["transformer"]
    scorer = Transformer(model.config, "score")
    assert "unembedding" not in scorer.init(jax.random.key(0), tokens)["params"]["transformer"]


@pytest.mark.parametrize(
    ("config", "least", "most"),
    [
        (TransformerConfig(32, width=16, layers=2, heads=2), 5e3, 2e4),
        (TransformerConfig(256, width=256, layers=4), 2.5e6, 4e6),
        (TransformerConfig(32_000, width=768, layers=12, heads=12), 9e7, 1.3e8),
    ],
)
def test_from_ten_thousand_to_a_hundred_million_parameters(config, least, most):
    assert least < config.parameter_count < most
    shapes = jax.eval_shape(lambda key: init_transformer(key, config), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == config.parameter_count


def test_first_logits_are_of_order_one_at_any_size():
    for width, layers in ((16, 2), (256, 4)):
        model = Transformer(TransformerConfig(64, width, layers))
        tokens = jax.random.randint(jax.random.key(1), (8, 16), 0, 64)
        draw = once(lambda key, model=model, tokens=tokens: model.apply(model.init(key, tokens), tokens))
        logits = draw(jax.random.key(0))
        assert 0.5 < logits.std() < 2.0


def test_the_rotation_keeps_distance_and_length():
    cos, sin = rotation(TINY, jnp.arange(5))
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, rtol=1e-6)
    np.testing.assert_allclose(cos[0], 1.0)
    np.testing.assert_allclose(jnp.arctan2(sin, cos)[1], 10_000.0 ** -np.array([0.0, 0.5]), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "heads=4: must be a multiple of kv_heads=3"),
        ({"width": 20}, "a head of width 5: must be even"),
        ({"layers": 0}, "layers=0: must be 1 or more"),
        ({"dtype": "int8"}, "dtype='int8': use float32 or bfloat16"),
    ],
)
def test_bad_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_gradients_reach_every_parameter():
    model, params, tokens = setting("both", qkv_bias=True, qk_norm=True, tied=False)
    gradient = once(jax.grad(lambda p: sum(jnp.sum(jnp.square(x)) for x in model.apply(p, tokens))))(params)
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(gradient))
    assert rlx.ops.Categorical(model.apply(params, tokens)[0]).entropy().shape == (3, 9)
