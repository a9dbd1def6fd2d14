"""What is PPO's own: the loss, the batch, the early stop, what a config refuses. Axes: T, B, N, M as in ppo.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.ppo import PPOBatch, fit_batch, make_batch, ppo_learn
from rlx.core.learn import init_learner
from rlx.core.normalize import init_moments, normalize, update_moments
from rlx.ops import Categorical
from rlx.types import Transition

KEY = jax.random.key(0)
ENV = rlx.envs.CartPole(max_steps=5)
NETWORK = rlx.nets.ActorCritic(rlx.nets.CategoricalHead(2), (4,))


def linear(params, observation):
    """A policy and a critic that numpy can follow: logits and value linear in the observation."""
    return Categorical(observation @ params["actor"]), observation @ params["critic"]


def ten_rows(seed=0):
    """Parameters and ten rows `[10, ...]`, ratios near 1 and far from it."""
    rng = np.random.default_rng(seed)
    params = {"actor": rng.normal(size=(3, 4)), "critic": rng.normal(size=3)}
    rows = PPOBatch(
        observation=rng.normal(size=(10, 3)),
        action=rng.integers(0, 4, 10),
        log_prob=np.zeros(10),
        value=rng.normal(size=10),
        advantage=rng.normal(size=10),
        target=rng.normal(size=10),
    )
    params, rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype == int else jnp.float32), (params, rows))
    near = linear(params, rows.observation)[0].log_prob(rows.action) + rng.uniform(-0.4, 0.4, 10)
    return params, rows._replace(log_prob=near)


@pytest.mark.parametrize("value_clip", [None, 0.3])
def test_loss_equals_a_slow_twin(value_clip):
    params, rows = ten_rows()
    loss, metrics = rlx.ppo_loss(params, linear, rows, 0.2, value_clip, 0.7, 0.05)

    policy, critic, entropy, kl, clipped = [], [], [], [], []
    for observation, action, old_log_prob, old_value, advantage, target in zip(*map(np.asarray, rows), strict=True):
        p = np.exp(observation @ np.asarray(params["actor"]))
        p /= p.sum()
        ratio = p[action] / np.exp(old_log_prob)
        policy.append(-min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage))
        value = observation @ np.asarray(params["critic"])
        bound = np.inf if value_clip is None else value_clip
        near = min(max(value, old_value - bound), old_value + bound)
        critic.append(0.5 * max((value - target) ** 2, (near - target) ** 2))
        entropy.append(-(p * np.log(p)).sum())
        kl.append(ratio - 1 - np.log(ratio))
        clipped.append(abs(ratio - 1) > 0.2)
    means = {"policy_loss": policy, "value_loss": critic, "entropy": entropy, "approx_kl": kl, "clip_fraction": clipped}
    for name, column in means.items():
        np.testing.assert_allclose(metrics[name], np.mean(column), rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(loss, np.mean(policy) + 0.7 * np.mean(critic) - 0.05 * np.mean(entropy), rtol=1e-4)
    assert 0 < np.mean(clipped) < 1


@pytest.mark.parametrize("block", [1024, 4])  # rows that the network takes at once: all, or those of 2 steps
@pytest.mark.parametrize(("env", "observation"), [(ENV, False), (rlx.envs.Pendulum(max_steps=5), True)])
def test_the_first_ratio_is_one(env, observation, block, monkeypatch):
    """The update sees what the policy saw when it acted, the running statistics included."""
    monkeypatch.setattr("rlx.core.on_policy.BLOCK", block)
    network = rlx.nets.actor_critic(env, (4,))
    algorithm = rlx.ppo(env, network, optax.adam(0.05), rlx.PPOConfig(2, 8, 1, 1, normalize_observation=observation))
    _, metrics = jax.jit(lambda key: rlx.train(algorithm, key, 3))(KEY)
    np.testing.assert_array_equal(metrics["clip_fraction"], 0)
    np.testing.assert_allclose(metrics["approx_kl"], 0, atol=1e-6)
    assert np.all(metrics["gradient_norm"] > 1e-3)


def test_the_batch_holds_what_the_acting_policy_saw(monkeypatch):
    """Normalised by the statistics from before the rollout, which then take it in for the next one."""
    seen = []
    monkeypatch.setattr("rlx.algorithms.ppo.fit_batch", lambda learner, batch, *_: seen.append(batch) or (learner, {}))
    algorithm = rlx.ppo(ENV, NETWORK, optax.sgd(0.0), rlx.PPOConfig(2, 8, 1, 1, normalize_observation=True))
    state = algorithm.init(KEY)
    after, _ = algorithm.step(state)
    first = normalize(state.observation_moments, state.rollout.observation)
    np.testing.assert_allclose(seen[0].observation[:2], first, rtol=1e-5)
    assert after.observation_moments.count == 1 + 2 + 16


def test_the_first_observation_reaches_the_network_normalised():
    """B16, B14: the statistics begin with the first observation, live in the state, and act uses them."""

    class Seen:
        def init(self, key, observation):
            return {"seen": observation}

        def apply(self, params, observation):
            return Categorical(observation[..., :2] * 1.0), observation[..., 0]

    algorithm = rlx.ppo(ENV, Seen(), optax.sgd(0.1), rlx.PPOConfig(2, 8, 1, 1, normalize_observation=True))
    state = algorithm.init(KEY)
    raw = state.rollout.observation
    moments = update_moments(init_moments((4,)), raw)
    np.testing.assert_allclose(state.learner.params["seen"], normalize(moments, raw), rtol=1e-5)
    two_faced = jnp.array([0.1, 0.2, 0.0, 0.0])
    shifted = state._replace(observation_moments=moments._replace(mean=jnp.array([-5.0, 5.0, 0.0, 0.0])))
    assert algorithm.act(state, None, two_faced) == 1
    assert algorithm.act(shifted, None, two_faced) == 0


@pytest.mark.parametrize("block", [1024, 4])  # rows that the network takes at once: all, or those of 2 steps
@pytest.mark.parametrize("flags", ["none", "terminated", "truncated", "both"])
def test_batch_bootstraps_from_the_true_successor(flags, block, monkeypatch):
    """B1, B2: V(true final observation) at a truncation, nothing at a termination, and never the next episode."""
    monkeypatch.setattr("rlx.core.on_policy.BLOCK", block)
    rng = np.random.default_rng(0)
    params, _ = ten_rows()
    observation = rng.normal(size=(6, 2, 3)).astype(np.float32)
    after = np.concatenate([observation[1:], rng.normal(size=(1, 2, 3)).astype(np.float32)])
    terminated, truncated = np.zeros((2, 6, 2), bool)
    terminated[2, 0] = terminated[4, 1] = flags in ("terminated", "both")
    truncated[2, 0] = truncated[5, 1] = flags in ("truncated", "both")
    done = terminated | truncated
    after[done] = rng.normal(size=(done.sum(), 3))  # the true ends; the rows that follow are new episodes'
    reward, action = rng.normal(size=(6, 2)).astype(np.float32), rng.integers(0, 4, (6, 2))
    batch = make_batch(params, linear, Transition(observation, action, reward, terminated, truncated, after), 0.9, 0.7)

    critic = np.asarray(params["critic"])
    advantage, following = np.zeros((6, 2)), np.zeros(2)
    for t in reversed(range(6)):
        future = np.where(terminated[t], 0.0, after[t] @ critic)
        delta = reward[t] + 0.9 * future - observation[t] @ critic
        following = advantage[t] = delta + np.where(done[t], 0.0, 0.9 * 0.7 * following)
    np.testing.assert_allclose(batch.advantage, advantage.ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch.value, (observation @ critic).ravel(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.target, (advantage + observation @ critic).ravel(), rtol=1e-4, atol=1e-5)
    log_prob = linear(params, observation)[0].log_prob(jnp.asarray(action))
    np.testing.assert_allclose(batch.log_prob, log_prob.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(batch.observation, observation.reshape(12, 3))


def fit(config, key=KEY, optimizer=None):
    optimizer = optimizer or optax.sgd(0.5)
    params, rows = ten_rows()
    rows = rows._replace(log_prob=linear(params, rows.observation)[0].log_prob(rows.action))
    return fit_batch(init_learner(params, optimizer), rows, key, linear, optimizer, config)


def test_early_stop_freezes_the_learner():
    """The step that would go beyond target_kl is not taken, nor any after it, optimiser's state included."""
    adam = optax.adam(0.05)
    (two, kl_two), (three, kl_three) = (fit(rlx.PPOConfig(1, 10, epochs, 1), optimizer=adam) for epochs in (2, 3))
    second = 2 * kl_two["approx_kl"]  # approx_kl of epoch 2, measured before its step; that of epoch 1 is 0
    third = 3 * kl_three["approx_kl"] - second
    assert 1e-6 < second < third
    stopped, _ = fit(rlx.PPOConfig(1, 10, 6, 1, target_kl=float(second + third) / 2), optimizer=adam)
    jax.tree.map(np.testing.assert_array_equal, stopped, two)  # epoch 3 found too much: two steps were taken
    free, _ = fit(rlx.PPOConfig(1, 10, 3, 1, target_kl=1e6), optimizer=adam)
    jax.tree.map(np.testing.assert_array_equal, free, three)


def test_another_key_is_another_order_of_minibatches():
    config = rlx.PPOConfig(1, 10, 1, 5)
    one, same, other = (fit(config, key)[0].params["actor"] for key in (KEY, KEY, jax.random.key(1)))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4


def test_advantages_are_normalised_per_minibatch():
    """Then neither their scale nor their mean matters; without it both do."""
    params, rows = ten_rows()
    optimizer = optax.sgd(0.5)
    for normal in (True, False):
        config = rlx.PPOConfig(1, 10, 1, 2, normalize_advantage=normal)
        scaled = rows._replace(advantage=7 * rows.advantage + 3)
        a, b = (
            fit_batch(init_learner(params, optimizer), r, KEY, linear, optimizer, config)[0] for r in (rows, scaled)
        )
        assert np.allclose(a.params["actor"], b.params["actor"], rtol=1e-3, atol=1e-4) is normal


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_envs", 0),
        ("num_steps", -1),
        ("num_epochs", 0),
        ("num_minibatches", 0),
        ("num_minibatches", 7),
        ("num_minibatches", 1024),
        ("discount", 1.1),
        ("discount", float("nan")),
        ("trace", -0.1),
        ("clip", 0.0),
        ("clip", float("inf")),
        ("value_clip", 0.0),
        ("value_coef", -1.0),
        ("entropy_coef", -0.1),
        ("target_kl", -0.1),
        ("target_kl", float("nan")),
        ("num_envs", 2.5),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"PPOConfig.*{field}"):
        rlx.PPOConfig(**{field: value})


def test_networks_with_mutable_collections_are_refused():
    import flax.linen as nn

    class Bad(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=True)(x)
            return Categorical(x[..., :2]), x[..., 0]

    with pytest.raises(ValueError, match="batch_stats"):
        rlx.ppo(ENV, Bad(), optax.sgd(0.1)).init(KEY)


@pytest.mark.slow
def test_floats_may_be_tracers():
    """A sweep over learning rate, clip and the rest in one program, equal to runs one by one."""

    def run(lr, clip, target_kl, key):
        config = rlx.PPOConfig(2, 8, 2, 2, clip=clip, target_kl=target_kl, value_clip=clip, entropy_coef=lr)
        return rlx.train(rlx.ppo(ENV, NETWORK, optax.adam(lr), config), key, 2)[0].learner.params

    grid = jnp.array([1e-3, 1e-2]), jnp.array([0.1, 0.3]), jnp.array([0.5, 1e-4]), jax.random.split(KEY, 2)
    together, one = jax.jit(jax.vmap(run))(*grid), jax.jit(run)
    for index, values in enumerate(zip(*grid, strict=True)):
        alone = one(*values)
        jax.tree.map(lambda x, y, i=index: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-5), together, alone)


@pytest.mark.slow
def test_over_gymnasium_in_chunks():
    """The host algorithm learns through the same functions, and its step donates what it is given."""
    env = rlx.envs.gymnasium("CartPole-v1", max_episode_steps=6)
    algorithm = rlx.ppo(env, NETWORK, optax.adam(1e-2), rlx.PPOConfig(2, 8, 2, 2, normalize_observation=True))
    assert algorithm.host
    state = algorithm.init(KEY)
    first = jax.tree.map(np.asarray, state.learner.params)
    rows = []
    for after, metrics in rlx.chunks(algorithm, state, 3, every=2):
        state = after
        rows.append(metrics)
    assert [len(row["loss"]) for row in rows] == [2, 1]
    twin = rlx.ppo(ENV, NETWORK, optax.adam(1e-2))
    _, names = jax.eval_shape(twin.step, jax.eval_shape(twin.init, KEY))
    assert rows[0].keys() == names.keys()
    assert all(np.all(np.isfinite(column)) for row in rows for column in row.values())
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), first, state.learner.params)
    assert all(jax.tree.leaves(changed))
    assert state.observation_moments.count == 1 + 2 + 3 * 16


def test_learning_touches_only_what_it_learns_from():
    """The rollout's place is passed on; statistics move after the update."""
    config = rlx.PPOConfig(2, 8, 1, 1, normalize_observation=True, normalize_reward=True)
    algorithm = rlx.ppo(ENV, NETWORK, optax.adam(1e-2), config)
    state = algorithm.init(KEY)
    rng = np.random.default_rng(0)
    observation = jnp.asarray(rng.normal(size=(8, 2, 4)), jnp.float32)
    action, flags = jnp.zeros((8, 2), jnp.int32), jnp.zeros((8, 2), bool)
    transitions = Transition(observation, action, jnp.full((8, 2), 3.0), flags, flags, observation)
    after, _ = ppo_learn(state, transitions, KEY, NETWORK.apply, optax.adam(1e-2), config)
    jax.tree.map(np.testing.assert_array_equal, after.rollout, state.rollout)
    expected = update_moments(state.observation_moments, observation)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), after.observation_moments, expected)
    np.testing.assert_allclose(after.reward_scaler.discounted, 3 * (1 - 0.99**8) / 0.01, rtol=1e-4)
