"""SAC's losses by hand, its update beside a numpy twin, its units, and what keeps the discrete form free of NaN."""

import dataclasses
from functools import partial

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.algorithms.sac import default_target_entropy, sac_learn
from rlx.core.replay import Batch
from rlx.envs import probes
from rlx.ops import Categorical, TanhNormal
from rlx.ops.random import normal

KEY = jax.random.key(0)
CONFIG = rlx.SACConfig(num_envs=2, num_steps=3, batch_size=4, prefill=4, replay_size=20)
BATCH = Batch(
    observation=jnp.array([0, 0, 1]),
    action=jnp.array([0, 1, 1]),
    reward=jnp.array([1.0, 0.0, 2.0]),
    terminated=jnp.array([False, True, False]),
    next_observation=jnp.array([1, 1, 0]),
    discount=jnp.array([0.5, 0.5, 0.25]),
)
TWINS = jnp.array([[[1.0, 2.0], [4.0, 3.0]], [[0.0, 6.0], [2.0, 8.0]]])  # [K, S, A]


def table(params, observation):
    """Values `[K, N, A]` from tables `[K, S, A]`."""
    return params[:, observation]


def test_discrete_target_by_hand():
    """State 0: the lesser values are (0, 2); state 1: (2, 3). The policy is (0.25, 0.75) everywhere: H = 0.562."""
    policy = Categorical(jnp.log(jnp.tile(jnp.array([0.25, 0.75]), (3, 1))))
    target = rlx.sac_target(policy, partial(table, TWINS), BATCH, KEY, 0.1)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    expected = [1 + 0.5 * (0.25 * 2 + 0.75 * 3 + 0.1 * entropy), 0.0, 2 + 0.25 * (0.75 * 2 + 0.1 * entropy)]
    np.testing.assert_allclose(target, expected, rtol=1e-6)


def test_discrete_critic_loss_by_hand():
    """Both critics are pulled to the same target, each by half the mean square."""
    target = jnp.array([2.0, 0.0, 5.0])
    errors = np.array([[2 - 1, 0 - 2, 5 - 3], [2 - 0, 0 - 6, 5 - 8]], float)
    loss, metrics = rlx.sac_critic_loss(TWINS, table, BATCH, target)
    np.testing.assert_allclose(loss, 0.5 * (errors**2).mean(axis=1).sum())
    np.testing.assert_allclose(metrics["q_value"], np.mean([[1, 2, 3], [0, 6, 8]]), rtol=1e-6)
    slope = jax.grad(lambda params: rlx.sac_critic_loss(params, table, BATCH, target)[0])(TWINS)
    expected = np.zeros((2, 2, 2))
    for critic in range(2):
        expected[critic, [0, 0, 1], [0, 1, 1]] = -errors[critic] / 3
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_discrete_actor_is_led_to_the_softmax_of_the_values():
    """The loss is least at pi = softmax(min Q / alpha), and there it is -alpha logsumexp(min Q / alpha)."""
    values, alpha = jnp.min(TWINS, axis=0), 0.7
    loss = lambda params: rlx.sac_actor_loss(  # noqa: E731
        params, lambda params, s: Categorical(params[s]), partial(table, TWINS), jnp.array([0, 1]), KEY, alpha
    )[0]
    best = alpha * jax.nn.logsumexp(values / alpha, axis=-1)
    np.testing.assert_allclose(loss(values / alpha), -best.mean(), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(loss)(values / alpha), 0.0, atol=1e-6)
    assert np.abs(jax.grad(loss)(jnp.zeros((2, 2)))).min() > 0.1


def test_an_underflowing_probability_is_not_nan():
    """B12: log(softmax) of a gap of 200 is -inf, and 0 * -inf NaN; so are impossible actions with values of -inf."""
    logits = jnp.array([[0.0, -200.0, 3.0], [0.0, -jnp.inf, 1.0]])
    values = jnp.array([[1.0, 2.0, 3.0], [1.0, -jnp.inf, 3.0]])

    def loss(logits):
        return rlx.sac_actor_loss(logits, lambda x, _: Categorical(x), lambda _: values[None], None, KEY, 0.5)

    (value, metrics), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
    assert np.all(np.isfinite([value, metrics["entropy"], *slope.ravel()]))
    p = np.exp([[0.0, 3.0], [0.0, 1.0]]) / np.exp([[0.0, 3.0], [0.0, 1.0]]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(value, -np.mean((p * ([1.0, 3.0] - 0.5 * np.log(p))).sum(axis=1)), rtol=1e-6)


def quadratic(params, observation, action):
    """Two critics `[2, N]`, of which the lesser depends on the row."""
    return jnp.stack([params[0] * observation - (action[..., 0] - 0.5) ** 2, params[1] * action[..., 0]])


def test_continuous_losses_equal_a_numpy_twin():
    """The same noise in both: a sample of each row, its density by the rule of change of variables."""
    observation = jnp.array([0.0, 0.5, 1.0])
    params, critics, alpha = jnp.array([0.3, -0.5]), jnp.array([0.2, 0.7]), 0.3

    def actor(params, observation):
        return TanhNormal((params[0] * observation)[:, None], jnp.full((3, 1), params[1]))

    def twin(mean, scale, noise):
        u = mean + scale * noise
        action = np.tanh(u)
        log_prob = -0.5 * noise**2 - np.log(scale) - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)
        o = np.array(observation, float)
        return np.minimum(0.2 * o - (action - 0.5) ** 2, 0.7 * action) - alpha * log_prob, -log_prob

    noise = np.asarray(normal(KEY, (3, 1)), float)[:, 0]
    soft, entropy = twin(0.3 * np.array([0.0, 0.5, 1.0]), np.exp(-0.5), noise)
    judge = partial(quadratic, critics)
    loss, metrics = rlx.sac_actor_loss(params, actor, judge, observation, KEY, alpha)
    np.testing.assert_allclose(loss, -soft.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy.mean(), rtol=1e-5)
    batch = BATCH._replace(observation=observation, next_observation=observation, action=jnp.zeros((3, 1)))
    target = rlx.sac_target(actor(params, observation), judge, batch, KEY, alpha)
    expected = np.array([1.0, 0.0, 2.0]) + np.array([0.5, 0.0, 0.25]) * soft
    np.testing.assert_allclose(target, expected, rtol=1e-5)
    slope = jax.grad(lambda mean: jnp.sum(rlx.sac_target(actor(mean, observation), judge, batch, KEY, alpha)))(params)
    np.testing.assert_array_equal(slope, 0.0)
    values = np.stack([0.2 * np.array([0.0, 0.5, 1.0]) - 0.25, np.zeros(3)])
    loss, _ = rlx.sac_critic_loss(critics, quadratic, batch, target)
    np.testing.assert_allclose(loss, 0.5 * np.mean((expected - values) ** 2, axis=1).sum(), rtol=1e-5)


def test_temperature_loss_by_hand():
    loss, slope = jax.value_and_grad(lambda x: rlx.temperature_loss(x, jnp.float32(-0.2), -1.0)[0])(jnp.float32(-2.0))
    np.testing.assert_allclose([loss, slope], [-1.6, 0.8], rtol=1e-6)  # too much entropy: alpha falls


def test_default_targets():
    assert default_target_entropy(gym.spaces.Box(-2, 2, (2, 3))) == -6
    np.testing.assert_allclose(default_target_entropy(gym.spaces.Discrete(4)), 0.3 * np.log(4))


def test_the_units_of_the_action_space_do_not_change_the_entropy():
    """A torque of -2 to 2 with the same effect as one of -1 to 1: every number of the run is the same."""

    class Weak(rlx.envs.Pendulum):
        """Takes half the torque."""

        action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

        def step(self, key, state, action):
            return super().step(key, state, 2.0 * action)

    jax.tree_util.register_dataclass(Weak)

    def run(env):
        networks = rlx.nets.soft_actor(env, (8,)), rlx.nets.q_critic(env, (8,))
        config = dataclasses.replace(CONFIG, gradient_steps=4)
        return rlx.train(rlx.sac(env, *networks, optax.adam(1e-2), config), KEY, 20)[1]

    metrics, same = rlx.jit(lambda: (run(rlx.envs.Pendulum()), run(Weak())), once=True)()
    for name in ("entropy", "temperature", "q_value"):
        np.testing.assert_allclose(metrics[name], same[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_learnt_temperature_brings_the_entropy_to_its_target():
    """On a task where nothing pays, alpha alone holds the policy: in nats of the normalised box, and of log A."""
    for env, target, tolerance in [(rlx.envs.Pendulum(), -1.0, 0.25), (rlx.make("CartPole-v1"), 0.3 * np.log(2), 0.1)]:
        networks = rlx.nets.soft_actor(env, (16,)), rlx.nets.q_critic(env, (16,))
        config = rlx.SACConfig(num_envs=8, num_steps=8, gradient_steps=16, batch_size=32, prefill=256, discount=0.9)
        algorithm = rlx.sac(env, *networks, optax.adam(3e-3), config)
        _, metrics = jax.jit(lambda algorithm=algorithm: rlx.train(algorithm, KEY, 200))()
        np.testing.assert_allclose(metrics["entropy"][-50:].mean(), target, atol=tolerance)


def pendulum(optimizer, **changes):
    """A SAC on Pendulum, its networks, and its first state."""
    env = rlx.envs.Pendulum()
    networks = rlx.nets.soft_actor(env, (8,)), rlx.nets.q_critic(env, (8,))
    algorithm = rlx.sac(env, *networks, optimizer, dataclasses.replace(CONFIG, **changes))
    return algorithm, networks, rlx.jit(algorithm.init, once=True)(KEY)


def test_targets_follow_at_every_gradient_step():
    """From 0, towards critics that stay: 1 - (1 - tau)^2 of the way after two; and a fixed temperature stays."""
    algorithm, _, state = pendulum(optax.sgd(0.0), gradient_steps=2, tau=0.25, temperature=0.1)
    state = state._replace(target_params=jax.tree.map(jnp.zeros_like, state.target_params))
    after, metrics = rlx.jit(algorithm.step, once=True)(state)
    expected = jax.tree.map(lambda x: 0.4375 * x, state.critic.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), after.target_params, expected)
    assert state.temperature is after.temperature is None
    np.testing.assert_allclose(metrics["temperature"], 0.1)


def test_the_learn_function_stands_alone():
    """A researcher's own loop: rows from anywhere, `sac_learn` on them. At first the policy is near uniform."""
    _, networks, state = pendulum(optax.sgd(0.1))
    rows = jax.tree.map(lambda x: x[:2], state.replay.rows)
    applies = [network.apply for network in networks]
    after, metrics = rlx.jit(lambda: sac_learn(state, rows, KEY, *applies, optax.sgd(0.1), CONFIG, -1.0), once=True)()
    assert after.replay.size == 4
    assert np.isfinite(metrics["critic_loss"])
    assert after.temperature.params < state.temperature.params == 0


def test_pixels_and_masks_learn():
    """An image, a number and a mask in one observation: two actions, the second ruled out in half the states."""

    class Seen(probes.ObservationActionReward):
        """The cue as an image, and a mask that rules out the wrong action."""

        @property
        def observation_space(self):
            image = gym.spaces.Box(0, 255, (3, 3, 1), np.uint8)
            return gym.spaces.Dict({"observation": image, "action_mask": gym.spaces.MultiBinary(2)})

        def reset(self, key):
            cue, _ = super().reset(key)
            return cue, self._see(cue)

        def step(self, key, state, action):
            return super().step(key, state, action)._replace(observation=self._see(state))

        def _see(self, cue):
            mask = jnp.arange(2) == (cue > 0)
            return {"observation": jnp.full((3, 3, 1), 255 * (cue > 0), jnp.uint8), "action_mask": mask}

    jax.tree_util.register_dataclass(Seen)
    networks = rlx.nets.soft_actor(Seen(), (8,)), rlx.nets.q_critic(Seen(), (8,))
    algorithm = rlx.sac(Seen(), *networks, optax.adam(1e-2), CONFIG)
    _, metrics = rlx.jit(lambda: rlx.train(algorithm, KEY, 5), once=True)()
    np.testing.assert_array_equal(metrics["episode_return"], 1.0)
    assert all(np.all(np.isfinite(metric)) for metric in metrics.values())


def test_over_a_host_environment():
    env = rlx.envs.gymnasium("Pendulum-v1")
    networks = rlx.nets.soft_actor(env, (8,)), rlx.nets.q_critic(env, (8,))
    algorithm = rlx.sac(env, *networks, optax.adam(1e-3), CONFIG)
    for _, metrics in rlx.chunks(algorithm, algorithm.init(KEY), 4, 2):
        assert np.all(np.isfinite(metrics["critic_loss"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 3}, "multiple of num_envs"),
        ({"prefill": 100, "prefill_hold": 8}, "multiple of both"),
        ({"tau": 1.5}, "from 0 to 1"),
        ({"temperature": -0.1}, "must not be negative"),
        ({"init_temperature": 0.0}, "above 0"),
    ],
)
def test_bad_configs_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        rlx.SACConfig(**changes)
    with pytest.raises(ValueError, match="use Discrete or a bounded Box"):
        rlx.sac(probes.Mixed(), None, None, optax.sgd(0.1))
