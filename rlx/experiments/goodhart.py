"""Goodhart's law by its kinds (Manheim and Garrabrant 2018, arXiv 1803.04585), each where its numbers are known.

    regressional   the proxy is gold plus noise: its maximum is partly luck, but gold never falls
    extremal       far out the proxy is another thing than it was: gold turns over
    causal         the proxy pays for what only goes along with gold: pushing that alone gains nothing

The fourth, adversarial, needs an adversary. Gao et al. 2022 (arXiv 2210.10760, sec. 4.2) read the first kind out of
alpha and the second out of beta; `AnalyticWorld` has both, and its gold is their law of best-of-n exactly.
Axes: K points of a curve, N samples, E bins, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rlx.experiments.tilt import Path
from rlx.ops.best_of_n import best_of_n_curve, best_of_n_kl_bound
from rlx.ops.calibration import binned_mean
from rlx.types import Key

Noise = Callable[[Key, tuple[int, ...]], jax.Array]  # (key, shape) -> draws


def regressional_mean(
    proxy: ArrayLike, mean: float = 0.0, variance: float = 1.0, noise_mean: float = 0.0, noise_variance: float = 1.0
) -> np.ndarray:
    """Expected gold X where the proxy X + Z has a value, both normal and independent (Gao et al. 2022, sec. 4.2.1).

        E[X | X + Z = c] = E X + (c - E X - E Z) * Var X / (Var X + Var Z)

    Args:
        proxy: `[...]` c.
        mean: E X.
        variance: Var X.
        noise_mean: E Z.
        noise_variance: Var Z.

    Returns:
        `[...]`: a line, which rises for ever.
    """
    return mean + (np.asarray(proxy, float) - mean - noise_mean) * variance / (variance + noise_variance)


class Regressional(NamedTuple):
    """Gold against the proxy, in bins of the proxy.

    Attributes:
        proxy: `[E]` mean in the bin.
        gold: `[E]` mean in the bin.
        exact: `[E]` `regressional_mean` there.
        error: `[E]` standard error of gold.
    """

    proxy: np.ndarray
    gold: np.ndarray
    exact: np.ndarray
    error: np.ndarray


def regressional(
    key: Key, noise: float = 1.0, samples: int = 100_000, bins: int = 24, most: float = 3.0
) -> Regressional:
    """Draw a gold from N(0, 1) and a proxy, gold plus N(0, noise^2), and compare bin by bin with the formula.

    Args:
        key: of the draws.
        noise: standard deviation.
        samples: N.
        bins: E, from -most to most standard deviations of the proxy; what is beyond is in the last ones.
        most: where the last bins begin to hold the rest.
    """
    gold_key, noise_key = jax.random.split(key)
    gold = jax.random.normal(gold_key, (samples,))
    proxy = gold + noise * jax.random.normal(noise_key, (samples,))
    edges = np.sqrt(1.0 + noise**2) * jnp.linspace(-most, most, bins + 1)
    found, square = binned_mean(proxy, gold, edges), binned_mean(proxy, gold**2, edges)
    variance, count = np.maximum(square.mean - found.mean**2, 0.0), np.maximum(found.count, 1)
    exact = regressional_mean(np.asarray(found.position), noise_variance=noise**2)
    return Regressional(np.asarray(found.position), np.asarray(found.mean), exact, np.sqrt(variance / count))


class BestOfN(NamedTuple):
    """Curves of best-of-n.

    Attributes:
        n: `[K]`.
        d: `[K]` sqrt(log n - (n - 1) / n), exact where no two draws are equal.
        proxy: `[K]` mean.
        gold: `[K]` mean.
        error: `[K]` standard error of gold over pools; 0 where it is exact.
    """

    n: np.ndarray
    d: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray
    error: np.ndarray


def normal_noise(scale: float = 0.5) -> Noise:
    """Errors of a proxy with light tails: the best of many is good."""
    return lambda key, shape: scale * jax.random.normal(key, shape)


def student_noise(degrees: float = 3.0, scale: float = 0.5) -> Noise:
    """Errors of a proxy with heavy tails, Student's t: the best of many is an error."""
    return lambda key, shape: scale * jax.random.t(key, degrees, shape)


def extremal(key: Key, noise: Noise, ns: Sequence[int], size: int = 8192, pools: int = 64) -> BestOfN:
    """Best-of-n where gold is N(0, 1) and the proxy is gold plus an error.

    With normal errors gold rises for ever, at a fixed share of the proxy. With heavy tails the greatest proxies are the
    greatest errors: gold rises, and then goes back to the initial policy's 0. The turnover is not of the form
    d (alpha - beta d): it shows that there is one, not a law.

    Args:
        key: of the draws.
        noise: `normal_noise(...)`, `student_noise(...)` or another.
        ns: numbers of draws, to `size`.
        size: samples in a pool, some times the greatest n.
        pools: several, for the error.
    """
    gold_key, noise_key = jax.random.split(key)
    gold = jax.random.normal(gold_key, (pools, size))
    proxy = gold + noise(noise_key, (pools, size))
    of_scores = jax.vmap(lambda proxy, score: best_of_n_curve(proxy, score, ns), in_axes=(None, 0))
    both = jax.jit(jax.vmap(of_scores, in_axes=(0, 1)))(proxy, jnp.stack([proxy, gold]))  # [pools, 2, K]
    by_proxy, by_gold = np.moveaxis(np.asarray(both, float), 1, 0)
    error = np.std(by_gold, axis=0, ddof=1) / np.sqrt(pools)
    return BestOfN(np.asarray(ns), _distance(ns), by_proxy.mean(0), by_gold.mean(0), error)


class AnalyticWorld(NamedTuple):
    """A world whose gold along the tilt is d (alpha - beta d) exactly: what all fitting code has to find.

        features f ~ N(0, I) under the initial policy,   proxy = w . f,   gold = w . f - c ((h . f)^2 - |h|^2)

    To see little of h in the initial policy is no help: it is further out that it costs. A policy N(mean, I) has

        KL = |mean|^2 / 2,   proxy gain w . mean,   gold gain w . mean - c (h . mean)^2

    and the tilt by exp(strength * proxy) is that of the mean strength * w. With d = sqrt(KL), alpha = sqrt(2) |w| and
    beta = 2 c (h . w)^2 / |w|^2. Any optimiser with a KL penalty b ends at the mean w / b. Rewards are plain functions
    of arrays, NumPy's and JAX's.

    Attributes:
        w: `[D]` what the proxy pays.
        h: `[D]` what costs, unseen by the proxy.
        c: how much.
    """

    w: Any
    h: Any
    c: float

    def proxy(self, features: Any) -> Any:
        """Proxy reward `[...]` of features `[..., D]`; mean 0 under the initial policy."""
        return features @ self.w

    def gold(self, features: Any) -> Any:
        """Gold reward `[...]` of features `[..., D]`; mean 0 under the initial policy."""
        return features @ self.w - self.c * ((features @ self.h) ** 2 - self.h @ self.h)

    @property
    def alpha(self) -> float:
        """Of the law along the tilt."""
        return float(np.sqrt(2.0 * (self.w @ self.w)))

    @property
    def beta(self) -> float:
        """Of the law along the tilt."""
        return float(2.0 * self.c * (self.h @ self.w) ** 2 / (self.w @ self.w))

    def path(self, mean: ArrayLike) -> Path:
        """Exact KL and gains `[...]` of the policies N(mean, I), means `[..., D]`."""
        mean = np.asarray(mean, float)
        proxy = mean @ np.asarray(self.w, float)
        return Path(np.sum(mean**2, axis=-1) / 2, proxy, proxy - self.c * (mean @ np.asarray(self.h, float)) ** 2)

    def tilt(self, d: ArrayLike) -> Path:
        """Exact path `[K]` of the tilt through distances `[K]`: the best proxy at each."""
        w = np.asarray(self.w, float)
        return self.path(np.sqrt(2.0) * np.asarray(d, float)[..., None] * w / np.sqrt(w @ w))

    def best_of_n(self, ns: Sequence[int]) -> BestOfN:
        """Exact best-of-n by the proxy.

        The proxy of the best is |w| times the greatest z of n normal draws, and

            gold gain = |w| E z - c (h . w)^2 / |w|^2 (E z^2 - 1)

        as what is in h across w is not selected.

        Args:
            ns: K numbers of draws.
        """
        first, second = moments_of_greatest(ns)
        scale = self.alpha / np.sqrt(2.0)
        gold = scale * first - self.beta / 2.0 * (second - 1.0)
        return BestOfN(np.asarray(ns), _distance(ns), scale * first, gold, np.zeros(len(ns)))


def moments_of_greatest(ns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[K]` and mean square `[K]` of the greatest of n normal draws, by quadrature of n F^(n - 1) f."""
    from scipy.special import log_ndtr

    z, step = np.linspace(-9.0, 9.0, 6001, retstep=True)
    n = np.asarray(ns, float)[:, None]
    density = np.exp(np.log(n) + (n - 1.0) * log_ndtr(z) - z**2 / 2) * step / np.sqrt(2.0 * np.pi)
    return density @ z, density @ z**2


class Causal(NamedTuple):
    """The same proxy, had in two ways.

    Attributes:
        proxy: `[K]` gain, of both.
        gold_selected: `[K]` where the gain comes of choosing among the initial policy's samples, as best-of-n does.
        gold_pushed: `[K]` where it comes of adding to the feature that the proxy sees.
        kl_selected: `[K]` nats of the first, at least.
        kl_pushed: `[K]` nats of the second.
    """

    proxy: np.ndarray
    gold_selected: np.ndarray
    gold_pushed: np.ndarray
    kl_selected: np.ndarray
    kl_pushed: np.ndarray


def causal(push: ArrayLike, correlation: float = 0.8) -> Causal:
    """Pay a feature that goes along with gold but does not cause it.

        gold X ~ N(0, 1),   feature B = correlation * X + sqrt(1 - correlation^2) * E,   proxy = correlation * B

    The proxy is the best guess of X from B, so that among samples of the initial policy it is calibrated: where it is
    greater by some, X is greater by as much. Choosing by it is regressional. A policy that learns to add to B (to write
    longer) has the same proxy and none of the gold: X is what it was. Adding is also further away, at the same proxy:
    1 / (1 - correlation^2) times the KL.

    Args:
        push: `[K]` by how much B is greater, in its standard deviations.
        correlation: of B with gold in the initial policy, above 0 and below 1.

    Returns:
        `Causal`, exact. The selection is the tilt of the initial policy by the proxy.

    Raises:
        ValueError: the correlation is not between 0 and 1.
    """
    if not 0.0 < correlation < 1.0:
        raise ValueError(f"correlation: {correlation} is not above 0 and below 1")
    push = np.asarray(push, float)
    proxy, kl = correlation * push, push**2 / 2
    return Causal(proxy, proxy, np.zeros_like(proxy), kl, kl / (1.0 - correlation**2))


def _distance(ns: Sequence[int]) -> np.ndarray:
    return np.sqrt(np.asarray(best_of_n_kl_bound(jnp.asarray(ns)), float))
