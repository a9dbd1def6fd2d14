"""What is A2C's own: the loss, and that PPO with one epoch and one minibatch is it. Axes: T, B as in a2c.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.a2c import a2c_learn
from rlx.algorithms.ppo import ppo_learn
from rlx.ops import Categorical
from rlx.types import Transition

KEY = jax.random.key(0)
T, B = 6, 2


def linear(params, observation):
    """A policy and a critic that numpy can follow: logits and value linear in the observation."""
    return Categorical(observation @ params["actor"]), observation @ params["critic"]


def rows(seed=0):
    """Parameters, and a rollout `[T, B]` with each pair of flags; where an episode ends, its true last observation."""
    rng = np.random.default_rng(seed)
    params = {"actor": rng.normal(size=(3, 4)), "critic": rng.normal(size=3)}
    observation = rng.normal(size=(T, B, 3))
    after = np.concatenate([observation[1:], rng.normal(size=(1, B, 3))])
    terminated, truncated = np.zeros((2, T, B), bool)
    terminated[[2, 3], [0, 1]] = truncated[[3, 4], [1, 0]] = True
    done = terminated | truncated
    after[done] = rng.normal(size=(done.sum(), 3))
    transitions = Transition(
        observation, rng.integers(0, 4, (T, B)), rng.normal(size=(T, B)), terminated, truncated, after
    )
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32 if x.dtype == float else x.dtype.name.replace("64", "32")),
        (params, transitions),
    )


def slow_loss(params, transitions, discount, trace, value_coef, entropy_coef, normalize):
    """Row by row, from the last to the first."""
    params, t = jax.tree.map(np.asarray, (params, transitions))
    advantage, following = np.zeros((T, B)), np.zeros(B)
    for i in reversed(range(T)):
        for b in range(B):
            future = 0.0 if t.terminated[i, b] else t.next_observation[i, b] @ params["critic"]
            delta = t.reward[i, b] + discount * future - t.observation[i, b] @ params["critic"]
            cut = t.terminated[i, b] or t.truncated[i, b]
            following[b] = advantage[i, b] = delta + (0.0 if cut else discount * trace * following[b])
    scaled = (advantage - advantage.mean()) / advantage.std() if normalize else advantage
    policy, value, entropy = [], [], []
    for i in range(T):
        for b in range(B):
            p = np.exp(t.observation[i, b] @ params["actor"])
            p /= p.sum()
            policy.append(-scaled[i, b] * np.log(p[t.action[i, b]]))
            value.append(0.5 * advantage[i, b] ** 2)  # the target is A + V
            entropy.append(-(p * np.log(p)).sum())
    means = {"policy_loss": np.mean(policy), "value_loss": np.mean(value), "entropy": np.mean(entropy)}
    return means["policy_loss"] + value_coef * means["value_loss"] - entropy_coef * means["entropy"], means


@pytest.mark.parametrize("normalize", [False, True])
def test_loss_equals_a_slow_twin(normalize):
    """B1 and B2 too: nothing after a termination, the true successor after a truncation."""
    params, transitions = rows()
    settings = (0.9, 0.7, 0.5, 0.02, normalize)
    loss, metrics = rlx.a2c_loss(params, linear, transitions, *settings)
    expected, means = slow_loss(params, transitions, *settings)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for name, mean in means.items():
        np.testing.assert_allclose(metrics[name], mean, rtol=1e-4, err_msg=name)


def test_targets_have_no_gradient():
    """The critic moves towards its targets, which stand still: -A at each row, and nothing through V(s_{t+1})."""
    params, transitions = rows()
    slope = jax.grad(lambda p: rlx.a2c_loss(p, linear, transitions, 0.9, 0.7, 1.0, 0.0, False)[0])(params)
    _, values = linear(params, transitions.observation)
    _, following = linear(params, transitions.next_observation)
    advantage = rlx.ops.gae(
        transitions.reward, values, following, transitions.terminated, transitions.truncated, 0.9, 0.7
    )
    np.testing.assert_allclose(
        slope["critic"], jnp.mean(-advantage[..., None] * transitions.observation, (0, 1)), rtol=1e-4
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_a2c_is_ppo_with_one_epoch_and_one_minibatch(normalize):
    """The same rollout through both: parameters, optimiser's state, statistics of observations and rewards alike."""
    shared = {"num_envs": B, "num_steps": T, "discount": 0.9, "trace": 0.8, "entropy_coef": 0.02}
    shared |= dict.fromkeys(("normalize_advantage", "normalize_observation", "normalize_reward"), normalize)
    env = rlx.envs.CartPole(max_steps=3)
    network, optimizer = rlx.nets.actor_critic(env, (8,)), optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))
    one = rlx.PPOConfig(num_epochs=1, num_minibatches=1, **shared)
    state = rlx.ppo(env, network, optimizer, one).init(KEY)
    mine = rlx.a2c(env, network, optimizer, rlx.A2CConfig(**shared)).init(KEY)
    jax.tree.map(np.testing.assert_array_equal, mine.learner, state.learner)  # one key, one beginning
    sample = lambda params, key, observation: network.apply(params, observation)[0].sample(key)  # noqa: E731
    _, transitions, episodes = rlx.rollout(
        rlx.vectorize(env, B), sample, state.learner.params, state.rollout, jax.random.key(1), T
    )
    assert episodes["episodes"] > 0
    theirs, _ = ppo_learn(state, transitions, jax.random.key(2), network.apply, optimizer, one)
    ours, _ = a2c_learn(mine, transitions, network.apply, optimizer, rlx.A2CConfig(**shared))
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)  # noqa: E731  PPO shuffles its rows
    jax.tree.map(close, ours.learner, theirs.learner)
    jax.tree.map(close, ours[3:], theirs[3:])
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), ours.learner.params, state.learner.params)
    assert max(jax.tree.leaves(moved)) > 5e-3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_envs", 0),
        ("num_steps", 1.5),
        ("discount", 1.1),
        ("trace", -0.1),
        ("value_coef", -1.0),
        ("entropy_coef", float("nan")),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"A2CConfig.*{field}"):
        rlx.A2CConfig(**{field: value})


def test_a_single_row_cannot_be_normalised():
    with pytest.raises(ValueError, match="single row"):
        rlx.A2CConfig(num_envs=1, num_steps=1, normalize_advantage=True)
    rlx.A2CConfig(num_envs=1, num_steps=1)


@pytest.mark.slow
def test_over_gymnasium():
    env = rlx.envs.gymnasium("CartPole-v1", max_episode_steps=6)
    algorithm = rlx.a2c(env, rlx.nets.actor_critic(env, (4,)), optax.adam(1e-2), rlx.A2CConfig(2, 8))
    state = algorithm.init(KEY)
    first = jax.tree.map(np.asarray, state.learner.params)
    ((state, metrics),) = rlx.chunks(algorithm, state, 3, every=3)
    assert algorithm.host
    assert metrics["episodes"].sum() > 0
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), first, state.learner.params)
    assert all(jax.tree.leaves(changed))
