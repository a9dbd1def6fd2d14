"""Random numbers as a few elementwise operations, which XLA fuses with what they are for.

On a CPU every draw by JAX's default generator is a loop of its own, of some 80 kernels and copies: a tenth of a second
to compile, microseconds to run. A key means here what it means there: the same key gives the same numbers, and keys
that `jax.random.split` made give independent ones.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

Words = tuple[jax.Array, jax.Array]  # two uint32, of a key


def bits(key: jax.Array | Words, shape: tuple[int, ...]) -> jax.Array:
    """Draw independent uint32 of all 32 bits by hashing the key's words, or words of it, with the number of the draw.

    The key itself comes from JAX's generator. The hash, x -> x ^ x >> 16, twice times an odd number, is the finaliser
    of MurmurHash3 (public domain): a bijection of 32 bits in which each input bit flips half of the output's.
    """
    first, second = key if isinstance(key, tuple) else words_of(key)
    number = jnp.arange(1, math.prod(shape) + 1, dtype=jnp.uint32).reshape(shape)
    return mix(second ^ mix(first + number * GOLDEN))


def uniform(key: jax.Array | Words, shape: tuple[int, ...]) -> jax.Array:
    """Draw float32 uniformly from (0, 1): the middles of 2^23 equal parts."""
    return ((bits(key, shape) >> 9).astype(jnp.int32).astype(jnp.float32) + 0.5) * 2.0**-23


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw float32 from the standard normal distribution, by its inverse; the largest is 5.3."""
    return math.sqrt(2.0) * jax.lax.erf_inv(2.0 * uniform(key, shape) - 1.0)


def gumbel(key: jax.Array | Words, shape: tuple[int, ...]) -> jax.Array:
    """Draw float32 from the standard Gumbel distribution: the largest of `logits + gumbel` is a draw by softmax."""
    return -jnp.log(-jnp.log(uniform(key, shape)))


GOLDEN = np.uint32(0x9E3779B9)  # odd, so that no two numbers of draws are alike


def mix(word: jax.Array) -> jax.Array:
    """Hash uint32 to uint32."""
    word = (word ^ (word >> 16)) * np.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * np.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def words_of(key: jax.Array) -> Words:
    """Take two words of a key, each uint32.

    Raises:
        ValueError: several keys.
    """
    if key.shape:
        raise ValueError(f"one key is drawn from, not keys of shape {key.shape}: use jax.vmap")
    if jax.config.jax_debug_key_reuse:  # pyright: ignore[reportAttributeAccessIssue]
        jax.random.bits(key)  # the checker does not see that words are taken, but it sees a draw
    words = jax.random.key_data(key)
    return words[0], words[1]


def words_at(words: Words, step: jax.Array) -> Words:
    """Words for one step of a loop, as those of a key of its own: so a loop draws and splits nothing."""
    first, second = words
    hashed = mix(second ^ mix(first + step.astype(jnp.uint32) * GOLDEN))
    return hashed, mix(hashed ^ mix(second + GOLDEN))
