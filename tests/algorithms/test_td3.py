"""TD3's losses by hand, what its delay and its noises do, and DDPG as a setting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.td3 import td3_learn
from rlx.core.replay import Batch

KEY = jax.random.key(0)
CONFIG = rlx.TD3Config(num_envs=2, num_steps=3, batch_size=4, prefill=4, replay_size=20)
BATCH = Batch(
    observation=jnp.array([1.0, 2.0, 3.0]),
    action=jnp.array([[0.5], [-0.5], [0.0]]),
    reward=jnp.array([1.0, 0.0, 2.0]),
    terminated=jnp.array([False, True, False]),
    next_observation=jnp.array([2.0, 1.0, 4.0]),
    discount=jnp.array([0.5, 0.5, 0.25]),
)


def linear(params, observation):
    """Actions `[N, 1]` in proportion to the observation."""
    return params * observation[:, None]


def products(params, observation, action):
    """Two critics `[2, N]`: one likes the action, one the observation."""
    return jnp.stack([params[0] * action[:, 0], params[1] * observation])


def test_target_by_hand():
    """pi(s') = 0.2 s' = 0.4, 0.2, 0.8; with the noise 0.5, 0, 1 (clipped); Q_1 = 10 a, Q_2 = 2 s'."""
    noise = jnp.array([[0.1], [-0.2], [0.5]])
    target = rlx.td3_target((0.2, jnp.array([10.0, 2.0])), linear, products, BATCH, noise)
    np.testing.assert_allclose(target, [1 + 0.5 * min(5.0, 4.0), 0.0, 2 + 0.25 * min(10.0, 8.0)], rtol=1e-6)


def test_losses_by_hand():
    params, target = jnp.array([10.0, 2.0]), jnp.array([3.0, 0.0, 4.0])
    errors = np.array([[3 - 5, 0 + 5, 4 - 0], [3 - 2, 0 - 4, 4 - 6]], float)
    loss, metrics = rlx.td3_critic_loss(params, products, BATCH, target)
    np.testing.assert_allclose(loss, 0.5 * (errors**2).mean(axis=1).sum())
    np.testing.assert_allclose(metrics["q_value"], np.mean([5, -5, 0, 2, 4, 6]))
    loss, slope = jax.value_and_grad(lambda x: rlx.td3_actor_loss(x, linear, params, products, BATCH.observation)[0])(
        0.2
    )
    np.testing.assert_allclose([loss, slope], [-10 * 0.2 * 2, -10 * 2], rtol=1e-6)  # by the first critic alone


def pendulum(optimizer, **changes):
    """A TD3 on Pendulum, its networks, and its first state with target networks of zeros."""
    env = rlx.envs.Pendulum()
    networks = rlx.nets.deterministic_actor(env, (8,)), rlx.nets.q_critic(env, (8,))
    algorithm = rlx.td3(env, *networks, optimizer, dataclasses.replace(CONFIG, **changes))
    state = rlx.jit(algorithm.init, once=True)(KEY)
    return algorithm, networks, state._replace(target_params=jax.tree.map(jnp.zeros_like, state.target_params))


@pytest.mark.parametrize(("delay", "steps", "moves"), [(1, 2, 2), (2, 5, 2), (4, 3, 0)])
def test_actor_and_targets_move_every_so_many_gradient_steps(delay, steps, moves):
    """B8, by the count of gradient steps. The optimiser adds 1 to everything, whatever the gradient."""
    count = optax.stateless(lambda updates, _: jax.tree.map(jnp.ones_like, updates))
    algorithm, _, state = pendulum(count, policy_delay=delay, gradient_steps=steps, tau=1.0)
    after, _ = rlx.jit(algorithm.step, once=True)(state)
    assert after.updates == steps

    def moved(before, now, by):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(y - x, by, atol=1e-5), before, now)

    moved(state.actor.params, after.actor.params, moves)
    moved(state.critic.params, after.critic.params, steps)
    if moves:
        last = steps - steps % delay  # after which tau 1 made a copy
        moved(state.critic.params, after.target_params[1], last)
        moved(state.actor.params, after.target_params[0], moves)
    else:
        moved(state.target_params, after.target_params, 0)


def test_exploration_is_normal_around_the_greedy_action():
    algorithm, _, state = pendulum(optax.sgd(0.0), exploration_noise=0.3)
    observation = jnp.ones((20_000, 3))
    greedy = algorithm.act(state, None, observation)
    noise = algorithm.act(state, KEY, observation) - greedy
    np.testing.assert_allclose([noise.mean(), noise.std()], [0.0, 0.3], atol=0.01)
    assert np.abs(greedy + noise).max() <= 1


def test_the_learn_function_stands_alone():
    """A researcher's own loop: rows from anywhere, `td3_learn` on them."""
    _, networks, state = pendulum(optax.sgd(0.1))
    rows = jax.tree.map(lambda x: x[:2], state.replay.rows)
    applies = [network.apply for network in networks]
    after, metrics = rlx.jit(lambda: td3_learn(state, rows, KEY, *applies, optax.sgd(0.1), CONFIG), once=True)()
    assert after.replay.size == 4
    assert np.isfinite(metrics["critic_loss"])


def test_over_a_host_environment():
    env = rlx.envs.gymnasium("Pendulum-v1")
    networks = rlx.nets.deterministic_actor(env, (8,)), rlx.nets.q_critic(env, (8,), critics=1)
    algorithm = rlx.td3(env, *networks, optax.adam(1e-3), CONFIG)
    for _, metrics in rlx.chunks(algorithm, algorithm.init(KEY), 4, 2):
        assert np.all(np.isfinite(metrics["critic_loss"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 3}, "multiple of num_envs"),
        ({"target_noise": -0.1}, "must not be negative"),
        ({"target_noise_clip": 0.0}, "above 0"),
        ({"policy_delay": 0}, "integer above 0"),
    ],
)
def test_bad_configs_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        rlx.TD3Config(**changes)
    with pytest.raises(ValueError, match="use a bounded Box"):
        rlx.td3(rlx.envs.CartPole(), None, None, optax.sgd(0.1))
