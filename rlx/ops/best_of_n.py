"""Best-of-n: the best of n draws by a proxy reward. What it scores, how far it is from the policy it draws from.

Axes: N samples in a pool, Y outcomes of a discrete distribution.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp


def best_of_n_weights(size: int, n: int | jax.Array) -> jax.Array:
    """Probability that the i-th worst of N samples is the best of n of them, drawn without replacement.

        w_i = C(i - 1, n - 1) / C(N, n)

    Made downwards from w_N = n / N by w_i / w_{i+1} = (i + 1 - n) / i: differences of lgamma, the usual way, lose all
    digits of a float32 at N = 60,000, where these keep five.

    Args:
        size: N.
        n: 1 to N.

    Returns:
        `[N]` weights for samples in ascending order; they sum to 1.
    """
    rank = jnp.arange(1, size)  # of all but the best
    step = jnp.where(rank >= n, jnp.log1p(-(n - 1) / jnp.maximum(rank, n)), -jnp.inf)
    log_weight = jnp.append(jnp.cumsum(step[::-1])[::-1], 0.0)
    weight = jnp.exp(log_weight)
    return weight / jnp.sum(weight)


def best_of_n_curve(proxy: jax.Array, score: jax.Array, ns: Sequence[int]) -> jax.Array:
    """Mean score of the best of n by the proxy, for several n from one pool (Nakano et al. 2021, arXiv 2112.09332).

        R(n) = sum_i w_i(n) * score_(i),   (i) the i-th in ascending order of the proxy

    It is the mean over all C(N, n) subsets, and so unbiased for every n. Among equal proxies the pick is by chance:
    they share the mean of their scores. Near n = N it rests on a few samples, and its errors at different n go
    together: for intervals use several prompts.

    Args:
        proxy: `[N]` what is maximised.
        score: `[N]` what is reported, such as the gold reward, or the proxy itself.
        ns: numbers of draws, 1 to N.

    Returns:
        `[len(ns)]` mean scores. One n at a time, so that memory is some N floats. For several prompts use `jax.vmap`.

    Raises:
        ValueError: an n is below 1 or above N.
    """
    chex.assert_equal_shape([proxy, score])
    chex.assert_rank(proxy, 1)
    if min(ns) < 1 or max(ns) > len(proxy):
        raise ValueError(f"ns: {list(ns)} are not all between 1 and the pool's {len(proxy)} samples")
    order = jnp.argsort(proxy)
    score = _share_among_equals(proxy[order], score[order])
    return jax.lax.map(lambda n: jnp.sum(best_of_n_weights(len(score), n) * score), jnp.array(ns))


def _share_among_equals(ordered: jax.Array, score: jax.Array) -> jax.Array:
    tied = _groups_of_equals(ordered)
    total, count = (jax.ops.segment_sum(x, tied, len(score)) for x in (score, jnp.ones_like(score)))
    return (total / jnp.maximum(count, 1))[tied]


def _groups_of_equals(ordered: jax.Array) -> jax.Array:
    """Numbers `[N]` of the groups of equal entries, from 0."""
    return jnp.cumsum(jnp.append(False, ordered[1:] != ordered[:-1]))


def best_of_n_distribution(prob: jax.Array, reward: jax.Array, n: int | jax.Array) -> jax.Array:
    """Distribution of the best of n draws, exactly (Beirami et al. 2024, arXiv 2401.01879, sec. 2).

        q(y) = (F(y)^n - F_(y)^n) * p(y) / p(reward = r(y)),   F(y) = p(reward <= r(y)),  F_(y) = p(reward < r(y))

    Outcomes of equal reward share what their reward gets by their probability: the pick among them is by chance.

    Args:
        prob: `[Y]` probabilities p of the policy that draws; they sum to 1.
        reward: `[Y]` what is maximised.
        n: number of draws, 1 or more; any positive number will do.

    Returns:
        `[Y]` probabilities q.
    """
    return prob * jnp.exp(_log_ratio(prob, reward, n))


def best_of_n_kl(prob: jax.Array, reward: jax.Array, n: int | jax.Array) -> jax.Array:
    """KL(best of n || p) of a discrete distribution, exactly, in nats.

    It is below `best_of_n_kl_bound` wherever outcomes have probability at all: for ever finer p it comes up to the
    bound, for large n it stops at -log p(reward is the greatest).

    Args:
        prob: `[Y]` probabilities p of the policy that draws.
        reward: `[Y]` what is maximised.
        n: number of draws.

    Returns:
        A scalar.
    """
    log_ratio = _log_ratio(prob, reward, n)
    chosen = prob * jnp.exp(log_ratio)
    return jnp.sum(jnp.where(chosen > 0.0, chosen * log_ratio, 0.0))


def _cumulative(prob: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Probability `[Y]` each of a lesser, the same and a greater reward, as sums of their own: no digits cancel."""
    chex.assert_equal_shape([prob, reward])
    chex.assert_rank(prob, 1)
    order = jnp.argsort(reward)
    tied = _groups_of_equals(reward[order])
    same = jax.ops.segment_sum(prob[order], tied, len(prob))  # [groups], ascending
    below = jnp.append(0.0, jnp.cumsum(same)[:-1])
    above = jnp.append(jnp.cumsum(same[::-1])[::-1][1:], 0.0)
    back = jnp.argsort(order)
    return below[tied][back], same[tied][back], above[tied][back]


def _log_ratio(prob: jax.Array, reward: jax.Array, n: int | jax.Array) -> jax.Array:
    """log q(y) / p(y) `[Y]` of best-of-n: n log F + log(1 - (1 - p(same) / F)^n) - log p(same)."""
    below, same, above = _cumulative(prob, reward)
    possible = same > 0.0
    same = jnp.where(possible, same, 1.0)
    at_most = jnp.where(above < 0.5, 1.0 - above, below + same)  # F
    log_at_most = jnp.where(above < 0.5, jnp.log1p(-jnp.minimum(above, 0.5)), jnp.log(jnp.minimum(at_most, 1.0)))
    any_same = -jnp.expm1(n * jnp.log1p(-jnp.minimum(same / at_most, 1.0)))  # of n draws at most r, one is r
    return jnp.where(possible, n * log_at_most + jnp.log(any_same) - jnp.log(same), 0.0)


def best_of_n_kl_bound(n: int | jax.Array) -> jax.Array:
    """Upper bound on KL(best of n || p), in nats: log n - (n - 1) / n (arXiv 2401.01879, sec. 3).

    Often quoted as the KL itself, which it is only where no two draws ever have the same reward. With few outcomes it
    is far off: at n = 64 among four, 3.17 where 2.29 is true.

    Args:
        n: `[...]` number of draws.

    Returns:
        `[...]` nats.
    """
    n = jnp.asarray(n, float)
    return jnp.log(n) - (n - 1.0) / n


def best_of_n_kl_estimate(log_prob: jax.Array, n: int | jax.Array) -> jax.Array:
    """Estimate KL(best of n || p) from how probable the chosen response was (arXiv 2401.01879, sec. 4).

        (1 - e)^n (log n + (n - 1) log(1 - e) - (n - 1) / n) + b log(b / e),   b = 1 - (1 - e)^n,  e = p(chosen)

    The KL of a distribution whose best outcome is the chosen one and whose others are of no probability each: at small
    e the bound, at e = 1 nothing. Average it over the responses that best-of-n chose.

    Args:
        log_prob: `[...]` log p of chosen responses, whole sequences.
        n: number of draws.

    Returns:
        `[...]` nats.
    """
    n = jnp.asarray(n, float)
    log_other = jnp.log1p(-jnp.minimum(jnp.exp(log_prob), 1.0 - jnp.finfo(log_prob.dtype).eps))
    none, any_chosen = jnp.exp(n * log_other), -jnp.expm1(n * log_other)
    positive = any_chosen > 0.0
    atom = jnp.where(positive, any_chosen * (jnp.log(jnp.where(positive, any_chosen, 1.0)) - log_prob), 0.0)
    return none * (best_of_n_kl_bound(n) + (n - 1.0) * log_other) + atom


def best_of_n_win_rate(prob: jax.Array, reward: jax.Array, n: int | jax.Array) -> jax.Array:
    """Probability that the best of n has a greater reward than one draw, ties counting one half, exactly.

    At most n / (n + 1) (arXiv 2401.01879, sec. 5), which it is where no rewards are equal and no outcome has weight.

    Args:
        prob: `[Y]` probabilities of the policy that draws.
        reward: `[Y]` what is maximised, and what is compared.
        n: number of draws.

    Returns:
        A scalar, 1/2 to n / (n + 1).
    """
    below, same, _ = _cumulative(prob, reward)
    return jnp.sum(best_of_n_distribution(prob, reward, n) * (below + 0.5 * same))


def win_rate(score: jax.Array, other: jax.Array) -> jax.Array:
    """Compare two sets of responses: 1 where the first is better, 1/2 where they are equal, else 0.

    Args:
        score: `[...]` of the first.
        other: `[...]` of the second, to the same prompts.

    Returns:
        `[...]`; its mean is the win rate.
    """
    chex.assert_equal_shape([score, other])
    return jnp.where(score > other, 1.0, jnp.where(score == other, 0.5, 0.0))
