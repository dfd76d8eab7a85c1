"""The unrolled hash draws what JAX's own draws, bit for bit."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from jaxprs import primitives

from jaxrl.core import keys

SHAPES = ((), (5,), (2, 0), (2, 3, 2))


def draws(key):
    """Everything that can be asked of a key, keys as raw data."""
    folds = [random.fold_in(key, data) for data in (0, 1, 2**31, 2**32 - 1, jnp.int32(-1))]
    splits = [random.split(key, shape) for shape in (1, 2, 7, (2, 3))]
    return {
        "keys": [random.key_data(other) for other in folds + splits],
        "bits": [random.bits(key, shape, jnp.uint32) for shape in SHAPES],
        "short bits": [random.bits(key, (3, 2), dtype) for dtype in (jnp.uint8, jnp.uint16)],
        "uniform": random.uniform(key, (3,)),
        "normal": [random.normal(key, ()), random.normal(key, (3, 2)), random.normal(key, (3,), jnp.bfloat16)],
        "randint": random.randint(key, (4,), -3, 1000),
        "permutation": random.permutation(key, 17),
        "categorical": random.categorical(key, jnp.arange(5.0), shape=(6,)),
    }


def few(key):
    """A chain of keys, as programs have, and draws at its end."""
    key = random.fold_in(random.split(random.split(key, 3)[1])[0], 5)
    return random.key_data(key), random.normal(key, (2, 3)), random.bits(key, (), jnp.uint8)


def assert_same_bits(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, two)
    assert jax.tree.map(jnp.result_type, one) == jax.tree.map(jnp.result_type, two)


@pytest.mark.slow
def test_every_draw_of_a_batch_of_keys():
    batch = jnp.stack([random.key(0), random.key(2**31 - 1), random.fold_in(random.key(3), 9), random.key(-1)])
    program = jax.jit(jax.vmap(draws))
    assert_same_bits(program(batch), program(jax.vmap(keys.unrolled)(batch)))


@pytest.mark.slow
def test_one_key_with_and_without_jit():
    key = random.key(5)
    expected = few(key)
    assert_same_bits(expected, few(keys.unrolled(key)))
    assert_same_bits(expected, jax.jit(few)(keys.unrolled(key)))
    assert_same_bits(expected, jax.jit(lambda key: few(keys.unrolled(key)))(key))


def test_64_bits():
    with jax.enable_x64(True):
        key = random.key(11)
        for draw in (lambda key: random.bits(key, (5,), jnp.uint64), lambda key: random.normal(key, (4,), jnp.float64)):
            assert_same_bits(draw(key), draw(keys.unrolled(key)))


@pytest.mark.parametrize("seed", [0, 42, 2**31 - 1, -1])
def test_a_seed_gives_the_same_key(seed):
    unrolled, plain = random.key(seed, impl=keys.UNROLLED), random.key(seed)
    assert_same_bits(random.key_data(unrolled), random.key_data(plain))


def test_keys_of_another_kind_are_left_alone():
    for key in (random.key(1, impl="rbg"), random.key(1, impl="unsafe_rbg"), keys.unrolled(random.key(1))):
        assert keys.unrolled(key) is key


def test_its_rounds_are_written_out():
    def names(key):
        lowered = jax.jit(lambda key: random.bits(key, (4,))).lower(key)
        return lowered.as_text()

    assert "threefry" in names(random.key(0))
    text = names(keys.unrolled(random.key(0)))
    assert "threefry" not in text and "while" not in text and "call @" not in text
    assert "while" not in primitives(jax.make_jaxpr(few)(keys.unrolled(random.key(0))))
