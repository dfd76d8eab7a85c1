"""JAX's default random numbers, written so that a CPU draws few of them quickly.

On a CPU, JAX compiles its Threefry-2x32 hash (Salmon et al. 2011, doi:10.1145/2063384.2063405) as a loop, whose
overhead for the handful of numbers that one environment step needs exceeds the step itself. Here the rounds are
written out, so that they fuse with their neighbours. The numbers are the same, bit for bit.
"""

from jax import Array, lax, random
from jax import numpy as jnp
from jax.extend import random as extend_random

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Hash of the counter (high, low), two uint32 arrays of one shape, under `key` [2] uint32: 20 rounds."""
    words = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    high, low = high + words[0], low + words[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            high = high + low
            low = ((low << rotation) | (low >> (32 - rotation))) ^ high
        high = high + words[(group + 1) % 3]
        low = low + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return high, low


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The numbers 0, 1, ... in row-major order, as high and low words. Below 2**32 of them the high words are 0."""
    low = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        low = low + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return jnp.zeros(shape, jnp.uint32), low


def _seed(seed: Array) -> Array:
    return jnp.stack([jnp.zeros((), jnp.uint32), seed.astype(jnp.uint32)])


def _key(high: Array, low: Array) -> Array:
    """Key data [..., 2], hashed once: fused into every draw, a chain of keys would be hashed anew for each of them."""
    return lax.optimization_barrier(jnp.stack((high, low), axis=-1))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return _key(*threefry(key, *_counters(shape)))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = threefry(key, *_counters(shape))
    if bit_width == 64:
        return (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
    return (high ^ low).astype(jnp.dtype(f"uint{bit_width}"))


def _fold_in(key: Array, data: int | Array) -> Array:
    return _key(*threefry(key, *_seed(jnp.asarray(data))))


UNROLLED = extend_random.define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in, name="unrolled", tag="unr"
)


def unrolled(key: Array) -> Array:
    """`key` with the same stream of numbers, drawn faster on a CPU; a key of another kind is returned as it is."""
    if str(random.key_impl(key)) != "threefry2x32":
        return key
    return random.wrap_key_data(random.key_data(key), impl=UNROLLED)
