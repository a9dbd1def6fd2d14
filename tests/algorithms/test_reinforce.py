"""What is REINFORCE's own: returns, baselines, and how much noise each leaves. Axes: T, B as in reinforce.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import rlx
from rlx.algorithms.a2c import a2c_learn
from rlx.algorithms.reinforce import reinforce_learn
from rlx.envs import probes
from rlx.ops import Categorical
from rlx.types import Transition

KEY = jax.random.key(0)
T, B = 6, 3
BASELINES = ["none", "mean", "value"]


def linear(params, observation):
    """A policy and a critic that numpy can follow: logits and value linear in the observation."""
    return Categorical(observation @ params["actor"]), observation @ params["critic"]


def rows(seed=0):
    """Parameters, and a rollout `[T, B]`: a termination, a truncation, both at once, and tails that are cut off."""
    rng = np.random.default_rng(seed)
    params = {"actor": rng.normal(size=(3, 4)), "critic": rng.normal(size=3)}
    observation = rng.normal(size=(T, B, 3))
    after = np.concatenate([observation[1:], rng.normal(size=(1, B, 3))])
    terminated, truncated = np.zeros((2, T, B), bool)
    terminated[[2, 3], [0, 2]] = truncated[[3, 3], [1, 2]] = True
    done = terminated | truncated
    after[done] = rng.normal(size=(done.sum(), 3))
    action = rng.integers(0, 4, (T, B)).astype(np.int32)
    floats = observation, rng.normal(size=(T, B)), after
    observation, reward, after = (x.astype(np.float32) for x in floats)
    transitions = Transition(observation, action, reward, terminated, truncated, after)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params), transitions


def slow_returns(t, discount, beyond):
    """Each row looks ahead, reward by reward; `beyond[t, b]` stands for what nobody saw."""
    returns = np.zeros((T, B))
    for b in range(B):
        for start in range(T):
            weight = 1.0
            for i in range(start, T):
                returns[start, b] += weight * t.reward[i, b]
                weight *= discount
                if t.terminated[i, b]:
                    break
                if t.truncated[i, b] or i == T - 1:
                    returns[start, b] += weight * beyond[i, b]
                    break
    return returns


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("baseline", BASELINES)
def test_loss_equals_a_slow_twin(baseline, normalize):
    params, t = rows()
    loss, metrics = rlx.reinforce_loss(params, linear, t, 0.9, baseline, 0.5, 0.02, normalize)

    critic = np.asarray(params["critic"])
    value = t.observation @ critic
    if baseline == "value":
        returns = slow_returns(t, 0.9, t.next_observation @ critic)
    else:
        guess = 0.0
        for _ in range(300):  # the mean that agrees with itself, by going round
            returns = slow_returns(t, 0.9, np.full((T, B), guess))
            guess = returns.mean()
    advantage = returns - {"none": 0.0, "mean": returns.mean(), "value": value}[baseline]
    followed = advantage / np.sqrt(np.mean(advantage**2)) if normalize else advantage
    logits = t.observation @ np.asarray(params["actor"])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    policy = np.mean(-followed * np.take_along_axis(log_p, t.action[..., None], -1)[..., 0])
    entropy = np.mean(-(np.exp(log_p) * log_p).sum(-1))
    error = 0.5 * np.mean((value - returns) ** 2) if baseline == "value" else 0.0
    found = {"policy_loss": policy, "entropy": entropy, "value_loss": error, "mean_return": returns.mean()}
    for name, number in found.items():
        np.testing.assert_allclose(metrics[name], number, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(loss, policy + 0.5 * error - 0.02 * entropy, rtol=1e-4)


def test_each_baseline_is_another_gradient_and_only_value_moves_the_critic():
    params, t = rows()
    slopes = [
        jax.grad(lambda p, b=baseline: rlx.reinforce_loss(p, linear, t, 0.9, b, 0.5, 0.0, False)[0])(params)
        for baseline in BASELINES
    ]
    actors = np.stack([slope["actor"] for slope in slopes])
    assert min(np.abs(actors[i] - actors[i - 1]).max() for i in range(3)) > 1e-2
    assert [bool(np.any(slope["critic"])) for slope in slopes] == [False, False, True]


def one_step_gradients(num_rollouts):
    """Actors' gradients `[baselines, rollouts, parameters]` where the right value is known.

    Two states that pay 0 and 10, two actions of which the second pays 1 more; the policy is uniform.
    """
    params = {"actor": jnp.zeros((2, 2)), "critic": jnp.array([0.5, 10.5])}

    def gradients(key):
        state_key, action_key = jax.random.split(key)
        state = jax.random.bernoulli(state_key, 0.5, (8, 4)).astype(int)
        action = jax.random.bernoulli(action_key, 0.5, (8, 4)).astype(int)
        observation, ends = jax.nn.one_hot(state, 2), jnp.ones((8, 4), bool)
        t = Transition(observation, action, 10.0 * state + action, ends, ~ends, observation)
        slope = lambda b: jax.grad(lambda p: rlx.reinforce_loss(p, linear, t, 0.9, b, 0.0, 0.0, False)[0])(params)  # noqa: E731
        return jnp.stack([slope(baseline)["actor"].ravel() for baseline in BASELINES])

    return jnp.swapaxes(jax.jit(jax.vmap(gradients))(jax.random.split(KEY, num_rollouts)), 0, 1)


def test_a_better_baseline_leaves_less_noise_and_the_same_gradient():
    found = np.asarray(one_step_gradients(4000), np.float64)
    none, mean, value = found.var(axis=1).sum(axis=-1)
    assert none > 2 * mean > 20 * value
    exact = np.array([0.125, -0.125] * 2)  # by pencil: P(s) p(1) p(0) (10 s + 1 - 10 s), as a loss
    errors = np.sqrt(found.var(axis=1) / found.shape[1])
    share = np.array([1.0, 31 / 32, 1.0])[:, None]  # the mean holds the row's own return: 1 / N of it is lost
    np.testing.assert_array_less(np.abs(found.mean(axis=1) - share * exact), 5 * errors + 1e-6)


def test_with_a_learned_value_it_is_a2c_at_trace_one():
    shared = {"num_envs": B, "num_steps": T, "discount": 0.9, "entropy_coef": 0.02, "normalize_observation": True}
    env = rlx.envs.CartPole(max_steps=3)
    network, optimizer = rlx.nets.actor_critic(env, (8,)), optax.adam(1e-2)
    algorithm = rlx.reinforce(env, network, optimizer, rlx.ReinforceConfig(**shared))
    state = algorithm.init(KEY)
    sample = lambda params, key, observation: network.apply(params, observation)[0].sample(key)  # noqa: E731
    _, transitions, episodes = rlx.rollout(
        rlx.vectorize(env, B), sample, state.learner.params, state.rollout, jax.random.key(1), T
    )
    assert episodes["episodes"] > 0
    ours, _ = reinforce_learn(state, transitions, network.apply, optimizer, rlx.ReinforceConfig(**shared))
    twin = rlx.A2CConfig(trace=1.0, **shared)
    theirs, _ = a2c_learn(rlx.a2c(env, network, optimizer, twin).init(KEY), transitions, network.apply, optimizer, twin)
    ours, theirs = ravel_pytree(ours.learner.params)[0], ravel_pytree(theirs.learner.params)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(ours - ravel_pytree(state.learner.params)[0]).max() > 5e-3


@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_without_a_learned_value_the_clock_is_worth_ten_too(baseline):
    """B1: cut off after 10 steps by a limit and after 7 by the rollout, it still goes on for ever."""
    env = probes.Clock()
    config = rlx.ReinforceConfig(num_envs=4, num_steps=7, discount=0.9, baseline=baseline)
    algorithm = rlx.reinforce(env, rlx.nets.actor_critic(env, (4,)), optax.adam(1e-2), config)
    _, metrics = jax.jit(lambda key: rlx.train(algorithm, key, 5))(KEY)
    np.testing.assert_allclose(metrics["mean_return"], 10.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_envs", 0),
        ("num_steps", 1.5),
        ("discount", 1.1),
        ("baseline", "median"),
        ("value_coef", -1.0),
        ("entropy_coef", float("nan")),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"ReinforceConfig.*{field}"):
        rlx.ReinforceConfig(**{field: value})


@pytest.mark.slow
def test_over_gymnasium():
    env = rlx.envs.gymnasium("CartPole-v1", max_episode_steps=6)
    config = rlx.ReinforceConfig(2, 8, baseline="none")
    algorithm = rlx.reinforce(env, rlx.nets.actor_critic(env, (4,)), optax.adam(1e-2), config)
    state = algorithm.init(KEY)
    first = jax.tree.map(np.asarray, state.learner.params)
    ((state, metrics),) = rlx.chunks(algorithm, state, 3, every=3)
    assert algorithm.host
    assert metrics["episodes"].sum() > 0
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), first, state.learner.params)
    mlps = changed["params"]["mlps"]
    assert all(jax.tree.leaves(mlps["actor"]))
    assert not any(jax.tree.leaves(mlps["critic"]))  # nobody asked it
