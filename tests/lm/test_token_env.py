"""The unmodified `ppo` writes: one algorithm serves control and language."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx.lm.enumerable import Language, TabularModel, string_log_probs
from rlx.lm.sequences import Prompts
from rlx.lm.token_env import TokenEnv, TokenPolicy
from rlx.nets.transformer import Transformer, TransformerConfig

LANGUAGE = Language(vocabulary=4, max_tokens=3)


def count(sequences):
    """Reward: 1 for three tokens of 3, the most there is; ending at once gives 0."""
    return jnp.sum(jnp.where(sequences.mask, sequences.response, 0), axis=1) / 9.0


ENV = TokenEnv(LANGUAGE.prompts, count, 4, 3, LANGUAGE.end)


def test_an_episode_by_hand():
    prompts = Prompts(jnp.array([[3, 2, 9]]), jnp.array([2]))
    env = TokenEnv(prompts, lambda s: s.response_length + 10.0 * s.ended(0), 4, 3, 0)
    state, seen = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(seen["tokens"], [3, 2, 0, 0, 0, 0])
    assert seen["length"] == 2
    first = env.step(jax.random.key(0), state, jnp.int32(1))
    np.testing.assert_array_equal(first.observation["tokens"], [3, 2, 1, 0, 0, 0])
    assert (first.reward, first.terminated, first.truncated) == (0.0, False, False)
    ended = env.step(jax.random.key(0), first.state, jnp.int32(0))
    assert (ended.reward, ended.terminated) == (12.0, True)
    second = env.step(jax.random.key(0), first.state, jnp.int32(2))
    full = env.step(jax.random.key(0), second.state, jnp.int32(3))
    assert (second.terminated, full.terminated, full.reward) == (False, True, 3.0)
    assert full.observation["length"] == 5
    assert env.observation_space.contains(jax.tree.map(np.asarray, seen) | {"length": 2})


def test_a_transformer_reads_what_is_written_and_no_more():
    policy = TokenPolicy(Transformer(TransformerConfig(4, width=8, layers=1, heads=2), "both"))
    seen = {"tokens": jnp.array([[3, 2, 0, 0], [3, 2, 1, 1]]), "length": jnp.array([2, 2])}
    choice, value = policy.apply(policy.init(jax.random.key(0), seen), seen)
    np.testing.assert_array_equal(choice.logits[0], choice.logits[1])
    assert value.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [TabularModel(LANGUAGE, "both"), Transformer(TransformerConfig(4, width=16, layers=1, heads=2), "both")],
    ids=["table", "transformer"],
)
def test_ppo_learns_to_write_the_best_string(model):
    config = rlx.PPOConfig(num_envs=32, num_steps=12, num_epochs=4, num_minibatches=4, discount=1.0, entropy_coef=0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))
    algorithm = rlx.ppo(ENV, TokenPolicy(model), optimizer, config)

    @jax.jit
    @jax.vmap
    def expected(key):
        state, _ = rlx.train(algorithm, key, 100)
        return jnp.sum(jnp.exp(string_log_probs(model, state.learner.params, LANGUAGE)) * count(LANGUAGE.strings))

    found = expected(jax.random.split(jax.random.key(0), 3))
    assert np.all(found > 0.9), found  # at first about 0.4
