"""The maths beside rlax's, whose numbers are in tests/data/rlax.json (made by make_rlax.py there)."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import ops


@pytest.fixture(scope="module")
def x():
    data = json.loads((Path(__file__).parents[1] / "data" / "rlax.json").read_text())
    return {name: jnp.array(value) if isinstance(value, list) else value for name, value in data.items()}


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "choose"),
    [
        ("q_learning_error", lambda x: jnp.argmax(x["next_values"], axis=-1)),
        ("double_q_learning_error", lambda x: jnp.argmax(x["next_online"], axis=-1)),
        ("sarsa_error", lambda x: x["next_action"]),
    ],
)
def test_td_errors(x, name, choose):
    following = ops.select_action(x["next_values"], choose(x))
    target = ops.td_target(x["reward"], x["terminated"], following, x["discount"])
    close(target - ops.select_action(x["values"], x["action"]), x["found"][name])


def test_expected_sarsa(x):
    following = (x["probability"] * x["next_values"]).sum(axis=-1)
    target = ops.td_target(x["reward"], x["terminated"], following, x["discount"])
    close(target - ops.select_action(x["values"], x["action"]), x["found"]["expected_sarsa_error"])


def test_quantile_regression(x):
    values, next_values = ops.Quantiles(x["quantiles"]), ops.Quantiles(x["next_quantiles"])
    following = ops.select_action(next_values, jnp.argmax(ops.mean_values(next_values), axis=-1))
    target = ops.td_target(x["reward"], x["terminated"], following, x["discount"])
    loss = ops.quantile_huber(ops.select_action(values, x["action"]), target, x["delta"])
    close(loss, x["found"]["quantile_loss"])


def test_huber(x):
    close(ops.huber(x["error"], x["delta"]), x["found"]["huber"])


def test_gae(x):
    value = x["path_value"]
    never = jnp.zeros(9, bool)
    ours = ops.gae(x["path_reward"], value[:-1], value[1:], x["path_terminated"], never, x["discount"], x["trace"])
    close(ours, x["found"]["gae"])


def test_policy_gradient(x):
    log_prob = ops.Categorical(x["logits"]).log_prob(x["path_action"])
    close(-(log_prob * x["advantage"]).mean(), x["found"]["policy_gradient"])


def test_clipped_surrogate(x):
    log_ratio = x["error"] / 3
    loss = ops.clipped_surrogate(log_ratio, jnp.zeros(6), x["advantage"][:6], x["clip"])
    close(loss.mean(), x["found"]["clipped_surrogate"])
