"""Observations of any space become vectors; masks make actions impossible; an nnx module is a network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from gymnasium import spaces

import rlx
from rlx.nets import CNN, CategoricalHead, Features, MultiCategoricalHead, actor_critic, from_nnx, network_inputs
from rlx.nets.inputs import convolutions_for, convolve
from rlx.ops import Categorical, MultiCategorical, mask_logits

KEY = jax.random.key(0)
IMAGE = spaces.Box(0, 255, (12, 10, 3), np.uint8)


def features(space, observation):
    network = Features(network_inputs(space))
    return network.apply(network.init(KEY, observation), observation)


def test_numbers_and_choices_by_hand():
    space = spaces.Dict(
        {
            "z": spaces.MultiDiscrete([2, 3], start=[0, 4]),
            "a": spaces.Box(-1, 1, (2, 2), np.float32),
            "m": spaces.Tuple([spaces.Discrete(3, start=-1), spaces.MultiBinary(2)]),
            "u": spaces.Box(0, 255, (2,), np.uint8),
        }
    )
    observation = {
        "z": jnp.array([1, 6]),
        "a": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
        "m": (jnp.array(1), jnp.array([0, 1], jnp.int8)),
        "u": jnp.array([0, 51], jnp.uint8),
    }
    found = features(space, observation)
    np.testing.assert_allclose(found, [1, 2, 3, 4, 0, 0, 1, 0, 1, 0, 0.2, 0, 1, 0, 0, 1], rtol=1e-6)
    assert found.dtype == jnp.float32
    batch = jax.tree.map(lambda x: jnp.stack([jnp.stack([x, x])] * 5), observation)
    np.testing.assert_allclose(features(space, batch), jnp.broadcast_to(found, (5, 2, 16)), rtol=1e-6)


def test_an_image_counts_the_same_with_its_channels_first_and_without():
    image = jax.random.randint(KEY, (4, 12, 10, 3), 0, 256).astype(jnp.uint8)
    network = Features(network_inputs(IMAGE))
    params = network.init(KEY, image)
    found = network.apply(params, image)
    first = Features(network_inputs(spaces.Box(0, 255, (3, 12, 10), np.uint8)))
    np.testing.assert_array_equal(first.apply(params, jnp.moveaxis(image, -1, -3)), found)
    np.testing.assert_allclose(network.apply(params, image[2]), found[2], rtol=1e-4, atol=1e-5)
    grey = features(spaces.Box(0, 255, (12, 10), np.uint8), image[..., 0])
    assert grey.shape == found.shape == (4, 10 * 8 * 16)


def test_a_convolution_equals_a_slow_one():
    image = np.asarray(jax.random.normal(KEY, (5, 6, 2)))
    network = CNN(((3, 2, 2),))
    params = network.init(KEY, image)
    kernel, bias = (np.asarray(params["params"][name]) for name in ("kernel_0", "bias_0"))
    slow = [
        np.einsum("hwc,hwcf->f", image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2], kernel) + bias
        for y in range(2)
        for x in range(3)
    ]
    np.testing.assert_allclose(network.apply(params, image), np.maximum(slow, 0).ravel(), rtol=1e-4, atol=1e-6)


def test_patches_equal_xlas_convolution():
    """On other platforms than the CPU it is XLA's."""
    x, kernel = jax.random.normal(KEY, (2, 3, 9, 8, 2)), jax.random.normal(KEY, (4, 3, 2, 5))
    theirs = jax.lax.conv_general_dilated(
        x.reshape(6, 9, 8, 2), kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(convolve(x, kernel, 2), theirs.reshape(2, 3, 3, 3, 5), rtol=1e-4, atol=1e-5)
    lowered = jax.jit(jax.grad(lambda k: convolve(x, k, 2).sum())).trace(kernel).lower(lowering_platforms=("tpu",))
    assert "convolution" in lowered.as_text()


def test_large_images_get_dqns_convolutions():
    assert convolutions_for(84, 84)[0] == (32, 8, 4)
    shape = features(spaces.Box(0, 255, (4, 84, 84), np.uint8), jnp.zeros((4, 84, 84), jnp.uint8)).shape
    assert shape == (7 * 7 * 64,)
    assert features(spaces.Box(0, 255, (2, 3, 1), np.uint8), jnp.zeros((2, 3, 1), jnp.uint8)).shape == (32,)


def test_a_vector_needs_no_features():
    assert actor_critic(rlx.envs.CartPole()).inputs is None


# Masks and several choices --------------------------------------------------------------------------------------------


def test_a_masked_action_has_probability_zero_and_no_gradient():
    logits, mask = jax.random.normal(KEY, (5, 4)), jnp.array([1, 0, 1, 0])
    policy = Categorical(mask_logits(logits, mask))
    probability = jax.nn.softmax(policy.logits)
    assert np.all(probability[:, [1, 3]] == 0)
    np.testing.assert_allclose(probability[:, [0, 2]], jax.nn.softmax(logits[:, [0, 2]]), rtol=1e-6)
    draws = jax.vmap(policy.sample)(jax.random.split(KEY, 500))
    assert {*np.unique(draws)} == {*np.unique(policy.mode())} | {0, 2} == {0, 2}

    def loss(logits):
        policy = Categorical(mask_logits(logits, mask))
        return jnp.sum(policy.log_prob(jnp.full(5, 2)) + policy.entropy() + policy.kl(Categorical(logits)))

    slope = jax.grad(loss)(logits)
    assert np.isfinite(slope).all()
    assert np.any(slope[:, 0] != 0)


def test_where_nothing_is_allowed_everything_is():
    logits = jnp.array([[1.0, 2.0], [1.0, 2.0]])
    masked = mask_logits(logits, jnp.array([[0, 0], [0, 1]], jnp.int8))
    np.testing.assert_array_equal(masked, [[1, 2], [-np.inf, 2]])


def test_choices_of_different_sizes_are_independent():
    head, outputs = MultiCategoricalHead((2, 3)), jax.random.normal(KEY, (7, 5))
    policy = head(outputs)
    parts = Categorical(outputs[:, :2]), Categorical(outputs[:, 2:])
    action = policy.sample(KEY)
    assert action.shape == (7, 2)
    assert action.dtype == jnp.int32
    total = parts[0].log_prob(action[:, 0]) + parts[1].log_prob(action[:, 1])
    np.testing.assert_allclose(policy.log_prob(action), total, rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), parts[0].entropy() + parts[1].entropy(), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), jnp.stack([part.mode() for part in parts], axis=1))
    other = MultiCategorical(head(outputs[::-1]).logits)
    kl = [p.kl(Categorical(x)) for p, x in zip(parts, (outputs[::-1, :2], outputs[::-1, 2:]), strict=True)]
    np.testing.assert_allclose(policy.kl(other), sum(kl), rtol=1e-4, atol=1e-6)
    everything = jnp.array([[i, j] for i in range(2) for j in range(3)])
    np.testing.assert_allclose(jnp.exp(policy.log_prob(everything[:, None])).sum(0), 1, rtol=1e-5)


def test_a_mask_of_several_choices_is_one_after_the_other():
    policy = MultiCategoricalHead((2, 3))(jnp.zeros((5,)), jnp.array([0, 1, 1, 0, 1]))
    np.testing.assert_allclose(jax.nn.softmax(policy.logits), [[0, 1, 0], [0.5, 0, 0.5]])
    slope = jax.grad(lambda x: MultiCategoricalHead((2, 3))(x, jnp.array([0, 1, 1, 0, 1])).entropy())(jnp.ones(5))
    assert np.isfinite(slope).all()


def test_a_mask_needs_choices():
    space = spaces.Dict({"observation": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(2)})
    network = actor_critic(type("Spaces", (), {"observation_space": space, "action_space": spaces.Box(-1, 1, (2,))}))
    with pytest.raises(ValueError, match="an action mask needs a Discrete"):
        network.init(KEY, {"observation": jnp.zeros(2), "action_mask": jnp.ones(2)})


# A user's own modules -------------------------------------------------------------------------------------------------


class Own(nnx.Module):
    """A policy and a value from one layer each."""

    def __init__(self, rngs):
        self.policy, self.value = nnx.Linear(4, 2, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, observation):
        return Categorical(self.policy(observation)), self.value(observation)[..., 0]


class OwnLinen(nn.Module):
    """The same in linen."""

    @nn.compact
    def __call__(self, observation):
        return CategoricalHead(2)(nn.Dense(2)(observation)), nn.Dense(1)(observation)[..., 0]


def test_an_nnx_module_is_a_network():
    network, observation = from_nnx(Own), jax.random.normal(KEY, (3, 4))
    params = network.init(KEY, observation)
    assert jax.tree.map(jnp.shape, params)["policy"] == {"kernel": (4, 2), "bias": (2,)}
    policy, value = jax.jit(network.apply)(params, observation)
    module = Own(nnx.Rngs(KEY))
    np.testing.assert_allclose(policy.logits, module(observation)[0].logits, rtol=1e-6)
    np.testing.assert_allclose(value, module(observation)[1], rtol=1e-6)
    slope = jax.grad(lambda params: network.apply(params, observation)[1].sum())(params)
    np.testing.assert_allclose(slope["value"]["bias"], 3.0)
    assert not slope["policy"]["kernel"].any()


@pytest.mark.parametrize("network", [from_nnx(Own), OwnLinen()], ids=["nnx", "linen"])
def test_ppo_learns_with_a_users_own_module(network):
    env = rlx.envs.CartPole()
    algorithm = rlx.ppo(env, network, optax.adam(1e-2), rlx.PPOConfig(num_envs=2, num_steps=16))
    state, metrics = rlx.jit(jax.vmap(lambda key: rlx.train(algorithm, key, 3)))(jax.random.split(KEY, 2))
    assert np.isfinite(metrics["loss"]).all()
    assert not np.array_equal(*jax.tree.leaves(state.learner.params)[0])


def test_nnx_variables_beside_the_parameters_are_refused():
    with pytest.raises(ValueError, match="the nnx module holds BatchStat beside its parameters"):
        from_nnx(lambda rngs: nnx.BatchNorm(4, rngs=rngs)).init(KEY, jnp.zeros((2, 4)))
