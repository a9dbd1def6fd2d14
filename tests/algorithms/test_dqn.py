"""DQN's loss by hand, its schedules, and what its switches do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.dqn import dqn_learn, epsilon_at
from rlx.core.replay import Batch

KEY = jax.random.key(0)
CONFIG = rlx.DQNConfig(num_envs=2, num_steps=3, batch_size=4, prefill=4, replay_size=20, epsilon_steps=100)


def table(params, observation):
    """Values `[N, A]` from a table `[S, A]`."""
    return params[observation]


BATCH = Batch(
    observation=jnp.array([0, 0, 1]),
    action=jnp.array([0, 1, 1]),
    reward=jnp.array([1.0, 0.0, 2.0]),
    terminated=jnp.array([False, True, False]),
    next_observation=jnp.array([1, 1, 0]),
    discount=jnp.array([0.5, 0.5, 0.25]),
)
ONLINE, TARGET = jnp.array([[1.0, 2.0], [4.0, 3.0]]), jnp.array([[0.0, 6.0], [2.0, 8.0]])


@pytest.mark.parametrize(
    ("double", "targets"),
    [(False, [1 + 0.5 * 8, 0.0, 2 + 0.25 * 6]), (True, [1 + 0.5 * 2, 0.0, 2 + 0.25 * 6])],
)
def test_loss_by_hand(double, targets):
    """The online table chooses action 0 in state 1, where the target table has its larger value at action 1."""
    weight = jnp.array([1.0, 1.0, 2.0])
    loss, metrics = rlx.dqn_loss(ONLINE, TARGET, table, BATCH, weight, double, None)
    errors = np.array(targets) - [1.0, 2.0, 3.0]
    np.testing.assert_allclose(metrics["td_error"], errors)
    np.testing.assert_allclose(loss, np.mean(weight * 0.5 * errors**2))
    np.testing.assert_allclose(metrics["q_value"], 2.0)
    gradient = jax.grad(lambda params: rlx.dqn_loss(params, TARGET, table, BATCH, weight, double, None)[0])(ONLINE)
    expected = np.zeros((2, 2))
    expected[[0, 0, 1], [0, 1, 1]] = -weight * errors / 3
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_epsilon_falls_in_a_straight_line():
    config = rlx.DQNConfig(epsilon_start=1.0, epsilon_end=0.2, epsilon_steps=100)
    steps = jnp.array([0, 50, 100, 1000])
    np.testing.assert_allclose(epsilon_at(steps, config), [1.0, 0.6, 0.2, 0.2], rtol=1e-6)


def learnt(steps, **changes):
    """A DQN on CartPole and its state after some gradient steps on one more rollout."""
    config = dataclasses.replace(CONFIG, **changes)
    env = rlx.make("CartPole-v1")
    network, optimizer = rlx.nets.q_network(env, (8,)), optax.sgd(0.1)
    algorithm = rlx.dqn(env, network, optimizer, dataclasses.replace(config, gradient_steps=steps))
    state = algorithm.init(KEY)
    before = jax.tree.map(jnp.copy, state)
    return before, algorithm.step(state)[0]


def test_a_hard_target_is_a_copy_every_so_many_gradient_steps():
    """B8: it is due by the count of gradient steps, whatever their number in a round."""
    before, after = learnt(3, target_every=4)
    jax.tree.map(np.testing.assert_array_equal, after.target_params, before.learner.params)
    before, after = learnt(4, target_every=4)
    jax.tree.map(np.testing.assert_array_equal, after.target_params, after.learner.params)
    assert after.updates == 4


def test_a_polyak_target_moves_by_tau_at_every_gradient_step():
    before, after = learnt(1, target_every=1, tau=0.25)
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before.target_params, after.learner.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), after.target_params, expected)


def test_prefill_and_rollouts_are_in_the_replay_in_order():
    before, after = learnt(1)
    assert (int(before.replay.size), int(after.replay.size)) == (2, 5)
    held = jax.tree.map(lambda x: x[:2], before.replay.rows)
    jax.tree.map(np.testing.assert_array_equal, held, jax.tree.map(lambda x: x[:2], after.replay.rows))
    rows = after.replay.rows
    goes_on = ~(rows.terminated | rows.truncated)[:4]
    np.testing.assert_array_equal(rows.next_observation[:4][goes_on], rows.observation[1:5][goes_on])
    np.testing.assert_array_equal(after.replay.rows.next_observation[4], after.rollout.observation)
    assert after.env_steps == 6


def test_all_learning_seeds_differ():
    """B5: a key that is replaced by a constant makes all vmapped seeds one run."""
    env = rlx.make("CartPole-v1")
    algorithm = rlx.dqn(env, rlx.nets.q_network(env, (8,)), optax.adam(1e-3), CONFIG)
    states, _ = jax.jit(jax.vmap(lambda key: rlx.train(algorithm, key, 2)))(jax.random.split(KEY, 3))
    rows = [np.ravel(states.replay.rows.observation[seed]) for seed in range(3)]
    kernels = [np.ravel(states.learner.params["params"]["mlps"]["values"]["0"]["kernel"][seed]) for seed in range(3)]
    assert len({x.tobytes() for x in rows}) == len({x.tobytes() for x in kernels}) == 3


def test_priorities_are_the_errors_of_the_rows_that_were_learnt():
    env = rlx.make("CartPole-v1")
    config = rlx.DQNConfig(
        num_envs=1, num_steps=1, batch_size=256, prefill=7, replay_size=8, priority_exponent=0.5, epsilon_steps=10
    )
    network = rlx.nets.q_network(env, (8,))
    algorithm = rlx.dqn(env, network, optax.sgd(0.0), config)  # parameters stay, so errors can be asked again
    state = algorithm.init(KEY)
    params = jax.tree.map(jnp.copy, state.learner.params)
    for _ in range(5):
        state, _ = algorithm.step(state)
    rows = jax.tree.map(lambda x: x[:, 0], state.replay.rows)
    batch = Batch(*rows[:4], rows.next_observation, jnp.full(8, 0.99))
    error = rlx.dqn_loss(params, params, network.apply, batch, jnp.ones(8), True, None)[1]["td_error"]
    # with 256 draws of 8 rows every row is learnt in every step
    np.testing.assert_allclose(state.priorities.tree[8:], (np.abs(error) + 1e-6) ** 0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 3}, "multiple of num_envs"),
        ({"replay_size": 8, "num_steps": 9}, "hold the rows of one step"),
        ({"huber": -1.0}, "above 0 or None"),
        ({"tau": 1.5}, "from 0 to 1"),
        ({"target_every": 0}, "integer above 0"),
    ],
)
def test_bad_configs_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        rlx.DQNConfig(**changes)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="Discrete"):
        rlx.nets.q_network(rlx.make("Pendulum-v1"))


def test_the_learn_function_stands_alone():
    """A researcher's own loop: rows from anywhere, `dqn_learn` on them."""
    before, _ = learnt(1)
    env = rlx.make("CartPole-v1")
    network = rlx.nets.q_network(env, (8,))
    rows = jax.tree.map(lambda x: x[:2], before.replay.rows)
    config = rlx.DQNConfig(num_envs=2, num_steps=2, batch_size=4, prefill=4, replay_size=20)
    state, metrics = dqn_learn(before, rows, KEY, network.apply, optax.sgd(0.1), config)
    assert state.replay.size == 4
    assert np.isfinite(metrics["loss"])
