"""Curves of several seeds: brought to common distances, averaged, and how sure their laws and peaks are.

NumPy, float64. Axes: S seeds, B prompts, K points of a curve, G distances of a common grid, R bootstrap resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlx.core.config import require, require_counts
from rlx.experiments.laws import Fit, Law, fit, peak


def smooth(x: ArrayLike, window: int) -> np.ndarray:
    """Moving average along a run, centred; towards the ends its window shrinks, so that the ends stay as they are.

    Smooth distance and reward alike: then a straight curve stays the same straight curve.

    Args:
        x: `[..., K]`.
        window: points, an odd number; 1 changes nothing.

    Raises:
        ValueError: the window is even or below 1.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: {window} is not an odd number of points")
    x = np.asarray(x, float)
    index = np.arange(x.shape[-1])
    half = np.minimum(window // 2, np.minimum(index, index[::-1]))
    total = np.concatenate([np.zeros((*x.shape[:-1], 1)), np.cumsum(x, axis=-1)], axis=-1)
    return (total[..., index + half + 1] - total[..., index - half]) / (2 * half + 1)


def common_grid(d: ArrayLike, most: float, size: int, least: float = 0.0) -> np.ndarray:
    """Evenly spaced distances that every seed went through.

    Args:
        d: `[S, K]` distances along the runs.
        most: where to end; earlier, if the slowest seed did not come so far.
        size: G.
        least: where to begin.

    Returns:
        `[G]`.

    Raises:
        ValueError: the slowest seed did not come as far as `least`.
    """
    end = min(most, float(np.min(np.max(np.asarray(d), axis=-1))))
    if end <= least:
        raise ValueError(f"the slowest seed came to d = {end:.3g}: nothing is left of a grid from {least}")
    return np.linspace(least, end, size)


def on_grid(d: ArrayLike, values: ArrayLike, grid: np.ndarray) -> np.ndarray:
    """Values of each run at given distances, on straight lines between its points.

    A run goes back at times: its curve is drawn through the points at which it was farther than ever before, those of
    the running maximum. Before the first of them and beyond the last it keeps the value it has there.

    Args:
        d: `[..., K]` distances along the runs.
        values: `[..., K]` what is measured along them.
        grid: `[G]` distances.

    Returns:
        `[..., G]`.
    """
    d, values = np.broadcast_arrays(np.asarray(d, float), np.asarray(values, float))
    farthest = np.maximum.accumulate(d, axis=-1)
    record = np.diff(farthest, axis=-1, prepend=-np.inf) > 0
    latest = np.maximum.accumulate(np.where(record, np.arange(d.shape[-1]), 0), axis=-1)
    d, values = farthest, np.take_along_axis(values, latest, axis=-1)
    # All runs are laid end to end on one axis, for a single interpolation.
    place = np.arange(d[..., 0].size).reshape(*d.shape[:-1], 1) * (np.max(d, initial=0.0) + 1.0)
    at = np.clip(grid, d[..., :1], d[..., -1:]) + place
    return np.interp(at, (d + place).ravel(), values.ravel())


def seed_mean(d: ArrayLike, values: ArrayLike, grid: np.ndarray) -> np.ndarray:
    """Mean over seeds at the same distance, of runs that go at different speeds.

    Args:
        d: `[..., S, K]` distances along the runs, smoothed or not.
        values: `[..., S, K]`, treated alike.
        grid: `[G]` from `common_grid`.

    Returns:
        `[..., G]`.
    """
    return np.mean(on_grid(d, values, grid), axis=-2)


class Interval(NamedTuple):
    """A number and how sure it is.

    Attributes:
        value: `[...]` of all the data.
        low: `[...]` lower end of the percentile interval.
        high: `[...]` upper end.
        draws: `[R, ...]` of each resample.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draws: np.ndarray


class Bootstrap(NamedTuple):
    """A law and a curve with intervals.

    Attributes:
        fit: of the law to the mean curve of all the data.
        d: `[G]` where the curve is.
        curve: `[G]` mean over prompts and seeds.
        alpha: of the law.
        beta: of the law.
        peak_d: where the law is greatest; infinite where it rises for ever.
        peak_gold: the law's greatest.
        top_d: where the mean curve itself is greatest: no law is asked.
        top_gold: the mean curve's greatest. It is biased upwards, as a maximum of what is noisy.
    """

    fit: Fit
    d: np.ndarray
    curve: Interval
    alpha: Interval
    beta: Interval
    peak_d: Interval
    peak_gold: Interval
    top_d: Interval
    top_gold: Interval

    @property
    def top_is_interior(self) -> bool:
        """Whether the interval of the located peak excludes both ends of the curve: it rises, and then it falls."""
        return bool(self.d[0] < self.top_d.low and self.top_d.high < self.d[-1])


@dataclasses.dataclass(frozen=True)
class Resampling:
    """How a bootstrap draws (Efron and Tibshirani 1993): seeds, and within each seed drawn its prompts.

    Percentile intervals of S seeds are too narrow where the seeds themselves differ, by some sqrt((S - 1) / S): 8 or
    more are wanted. They are wide where few prompts make the difference, as seeds differ by those already. They say
    nothing about other worlds.
    """

    resamples: int = 1000  # R
    seed: int = 0  # of NumPy's generator; one seed draws alike for all curves of the same S and B, as of several sizes
    level: float = 0.95  # of the intervals
    shared_prompts: bool = False  # all seeds saw the same ones: drawn for each alone, what they share would average out

    def __post_init__(self) -> None:
        require_counts(self, "resamples")
        require(self, 0 < self.level < 1, "must be above 0 and below 1", "level")


def bootstrap_best_of_n(law: Law, d: ArrayLike, gold: ArrayLike, resampling: Resampling = Resampling()) -> Bootstrap:
    """Intervals of a best-of-n curve: of the mean over prompts and seeds at given n.

    Args:
        law: to be fitted, `BEST_OF_N` usually.
        d: `[K]` distances of the n, ascending. n = 1 (d = 0) is best left out: no law has anything to say there.
        gold: `[S, B, K]` rewards above the initial policy's. With a B of 1 only seeds are drawn.
        resampling: how.

    Raises:
        ValueError: gold is not `[S, B, K]` with d's K.
    """
    d, gold = np.asarray(d, float), np.asarray(gold, float)
    if gold.ndim != 3 or d.shape != gold.shape[-1:]:
        raise ValueError(f"gold {gold.shape} is not [S, B, K] with the K of d {d.shape}")
    (drawn,) = _means(resampling, gold)
    return _bootstrap(law, d, np.mean(gold, axis=(0, 1)), np.mean(drawn, axis=1), resampling.level)


def bootstrap_rl(
    law: Law,
    kl: ArrayLike,
    gold: ArrayLike,
    most: float,
    least: float = 0.0,
    size: int = 64,
    window: int = 1,
    resampling: Resampling = Resampling(),
) -> Bootstrap:
    """Intervals of a curve along training, of the mean over seeds at the same distance.

        d = sqrt(max(mean over prompts of kl, 0)), smoothed; its running maximum on a grid, common to all seeds

    The grid is made of all the data. Resampled runs that end before it does keep their last value.

    Args:
        law: to be fitted, `RL` usually.
        kl: `[S, B, K]` KL(policy || initial policy) along the run, nats, of each prompt or estimated at its sample.
        gold: `[S, B, K]` rewards above the initial policy's, or whatever else is to be drawn against d.
        most: where the grid ends, unless the slowest seed did not come so far. Fix it before looking.
        least: where it begins.
        size: G.
        window: points of the moving average.
        resampling: how.

    Raises:
        ValueError: kl and gold are not of one shape `[S, B, K]`, or a seed did not come as far as `least`.
    """
    kl, gold = np.asarray(kl, float), np.asarray(gold, float)
    if gold.ndim != 3 or kl.shape != gold.shape:
        raise ValueError(f"kl {kl.shape} and gold {gold.shape} are not both [S, B, K]")

    def run(kl: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return smooth(np.sqrt(np.maximum(kl, 0.0)), window), smooth(gold, window)

    whole = run(kl.mean(axis=1), gold.mean(axis=1))
    grid = common_grid(whole[0], most, size, least)
    drawn = seed_mean(*run(*_means(resampling, kl, gold)), grid)
    return _bootstrap(law, grid, seed_mean(*whole, grid), drawn, resampling.level)


class Trend(NamedTuple):
    """A straight line through what belongs to several sizes.

    Attributes:
        slope: per decade of size.
        intercept: at a size of 1.
    """

    slope: Interval
    intercept: Interval


def trend(log10_size: ArrayLike, values: Sequence[Interval], level: float = 0.95) -> Trend:
    """Fit value = intercept + slope * log10(size), with the intervals that the values' own resamples give.

    Args:
        log10_size: `[Z]`, of reward models, or of their data.
        values: Z finite ones, all of R resamples, such as the `alpha` of each size's `Bootstrap`.
        level: of the intervals.
    """
    x = np.asarray(log10_size, float)
    x = np.stack([np.ones_like(x), x])  # [2, Z]
    solve = np.linalg.pinv(x)  # [Z, 2]
    intercept, slope = np.stack([value.value for value in values]) @ solve
    draws = np.stack([value.draws for value in values], axis=-1) @ solve  # [R, 2]
    return Trend(interval(slope, draws[:, 1], level), interval(intercept, draws[:, 0], level))


def interval(value: ArrayLike, draws: np.ndarray, level: float = 0.95) -> Interval:
    """Percentile interval of resamples `[R, ...]`; its ends are resamples, as some are infinite."""
    low = np.quantile(draws, 0.5 - level / 2, axis=0, method="lower")
    high = np.quantile(draws, 0.5 + level / 2, axis=0, method="higher")
    return Interval(np.asarray(value), low, high, draws)


def _bootstrap(law: Law, d: np.ndarray, whole: np.ndarray, drawn: np.ndarray, level: float) -> Bootstrap:
    """Of the mean curve `[G]` of all the data and those of the resamples `[R, G]`."""
    of_all, of_drawn = fit(law, d, whole), fit(law, d, drawn)
    both = lambda function: interval(function(of_all, whole), function(of_drawn, drawn), level)  # noqa: E731
    return Bootstrap(
        fit=of_all,
        d=d,
        curve=interval(whole, drawn, level),
        alpha=both(lambda fit, _: fit.alpha),
        beta=both(lambda fit, _: fit.beta),
        peak_d=both(lambda fit, _: peak(law, fit).d),
        peak_gold=both(lambda fit, _: peak(law, fit).gold),
        top_d=both(lambda _, curve: d[np.argmax(curve, axis=-1)]),
        top_gold=both(lambda _, curve: np.max(curve, axis=-1)),
    )


def _means(resampling: Resampling, *values: np.ndarray) -> list[np.ndarray]:
    """Means over prompts `[R, S, K]` of seeds drawn with replacement, for arrays `[S, B, K]` resampled together."""
    (seeds, prompts, points), count = values[0].shape, resampling.resamples
    rng = np.random.default_rng(resampling.seed)
    seed = rng.integers(seeds, size=(count, seeds))
    groups = (count, 1 if resampling.shared_prompts else seeds)
    share = rng.multinomial(prompts, np.full(prompts, 1.0 / prompts), size=groups) / prompts
    share = np.broadcast_to(share, (count, seeds, prompts))
    found = [np.empty((count, seeds, points)) for _ in values]
    for one in range(seeds):
        here = seed == one
        weights = share[here]
        for mean, value in zip(found, values, strict=True):
            mean[here] = weights @ value[one]
    return found
