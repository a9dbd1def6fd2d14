"""Policies in the box and critics of actions: shapes, independence, and the spaces that they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import rlx
from rlx.envs import probes
from rlx.nets import deterministic_actor, q_critic, soft_actor
from rlx.nets.actor_critic import LOG_SCALE

KEY = jax.random.key(0)


class Spaces:
    """Spaces without an environment."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


VECTOR = spaces.Box(-1, 1, (4,), np.float32)
NESTED = spaces.Dict({"choice": spaces.Discrete(3), "image": spaces.Box(0, 255, (6, 6, 2), np.uint8)})
BOX = spaces.Box(np.float32([-2, 0]), np.float32([2, 5]))


@pytest.mark.parametrize("space", [VECTOR, NESTED], ids=["vector", "nested"])
@pytest.mark.parametrize("leading", [(), (3, 5)])
def test_shapes_over_any_leading_axes(space, leading):
    env, choice = Spaces(space, BOX), Spaces(space, spaces.Discrete(3))
    observation = jax.tree.map(lambda x: jnp.broadcast_to(x, (*leading, *x.shape)), space.sample())
    action = jnp.zeros((*leading, 2))
    actor, critic = soft_actor(env, (8,)), q_critic(env, (8,))
    policy = actor.apply(actor.init(KEY, observation), observation)
    assert policy.mean.shape == policy.log_scale.shape == policy.sample(KEY).shape == (*leading, 2)
    np.testing.assert_allclose(policy.mode(), 0.0, atol=0.1)
    still = deterministic_actor(env, (8,))
    np.testing.assert_allclose(still.apply(still.init(KEY, observation), observation), action, atol=0.1)
    params = critic.init(KEY, observation, action)
    values = critic.apply(params, observation, action)
    assert values.shape == (2, *leading)
    assert not np.allclose(values[0], values[1])
    slope = jax.grad(lambda action: critic.apply(params, observation, action)[0].sum())(action)
    assert np.all(slope != 0)
    actor, critic = soft_actor(choice, (8,)), q_critic(choice, (8,), critics=3)
    assert actor.apply(actor.init(KEY, observation), observation).logits.shape == (*leading, 3)
    assert critic.apply(critic.init(KEY, observation), observation).shape == (3, *leading, 3)


def test_critics_learn_apart():
    critic = q_critic(Spaces(VECTOR, BOX), (8,))
    observation, action = jnp.ones(4), jnp.ones(2)
    params = critic.init(KEY, observation, action)
    slope = jax.grad(lambda params: critic.apply(params, observation, action)[0])(params)["params"]["mlps"]
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(slope["critic_0"]))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slope["critic_1"]))


def test_the_scale_is_bounded():
    head = rlx.nets.TanhNormalHead(1)
    for wish, bound in zip((-1e3, 1e3), LOG_SCALE, strict=True):
        assert head.apply({}, jnp.array([0.0, wish])).log_scale == bound


def test_masked_actions_are_impossible():
    masked = {"observation": jnp.ones(4), "action_mask": jnp.array([1, 0])}
    space = spaces.Dict({"observation": VECTOR, "action_mask": spaces.MultiBinary(2)})
    actor = soft_actor(Spaces(space, spaces.Discrete(2)), (8,))
    np.testing.assert_array_equal(actor.apply(actor.init(KEY, masked), masked).logits[1], -jnp.inf)
    with pytest.raises(ValueError, match="needs a Discrete"):
        soft_actor(Spaces(VECTOR, BOX), (8,)).init(KEY, masked)


@pytest.mark.parametrize("make", [soft_actor, deterministic_actor, q_critic])
@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3]), spaces.Box(0, np.inf, (2,))])
def test_other_spaces_are_refused(make, space):
    with pytest.raises(ValueError, match="is not supported"):
        make(Spaces(VECTOR, space))
    with pytest.raises(ValueError, match="bounded Box"):
        deterministic_actor(probes.ActionReward())
