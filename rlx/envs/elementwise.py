"""Cosine, sine and random starts as a few elementwise operations, which XLA fuses and vectorises on CPU.

A step of a small environment is bound by these: XLA's own cosine and sine take three times as long on CPU.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from rlx.ops.random import GOLDEN, mix, words_of
from rlx.types import Key

_SQUARES = (0.0, (math.pi / 2) ** 2)  # of an angle in [-pi/2, pi/2]
_SIN = Chebyshev.interpolate(lambda s: np.sinc(np.sqrt(s) / np.pi), 4, _SQUARES).convert(kind=Polynomial).coef.tolist()
_COS = Chebyshev.interpolate(lambda s: np.cos(np.sqrt(s)), 5, _SQUARES).convert(kind=Polynomial).coef.tolist()
_PI_HIGH = 3.140625  # exact in 9 bits: its product with up to 2^15 half turns is exact in float32
_PI_LOW = math.pi - _PI_HIGH


def cos_sin(angle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of float32 angles, absolute error below 3e-7 within a thousand turns.

    With k the nearest number of half turns and r = angle - k pi: cos = (-1)^k C(r^2), sin = (-1)^k r S(r^2), where C
    and S interpolate at Chebyshev points.
    """
    half_turns = jnp.round(angle * (1 / math.pi))
    rest = angle - half_turns * _PI_HIGH - half_turns * _PI_LOW
    odd = half_turns.astype(jnp.int32) & 1
    sign = (1 - 2 * odd).astype(jnp.float32)
    square = rest * rest
    return sign * _horner(_COS, square), sign * rest * _horner(_SIN, square)


def uniform(key: Key, n: int) -> tuple[jax.Array, ...]:
    """Draw n independent float32, uniform in [0, 1), by the hash of `rlx.ops.random`, each a scalar of its own."""
    first, second = words_of(key)
    words = [mix(second ^ mix(first + np.uint32(i * int(GOLDEN) & 0xFFFFFFFF))) for i in range(1, n + 1)]
    return tuple((word >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-24 for word in words)


def _horner(coefficients: list[float], x: jax.Array) -> jax.Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total
