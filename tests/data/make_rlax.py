"""Makes rlax.json: what rlax gives for inputs drawn by numpy. Run it where rlax is installed; the tests need the file.

pip install rlax && python tests/data/make_rlax.py
"""

import json
from pathlib import Path

import jax
import numpy as np
import rlax

N, A, Q, T = 6, 3, 4, 9
rng = np.random.default_rng(0)
inputs = {
    "values": rng.normal(size=(N, A)),
    "next_values": rng.normal(size=(N, A)),
    "next_online": rng.normal(size=(N, A)),
    "quantiles": rng.normal(size=(N, A, Q)),
    "next_quantiles": rng.normal(size=(N, A, Q)),
    "action": rng.integers(0, A, N),
    "next_action": rng.integers(0, A, N),
    "reward": rng.normal(size=N),
    "terminated": rng.random(N) < 0.4,
    "probability": np.exp(rng.normal(size=(N, A))),
    "path_reward": rng.normal(size=T),
    "path_value": rng.normal(size=T + 1),
    "path_terminated": rng.random(T) < 0.3,
    "logits": rng.normal(size=(T, A)),
    "path_action": rng.integers(0, A, T),
    "advantage": rng.normal(size=T),
    "error": 3 * rng.normal(size=N),
}
inputs["probability"] /= inputs["probability"].sum(axis=1, keepdims=True)
x = {name: np.asarray(value, np.float32 if value.dtype == float else None) for name, value in inputs.items()}
discount, trace, delta = np.float32(0.9), np.float32(0.8), 0.5
weight = discount * (1 - x["terminated"])
tau = (np.arange(Q, dtype=np.float32) + 0.5) / Q
path_weight = discount * (1 - x["path_terminated"])
ratio = np.exp(x["error"] / 3)

found = {
    "q_learning_error": jax.vmap(rlax.q_learning)(x["values"], x["action"], x["reward"], weight, x["next_values"]),
    "double_q_learning_error": jax.vmap(rlax.double_q_learning)(
        x["values"], x["action"], x["reward"], weight, x["next_values"], x["next_online"]
    ),
    "sarsa_error": jax.vmap(rlax.sarsa)(
        x["values"], x["action"], x["reward"], weight, x["next_values"], x["next_action"]
    ),
    "expected_sarsa_error": jax.vmap(rlax.expected_sarsa)(
        x["values"], x["action"], x["reward"], weight, x["next_values"], x["probability"]
    ),
    "quantile_loss": jax.vmap(rlax.quantile_q_learning, in_axes=(0, None, 0, 0, 0, 0, 0, None))(
        np.swapaxes(x["quantiles"], 1, 2),
        tau,
        x["action"],
        x["reward"],
        weight,
        np.swapaxes(x["next_quantiles"], 1, 2),
        np.swapaxes(x["next_quantiles"], 1, 2),
        delta,
    ),
    "huber": rlax.huber_loss(x["error"], delta),
    "gae": rlax.truncated_generalized_advantage_estimation(x["path_reward"], path_weight, trace, x["path_value"]),
    "policy_gradient": rlax.policy_gradient_loss(x["logits"], x["path_action"], x["advantage"], np.ones(T, np.float32)),
    "clipped_surrogate": rlax.clipped_surrogate_pg_loss(ratio, x["advantage"][:N], 0.2),
}
found = {name: np.asarray(value).tolist() for name, value in found.items()}
versions = {"rlax": rlax.__version__, "jax": jax.__version__, "numpy": np.__version__}
constants = {"discount": 0.9, "trace": 0.8, "delta": delta, "clip": 0.2}
text = json.dumps(
    {"versions": versions, **constants, **{n: v.tolist() for n, v in x.items()}, "found": found}, indent=1
)
Path(__file__).with_name("rlax.json").write_text(text + "\n")
