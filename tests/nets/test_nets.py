"""Shapes over any leading axes, initialisation to the number, and which head takes which space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import rlx
from rlx.envs.probes import Mixed
from rlx.nets import MLP, Actor, ActorCritic, CategoricalHead, Critic, MultiCategoricalHead, NormalHead, policy_head
from rlx.nets.mlp import ACTIVATIONS, init_mlps

KEY = jax.random.key(0)
BOX = spaces.Box(-1, 1, (2,))


def count(jaxpr, primitive):
    """How often a primitive occurs in a jaxpr and all inside it."""
    inner = [value.jaxpr for eqn in jaxpr.eqns for value in eqn.params.values() if hasattr(value, "jaxpr")]
    return sum(eqn.primitive.name == primitive for eqn in jaxpr.eqns) + sum(count(each, primitive) for each in inner)


@pytest.mark.parametrize("leading", [(), (5,), (3, 5)])
@pytest.mark.parametrize("head", [CategoricalHead(3), NormalHead(2)])
def test_shapes_over_any_leading_axes(head, leading):
    network, observation = ActorCritic(head, (8,)), jax.random.normal(KEY, (*leading, 4))
    params = network.init(KEY, jnp.zeros(4))
    distribution, value = network.apply(params, observation)
    assert value.shape == leading
    assert distribution.log_prob(distribution.sample(KEY)).shape == leading
    assert distribution.mode().shape == (*leading, *(() if isinstance(head, CategoricalHead) else (2,)))
    if leading:
        one, _ = network.apply(params, observation[-1])
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y[-1] if y.ndim > x.ndim else y, rtol=1e-4, atol=1e-7),
            one,
            distribution,
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_numpy(activation):
    network, x = MLP((5, 7), 3, activation, gain=2.0), jax.random.normal(KEY, (4, 6))
    params = network.init(KEY, x)
    layers = params["params"]["layers"]
    assert [layers[str(i)]["kernel"].shape for i in range(3)] == [(6, 5), (5, 7), (7, 3)]
    layers = jax.tree.map(lambda leaf: leaf + 0.1, layers)  # biases too
    y = x
    for index in range(3):
        y = np.array(y) @ np.array(layers[str(index)]["kernel"]) + np.array(layers[str(index)]["bias"])
        y = ACTIVATIONS[activation](y) if index < 2 else y
    np.testing.assert_allclose(network.apply({"params": {"layers": layers}}, x), y, rtol=1e-5, atol=1e-5)


def test_kernels_have_the_scale_of_orthogonal_matrices():
    mlps = init_mlps(KEY, {"actor": ((200, 300, 400, 100), 0.01), "critic": ((200, 300), 1.0)})
    for layers, gains in ((mlps["actor"], (2**0.5, 2**0.5, 0.01)), (mlps["critic"], (1.0,))):
        for layer, gain in zip(layers.values(), gains, strict=True):
            kernel = layer["kernel"]
            orthogonal = jax.nn.initializers.orthogonal(gain)(KEY, kernel.shape)
            np.testing.assert_allclose(jnp.mean(kernel**2), jnp.mean(orthogonal**2), rtol=0.02)
            np.testing.assert_allclose(jnp.mean(kernel), 0.0, atol=0.01 * gain)
            assert not layer["bias"].any()
    assert not np.array_equal(mlps["actor"]["0"]["kernel"], mlps["critic"]["0"]["kernel"])


def test_initialisation_is_one_random_draw_a_network():
    for network in (MLP((8, 8, 8), 3), ActorCritic(CategoricalHead(2), (8, 8))):
        assert count(jax.make_jaxpr(network.init)(KEY, jnp.zeros(4)).jaxpr, "erf_inv") == 1


@pytest.mark.parametrize(
    ("space", "head"),
    [
        (spaces.Discrete(5), CategoricalHead(5)),
        (spaces.Discrete(5, start=3), CategoricalHead(5)),
        (spaces.Box(-2, 2, (3,)), NormalHead(3)),
        (spaces.Box(-2, 2, (3, 2)), NormalHead(6)),
        (spaces.MultiDiscrete([2, 3]), MultiCategoricalHead((2, 3))),
        (spaces.MultiBinary(3), MultiCategoricalHead((2, 2, 2))),
    ],
)
def test_policy_head_fits_the_space(space, head):
    assert policy_head(space) == head


@pytest.mark.parametrize("space", [spaces.Tuple([BOX]), spaces.Dict({"a": BOX})])
def test_policy_head_refuses_other_spaces(space):
    with pytest.raises(ValueError, match="not supported"):
        policy_head(space)


def test_a_policy_starts_near_uniform_and_a_value_does_not():
    observation = 5 * jax.random.normal(KEY, (200, 4))
    for head in (CategoricalHead(3), NormalHead(2)):
        network = ActorCritic(head)
        distribution, value = network.apply(network.init(KEY, observation), observation)
        if isinstance(head, CategoricalHead):
            np.testing.assert_allclose(jax.nn.softmax(distribution.logits), 1 / 3, atol=0.05)
            assert jnp.std(distribution.logits) > 1e-4
        else:
            np.testing.assert_allclose(distribution.mean, 0, atol=0.15)
            np.testing.assert_array_equal(distribution.log_scale, 0)
        assert jnp.std(value) > 0.2


def test_actor_and_critic_share_no_parameters():
    network = ActorCritic(CategoricalHead(3), (8,))
    params = network.init(KEY, jnp.zeros(4))
    slope = jax.grad(lambda params: network.apply(params, jnp.ones(4))[1])(params)["params"]["mlps"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope["actor"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(slope["critic"]))


@pytest.mark.parametrize("env", [rlx.envs.CartPole(), rlx.envs.Pendulum(), Mixed()], ids=["choice", "normal", "mixed"])
def test_an_actor_and_a_critic_are_the_halves_of_an_actor_critic(env):
    """Its parameters go into them as they are: those of the other half are not looked at."""
    both, actor, critic = rlx.nets.actor_critic(env, (8,)), rlx.nets.actor(env, (8,)), rlx.nets.critic(env, (8,))
    observation = jax.vmap(env.reset)(jax.random.split(KEY, 5))[1]
    params = both.init(KEY, observation)
    distribution, value = both.apply(params, observation)
    jax.tree.map(np.testing.assert_array_equal, actor.apply(params, observation), distribution)
    np.testing.assert_array_equal(critic.apply(params, observation), value)
    for half, name in ((actor, "actor"), (critic, "critic")):
        own = half.init(KEY, observation)["params"]
        assert list(own["mlps"]) == [name]
        assert ("head" in own) == (half is actor and "head" in params["params"])
        same = jax.tree.map(lambda x, y: x.shape == y.shape, own["mlps"][name], params["params"]["mlps"][name])
        assert all(jax.tree.leaves(same))


def test_an_actor_starts_near_uniform_with_one_random_draw():
    network = Actor(CategoricalHead(3))
    observation = 5 * jax.random.normal(KEY, (200, 4))
    probability = jax.nn.softmax(network.apply(network.init(KEY, observation), observation).logits)
    np.testing.assert_allclose(probability, 1 / 3, atol=0.05)
    for network in (Actor(CategoricalHead(3)), Critic()):
        assert count(jax.make_jaxpr(network.init)(KEY, jnp.zeros(4)).jaxpr, "erf_inv") == 1
