"""Direct Preference Optimization: a policy learns from pairs of responses which of two is preferred.

Rafailov et al. 2023, arXiv 2305.18290. (Others' DPO is another algorithm.)

Axes: N pairs of the data, B of a batch, M sequences of a pretraining mix.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from rlx.core.config import require, require_counts, require_finite, require_positive
from rlx.core.epochs import Epochs, draw_rows, next_rows, start_epochs
from rlx.core.learn import gradient_step, init_learner
from rlx.lm.data import Comparisons
from rlx.lm.feedback import ptx_loss
from rlx.lm.pairs import DPO, batched, check_pairs, pair_log_probs, preference_loss
from rlx.lm.sequences import Prompts, Sampling, Sequences, complete, start_params
from rlx.ops.preferences import PairLoss
from rlx.types import Algorithm, Key, Learner, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class DPOConfig:
    """Settings of Direct Preference Optimization; a step is one gradient step."""

    batch_size: int = 64  # B, pairs a gradient step (and sequences of the pretraining mix); each pair once an epoch
    beta: float = 0.1  # strength of the KL penalty that the optimum has, reward a nat; 0.05 to 0.5 is usual
    label_smoothing: float = 0.0  # probability that a label is the wrong way round, below 1/2 (cDPO); 0 to 0.3
    sft_coef: float = 0.0  # of the chosen responses' cross-entropy, nats a token: 1 keeps them probable
    ptx_coef: float = 0.0  # of the cross-entropy of the pretraining mix, nats a token; needs `ptx`
    length_average: bool = False  # log-ratios are means over tokens, not sums: shorter responses count as much

    def __post_init__(self) -> None:
        require_counts(self, "batch_size")
        require_positive(self, "beta")
        require(self, (self.label_smoothing >= 0) & (self.label_smoothing < 0.5), "0 to below 1/2", "label_smoothing")
        require(self, self.sft_coef >= 0, "must be 0 or more", "sft_coef")
        require(self, self.ptx_coef >= 0, "must be 0 or more", "ptx_coef")
        require_finite(self)


class DPOState(NamedTuple):
    """Everything that changes, and what the reference says of the data.

    Attributes:
        key: typed PRNG key.
        learner: the policy's parameters and optimiser state.
        epochs: which pairs come next.
        reference: two `[N]`, nats: the reference's log-probabilities of the chosen and of the rejected responses.
    """

    key: Key
    learner: Learner
    epochs: Epochs
    reference: tuple[jax.Array, jax.Array]


def dpo(
    model: Any,
    data: Comparisons,
    optimizer: optax.GradientTransformation,
    sampling: Sampling,
    config: DPOConfig = DPOConfig(),
    params: PyTree | None = None,
    loss: PairLoss = DPO,
    ptx: Sequences | None = None,
) -> Algorithm:
    """Make the algorithm: the policy learns which of two responses was preferred, epoch by epoch.

    Its optimum, with enough of pairs that follow Bradley and Terry's model, is that of RL with the reward which they
    express, `pi_ref exp(r / beta) / Z`. The loss sees margins alone, so both log-probabilities may fall: see the
    metrics, `sft_coef`, `rlx.ops.dpop_loss` and `rlx.lm.diagnose`.

    What the reference says of the data is computed once, in `init`, and kept in the state, two numbers a pair: a step
    costs no forward pass of the reference.

    Other losses: `rlx.ops.of_margin(rlx.ops.ipo_loss)`, `of_margin(slic_loss)`, `functools.partial(rlx.ops.dpop_loss,
    penalty=5.0)`, `rlx.ops.nca_loss`, or any function `(chosen, rejected, beta) -> loss` of log-ratios. TRL's IPO
    takes `length_average`.

    Metrics are means over the batch: `margin` (nats), `accuracy` of its sign, implicit rewards (beta times log-ratio),
    log-probabilities summed (nats a response) and per token.

    Args:
        model: a transformer with logits.
        data: `[N]` pairs. Ties weigh nothing, and `margin` is not read.
        optimizer: optax's.
        sampling: how `act` draws responses; the loss is at temperature 1.
        config: the settings.
        params: of the policy that was fine-tuned on demonstrations: where to begin, and the reference; None: the
            reference is a policy drawn with key 0.
        loss: of a pair's log-ratios.
        ptx: `[M]` sequences of the pretraining mix, whose cross-entropy is added.

    Raises:
        ValueError: the two sides differ in shape, there are ties alone, or fewer pairs than make a batch, or
            `ptx_coef` has no `ptx`.
    """
    check_pairs(data)
    number = data.tie.shape[0]
    if not isinstance(data.tie, Tracer) and np.all(np.asarray(data.tie)):
        raise ValueError(f"dpo: all {number} pairs are ties: there is no preference to learn")
    require(config, config.batch_size <= number, f"there are {number} pairs", "batch_size")
    require(config, ptx is not None or config.ptx_coef == 0, "needs sequences of pretraining: ptx=...", "ptx_coef")
    data, ptx = jax.tree.map(jnp.asarray, (data, ptx))
    ref_params = start_params(model, jax.random.key(0)) if params is None else params

    def init(key: Key) -> DPOState:
        key, params_key = jax.random.split(key)
        learner = init_learner(start_params(model, params_key, params), optimizer)
        fixed = jax.lax.optimization_barrier(ref_params)  # or the compiler would go through all the data itself
        reference = batched(lambda pairs: pair_log_probs(model, fixed, pairs), data, config.batch_size)
        return DPOState(key, learner, start_epochs(number), reference)

    def step(state: DPOState) -> tuple[DPOState, Metrics]:
        key, epoch_key, ptx_key = jax.random.split(state.key, 3)
        epochs, rows = next_rows(epoch_key, state.epochs, config.batch_size)
        pairs, reference = jax.tree.map(lambda x: x[rows], (data, state.reference))
        text = None if ptx is None else draw_rows(ptx_key, ptx, config.batch_size)

        def objective(params: PyTree) -> tuple[jax.Array, Metrics]:
            terms = config.beta, config.label_smoothing, config.sft_coef, config.length_average
            value, metrics = preference_loss(params, model, pairs, reference, loss, *terms)
            if text is None:
                return value, metrics
            of_text = ptx_loss(params, model, text)
            return value + config.ptx_coef * of_text, metrics | {"ptx_loss": of_text}

        learner, metrics = gradient_step(objective, optimizer, state.learner)
        nothing = {"episodes": jnp.float32(0.0), "episode_return": jnp.float32(0.0)}
        return DPOState(key, learner, epochs, state.reference), metrics | nothing

    def act(state: DPOState, key: Key | None, prompts: Prompts) -> jax.Array:
        return complete(model, state.learner.params, key, prompts, sampling)

    return Algorithm(init, step, act)
