"""Whether a reward model's scores mean what they say: accuracy where it counts, calibration, temperature, intervals.

The score difference of a pair is a logit: sigmoid(r_w - r_l) is how probable the model thinks the preference. Axes: N
comparisons, K choices, E bins.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from rlx.ops.best_of_n import win_rate


class Bins(NamedTuple):
    """What falls into bins along some quantity.

    Attributes:
        position: `[E]` mean of the quantity; 0 where a bin is empty.
        mean: `[E]` mean of what is measured there; 0 where a bin is empty.
        count: `[E]` int32, how many.
    """

    position: jax.Array
    mean: jax.Array
    count: jax.Array


def binned_mean(position: jax.Array, value: jax.Array, edges: jax.Array) -> Bins:
    """Means of a value along a quantity: accuracy by margin, by difference of length, by confidence.

    Args:
        position: `[N]` the quantity.
        value: `[N]` what is measured, such as `win_rate(chosen, rejected)` for the accuracy.
        edges: `[E + 1]` ascending. A bin holds its lower edge; what lies beyond the ends is in the bins there.

    Returns:
        `Bins`. A diagram of reliability is that of (confidence, correct), both from `pair_confidence`.
    """
    chex.assert_equal_shape([position, value])
    chex.assert_rank([position, value], 1)
    edges = jnp.asarray(edges)
    bin_of, bins = jnp.searchsorted(edges[1:-1], position, side="right"), len(edges) - 1
    count = jax.ops.segment_sum(jnp.ones_like(bin_of), bin_of, bins)
    mean = lambda x: jax.ops.segment_sum(x.astype(float), bin_of, bins) / jnp.maximum(count, 1)  # noqa: E731
    return Bins(mean(position), mean(value), count)


def length_baseline(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """Accuracy of the better of two rules that read no word: "the longer one", "the shorter one".

    What a reward model has to beat. Responses of equal length count one half.

    Args:
        chosen: `[N]` lengths of the preferred responses.
        rejected: `[N]` lengths of the others.

    Returns:
        A scalar, 1/2 to 1.
    """
    longer = jnp.mean(win_rate(chosen, rejected))
    return jnp.maximum(longer, 1.0 - longer)


def pair_confidence(chosen: jax.Array, rejected: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How sure scores are of a pair, and whether they are right.

    Args:
        chosen: `[...]` scores of the preferred responses.
        rejected: `[...]` scores of the others.

    Returns:
        Confidence `[...]`, sigmoid(|r_w - r_l|), 1/2 to 1; and 1 where the preferred has the greater score, 1/2 where
        the two are equal, else 0.
    """
    return jax.nn.sigmoid(jnp.abs(chosen - rejected)), win_rate(chosen, rejected)


def calibration_error(bins: Bins) -> jax.Array:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599, eq. 3).

        ECE = sum_e count_e / N * |accuracy_e - confidence_e|

    It depends on the bins: give them along with the number. A model that always says what share of pairs it gets right
    has 0 and is of no use: read the accuracy beside it.

    Args:
        bins: of correctness along confidence.

    Returns:
        A scalar, 0 to 1.
    """
    return jnp.sum(bins.count * jnp.abs(bins.mean - bins.position)) / jnp.maximum(jnp.sum(bins.count), 1)


def fit_temperature(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Temperature that makes logits best calibrated (Guo et al. 2017, arXiv 1706.04599, sec. 4.2).

        T = argmin mean -log softmax(logits / T)[label]

    The loss is convex in 1 / T, so that halving an interval on its slope finds the one minimum to float32's precision.
    No choice changes: accuracy stays as it is. Fit on one set of comparisons, report on another.

    Args:
        logits: `[N, K]`; of pairs `jnp.stack([chosen, rejected], -1)`, the scores.
        label: `[N]` int, the right choice; of pairs all 0.

    Returns:
        A scalar, 1e-4 to 1e4. The ends mean that there is no minimum: every choice is right (1e-4), or the logits are
        right no more than by chance (1e4).
    """
    chex.assert_rank([logits, label], [2, 1])
    chosen = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]

    def slope(scale):  # of the loss in 1 / T: rises with it
        return jnp.mean(jnp.sum(jax.nn.softmax(scale * logits) * logits, axis=1) - chosen)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        too_far = slope(jnp.exp(middle)) > 0.0
        return jnp.where(too_far, low, middle), jnp.where(too_far, middle, high)

    limit = jnp.log(jnp.array(1e4, logits.dtype))
    low, high = jax.lax.fori_loop(0, 40, halve, (-limit, limit))
    return jnp.exp(-0.5 * (low + high))


def wilson_interval(accuracy: jax.Array, count: int | jax.Array, z: float = 1.96) -> tuple[jax.Array, jax.Array]:
    """Interval for the true accuracy behind a measured one (Wilson 1927).

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Never outside 0 to 1, and of use at 0 and at 1 too. Comparisons have to be independent: of several from one prompt
    count the prompts.

    Args:
        accuracy: `[...]` p, share that was right.
        count: `[...]` n, of how many.
        z: half width in standard deviations; 1.96 for 95 percent.

    Returns:
        Lower and upper end, `[...]` each; 0 and 1 where the count is 0.
    """
    count = jnp.asarray(count, float)
    square = z * z
    some = jnp.maximum(count, 1.0)
    centre = accuracy + 0.5 * square / some
    spread = z * jnp.sqrt(accuracy * (1.0 - accuracy) / some + 0.25 * square / (some * some))
    low, high = ((centre + side * spread) / (1.0 + square / some) for side in (-1.0, 1.0))
    low, high = jnp.clip(low, 0.0, 1.0), jnp.clip(high, 0.0, 1.0)
    return jnp.where(count > 0, low, 0.0), jnp.where(count > 0, high, 1.0)
