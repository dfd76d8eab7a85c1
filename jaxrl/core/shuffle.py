"""Random permutations without sorting.

`jax.random.permutation` sorts random numbers, which on a CPU costs more than a gradient step of a small network.
A keyed bijection of the indices costs a few integer operations per element instead: a Feistel network (Luby and
Rackoff 1988) on pairs of digits (left, right) of a mixed radix a * b >= size, with cycle walking (Black and
Rogaway 2002, section 4) for the few indices that fall outside. Axes: B elements.
"""

import math
from typing import Any

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import devices

NUM_ROUNDS = 8
SMALLEST = 64  # below this size a few digits are too few to mix well, and sorting costs nothing


def mix(x: Array) -> Array:
    """[...] uint32 -> [...] uint32, one to one, every bit depending on every other (MurmurHash3's finaliser)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _rotate(digit: Array, noise: Array, radix: int) -> Array:
    """`digit` [B] in [0, radix) moved by `noise` [B] uint32 modulo `radix`, without a division."""
    moved = digit + (((noise >> 16) * jnp.uint32(radix)) >> 16)
    return jnp.where(moved >= radix, moved - jnp.uint32(radix), moved)


def permutation(key: Array, size: int) -> Array:
    """A random permutation [size] int32 of 0 .. size - 1, for sizes up to 2**30.

    Every element lands at every place, and every pair at every pair of places, with equal chance as far as a
    chi-square test sees; it is no sample of all size! orders, which no 64-bit key could index.
    """
    return elements(key, jnp.arange(size), size)


def elements(key: Array, places: Array, size: int) -> Array:
    """`permutation(key, size)[places]`, places and result [B] int32, at the cost of B elements alone."""
    if size < SMALLEST:
        return random.permutation(key, size).astype(jnp.int32)[places]
    left_radix = math.isqrt(size)
    right_radix = -(-size // left_radix)
    round_keys = random.bits(key, (NUM_ROUNDS,), jnp.uint32)

    def bijection(index: Array) -> Array:
        left, right = index // right_radix, index % right_radix
        for round_key in round_keys.reshape(-1, 2):
            left = _rotate(left, mix(right ^ round_key[0]), left_radix)
            right = _rotate(right, mix(left ^ round_key[1]), right_radix)
        return left * right_radix + right

    index = bijection(places.astype(jnp.uint32))
    if left_radix * right_radix > size:

        def walk(index: Array) -> Array:
            return jnp.where(index < size, index, bijection(index))

        index = lax.while_loop(lambda index: (index >= size).any(), walk, index)
    return index.astype(jnp.int32)


def minibatches(key: Array, batch: Any, count: int) -> Any:
    """`batch` with leaves [B, ...] in random order, as leaves [count, B // count, ...].

    Raises:
        ValueError: B is not a multiple of `count`.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % count:
        raise ValueError(f"A batch of {size} does not split into {count} equal minibatches.")
    order = permutation(key, size).reshape(count, size // count)
    return devices.split(jax.tree.map(lambda leaf: leaf[order], batch), axis=1)
