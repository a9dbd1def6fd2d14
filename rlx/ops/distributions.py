"""Action distributions as small NamedTuples: sample, mode, log_prob, entropy, kl. Any leading axes.

Axes: A actions of a choice, K choices at once, D dimensions of a continuous action.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx.ops.random import gumbel, normal


class Categorical(NamedTuple):
    """A choice among A actions.

    Attributes:
        logits: `[..., A]` unnormalised log-probabilities; -inf makes an action impossible.
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw an action `[...]` int32."""
        return jnp.argmax(self.logits + gumbel(key, self.logits.shape), axis=-1).astype(jnp.int32)

    def mode(self) -> jax.Array:
        """Most probable action `[...]` int32."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability `[...]`, in nats, of `action` `[...]` int."""
        # A comparison, not a gather: its gradient is elementwise, where a gather's is a scatter, slow on CPU.
        chosen = jnp.arange(self.logits.shape[-1]) == action[..., None]
        return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(self.logits), 0.0), axis=-1)

    def entropy(self) -> jax.Array:
        """Entropy `[...]` in nats; impossible actions add 0, and their gradients are 0."""
        log_p = jax.nn.log_softmax(self.logits)
        possible = log_p > -jnp.inf
        log_p = jnp.where(possible, log_p, 0.0)  # before the product: 0 * -inf has NaN gradients
        return -jnp.sum(jnp.where(possible, jnp.exp(log_p) * log_p, 0.0), axis=-1)

    def expectation(self, values: jax.Array) -> jax.Array:
        """Mean `[...]` of `values` `[..., A]` over the actions; impossible ones add 0, whatever their value."""
        possible = self.logits > -jnp.inf
        return jnp.sum(jax.nn.softmax(self.logits) * jnp.where(possible, values, 0.0), axis=-1)

    def kl(self, other: Categorical) -> jax.Array:
        """KL(self || other) `[...]` in nats; infinite where `other` rules out what self allows."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        possible = log_p > -jnp.inf
        log_p, log_q = jnp.where(possible, log_p, 0.0), jnp.where(possible, log_q, 0.0)
        return jnp.sum(jnp.where(possible, jnp.exp(log_p) * (log_p - log_q), 0.0), axis=-1)


class MultiCategorical(NamedTuple):
    """K independent choices, such as the keys of a controller.

    Attributes:
        logits: `[..., K, A]`; choices of fewer than A actions are filled up with -inf.
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw an action `[..., K]` int32."""
        return Categorical(self.logits).sample(key)

    def mode(self) -> jax.Array:
        """Most probable action `[..., K]` int32."""
        return Categorical(self.logits).mode()

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability `[...]`, in nats, of `action` `[..., K]` int."""
        return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)

    def entropy(self) -> jax.Array:
        """Entropy `[...]` in nats: the sum over the choices."""
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

    def kl(self, other: MultiCategorical) -> jax.Array:
        """KL(self || other) `[...]` in nats."""
        return jnp.sum(Categorical(self.logits).kl(Categorical(other.logits)), axis=-1)


def mask_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Make actions impossible: probability exactly 0, gradient 0 (Huang and Ontanon 2020, arXiv 2006.14171).

    Args:
        logits: `[..., A]`.
        mask: `[..., A]` bool or 0 and 1, whether an action is allowed. Where none is, as some environments say once an
            episode has ended, all are: the row is looked at, but no action is taken.

    Returns:
        `[..., A]`, -inf where not allowed.
    """
    allowed = mask.astype(bool)
    allowed |= ~jnp.any(allowed, axis=-1, keepdims=True)
    return jnp.where(allowed, logits, -jnp.inf)


def epsilon_greedy(values: jax.Array, epsilon: float | jax.Array) -> Categorical:
    """Give the best action with probability 1 - epsilon, else any allowed one (Sutton and Barto 2018, sec. 2.2).

    Several best actions share its probability: a table that knows nothing yet tries them all.

    Args:
        values: `[..., A]`; -inf for an action that is not allowed.
        epsilon: 0 to 1.
    """
    best = values == jnp.max(values, axis=-1, keepdims=True)
    allowed = values > -jnp.inf
    share = epsilon * allowed / jnp.sum(allowed, axis=-1, keepdims=True)
    return Categorical(jnp.log(share + (1.0 - epsilon) * best / jnp.sum(best, axis=-1, keepdims=True)))


class Normal(NamedTuple):
    """A continuous action of D independent normals; densities are over all of R^D, in the units of the sample.

    Attributes:
        mean: `[..., D]`.
        log_scale: `[..., D]` or `[D]`, log of the standard deviation.
    """

    mean: jax.Array
    log_scale: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw an action `[..., D]`."""
        return self.mean + jnp.exp(self.log_scale) * normal(key, self.mean.shape)

    def mode(self) -> jax.Array:
        """The mean `[..., D]`."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density `[...]`, in nats, of `action` `[..., D]`."""
        z = (action - self.mean) * jnp.exp(-self.log_scale)
        return jnp.sum(-0.5 * jnp.square(z) - self.log_scale - 0.5 * math.log(2.0 * math.pi), axis=-1)

    def entropy(self) -> jax.Array:
        """Differential entropy `[...]` in nats."""
        log_scale = jnp.broadcast_to(self.log_scale, self.mean.shape)
        return jnp.sum(log_scale + 0.5 * (1.0 + math.log(2.0 * math.pi)), axis=-1)

    def kl(self, other: Normal) -> jax.Array:
        """KL(self || other) `[...]` in nats."""
        variance_ratio = jnp.exp(2.0 * (self.log_scale - other.log_scale))
        z = (self.mean - other.mean) * jnp.exp(-other.log_scale)
        log_ratio = other.log_scale - self.log_scale
        return jnp.sum(log_ratio + 0.5 * (variance_ratio + jnp.square(z) - 1.0), axis=-1)


class TanhNormal(NamedTuple):
    """A continuous action in the box (-1, 1)^D: tanh of D independent normals (Haarnoja et al. 2018, arXiv 1801.01290).

        a = tanh(u),   log p(a) = log N(u; mean, scale) - sum_d log(1 - tanh(u_d)^2)        (appendix C, eq. 21)
        log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), exact and finite for every u

    Densities are over that box, whatever the units of the environment's action space: `vectorize` scales the action,
    so a torque of -2 to 2 has the log-probabilities and the entropy of one of -1 to 1. The most that the entropy can
    be is D log 2, the uniform policy's. It has no closed form: the mean of `-log_prob` over samples estimates it.

    Attributes:
        mean: `[..., D]`, of u.
        log_scale: `[..., D]` or `[D]`, log of the standard deviation of u.
    """

    mean: jax.Array
    log_scale: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw an action `[..., D]`; beyond |u| = 9 or so it is -1 or 1 in float32."""
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw an action `[..., D]`, with its log-density `[...]` in nats from u itself, exact where tanh saturates.

        Gradients pass through both to the mean and the scale.
        """
        noise = normal(key, self.mean.shape)
        u = self.mean + jnp.exp(self.log_scale) * noise
        return jnp.tanh(u), self._log_prob(u, noise)

    def mode(self) -> jax.Array:
        """tanh of the mean `[..., D]`: the median, and what acts greedily."""
        return jnp.tanh(self.mean)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-density `[...]`, in nats, of `action` `[..., D]`; one at -1 or 1 counts as the number next to it."""
        inside = 1.0 - jnp.finfo(action.dtype).epsneg
        u = jnp.arctanh(jnp.clip(action, -inside, inside))
        return self._log_prob(u, (u - self.mean) * jnp.exp(-self.log_scale))

    def _log_prob(self, u: jax.Array, z: jax.Array) -> jax.Array:
        normal = -0.5 * jnp.square(z) - self.log_scale - 0.5 * math.log(2.0 * math.pi)
        return jnp.sum(normal - 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u)), axis=-1)

    def kl(self, other: TanhNormal) -> jax.Array:
        """KL(self || other) `[...]` in nats: that of the normals, as both go through the same tanh."""
        return Normal(*self).kl(Normal(*other))
