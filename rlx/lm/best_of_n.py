"""Best-of-n of a language model, stage by stage: draw a pool, score it, measure every n from it, keep the best.

    drawn = pool(model, params, key, prompts, sampling, samples=1024)
    scores = pool_scores(reward, drawn)
    found = curve(drawn, scores, pool_scores(gold, drawn), (1, 4, 16, 64, 256))
    best = best_responses(drawn, scores, n=64)      # rejection sampling: rlx.sft(model, best, ..., params=params)

The formulas are those of `rlx.ops.best_of_n`. Axes: B prompts, N samples of each, T response tokens, K numbers n.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx.lm.sequences import Prompts, Samples, Sampling, Sequences, sample, sampled_sequences
from rlx.ops.best_of_n import (
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_kl_bound,
    best_of_n_kl_estimate,
    best_of_n_weights,
)
from rlx.types import Key, PyTree


class Pool(NamedTuple):
    """N responses to each of B prompts.

    Attributes:
        prompts: `[B]`.
        response: `[B, N, T]` int32; beyond the length are more ends.
        response_length: `[B, N]` int32, with the token that ended it.
        log_prob: `[B, N]` nats, of whole responses at the sampling temperature, over the whole vocabulary: where top-k
            or top-p left some of it out, responses were more probable than this.
    """

    prompts: Prompts
    response: jax.Array
    response_length: jax.Array
    log_prob: jax.Array

    @property
    def sequences(self) -> Sequences:
        """Every response with its prompt, those to one prompt in a row: `[B * N]`."""
        return sampled_sequences(self.prompts, Samples(self.response, self.response_length, self.log_prob))


def pool(
    model: Any, params: PyTree, key: Key, prompts: Prompts, sampling: Sampling, samples: int, at_once: int = 4096
) -> Pool:
    """Draw `samples` responses to each prompt, so many at a time that memory holds a model's work on them.

    Args:
        model: a transformer with logits.
        params: its parameters.
        key: of the draws. With another `at_once` they are others.
        prompts: `[B]`.
        sampling: how.
        samples: N, of each prompt.
        at_once: responses drawn side by side, of all prompts together; at least one a prompt is.

    Returns:
        The pool, on the device; a JAX function, to be jitted as it is.
    """
    width = min(max(at_once // len(prompts.length), 1), samples)
    rounds = -(-samples // width)

    def draw(key: Key) -> Samples:
        drawn = sample(model, params, key, prompts, sampling, width)
        return drawn._replace(log_prob=jnp.sum(drawn.log_prob, axis=-1))

    drawn = jax.lax.map(draw, jax.random.split(key, rounds))  # [rounds, B, width, ...]

    def side_by_side(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], rounds * width, *x.shape[3:])[:, :samples]

    return Pool(prompts, *jax.tree.map(side_by_side, drawn))


def pool_scores(reward: Callable[[Sequences], Any], pool: Pool, at_once: int = 4096) -> jax.Array:
    """Reward `[B, N]` of every response.

    Equal responses should get equal rewards to the last bit, or they are not found to tie.

    Args:
        reward: `(sequences [M]) -> [M]`, a JAX function; one with an attribute `host` that is true is called once, with
            numpy arrays.
        pool: what was drawn.
        at_once: responses that are judged side by side.
    """
    sequences, shape = pool.sequences, pool.response_length.shape
    if getattr(reward, "host", False):
        return jnp.asarray(reward(jax.tree.map(np.asarray, sequences)), jnp.float32).reshape(shape)
    width = min(at_once, len(sequences.response_length))
    rounds = -(-len(sequences.response_length) // width)

    def fold(x: jax.Array) -> jax.Array:
        """Fill up the last round with the first rows again, so that each is judged by the same program."""
        index = jnp.arange(rounds * width) % len(x)
        return x[index].reshape(rounds, width, *x.shape[1:])

    scores = jax.lax.map(reward, jax.tree.map(fold, sequences))
    return scores.reshape(-1)[: len(sequences.response_length)].reshape(shape)


class Interval(NamedTuple):
    """A mean over prompts, and where it may lie.

    Attributes:
        mean: `[K]`.
        low: `[K]`, below it lie 2.5 percent of the means over prompts drawn again; NaN where there is one prompt alone.
        high: `[K]`, and above it.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Curve(NamedTuple):
    """What best-of-n by a proxy comes to, for K numbers n; numpy arrays.

    Attributes:
        n: `[K]` int.
        proxy: mean proxy reward of the response that is chosen.
        gold: its mean gold reward.
        win_rate: how often its gold reward is above that of one sample, ties counting one half.
        kl_bound: `[K]` nats, log n - (n - 1) / n: an upper bound on the KL from the policy, not the KL.
        kl_estimate: nats, Beirami's estimate of it, from how probable the chosen responses were; see
            `rlx.ops.best_of_n_kl_estimate`.
        kl: nats, by Monte Carlo: the KL of the pool's own rewards, each of probability 1 / N.
    """

    n: np.ndarray
    proxy: Interval
    gold: Interval
    win_rate: Interval
    kl_bound: np.ndarray
    kl_estimate: Interval
    kl: Interval


def curve(
    pool: Pool, proxy: jax.Array, gold: jax.Array, ns: Sequence[int], resamples: int = 1000, seed: int = 0
) -> Curve:
    """Measure best-of-n for several n from one pool: rewards, win rate, KL, as means over prompts with intervals.

    Rewards are unbiased for every n (`rlx.ops.best_of_n_curve`). Of the KL there are three numbers, of which none is
    unbiased. What best-of-n does depends on the rewards alone, so that its KL is that of the distribution of rewards:
    `kl` takes the pool for that distribution. It sees ties, and with many samples to an outcome it comes to the exact
    one; among rewards that are all different it is within 0.05 nats of the bound, even at n = N. `kl_estimate` does not
    see ties between different responses. The win rate compares with the pool's samples, by rank / (N + 1): exact where
    gold is the proxy or knows nothing of it, else off by some 1 / N.

    Args:
        pool: what was drawn.
        proxy: `[B, N]` what is maximised.
        gold: `[B, N]` what is wanted; the proxy again where there is no other.
        ns: numbers of draws, 1 to N.
        resamples: of the prompts, with replacement, for the intervals of 95 percent.
        seed: of the resamples.

    Raises:
        ValueError: scores are not the pool's, or an n is below 1 or above N.
    """
    shape = pool.response_length.shape
    if proxy.shape != shape or gold.shape != shape:
        raise ValueError(f"scores of shapes {proxy.shape} and {gold.shape} for a pool of {shape[0]} x {shape[1]}")
    rows = _measure(proxy, gold, pool.log_prob, tuple(ns))
    found = jax.tree.map(lambda x: bootstrap(np.asarray(x, np.float64), resamples, seed), rows)
    numbers = np.asarray(ns)
    return Curve(n=numbers, kl_bound=np.asarray(best_of_n_kl_bound(jnp.asarray(numbers))), **found)


@functools.partial(jax.jit, static_argnames="ns")
def _measure(proxy: jax.Array, gold: jax.Array, log_prob: jax.Array, ns: tuple[int, ...]) -> dict[str, jax.Array]:
    """Each prompt's numbers, `[B, K]`, one prompt at a time."""
    size = proxy.shape[1]

    def of_prompt(rows: tuple[jax.Array, jax.Array, jax.Array]) -> dict[str, jax.Array]:
        proxy, gold, log_prob = rows  # [N]
        log_prob = log_prob[jnp.argsort(proxy)]  # equals in the order they were drawn in, which is by chance

        def divergences(n: jax.Array) -> tuple[jax.Array, jax.Array]:
            estimate = jnp.sum(best_of_n_weights(size, n) * best_of_n_kl_estimate(log_prob, n))
            return estimate, best_of_n_kl(jnp.full(size, 1.0 / size), proxy, n)

        kl_estimate, kl = jax.lax.map(divergences, jnp.array(ns))
        scores = {"proxy": proxy, "gold": gold, "win_rate": _ranks(gold) / (size + 1)}
        curves = {name: best_of_n_curve(proxy, score, ns) for name, score in scores.items()}
        return curves | {"kl_estimate": kl_estimate, "kl": kl}

    return jax.lax.map(of_prompt, (proxy, gold, log_prob))


def _ranks(score: jax.Array) -> jax.Array:
    """Rank `[N]` of each in ascending order, from 1; equals share the mean of theirs."""
    ordered = jnp.sort(score)
    below, at_most = (jnp.searchsorted(ordered, score, side=side) for side in ("left", "right"))
    return 0.5 * (below + at_most + 1)


def bootstrap(rows: np.ndarray, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean over prompts, with an interval of 95 percent from prompts drawn again with replacement (percentiles).

    Responses to one prompt stand or fall together, and so do all n of one pool: it is prompts that are drawn.

    Args:
        rows: `[B, K]`, one a prompt.
        resamples: how many times.
        seed: of the draws.

    Returns:
        Mean, low and high, `[K]`.
    """
    count = len(rows)
    mean = rows.mean(axis=0)
    if count < 2:
        return Interval(mean, *(np.full_like(mean, np.nan) for _ in range(2)))
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=resamples)
    low, high = np.quantile(times @ rows / count, [0.025, 0.975], axis=0)
    return Interval(mean, low, high)


def best_responses(pool: Pool, score: jax.Array, n: int | None = None) -> Sequences:
    """Of every n responses to a prompt, in the order they were drawn, the best: data for rejection-sampling SFT.

    Args:
        pool: what was drawn.
        score: `[B, N]`; of equals the first is taken.
        n: of how many the best; None: of all N.

    Returns:
        `[B * N / n]` sequences, those to one prompt in a row: independent draws of best-of-n.

    Raises:
        ValueError: n does not divide N.
    """
    prompts, samples = pool.response_length.shape
    n = samples if n is None else n
    if n < 1 or samples % n:
        raise ValueError(f"n={n} does not divide the pool's {samples} samples a prompt")
    best = jnp.argmax(score.reshape(-1, n), axis=1)  # [B * N / n]
    rows = jnp.arange(prompts * samples // n) * n + best
    return jax.tree.map(lambda x: x[rows], pool.sequences)
