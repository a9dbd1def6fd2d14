"""What is TRPO's own: a step stays in its region and pays, or is not taken. Axes: T, B, P as in trpo.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import rlx
from rlx.algorithms.trpo import advantages, move_actor
from rlx.types import Transition

KEY = jax.random.key(0)
ENV = rlx.envs.CartPole(max_steps=5)
CONFIG = rlx.TRPOConfig(num_envs=2, num_steps=8, critic_epochs=2, critic_minibatches=2)


@pytest.fixture
def nans():
    """Let NaNs happen, as they do outside the tests."""
    jax.config.update("jax_debug_nans", False)
    yield
    jax.config.update("jax_debug_nans", True)


def rows(env, seed=0, hidden=(4,)):
    """An actor, its parameters, and rows `[32, 4]`: observations, its own actions, advantages."""
    network = rlx.nets.actor(env, hidden)
    keys = jax.random.split(jax.random.key(seed), 4)
    observation = jax.random.normal(keys[0], (32, 4, *env.observation_space.shape))
    params = jax.tree.map(lambda x: x + 0.3, network.init(keys[1], observation))
    action = network.apply(params, observation).sample(keys[2])
    return network, params, observation, action, jax.random.normal(keys[3], (32, 4))


ENVS = [rlx.envs.CartPole(), rlx.envs.Pendulum()]


@pytest.mark.parametrize("env", ENVS, ids=["discrete", "continuous"])
@pytest.mark.parametrize("max_kl", [1e-4, 0.01, 0.5])
def test_a_step_stays_within_the_region_and_pays(env, max_kl):
    """Measured apart from the algorithm's own metrics; over seeds in one vmap, as `--seeds` does it."""
    config = dataclasses.replace(CONFIG, max_kl=max_kl)

    def one(seed):
        network, params, observation, action, advantage = rows(env, seed)
        moved, metrics = move_actor(params, network, observation, action, advantage, config)
        old, new = (network.apply(p, observation) for p in (params, moved))
        ratio = jnp.exp(new.log_prob(action) - old.log_prob(action))
        return metrics, jnp.mean(old.kl(new)), jnp.mean(ratio * advantage) - jnp.mean(advantage)

    metrics, kl, improvement = jax.jit(jax.vmap(one))(jnp.arange(8))
    np.testing.assert_array_equal(metrics["accepted"], 1)
    assert np.all(metrics["kl"] <= max_kl)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-3, atol=1e-7)
    assert np.all(metrics["surrogate_improvement"] > 0)
    np.testing.assert_allclose(metrics["surrogate_improvement"], improvement, rtol=1e-2, atol=1e-6)
    assert np.mean(kl) > 0.3 * max_kl  # and uses it


def test_the_step_is_the_damped_natural_gradient():
    """The switch `natural`: F^-1 g by a dense solve, scaled to the region; the line search only shortens it."""
    network, params, observation, action, advantage = rows(ENVS[0])
    flat, unravel = ravel_pytree(params)
    score = jax.jacobian(lambda p: network.apply(unravel(p), observation).log_prob(action).ravel())(flat)
    gradient = np.asarray(score.T @ advantage.ravel() / advantage.size, np.float64)
    probability = jax.nn.softmax(network.apply(params, observation).logits).reshape(-1, 2)
    logits = jax.jacobian(lambda p: network.apply(unravel(p), observation).logits.reshape(-1, 2))(flat)
    middle = jnp.eye(2) * probability[:, None] - probability[:, :, None] * probability[:, None]
    fisher = jnp.einsum("nap,nab,nbq->pq", logits, middle, logits) / len(probability)
    damped = np.asarray(fisher, np.float64) + 0.1 * np.eye(flat.size)
    direction = np.linalg.solve(damped, gradient)
    expected = np.sqrt(2 * 0.01 / (direction @ damped @ direction)) * direction

    natural = rlx.TRPOConfig(natural=True, cg_iterations=30, cg_tolerance=1e-6)
    moved, metrics = move_actor(params, network, observation, action, advantage, natural)
    np.testing.assert_allclose(ravel_pytree(moved)[0] - flat, expected, rtol=1e-2, atol=1e-5)
    assert metrics["accepted"] == 1
    searched, _ = move_actor(
        params, network, observation, action, advantage, dataclasses.replace(natural, natural=False)
    )
    step = np.asarray(ravel_pytree(searched)[0] - flat)
    share = step @ expected / (expected @ expected)
    assert np.isclose(np.log(share) / np.log(0.8) % 1, 0, atol=0.02) or np.isclose(share, 1, atol=1e-2)


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("fault", ["zero", "singular", "nan", "infinite"])
@pytest.mark.usefixtures("nans")
def test_without_a_safe_step_the_parameters_stay_bit_for_bit(fault, natural):
    network, params, observation, action, advantage = rows(ENVS[0])
    match fault:
        case "zero":
            advantage = jnp.zeros_like(advantage)
        case "singular":  # certain of every action: no gradient, no curvature, and no damping to help
            params = jax.tree.map(lambda x: 1e6 * x, params)
            action = network.apply(params, observation).mode()
        case "nan":
            advantage = advantage.at[3, 2].set(jnp.nan)
        case "infinite":
            observation = observation.at[3, 2].set(jnp.inf)
    config = rlx.TRPOConfig(natural=natural, damping=0.0)
    moved, metrics = jax.jit(move_actor, static_argnums=(1, 5))(params, network, observation, action, advantage, config)
    for before, after in zip(*map(jax.tree.leaves, (params, moved)), strict=True):
        assert np.asarray(before).tobytes() == np.asarray(after).tobytes()
    assert metrics["accepted"] == metrics["kl"] == metrics["surrogate_improvement"] == 0


def test_a_run_keeps_to_the_region_and_its_surrogate_grows():
    algorithm = make(CONFIG)
    _, metrics = jax.jit(lambda key: rlx.train(algorithm, key, 20))(KEY)
    assert np.all(metrics["kl"] <= CONFIG.max_kl)
    np.testing.assert_array_equal(metrics["surrogate_improvement"] > 0, metrics["accepted"] == 1)
    assert metrics["accepted"].mean() > 0.8


def make(config, env=ENV):
    return rlx.trpo(env, rlx.nets.actor(env, (4,)), rlx.nets.critic(env, (4,)), optax.adam(1e-2), config)


@pytest.mark.parametrize("flags", ["none", "terminated", "truncated", "both"])
def test_advantages_bootstrap_from_the_true_successor(flags):
    """B1, B2: V(true final observation) at a truncation, nothing at a termination, and never the next episode."""

    class Linear:
        def init(self, key, observation):
            return jnp.array([0.5, -1.0, 2.0])

        def apply(self, params, observation):
            return observation @ params

    rng = np.random.default_rng(0)
    observation = rng.normal(size=(6, 2, 3)).astype(np.float32)
    after = np.concatenate([observation[1:], rng.normal(size=(1, 2, 3)).astype(np.float32)])
    terminated, truncated = np.zeros((2, 6, 2), bool)
    terminated[2, 0] = terminated[4, 1] = flags in ("terminated", "both")
    truncated[2, 0] = truncated[5, 1] = flags in ("truncated", "both")
    done = terminated | truncated
    after[done] = rng.normal(size=(done.sum(), 3))
    reward = rng.normal(size=(6, 2)).astype(np.float32)
    params = Linear().init(KEY, None)
    row = Transition(observation, np.zeros((6, 2), int), reward, terminated, truncated, after)
    value, advantage = advantages(params, Linear(), row, 0.9, 0.7)

    expected, following, critic = np.zeros((6, 2)), np.zeros(2), np.asarray(params)
    for t in reversed(range(6)):
        delta = reward[t] + 0.9 * np.where(terminated[t], 0.0, after[t] @ critic) - observation[t] @ critic
        following = expected[t] = delta + np.where(done[t], 0.0, 0.9 * 0.7 * following)
    np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, observation @ critic, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_envs", 0),
        ("critic_minibatches", 7),
        ("critic_epochs", 0),
        ("cg_iterations", 0),
        ("line_search_tries", 0),
        ("line_search_shrink", 1.5),
        ("line_search_shrink", 0.0),
        ("max_kl", 0.0),
        ("damping", -0.1),
        ("cg_tolerance", float("nan")),
        ("discount", 1.1),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"TRPOConfig.*{field}"):
        rlx.TRPOConfig(**{field: value})


@pytest.mark.slow
def test_over_gymnasium():
    env = rlx.envs.gymnasium("CartPole-v1", max_episode_steps=6)
    algorithm = make(CONFIG, env)
    state = algorithm.init(KEY)
    first = jax.tree.map(np.asarray, (state.actor, state.critic.params))
    ((state, metrics),) = rlx.chunks(algorithm, state, 3, every=3)
    assert algorithm.host
    assert metrics["episodes"].sum() > 0
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), first, (state.actor, state.critic.params))
    assert all(jax.tree.leaves(changed))
