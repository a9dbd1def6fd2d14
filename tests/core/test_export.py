"""Trained policies that leave: to NumPy in a process without jax, and through jax.export."""

import errno
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

import rlx
from rlx.envs import probes

KEY = jax.random.key(0)
INF = np.inf


class Spaces:
    """Spaces without an environment."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = spaces.Box(0, 255, (4, 40, 44), np.uint8)
CASES = {
    "numbers": (Spaces(BOX, spaces.Discrete(3, start=-1)), "tanh"),
    "bounded": (
        Spaces(BOX, spaces.Box(np.array([-1, 0, -np.inf]), np.array([3, np.inf, 1]), dtype=np.float64)),
        "gelu",
    ),
    "matrix": (Spaces(spaces.Box(-1, 1, (2, 2), np.float64), spaces.Box(-2, 2, (2, 2), np.float32)), "silu"),
    "mixed": (probes.Mixed(), "relu"),
    "pixels": (Spaces(PIXELS, spaces.MultiBinary(3)), "relu"),
    "tuple": (
        Spaces(spaces.Tuple([spaces.Discrete(4, start=2), BOX]), spaces.MultiDiscrete([[2, 3], [4, 2]])),
        "tanh",
    ),
}


def exported(folder):
    """The module that was written, imported from where it lies."""
    spec = importlib.util.spec_from_file_location("exported_policy", folder / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(folder / "policy.npz")


@pytest.mark.parametrize("name", CASES)
def test_numpy_acts_as_jax_does(name, tmp_path):
    env, activation = CASES[name]
    network = rlx.nets.actor_critic(env, (16, 8), activation)
    env.observation_space.seed(0)
    observations = [env.observation_space.sample() for _ in range(50)]
    batch = jax.tree.map(lambda *rows: jnp.stack([jnp.asarray(row) for row in rows]), *observations)
    params = rlx.jit(network.init, once=True)(KEY, batch)
    params = jax.tree.map(lambda x: x + 0.3 * np.random.default_rng(x.size).normal(size=x.shape), params)  # not near 0
    floats = any(x.dtype == jnp.float32 for x in jax.tree.leaves(batch))
    moments = rlx.core.normalize.init_observation_moments(batch) if floats else None

    rlx.export_numpy(tmp_path, env, network, params, moments)
    act = exported(tmp_path)
    see = lambda observation: rlx.core.normalize.normalize_observation(moments, observation)  # noqa: E731
    policy, _ = rlx.jit(lambda params: network.apply(params, see(batch)))(params)
    expected = rlx.envs.action_to_space(env.action_space)(np.asarray(policy.mode()))
    found = [act(observation) for observation in observations]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.shape(found[0]) == env.action_space.shape
    assert len(np.unique(np.stack(found), axis=0)) > 1
    assert np.asarray(found[0]).dtype == (int if env.action_space.shape == () else env.action_space.dtype)

    generator, one = np.random.default_rng(0), observations[0]
    drawn = np.stack([act(one, generator) for _ in range(4000)])
    first = jax.tree.map(lambda x: x[0] if x.ndim > 1 else x, policy)  # a Normal's scale is one for all rows
    theirs = rlx.jit(jax.vmap(first.sample))(jax.random.split(jax.random.key(1), 4000))
    theirs = rlx.envs.action_to_space(env.action_space)(np.asarray(theirs))
    spread = np.maximum(theirs.std(axis=0), 0.05)
    np.testing.assert_allclose(drawn.mean(axis=0) / spread, theirs.mean(axis=0) / spread, atol=0.12)


@pytest.mark.parametrize("make", [rlx.nets.soft_actor, rlx.nets.deterministic_actor])
def test_policies_of_the_box_act_as_jax_does(make, tmp_path):
    env = Spaces(PIXELS, spaces.Box(np.float32([-2, 0]), np.float32([2, 5])))
    network, pixels = make(env, (16,)), np.random.default_rng(0).integers(0, 256, (20, 4, 40, 44), np.uint8)
    params = rlx.jit(network.init, once=True)(KEY, pixels)
    params = jax.tree.map(lambda x: x + 0.1 * np.random.default_rng(x.size).normal(size=x.shape), params)  # not near 0
    rlx.export_numpy(tmp_path, env, network, params)
    act, to_space = exported(tmp_path), rlx.envs.action_to_space(env.action_space)
    policy = rlx.jit(network.apply)(params, pixels)
    drawn = np.stack([act(pixels[0], np.random.default_rng(seed)) for seed in range(2000)])
    if isinstance(policy, rlx.ops.TanhNormal):
        first, policy = jax.tree.map(lambda x: x[0], policy), policy.mode()
        theirs = to_space(np.asarray(jax.vmap(first.sample)(jax.random.split(KEY, 2000))))
        np.testing.assert_allclose(drawn.mean(axis=0), theirs.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(drawn.std(axis=0), theirs.std(axis=0), atol=0.15)
    else:
        assert np.ptp(drawn, axis=0).max() == 0
    found = [act(observation) for observation in pixels]
    np.testing.assert_allclose(found, to_space(np.asarray(policy)), rtol=1e-5, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.01


def test_a_file_acts_in_gymnasium_without_jax(tmp_path):
    env = rlx.make("Pendulum-v1")
    network = rlx.nets.actor_critic(env, (8,))
    config = rlx.PPOConfig(num_envs=2, num_steps=8, normalize_observation=True)
    algorithm = rlx.ppo(env, network, optax.adam(1e-2), config)
    state, _ = rlx.jit(lambda key: rlx.train(algorithm, key, 2))(KEY)
    rlx.export_numpy(tmp_path, env, network, state.learner.params, state.observation_moments)
    script = """
        import sys
        sys.modules["jax"] = sys.modules["rlx"] = sys.modules["flax"] = None  # an import of it fails
        import gymnasium, numpy as np
        from policy import load
        act, env = load("policy.npz"), gymnasium.make("Pendulum-v1")
        observation, _ = env.reset(seed=0)
        total, over = 0.0, False
        while not over:
            action = act(observation)
            assert env.action_space.contains(action), action
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + reward, terminated or truncated
        print(total)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    total, over, observation = 0.0, False, None
    pendulum = gym.make("Pendulum-v1")
    observation, _ = pendulum.reset(seed=0)
    act, to_space = jax.jit(algorithm.act), rlx.envs.action_to_space(env.action_space)
    while not over:
        action = to_space(np.asarray(act(state, None, observation)))
        observation, reward, terminated, truncated, _ = pendulum.step(action)
        total, over = total + reward, terminated or truncated
    np.testing.assert_allclose(float(done.stdout), total, rtol=1e-3)


@pytest.mark.parametrize("name", ["numbers", "bounded", "mixed"])
def test_an_actor_alone_is_written_as_with_its_critic(name, tmp_path):
    env, activation = CASES[name]
    both, actor = rlx.nets.actor_critic(env, (4,), activation), rlx.nets.actor(env, (4,), activation)
    params = rlx.jit(both.init, once=True)(KEY, jax.tree.map(np.asarray, env.observation_space.sample()))
    for network in (both, actor):
        rlx.export_numpy(tmp_path / type(network).__name__, env, network, params)
    files = [np.load(tmp_path / network / "policy.npz") for network in ("ActorCritic", "Actor")]
    assert files[0].files == files[1].files
    for array in files[0].files:
        np.testing.assert_array_equal(files[0][array], files[1][array])


@pytest.mark.parametrize("env", [rlx.envs.CartPole(), probes.Mixed()], ids=["cartpole", "mixed"])
def test_any_policy_goes_through_jax_export(env, tmp_path):
    algorithm = rlx.ppo(env, rlx.nets.actor_critic(env, (4,)), optax.sgd(0.1), rlx.PPOConfig(num_envs=2, num_steps=8))
    state = rlx.jit(algorithm.init, once=True)(KEY)
    rlx.export_jax(tmp_path / "policy.bin", algorithm, state, env)
    program = jax.export.deserialize((tmp_path / "policy.bin").read_bytes())
    for batch in (1, 5):
        observation = jax.vmap(env.reset)(jax.random.split(KEY, batch))[1]
        np.testing.assert_array_equal(program.call(observation), algorithm.act(state, None, observation))
    assert program.platforms == ("cpu", "cuda", "tpu")


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="MLP cannot be written in NumPy, only ActorCritic and Actor: use export_jax"):
        rlx.export_numpy(tmp_path, rlx.envs.CartPole(), rlx.nets.MLP((4,), 2), {})
    assert not any(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    env = rlx.envs.CartPole()
    network = rlx.nets.actor_critic(env, (4,))
    params = rlx.jit(network.init, once=True)(KEY, jnp.zeros(4))
    rlx.export_numpy(tmp_path, env, network, params)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(path, content):
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        rlx.export_numpy(tmp_path, env, network, params)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert before.keys() == {"policy.py", "policy.npz"}
