"""The exact tilt p exp(strength * proxy) / Z of a listed policy: the frontier that no optimiser of the proxy can beat.

For outcomes that can be listed, such as the strings of `rlx.lm.enumerable.Language`. NumPy in float64: slopes are taken
near the initial policy, where `rlx.lm.enumerable.frontier`, in float32, has no digits left. Axes: Y outcomes, K points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rlx.ops.best_of_n import best_of_n_distribution, best_of_n_kl


class Path(NamedTuple):
    """Policies that go away from the initial one.

    Attributes:
        kl: `[K]` KL(policy || initial policy), nats.
        proxy: `[K]` mean proxy reward, above the initial policy's.
        gold: `[K]` mean gold reward, above the initial policy's.
    """

    kl: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray

    @property
    def d(self) -> np.ndarray:
        """Distance sqrt(KL)."""
        return np.sqrt(np.maximum(self.kl, 0.0))


def tilt_path(log_prob: ArrayLike, proxy: ArrayLike, gold: ArrayLike, strength: ArrayLike) -> Path:
    """Tilt a policy towards a proxy: of all policies at its KL, the tilted one has the greatest proxy reward.

        pi(y) = p(y) exp(strength * proxy(y)) / Z,   KL(pi || p) = strength * E_pi[proxy] - log Z

    It is where reinforcement learning with a KL penalty of 1 / strength ends (`rlx.lm.enumerable.optimal_policy`).

    Args:
        log_prob: `[Y]` of the initial policy, nats; -inf for what is impossible.
        proxy: `[Y]` what is maximised.
        gold: `[Y]` what is meant.
        strength: `[K]` inverse units of the proxy; 0 is the initial policy.

    Returns:
        `Path` `[K]`, exact.
    """
    prob, proxy, gold = _centred(log_prob, proxy, gold)
    tilted, kl = _tilted(prob, proxy, np.asarray(strength, float))
    return Path(np.maximum(kl, 0.0), tilted @ proxy, tilted @ gold)


def strength_at(log_prob: ArrayLike, proxy: ArrayLike, kl: ArrayLike) -> np.ndarray:
    """Strength `[K]` of the tilt at a given KL, by halving: compare another policy with the frontier at its own KL.

    Args:
        log_prob: `[Y]` of the initial policy.
        proxy: `[Y]`.
        kl: `[K]` nats, 0 or more.

    Raises:
        ValueError: no tilt is so far away: with strength the KL comes up to -log p(the best outcomes) and no more.
    """
    prob, proxy, _ = _centred(log_prob, proxy, proxy)
    kl = np.asarray(kl, float)
    most = -np.log(np.sum(prob[proxy == np.max(proxy[prob > 0])]))
    if np.any(kl >= most):
        raise ValueError(f"a KL of {np.max(kl):.6g}: the tilt has less than {most:.6g}, where only the best is left")

    low, high = np.zeros_like(kl), np.full_like(kl, 1.0 / np.sqrt(prob @ proxy**2))
    for _ in range(50):
        high = np.where(_tilted(prob, proxy, high)[1] < kl, 2.0 * high, high)
    for _ in range(60):
        middle = (low + high) / 2
        too_near = _tilted(prob, proxy, middle)[1] < kl
        low, high = np.where(too_near, middle, low), np.where(too_near, high, middle)
    return high


def best_of_n_path(log_prob: ArrayLike, proxy: ArrayLike, gold: ArrayLike, ns: Sequence[int]) -> Path:
    """Best-of-n by the proxy, exactly, its KL too: below the tilt at the same KL, as everything is.

    Args:
        log_prob: `[Y]` of the initial policy.
        proxy: `[Y]` what is maximised.
        gold: `[Y]` what is meant.
        ns: K numbers of draws.

    Returns:
        `Path` `[K]`, to float32's precision (`rlx.ops.best_of_n_distribution`).
    """
    prob, centred, gold = _centred(log_prob, proxy, gold)
    p, r = jnp.asarray(prob, jnp.float32), jnp.asarray(proxy, jnp.float32)
    draws = jnp.asarray(ns, jnp.float32)
    chosen = np.asarray(jax.vmap(best_of_n_distribution, (None, None, 0))(p, r, draws), float)
    kl = np.asarray(jax.vmap(best_of_n_kl, (None, None, 0))(p, r, draws), float)
    return Path(np.maximum(kl, 0.0), chosen @ centred, chosen @ gold)


def initial_slope(log_prob: ArrayLike, proxy: ArrayLike, gold: ArrayLike | None = None) -> float:
    """Slope of the mean reward against sqrt(KL) at the start of the tilt: why reward goes with sqrt(KL).

        dE[proxy] / dsqrt(KL) = sqrt(2 Var proxy),   dE[gold] / dsqrt(KL) = sqrt(2) Cov(gold, proxy) / sd(proxy)

    A small change of a policy changes rewards in the first order and its KL in the second (Bai et al. 2022, arXiv
    2204.05862, sec. 4.3, who left the slope open). The tilt goes along the natural gradient, so that its slope,
    sqrt(2 g^T F^-1 g), is the steepest. For a normal reward the line never bends: `normal_gain`.

    Args:
        log_prob: `[Y]` of the initial policy.
        proxy: `[Y]` what is maximised.
        gold: `[Y]` whose slope is wanted; None for the proxy's own.

    Returns:
        Reward per sqrt of nats.
    """
    prob, proxy, gold = _centred(log_prob, proxy, proxy if gold is None else gold)
    return float(np.sqrt(2.0) * (prob @ (proxy * gold)) / np.sqrt(prob @ proxy**2))


def normal_gain(kl: ArrayLike, deviation: ArrayLike = 1.0) -> np.ndarray:
    """Gain of the tilt if the reward is normal: deviation * sqrt(2 KL), all the way.

    An upper bound for every policy if the reward is sub-Gaussian with that deviation (Donsker and Varadhan's formula).

    Args:
        kl: `[...]` nats.
        deviation: `[...]` standard deviation of the reward under the initial policy.

    Returns:
        `[...]` mean reward above the initial policy's.
    """
    return np.asarray(deviation) * np.sqrt(2.0 * np.asarray(kl, float))


def _centred(log_prob: ArrayLike, *rewards: ArrayLike) -> tuple[np.ndarray, ...]:
    """Probabilities `[Y]` that sum to 1 in float64, and rewards `[Y]` of mean 0 under them."""
    log_prob = np.asarray(log_prob, float)
    prob = np.exp(log_prob - np.max(log_prob))
    prob /= np.sum(prob)
    values = [np.asarray(reward, float) for reward in rewards]
    return prob, *(value - prob @ value for value in values)


def _tilted(prob: np.ndarray, proxy: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[K, Y]` and KL `[K]` of the tilt."""
    score = np.where(prob > 0, strength[:, None] * proxy, -np.inf)
    score -= np.max(score, axis=-1, keepdims=True)
    weight = prob * np.exp(score)
    total = np.sum(weight, axis=-1, keepdims=True)
    tilted = weight / total
    return tilted, np.sum(tilted * np.where(tilted > 0, score, 0.0), axis=-1) - np.log(total[:, 0])
