"""The shuffle is a permutation of every size, uniform as far as chi-square sees, and never sorts."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from scipy import stats

from jaxrl.core import shuffle


@pytest.mark.slow
def test_every_small_size_is_a_permutation():
    """Without jit and with places of one shape, no size compiles anything of its own."""
    with jax.disable_jit():
        for size in range(shuffle.SMALLEST, 201):
            places = jnp.minimum(jnp.arange(200), size - 1)
            order = np.asarray(shuffle.elements(random.key(size), places, size))[:size]
            np.testing.assert_array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 7, 63, 64, 8192, 10007, 60000, 99991])
def test_every_kind_of_size_is_a_permutation(size):
    order = np.asarray(jax.jit(shuffle.permutation, static_argnums=1)(random.key(size), size))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def chi_square(counts, expected):
    """p-value of `counts` [cells] against one expectation for each."""
    return stats.chi2.sf(np.square(counts - expected).sum() / expected, counts.size - 1)


@pytest.mark.parametrize("size", [64, 97])  # an exact product of two digits, and one that needs cycle walking
@pytest.mark.parametrize(("num_rounds", "uniform"), [(8, True), (2, False)])
def test_positions_and_pairs_are_uniform(monkeypatch, size, num_rounds, uniform):
    """Two rounds fail, so the test can; the shuffle as shipped passes."""
    assert shuffle.NUM_ROUNDS == 8
    monkeypatch.setattr(shuffle, "NUM_ROUNDS", num_rounds)
    num_keys = 20_000
    orders = jax.vmap(lambda key: shuffle.permutation(key, size))(random.split(random.key(0), num_keys))
    orders = np.asarray(orders).astype(int)

    p_values = {}
    for place in (0, 1, size // 2, size - 1):
        p_values[place] = chi_square(np.bincount(orders[:, place], minlength=size), num_keys / size)
    for pair in ((0, 1), (0, size // 2), (3, 11), (size - 2, size - 1)):
        first, second = orders[:, pair].T
        counts = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
        off_diagonal = counts[~np.eye(size, dtype=bool)]
        p_values[pair] = chi_square(off_diagonal, num_keys / off_diagonal.size)
    smallest = min(p_values.values())
    assert (smallest > 1e-3) == uniform, p_values


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 97])
def test_elements_are_those_of_the_permutation(size):
    places = jnp.array([size - 1, 0, 3, 3])
    keys = random.split(random.key(1), 3)
    batched = jax.vmap(lambda key: shuffle.elements(key, places, size))(keys)
    for key, elements in zip(keys, batched, strict=True):
        np.testing.assert_array_equal(elements, shuffle.permutation(key, size)[places])


def test_no_sort():
    def text(size):
        return str(jax.make_jaxpr(lambda key: shuffle.permutation(key, size))(random.key(0)))

    assert "sort" in text(8)  # what is looked for is found where it is
    assert not [size for size in (64, 100, 8192, 60000) if "sort" in text(size)]


def test_minibatches_hold_every_element_once():
    batch = {"number": jnp.arange(96), "square": jnp.arange(96.0) ** 2}
    drawn = shuffle.minibatches(random.key(0), batch, 6)
    assert drawn["number"].shape == (6, 16)
    np.testing.assert_array_equal(np.sort(drawn["number"].ravel()), np.arange(96))
    np.testing.assert_array_equal(drawn["square"], drawn["number"] ** 2)  # rows stay together


def test_minibatches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="96 does not split into 5"):
        shuffle.minibatches(random.key(0), jnp.arange(96), 5)
