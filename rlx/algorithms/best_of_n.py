"""Best-of-n: of n responses to a prompt, the one that a reward likes best; what it is worth, for every n at once.

Axes: B prompts of a step, N responses to each, K numbers n.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.core.config import require, require_counts
from rlx.lm.generate_and_learn import generate
from rlx.lm.sequences import Prompts, Sampling, Sequences, sample, sampled_sequences
from rlx.ops.best_of_n import best_of_n_curve, best_of_n_kl_estimate, best_of_n_weights
from rlx.types import Algorithm, Key, Metrics, PyTree


@dataclasses.dataclass(frozen=True)
class BestOfNConfig:
    """Settings of best-of-n; a step is a pool of responses to each of some prompts."""

    num_prompts: int = 16  # B, prompts a step
    samples: int = 64  # N, responses to each, 2 or more; n goes up to it

    def __post_init__(self) -> None:
        require_counts(self, "num_prompts", "samples")
        require(self, self.samples > 1, "must be 2 or more", "samples")

    @property
    def ns(self) -> tuple[int, ...]:
        """The numbers n that are measured: powers of 2, and `samples`."""
        powers = (2**power for power in range(self.samples.bit_length()))
        return (*(n for n in powers if n < self.samples), self.samples)


class BestOfNState(NamedTuple):
    """Everything that changes: sums over the prompts so far.

    Attributes:
        key: typed PRNG key.
        prompts: float32, how many.
        proxy: `[K]` what the reward that picks gives the picked response.
        gold: `[K]` what the true one gives it.
        gold_square: `[K]` the squares of that.
        kl: `[K]` nats, Beirami's estimate of KL(best of n || policy).
    """

    key: Key
    prompts: jax.Array
    proxy: jax.Array
    gold: jax.Array
    gold_square: jax.Array
    kl: jax.Array


def best_of_n(
    model: Any,
    prompts: Prompts,
    proxy: Callable[[Sequences], jax.Array],
    gold: Callable[[Sequences], jax.Array],
    sampling: Sampling,
    config: BestOfNConfig,
    params: PyTree,
) -> Algorithm:
    """Make the algorithm: nothing learns, each step measures more prompts.

    From one pool of N responses to a prompt it takes the unbiased estimates for all n (see `rlx.ops.best_of_n_curve`).
    Metrics: `proxy_N`, `gold_N` and `kl_N` for each n. `act` gives the best of `samples` by the proxy, with a key.

    Args:
        model: a transformer with logits.
        prompts: `[...]` what is drawn from.
        proxy: `(sequences) -> [B]`, by which the best is picked.
        gold: `(sequences) -> [B]`, what it is worth.
        sampling: how responses are drawn.
        config: the settings.
        params: of the policy that draws.
    """
    if sampling.top_k is not None or sampling.top_p is not None:
        raise ValueError("best-of-n of top-k or top-p samples: their KL is not known, use the temperature alone")
    ns = config.ns

    def init(key: Key) -> BestOfNState:
        return BestOfNState(key, jnp.float32(0.0), *(jnp.zeros(len(ns)) for _ in range(4)))

    def of_prompt(proxies: jax.Array, golds: jax.Array, log_prob: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        log_prob = log_prob[jnp.argsort(proxies)]  # equals stay in the order of the draws: a pick by chance

        def chosen_kl(n: jax.Array) -> jax.Array:
            return jnp.sum(best_of_n_weights(len(proxies), n) * best_of_n_kl_estimate(log_prob, n))

        kl = jax.lax.map(chosen_kl, jnp.array(ns))
        return best_of_n_curve(proxies, proxies, ns), best_of_n_curve(proxies, golds, ns), kl

    def step(state: BestOfNState) -> tuple[BestOfNState, Metrics]:
        key, draw_key = jax.random.split(state.key)
        sequences, log_prob = generate(model, params, draw_key, prompts, sampling, config.num_prompts, config.samples)
        pools = (proxy(sequences), gold(sequences), jnp.sum(log_prob, axis=1))
        proxies, golds, kl = jax.vmap(of_prompt)(*(x.reshape(-1, config.samples) for x in pools))  # [B, K]
        sums = (jnp.sum(x, axis=0) for x in (proxies, golds, golds**2, kl))
        added = BestOfNState(key, jnp.float32(config.num_prompts), *sums)
        means = {"proxy": proxies, "gold": golds, "kl": kl}
        metrics = {f"{name}_{n}": jnp.mean(x[:, k]) for name, x in means.items() for k, n in enumerate(ns)}
        metrics |= {"episodes": jnp.float32(config.num_prompts), "episode_return": jnp.mean(golds[:, -1])}
        return BestOfNState(key, *jax.tree.map(jnp.add, state[1:], added[1:])), metrics

    def act(state: BestOfNState, key: Key | None, prompts: Prompts) -> jax.Array:
        leading = prompts.length.shape
        flat = Prompts(prompts.tokens.reshape(-1, prompts.tokens.shape[-1]), prompts.length.reshape(-1))
        drawn = sample(model, params, key, flat, sampling, 1 if key is None else config.samples)
        scores = proxy(sampled_sequences(flat, drawn)).reshape(drawn.response_length.shape)
        best = jnp.argmax(scores, axis=1)
        return jnp.take_along_axis(drawn.response, best[:, None, None], axis=1).reshape(*leading, -1)

    return Algorithm(init, step, act)
