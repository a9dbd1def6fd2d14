"""Sweeps: one program, each configuration as if it were alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.cli.options import OptimizerConfig
from rlx.envs import probes

CUE = probes.ObservationActionReward()
KEYS = jax.random.split(jax.random.key(0), 3)
VALUES = {"learning_rate": np.array([1e-3, 3e-2]), "clip": np.array([0.1, 0.3]), "max_grad_norm": np.array([0.1, 1.0])}


def make_ppo(values, env=CUE, **fields):
    """PPO whose floats are those of a configuration, some of them the optimiser's."""
    network = rlx.nets.ActorCritic(rlx.nets.CategoricalHead(2), (4,))
    fields = {"num_envs": 4, "num_steps": 8, "num_epochs": 2, "num_minibatches": 2} | fields
    values = dict(values)
    optimizer = {name: values.pop(name) for name in ("learning_rate", "max_grad_norm", "eps") if name in values}
    return rlx.ppo(env, network, OptimizerConfig(**optimizer).build(100), rlx.PPOConfig(**values, **fields))


def run(algorithm, keys, num_steps):
    return rlx.jit(lambda keys: rlx.train(algorithm, keys, num_steps))(keys)


@pytest.mark.parametrize("num_steps", [8, 32])  # of 4 environments: learnt from side by side, and one after another
def test_each_configuration_is_as_if_it_were_alone(num_steps):
    make = partial(make_ppo, num_steps=num_steps)
    state, metrics = run(rlx.sweep(make, VALUES), KEYS, 1)
    assert metrics["loss"].shape == (1, 2, 3)  # [U, N, S]
    for index in range(2):
        for seed, key in enumerate(KEYS):
            alone, single = run(make({name: value[index].item() for name, value in VALUES.items()}), key, 1)
            algorithm, selected = rlx.select(make, VALUES, state, index, seed)
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
                selected._replace(key=0),
                alone._replace(key=0),
            )
            for name, value in single.items():
                np.testing.assert_allclose(metrics[name][:, index, seed], value, rtol=1e-4, atol=1e-5)
            cue = jnp.linspace(-1, 1, 9)[:, None]
            np.testing.assert_array_equal(algorithm.act(selected, None, cue), algorithm.act(alone, None, cue))
    assert not np.allclose(metrics["loss"][0, 0], metrics["loss"][0, 1])


def test_every_float_can_vary_the_optimisers_too():
    base = {
        "learning_rate": 1e-2,
        "max_grad_norm": 0.5,
        "eps": 1e-5,
        "discount": 0.9,
        "trace": 0.9,
        "entropy_coef": 0.1,
    }
    rows = [base, *(base | {name: 0.05} for name in base)]
    values = {name: np.array([row[name] for row in rows]) for name in base}
    state, _ = run(rlx.sweep(lambda values: make_ppo(values, probes.Clock()), values), KEYS[:1], 2)
    params = np.concatenate([leaf.reshape(len(rows), -1) for leaf in jax.tree.leaves(state.learner.params)], axis=1)
    changes = dict(zip(base, np.abs(params[1:] - params[0]).max(axis=1), strict=True))
    assert min(changes.values()) > 1e-5, changes


def test_selected_agents_are_made_of_plain_numbers():
    seen = []

    def spy(values):
        seen.append(values["learning_rate"])
        return make_ppo(values)

    state, _ = run(rlx.sweep(spy, VALUES), KEYS, 1)
    seen.clear()
    algorithm, one = rlx.select(spy, VALUES, state, 1, 2)
    assert seen == [3e-2]
    assert type(seen[0]) is float
    after, _ = jax.jit(algorithm.step)(one)  # it can go on
    assert jax.tree.structure(after) == jax.tree.structure(one)


def test_act_has_both_axes():
    algorithm = rlx.sweep(make_ppo, VALUES)
    state = algorithm.init(KEYS)
    observation = jnp.linspace(-1, 1, 50)[:, None] * jnp.ones((2, 3, 1, 1))  # [N, S, E, O]
    greedy, sampled = algorithm.act(state, None, observation), algorithm.act(state, KEYS[0], observation)
    assert greedy.shape == sampled.shape == (2, 3, 50)
    one, chosen = rlx.select(make_ppo, VALUES, state, 1, 2)
    np.testing.assert_array_equal(greedy[1, 2], one.act(chosen, None, observation[1, 2]))
    assert len({sampled[n, s].tobytes() for n in range(2) for s in range(3)}) == 6  # each draws for itself


@pytest.fixture
def compiled():
    """How many programs XLA compiled, or took from the cache, since the test began."""
    events = []

    def listen(event, _, **__):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: events.count("/jax/core/compile/backend_compile_duration")
    jax.monitoring.unregister_event_duration_listener(listen)


def programs(compiled, num_configurations):
    """Compilations of a whole sweep of 6 updates in chunks of 2; each has another shape, so none is known before."""
    values = {name: np.linspace(0.01, 0.02, num_configurations) for name in ("learning_rate", "clip", "discount")}
    values = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    before = compiled()
    algorithm = rlx.sweep(make_ppo, values)
    state = rlx.jit(algorithm.init, once=True)(KEYS[:2])
    for state, metrics in rlx.chunks(algorithm, state, 6, every=2):  # noqa: B007, B020
        jax.device_get(metrics)
    assert metrics["loss"].shape == (2, num_configurations, 2)
    return compiled() - before


def test_64_configurations_are_one_program(compiled):
    programs(compiled, 2)  # what jax.numpy compiles op by op is known from here on
    counts = [programs(compiled, number) for number in (1, 64)]
    assert counts == [2, 2], "init and the steps"


@pytest.mark.slow
def test_an_absurd_learning_rate_ranks_last():
    values = {"learning_rate": np.array([1e3, 2e-2, 5e-3])}

    def whole(keys):
        algorithm = rlx.sweep(lambda values: make_ppo(values, num_envs=8, num_steps=16, num_epochs=4), values)
        state, metrics = rlx.train(algorithm, keys, 100)

        def play(state, key):
            return rlx.evaluate(make_ppo({}), CUE, state, key, 50, greedy=False).episode_return.mean()

        returns = jax.vmap(jax.vmap(play), in_axes=(0, None))(state, keys)
        return state, jnp.where(jnp.isfinite(metrics["loss"]).all(axis=0), returns, jnp.nan)

    with jax.debug_nans(False):
        state, returns = rlx.jit(whole)(KEYS)
    assert rlx.rank(returns)[-1] == 0
    assert (returns[1] > 0.9).all()
    algorithm, agent = rlx.select(make_ppo, values, state, 1, 0)
    np.testing.assert_array_equal(algorithm.act(agent, None, jnp.array([[-1.0], [1.0]])), [0, 1])


def test_rank_by_hand():
    nan = np.nan
    returns = [[1.0, 3.0], [nan, 9.0], [4.0, 4.0], [nan, nan], [2.0, 2.0], [nan, 10.0], [4.0, np.inf]]
    assert rlx.rank(np.array(returns)) == [2, 0, 4, 5, 1, 6, 3]


@pytest.mark.parametrize("values", [{}, {"a": np.zeros(2), "b": np.zeros(3)}, {"a": 1.0}, {"a": np.zeros((2, 2))}])
def test_values_that_are_no_table_are_refused(values):
    with pytest.raises(ValueError, match="one length"):
        rlx.sweep(make_ppo, values)


def test_no_configuration_is_refused():
    with pytest.raises(ValueError, match="one length"):
        rlx.sweep(make_ppo, {"learning_rate": np.zeros(0)})


def test_host_algorithms_are_refused():
    with pytest.raises(ValueError, match="host algorithm"):
        rlx.sweep(lambda values: make_ppo(values)._replace(host=True), VALUES).init(KEYS)
