"""The natural gradient and how far to follow it: Fisher-vector products, conjugate gradient, line search.

Parameters are one vector here, as `jax.flatten_util.ravel_pytree` makes it. Axes: P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp


def fisher_vector_product(policy: Callable[[jax.Array], Any], params: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Make the product with the Fisher matrix of a policy, which is never formed (Schulman et al. 2015, appendix C).

        F = mean over s of J_s^T M_s J_s

    J_s is the Jacobian of the distribution's own parameters (logits; mean and log-scale) and M_s the Hessian of
    KL(pi_old || pi) in them, positive semidefinite; so F is too, by construction. It equals the Hessian of the mean KL
    in the network's parameters, where pi is pi_old: there the KL's gradient vanishes and with it all other terms. The
    network is linearised once: a product costs one pass forward and one backward.

    Args:
        policy: `(params [P]) -> distribution`, any leading axes, over which the mean goes.
        params: `[P]` where the policy is pi_old.

    Returns:
        `(vector [P]) -> F vector [P]`.
    """
    old, push = jax.linearize(policy, params)
    pull = jax.linear_transpose(push, params)
    slope = jax.grad(lambda new: jnp.mean(jax.lax.stop_gradient(old).kl(new)))

    def product(vector: jax.Array) -> jax.Array:
        chex.assert_equal_shape([params, vector])
        _, curved = jax.jvp(slope, (old,), (push(vector),))
        (result,) = pull(curved)
        return result

    return product


def conjugate_gradient(
    product: Callable[[jax.Array], jax.Array], b: jax.Array, iterations: int, tolerance: float
) -> tuple[jax.Array, jax.Array]:
    """Solve `A x = b` for a symmetric positive semidefinite A known by its products (Hestenes and Stiefel 1952).

    It begins at 0 and ends when the residual is small enough, after so many iterations, or before a direction along
    which A does not curve upwards (a singular A, or a NaN): what it has by then is the answer, always finite.

    Args:
        product: `(vector [P]) -> A vector [P]`.
        b: `[P]`.
        iterations: how many at most; 10 to 20.
        tolerance: of the residual's norm, as a share of b's.

    Returns:
        x `[P]`, and the norm of `b - A x` over that of b (0 where b is 0).
    """
    size = jnp.vdot(b, b)

    def goes_on(carry: tuple) -> jax.Array:
        index, _, _, _, rest, stuck = carry
        return (index < iterations) & (rest > jnp.square(tolerance) * size) & ~stuck  # False at NaN too

    def one(carry: tuple) -> tuple:
        index, x, residual, direction, rest, _ = carry
        image = product(direction)
        curvature = jnp.vdot(direction, image)
        length = rest / jnp.where(curvature > 0.0, curvature, 1.0)
        after = x + length * direction, residual - length * image
        following = jnp.vdot(after[1], after[1])
        fine = (curvature > 0.0) & jnp.isfinite(following) & jnp.all(jnp.isfinite(after[0]))
        following_direction = after[1] + following / rest * direction
        now = (x, residual, direction, rest)
        kept = [
            jnp.where(fine, new, old) for new, old in zip((*after, following_direction, following), now, strict=True)
        ]
        return (index + 1, *kept, ~fine)

    begin = (0, jnp.zeros_like(b), b, b, size, jnp.zeros((), bool))
    _, x, _, _, rest, _ = jax.lax.while_loop(goes_on, one, begin)
    return x, jnp.where(size > 0.0, jnp.sqrt(rest / jnp.where(size > 0.0, size, 1.0)), 0.0)


def natural_step(
    product: Callable[[jax.Array], jax.Array], gradient: jax.Array, max_kl: float, iterations: int, tolerance: float
) -> tuple[jax.Array, jax.Array]:
    """Give the step of steepest ascent within a ball of KL divergence (Kakade 2001; Schulman et al. 2015, appendix C).

        x = F^-1 g,   step = sqrt(2 max_kl / x^T F x) x,   as KL(pi_old || pi_{old + step}) = 1/2 step^T F step + ...

    Args:
        product: `(vector [P]) -> F vector [P]`, damped as need be.
        gradient: `[P]` g, of what should grow.
        max_kl: the radius, nats.
        iterations: of conjugate gradient.
        tolerance: of conjugate gradient.

    Returns:
        The step `[P]`, exactly 0 where there is none to take (no gradient, no curvature, a NaN), and conjugate
        gradient's relative residual.
    """
    direction, residual = conjugate_gradient(product, gradient, iterations, tolerance)
    curvature = jnp.vdot(direction, product(direction))
    fine = (curvature > 0.0) & jnp.isfinite(curvature)
    step = jnp.sqrt(2.0 * max_kl / jnp.where(fine, curvature, 1.0)) * direction
    return jnp.where(fine & jnp.all(jnp.isfinite(step)), step, 0.0), residual


class LineSearch(NamedTuple):
    """What came of a line search.

    Attributes:
        params: `[P]` the accepted ones, or those it began with, bit for bit.
        accepted: bool, whether there was a step to accept.
        improvement: by how much the surrogate grew; 0 if not accepted.
        kl: mean KL(pi_old || pi) in nats; 0 if not accepted.
    """

    params: jax.Array
    accepted: jax.Array
    improvement: jax.Array
    kl: jax.Array


def line_search(
    evaluate: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    params: jax.Array,
    step: jax.Array,
    max_kl: float,
    shrink: float,
    tries: int,
) -> LineSearch:
    """Take the longest of `step, shrink step, shrink^2 step, ...` that is safe (arXiv 1502.05477, appendix C).

    Safe is one that stays within the trust region, KL <= max_kl, and is strictly better than no step. A NaN is neither,
    nor is a step too small to change a parameter, whatever rounding says of it.

    Args:
        evaluate: `(params [P]) -> (surrogate to grow, mean KL from the old policy)`.
        params: `[P]` the old ones.
        step: `[P]`.
        max_kl: nats.
        shrink: factor from one try to the next, between 0 and 1.
        tries: how many at most.
    """
    before, _ = evaluate(params)

    def goes_on(carry: tuple[jax.Array, LineSearch]) -> jax.Array:
        index, found = carry
        return (index < tries) & ~found.accepted

    def one(carry: tuple[jax.Array, LineSearch]) -> tuple[jax.Array, LineSearch]:
        index, found = carry
        candidate = params + jnp.asarray(shrink, params.dtype) ** index * step
        surrogate, kl = evaluate(candidate)
        moved = jnp.any(candidate != params) & jnp.all(jnp.isfinite(candidate))
        accepted = (kl <= max_kl) & (surrogate > before) & moved
        tried = LineSearch(candidate, accepted, surrogate - before, kl)
        return index + 1, jax.tree.map(lambda new, old: jnp.where(accepted, new, old), tried, found)

    zero = jnp.zeros_like(before)
    nothing = LineSearch(params, jnp.zeros((), bool), zero, zero)
    return jax.lax.while_loop(goes_on, one, (jnp.zeros((), jnp.int32), nothing))[1]
