"""The step that all algorithms share which learn from a model's own responses: draw them, have them judged, learn.

Axes: B responses, T tokens of a response, G responses to one prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.core.epochs import draw_rows
from rlx.lm.sequences import Prompts, Sampling, Sequences, complete, sample, sampled_sequences
from rlx.types import Algorithm, Key, Metrics, PyTree, TwoHalves


class Generated(NamedTuple):
    """Responses, those to one prompt in a row, and what was made of them.

    Attributes:
        sequences: `[B]`.
        log_prob: `[B, T]` nats, by the policy that drew them, at the sampling temperature; 0 beyond their lengths.
        score: `[B]`, by the reward.
    """

    sequences: Sequences
    log_prob: jax.Array
    score: jax.Array


Learn = Callable[[Any, Generated, Key], tuple[Any, Metrics]]


def generate(
    model: Any, params: PyTree, key: Key, prompts: Prompts, sampling: Sampling, num_prompts: int, samples: int
) -> tuple[Sequences, jax.Array]:
    """Draw prompts, and `samples` responses to each: `[B]` sequences and their log-probabilities `[B, T]`."""
    prompt_key, sample_key = jax.random.split(key)
    chosen = draw_rows(prompt_key, prompts, num_prompts)
    drawn = sample(model, params, sample_key, chosen, sampling, samples)
    return sampled_sequences(chosen, drawn), drawn.log_prob.reshape(-1, sampling.max_tokens)


def generate_and_learn(
    init: Callable[[Key], Any],
    actor: Callable[[Any], PyTree],
    model: Any,
    prompts: Prompts,
    reward: Callable[[Sequences], Any],
    learn: Learn,
    sampling: Sampling,
    num_prompts: int,
    samples: int,
) -> Algorithm:
    """Make the algorithm whose step is `num_prompts * samples` responses, their rewards, and learning from them.

    Args:
        init: `(key) -> state` with at least the field `key`.
        actor: from the state, the policy's parameters.
        model: a transformer with logits.
        prompts: `[N]`, what is drawn from.
        reward: `(sequences) -> [B]`, a JAX function: then a step is one compiled program. One that has an attribute
            `host` that is true is called with numpy arrays between two programs.
        learn: `(state, generated, key) -> (state, metrics)`; it leaves `key` alone.
        sampling: how responses are drawn.
        num_prompts: prompts a step.
        samples: G, responses to each.

    Raises:
        ValueError: top-k or top-p sampling, whose tokens are not the policy's own.
    """
    if sampling.top_k is not None or sampling.top_p is not None:
        raise ValueError(
            "learning from samples of top-k or top-p: they are not the policy's, use the temperature alone"
        )
    host = bool(getattr(reward, "host", False))

    def collect(state: Any) -> tuple[Any, Sequences, jax.Array, Key]:
        key, generate_key, learn_key = jax.random.split(state.key, 3)
        drawn = generate(model, actor(state), generate_key, prompts, sampling, num_prompts, samples)
        return state._replace(key=key), *drawn, learn_key

    def learn_judged(
        state: Any, sequences: Sequences, log_prob: jax.Array, key: Key, score: jax.Array
    ) -> tuple[Any, Metrics]:
        state, metrics = learn(state, Generated(sequences, log_prob, score), key)
        return state, metrics | {
            "episodes": jnp.float32(len(score)),
            "episode_return": jnp.mean(score),
            "response_length": jnp.mean(sequences.response_length, dtype=jnp.float32),
            "ended": jnp.mean(sequences.ended(sampling.end), dtype=jnp.float32),
        }

    def learn_from(state: Any, sequences: Sequences, log_prob: jax.Array, key: Key) -> tuple[Any, Metrics]:
        return learn_judged(state, sequences, log_prob, key, reward(sequences))

    def act(state: Any, key: Key | None, prompts: Prompts) -> jax.Array:
        return complete(model, actor(state), key, prompts, sampling)

    if not host:
        step = TwoHalves(collect, learn_from)
        cut = num_prompts * samples * sampling.max_tokens >= 100 and jax.default_backend() == "cpu"
        return Algorithm(init, step if cut else lambda state: step(state), act)
    first, second = jax.jit(collect), jax.jit(learn_judged, donate_argnums=0)

    def host_step(state: Any) -> tuple[Any, Metrics]:
        state, sequences, log_prob, key = first(state)
        score = np.asarray(reward(jax.tree.map(np.asarray, sequences)), np.float32)
        if score.shape != log_prob.shape[:1] or not np.all(np.isfinite(score)):
            raise ValueError(
                f"the reward gave an array of shape {score.shape}, {np.sum(~np.isfinite(score))} of it not finite: "
                f"it has to be one finite number for each of {len(log_prob)} responses"
            )
        return second(state, sequences, log_prob, key, score)

    return Algorithm(jax.jit(init), host_step, act, host=True)
