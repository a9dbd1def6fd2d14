"""Online Direct Preference Optimization: the policy's own responses are judged as they are drawn.

Guo et al. 2024, arXiv 2402.04792. Axes: N prompts of a step, G responses to one prompt, B = N G responses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.core.learn import gradient_step, init_learner
from rlx.lm.data import Comparisons
from rlx.lm.generate_and_learn import Generated, generate_and_learn
from rlx.lm.pairs import DPO, preference_loss
from rlx.lm.sequences import Prompts, Sampling, Sequences, response_logits, start_params, token_log_probs
from rlx.ops.preferences import PairLoss
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class OnlineDPOConfig:
    """Settings of online Direct Preference Optimization; a step samples, judges and takes one gradient step."""

    num_prompts: int = 64  # N, prompts a step
    samples: int = 2  # G, responses to each, 2 or more; the best and the worst make the pair
    beta: float = 0.1  # strength of the KL penalty that the optimum has, reward a nat; 0.05 to 0.5 is usual
    label_noise: float = 0.0  # units of reward: the better wins with probability sigmoid(difference / noise); 0: always

    def __post_init__(self) -> None:
        require_counts(self, "num_prompts", "samples")
        require(self, self.samples >= 2, "a pair needs 2 or more", "samples")
        require_positive(self, "beta")
        require(self, self.label_noise >= 0, "must be 0 or more", "label_noise")
        require_finite(self)


class OnlineDPOState(NamedTuple):
    """Everything that changes.

    Attributes:
        key: typed PRNG key.
        learner: the policy's parameters and optimiser state.
    """

    key: Key
    learner: Learner


def best_and_worst(generated: Generated, samples: int) -> tuple[Comparisons, jax.Array, jax.Array]:
    """Of the responses to each prompt the one of most and the one of least reward.

    Args:
        generated: `[B]` responses, those to one prompt in a row.
        samples: G.

    Returns:
        N pairs, a tie where all rewards of a prompt are equal, whose margin is the difference of rewards; and the
        places `[N]` of the chosen and of the rejected among the responses.
    """
    reward = generated.score.reshape(-1, samples)  # [N, G]
    first = samples * jnp.arange(reward.shape[0])
    best, worst = first + jnp.argmax(reward, axis=1), first + jnp.argmin(reward, axis=1)
    chosen, rejected = (jax.tree.map(lambda x, i=i: x[i], generated.sequences) for i in (best, worst))
    gap = jnp.max(reward, axis=1) - jnp.min(reward, axis=1)
    return Comparisons(chosen, rejected, gap, gap == 0.0), best, worst


def online_dpo(
    model: Any,
    prompts: Prompts,
    reward: Callable[[Sequences], Any],
    optimizer: optax.GradientTransformation,
    sampling: Sampling,
    config: OnlineDPOConfig = OnlineDPOConfig(),
    params: PyTree | None = None,
    loss: PairLoss = DPO,
) -> Algorithm:
    """Make the algorithm: draw responses, let the reward choose between two of each prompt, take one step.

    With `label_noise` the loss is its expectation over labels drawn by Bradley and Terry's model, so nothing is drawn,
    and the optimum is known: `pi_ref exp(r / (beta noise)) / Z`. Without, the better response always wins; then no
    margin is enough for DPO's loss, whatever beta (IPO's has one).

    Metrics: those of `rlx.dpo`, `kl` (nats a response, an unbiased estimate of KL(pi || ref) before the step), and
    `tie`, the share of prompts whose responses have equal rewards and so teach nothing. An episode is a response.

    Args:
        model: a transformer with logits.
        prompts: `[...]` what is drawn from.
        reward: `(sequences) -> [B]`, a JAX function, or one on the host (see `generate_and_learn`).
        optimizer: optax's.
        sampling: how responses are drawn; log-probabilities are at its temperature.
        config: the settings.
        params: where to begin, and the reference; None: the reference is a policy drawn with key 0.
        loss: of a pair's log-ratios, `(chosen, rejected, beta) -> loss` per pair; see `rlx.dpo`.
    """
    ref_params = start_params(model, jax.random.key(0)) if params is None else params

    def init(key: Key) -> OnlineDPOState:
        key, params_key = jax.random.split(key)
        return OnlineDPOState(key, init_learner(start_params(model, params_key, params), optimizer))

    def learn(state: OnlineDPOState, generated: Generated, key: Key) -> tuple[OnlineDPOState, Metrics]:
        logits = response_logits(model, ref_params, generated.sequences)
        tokens = token_log_probs(logits, generated.sequences, sampling.temperature)
        reference = jnp.sum(tokens, axis=-1)  # [B]
        pairs, best, worst = best_and_worst(generated, config.samples)
        wrong = jax.nn.sigmoid(-pairs.margin / jnp.maximum(config.label_noise, 1e-9))  # 0 without noise
        of_pairs = (model, pairs, (reference[best], reference[worst]), loss, config.beta, wrong, 0.0, False)
        learner, metrics = gradient_step(preference_loss, optimizer, state.learner, *of_pairs, sampling.temperature)
        metrics["kl"] = jnp.mean(jnp.sum(generated.log_prob, axis=-1) - reference)
        metrics["tie"] = jnp.mean(pairs.tie, dtype=jnp.float32)
        return state._replace(learner=learner), metrics

    return generate_and_learn(
        init,
        lambda state: state.learner.params,
        model,
        prompts,
        reward,
        learn,
        sampling,
        config.num_prompts,
        config.samples,
    )
