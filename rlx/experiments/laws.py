"""Laws of overoptimisation: gold reward against the distance d = sqrt(KL) from the initial policy, fitted and compared.

Every law is R(d) = alpha * d - beta * bend(d), with R(0) = 0: measure the gold reward from its mean under the initial
policy. So a fit is linear least squares, and any leading axes (sizes, bootstrap resamples) are fitted at once. NumPy,
float64. Axes: K points of a curve, Z sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Peak(NamedTuple):
    """Where a law is greatest, over d >= 0.

    Attributes:
        d: `[...]` sqrt of nats. Infinite where the law rises for ever (beta <= 0), 0 where it falls from the start.
        gold: `[...]` the reward there.
    """

    d: np.ndarray
    gold: np.ndarray


class Law(NamedTuple):
    """A form of R(d) = alpha * d - beta * bend(d).

    Attributes:
        name: for tables.
        formula: for tables.
        bend: `(d, gamma) -> array`, what beta multiplies.
        peak: `(alpha, beta, gamma) -> Peak`, elementwise.
        parameters: how many are fitted.
        gammas: range in which gamma is searched; None if there is no gamma.
    """

    name: str
    formula: str
    bend: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    peak: Callable[[ArrayLike, ArrayLike, ArrayLike | None], Peak]
    parameters: int
    gammas: tuple[float, float] | None = None


class Fit(NamedTuple):
    """A law fitted to curves.

    Attributes:
        alpha: `[...]` reward per sqrt of nats; of `BEST_OF_N` the slope at the start.
        beta: `[...]`; 0 if the law has none.
        gamma: `[...]`, or None if the law has none.
        r2: `[...]` share of the (weighted) variance that is explained; below 0 the mean would do better.
        aic: `[...]` Akaike's criterion for normal residuals of unknown variance, K log(rms^2) + 2 (parameters + 1): of
            two laws on the same points the lower is preferred. Neighbours on a curve err together, so that differences
            look larger than they are: read the extrapolation beside it.
        rms: `[...]` root of the mean squared residual, in units of reward.
    """

    alpha: np.ndarray
    beta: np.ndarray
    gamma: np.ndarray | None
    r2: np.ndarray
    aic: np.ndarray
    rms: np.ndarray


def fit(law: Law, d: ArrayLike, gold: ArrayLike, weight: ArrayLike | None = None) -> Fit:
    """Fit a law by least squares.

        alpha, beta = argmin sum_k weight_k (gold_k - alpha d_k + beta bend(d_k))^2

    A law's gamma is searched between its bounds, finer and finer, to 1e-4 of itself.

    Args:
        law: which.
        d: `[..., K]` distances, sqrt of nats, 0 or more.
        gold: `[..., K]` rewards above the initial policy's.
        weight: `[..., K]` of each point, 0 to leave it out, and its reward may then be NaN; None for all alike.

    Returns:
        `Fit`, over the leading axes of all three together.

    Raises:
        ValueError: a distance is negative, or a curve has fewer points than the law has parameters.
    """
    d, gold, weight = _points(law, d, gold, weight)
    gamma = None if law.gammas is None else _best_gamma(law, d, gold, weight)
    alpha, beta, squares = _least_squares(law, d, gold, weight, gamma)
    count = np.sum(weight > 0, axis=-1)
    mean = np.sum(weight * gold, axis=-1, keepdims=True) / count[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1.0 - squares / np.sum(weight * (gold - mean) ** 2, axis=-1)
    return Fit(alpha, beta, gamma, r2, _aic(squares, count, law.parameters), np.sqrt(squares / count))


def predict(law: Law, fit: Fit, d: ArrayLike) -> np.ndarray:
    """Reward `[..., K]` that a fitted law gives at distances `[..., K]`."""
    d = np.asarray(d, float)
    gamma = None if fit.gamma is None else np.asarray(fit.gamma)[..., None]
    return np.asarray(fit.alpha)[..., None] * d - np.asarray(fit.beta)[..., None] * law.bend(d, gamma)


def peak(law: Law, fit: Fit) -> Peak:
    """Where a fitted law is greatest, `[...]`; it may be beyond what was measured."""
    return law.peak(fit.alpha, fit.beta, fit.gamma)


class Extrapolation(NamedTuple):
    """What a law said of distances that it had not seen.

    Attributes:
        fit: to the points below.
        prediction: `[..., K]` of every point, those below too.
        beyond: `[..., K]` bool, which points were predicted in advance.
        rms: `[...]` root of the mean squared error of these, in units of reward.
    """

    fit: Fit
    prediction: np.ndarray
    beyond: np.ndarray
    rms: np.ndarray


def extrapolate(law: Law, d: ArrayLike, gold: ArrayLike, below: float) -> Extrapolation:
    """Fit a law at d < below and predict the rest, as Gao et al. 2022 (sec. 3.1) did from n = 1,000 to 60,000.

    Args:
        law: which.
        d: `[..., K]`.
        gold: `[..., K]`.
        below: where the known part ends.

    Raises:
        ValueError: too few points below for a fit, or none beyond.
    """
    d, gold = np.broadcast_arrays(np.asarray(d, float), np.asarray(gold, float))
    beyond = d >= below
    if not np.all(np.any(beyond, axis=-1)):
        raise ValueError(f"no point at d = {below} or beyond to be predicted")
    fitted = fit(law, d, gold, ~beyond)
    prediction = predict(law, fitted, d)
    return Extrapolation(fitted, prediction, beyond, np.sqrt(np.mean((prediction - gold) ** 2, axis=-1, where=beyond)))


class SharedAlpha(NamedTuple):
    """One law on curves of Z sizes, with one alpha for all of them.

    Attributes:
        alpha: the one.
        beta: `[Z]`.
        rms: of all residuals together.
        aic: of this fit.
        free: `Fit` `[Z]` with an alpha for each.
        free_aic: of that, with one variance of residuals for all sizes as here, so that the two can be compared.
    """

    alpha: float
    beta: np.ndarray
    rms: float
    aic: float
    free: Fit
    free_aic: float


def shared_alpha(law: Law, curves: Sequence[tuple[ArrayLike, ArrayLike]]) -> SharedAlpha:
    """Fit one alpha and a beta per size: Gao et al. (sec. 3.2) found alpha_RL to be much the same at all sizes.

    Args:
        law: one of alpha and beta alone.
        curves: `(d, gold)` of each size, `[K]`, of whatever lengths.

    Raises:
        ValueError: the law has a gamma or no beta.
    """
    if law.parameters != 2:
        raise ValueError(f"shared_alpha is for laws of alpha and beta, not {law.name}")
    points = [_points(law, d, gold, None)[:2] for d, gold in curves]
    counts = np.array([len(d) for d, _ in points])
    alpha, beta, _, r2, aic, rms = (np.array(x) for x in zip(*(fit(law, *pair) for pair in points), strict=True))
    d, gold = (np.concatenate(x) for x in zip(*points, strict=True))
    own = np.repeat(np.eye(len(points)), counts, axis=0)  # [N, Z] whose point it is
    design = np.column_stack([d, -law.bend(d, None)[:, None] * own])
    found = np.linalg.lstsq(design, gold, rcond=None)[0]
    squares, total = np.sum((gold - design @ found) ** 2), np.sum(counts)
    return SharedAlpha(
        alpha=float(found[0]),
        beta=found[1:],
        rms=float(np.sqrt(squares / total)),
        aic=float(_aic(squares, total, len(found))),
        free=Fit(alpha, beta, None, r2, aic, rms),
        free_aic=float(_aic(np.sum(counts * rms**2), total, 2 * len(points))),
    )


def _points(law: Law, d: ArrayLike, gold: ArrayLike, weight: ArrayLike | None) -> tuple[np.ndarray, ...]:
    """Three arrays `[..., K]`; weights have a mean of 1 over the points that have any."""
    d, gold = np.asarray(d, float), np.asarray(gold, float)
    d, gold, weight = np.broadcast_arrays(d, gold, 1.0 if weight is None else np.asarray(weight, float))
    if np.any(d < 0):
        raise ValueError("a distance d = sqrt(KL) is negative: estimates of the KL below 0 count as 0")
    count = np.sum(weight > 0, axis=-1, keepdims=True)
    if np.any(count < law.parameters):
        raise ValueError(f"{law.name}: {np.min(count)} points for {law.parameters} parameters")
    return d, np.where(weight > 0, gold, 0.0), weight * count / np.sum(weight, axis=-1, keepdims=True)


def _least_squares(law: Law, d: np.ndarray, gold: np.ndarray, weight: np.ndarray, gamma: np.ndarray | None) -> tuple:
    """Alpha, beta and the sum of squares, `[...]`. The bend is made orthogonal to d first, as they are much alike."""
    inner = lambda x, y: np.sum(weight * x * y, axis=-1)  # noqa: E731
    bend = law.bend(d, None if gamma is None else gamma[..., None])
    line, cross = inner(d, d), inner(d, bend)
    rest = bend - np.divide(cross, line, out=np.zeros_like(cross), where=line > 0)[..., None] * d
    square = inner(rest, rest)
    bends = square > 1e-24 * inner(bend, bend)
    beta = np.where(bends, -inner(rest, gold) / np.where(bends, square, 1.0), 0.0)
    alpha = np.where(line > 0, (inner(d, gold) + beta * cross) / np.where(line > 0, line, 1.0), 0.0)
    residual = gold - alpha[..., None] * d + beta[..., None] * bend
    return alpha, beta, inner(residual, residual)


def _best_gamma(law: Law, d: np.ndarray, gold: np.ndarray, weight: np.ndarray) -> np.ndarray:
    assert law.gammas is not None
    low, high = np.log(law.gammas)
    centre, width = np.full(d.shape[:-1], (low + high) / 2), (high - low) / 2
    for _ in range(4):
        tried = np.clip(np.add.outer(np.linspace(-width, width, 41), centre), low, high)  # [41, ...]
        squares = np.stack([_least_squares(law, d, gold, weight, np.exp(each))[2] for each in tried])
        centre = np.take_along_axis(tried, np.argmin(squares, axis=0)[None], axis=0)[0]
        width /= 20  # one step to either side
    return np.exp(centre)


def _aic(squares: Any, count: Any, parameters: int) -> Any:
    return count * np.log(np.maximum(squares / count, np.finfo(float).tiny)) + 2.0 * (parameters + 1)


def _quadratic_peak(alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike | None) -> Peak:
    """d* = alpha / (2 beta), R* = alpha^2 / (4 beta)."""
    return _power_peak(alpha, beta, 1.0)


def _power_peak(alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike | None) -> Peak:
    """d* = (alpha / (beta (1 + gamma)))^(1 / gamma), R* = d* alpha gamma / (1 + gamma)."""
    alpha, beta, gamma = (np.asarray(x, float) for x in (alpha, beta, gamma))
    falls, d = alpha <= 0, _where_positive(beta, lambda beta: np.maximum(alpha, 0.0) / (beta * (1.0 + gamma)))
    with np.errstate(over="ignore"):
        d = d ** (1.0 / gamma)
    return Peak(d, np.where(falls & (beta > 0), 0.0, d * np.where(falls, 1.0, alpha) * gamma / (1.0 + gamma)))


def _log_peak(alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike | None) -> Peak:
    """d* = exp(alpha / beta - 1), R* = beta d*."""
    alpha, beta = np.asarray(alpha, float), np.asarray(beta, float)
    d = _where_positive(beta, lambda beta: np.exp(alpha / beta - 1.0))
    return Peak(d, d * np.where(beta > 0, beta, 1.0))


def _log1p_peak(alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike | None) -> Peak:
    """Where alpha / beta = log(1 + d) + d / (1 + d): d* = 1 / W(exp(1 - alpha / beta)) - 1, W Lambert's."""
    from scipy.special import wrightomega

    alpha, beta = np.asarray(alpha, float), np.asarray(beta, float)
    d = _where_positive(beta, lambda beta: 1.0 / wrightomega(1.0 - np.maximum(alpha, 0.0) / beta) - 1.0)
    d = np.maximum(d, 0.0)
    return Peak(d, d * (1.0 - 1.0 / (1.0 + d)) * np.where(beta > 0, beta, 1.0))


def _line_peak(alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike | None) -> Peak:
    end = np.where(np.asarray(alpha) > 0, np.inf, 0.0)
    return Peak(end, end)


def _where_positive(beta: np.ndarray, formula: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    with np.errstate(over="ignore", divide="ignore"):
        return np.where(beta > 0, formula(np.where(beta > 0, beta, 1.0)), np.inf)


def _d_log_d(d: np.ndarray, gamma: np.ndarray | None) -> np.ndarray:
    return d * np.log(np.where(d > 0, d, 1.0))


def _power(d: np.ndarray, gamma: np.ndarray | None) -> np.ndarray:
    assert gamma is not None
    return d ** (1.0 + gamma)


# Gao, Schulman and Hilton 2022 (arXiv 2210.10760): eq. 1, of best-of-n, and eq. 2, of reinforcement learning; the next
# two they tried and rejected (appendix B). The slope of RL's form is infinite at 0: near 0 it is a poor one.
BEST_OF_N = Law("best of n", "d (alpha - beta d)", lambda d, gamma: d * d, _quadratic_peak, 2)
RL = Law("RL", "d (alpha - beta log d)", _d_log_d, _log_peak, 2)
LOG1P = Law("log1p", "d (alpha - beta log(1 + d))", lambda d, gamma: d * np.log1p(d), _log1p_peak, 2)
POWER = Law("power", "d (alpha - beta d^gamma)", _power, _power_peak, 3, gammas=(0.02, 4.0))
LINEAR = Law("linear", "alpha d", lambda d, gamma: np.zeros_like(d), _line_peak, 1)
LAWS = (BEST_OF_N, RL, LOG1P, POWER, LINEAR)
