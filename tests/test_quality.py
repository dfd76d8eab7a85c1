"""Measures of samples where their value is known in closed form."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from generative import data, quality, scores, toys


def normal(seed, *shape):
    return random.normal(random.key(seed), shape)


def test_distances_do_not_go_below_zero():
    x = normal(0, 20, 3) + 100.0
    ours = quality.squared_distances(x, x[:7])
    np.testing.assert_allclose(ours, ((np.asarray(x)[:, None] - np.asarray(x)[:7]) ** 2).sum(-1), atol=1e-4)
    assert ours.min() >= 0


def test_measures_do_not_depend_on_where_the_data_lie():
    real, made = normal(0, 200, 8), normal(1, 200, 8)
    for near, far in zip(quality.neighbours(real, made), quality.neighbours(real + 300, made + 300), strict=True):
        np.testing.assert_allclose(near, far, atol=0.02)


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_mmd_of_two_normal_distributions(shift):
    """E k(x, y) is a Gaussian integral: (s^2 / (s^2 + 2))^(D/2) exp(-|shift|^2 / (2 (s^2 + 2)))."""
    bandwidth, size = 0.8, 3
    x, y = normal(0, 1500, size), normal(1, 1200, size).at[:, 0].add(shift)
    factor = (bandwidth**2 / (bandwidth**2 + 2)) ** (size / 2)
    expected = 2 * factor * (1 - math.exp(-(shift**2) / (2 * (bandwidth**2 + 2))))
    assert quality.squared_mmd(x, y, jnp.float32(bandwidth)) == pytest.approx(expected, abs=3e-3)


def test_mmd_of_too_little_is_refused_and_of_coinciding_points_finite():
    with pytest.raises(ValueError, match="1 and 3 points have no pairs"):
        quality.squared_mmd(jnp.zeros((1, 2)), jnp.zeros((3, 2)))
    x = jnp.array([[0.0]] * 9 + [[1.0]])
    assert quality.squared_mmd(x, x + 1.0) > quality.squared_mmd(x, x) and jnp.isfinite(quality.squared_mmd(x, x))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_samples_are_measured_beside_examples_of_every_class(split):
    """Sorted by class, the split itself is told from none of its own classes but from others."""
    x = np.repeat(np.arange(4.0), 500)[:, None] + np.linspace(0, 0.1, 2000)[:, None]
    spec, source = data.from_arrays("sorted", x, x if split == "test" else -x, valid=x if split == "valid" else -x)
    measures = scores.make(spec, 0, split=split)
    assert abs(measures.measure((), jnp.asarray(x)[::2], None, source)["eval/mmd"]) < 0.01
    assert measures.measure((), jnp.asarray(x)[:1000], None, source)["eval/mmd"] > 0.1


@pytest.mark.slow
def test_mmd_is_unbiased_and_takes_the_median_distance():
    sets = normal(0, 400, 2, 8, 1)
    estimates = jax.vmap(lambda pair: quality.squared_mmd(pair[0], pair[1], jnp.float32(1.0)))(sets)
    assert abs(estimates.mean()) < 3 * estimates.std() / math.sqrt(400)  # the biased one is about 0.06 here
    x, y = jnp.array([[0.0], [2.0], [2.0]]), jnp.array([[0.0], [0.0]])
    x_spread = jnp.array([[0.0], [3.0], [9.0]])  # distances 0 0 0 3 3 6 6 9 9
    assert quality.squared_mmd(x_spread, y) == quality.squared_mmd(x_spread, y, jnp.float32(3.0))
    np.testing.assert_allclose(
        quality.squared_mmd(x, y, jnp.float32(1.0)), (1 + 2 * math.exp(-2)) / 3 + 1 - 2 * (1 + 2 * math.exp(-2)) / 3
    )


def test_neighbours_by_hand():
    """On a line with k = 1: real balls [-1, 1], [0, 2], [1, 13]; generated ones [5.6, 6.4], [6, 6.8], [6.4, 193.6]."""
    real, generated = jnp.array([[0.0], [1.0], [7.0]]), jnp.array([[6.0], [6.4], [100.0]])
    found = quality.neighbours(real, generated, k=1)
    expected = quality.Neighbours(precision=2 / 3, recall=1 / 3, density=2 / 3, coverage=1 / 3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_neighbours_of_like_sets():
    """Density 1 and coverage 1 - product of (N - i) / (N + M - i), i = 1 .. k (Naeem et al. 2020)."""
    num_real, num_generated, k = 150, 100, 5
    pairs = [(normal(seed, num_real, 4), normal(100 + seed, num_generated, 4)) for seed in range(10)]
    stacked = [jnp.stack(part) for part in zip(*pairs, strict=True)]
    found = jax.vmap(lambda x, y: quality.neighbours(x, y, k))(*stacked)
    missed = math.prod((num_real - i) / (num_real + num_generated - i) for i in range(1, k + 1))
    assert found.density.mean() == pytest.approx(1, abs=0.08)
    assert found.coverage.mean() == pytest.approx(1 - missed, abs=0.03)
    far = quality.neighbours(stacked[0][0], stacked[1][0] + 100.0, k)
    assert [float(value) for value in far] == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="too few for k=5"):
        quality.neighbours(normal(0, 5, 2), normal(0, 50, 2))


def test_modes_of_a_mixture_itself_and_of_a_collapsed_one():
    samples, _ = toys.draw(np.random.default_rng(3), "grid", 20_000)
    found = quality.modes(toys.MIXTURES["grid"], jnp.asarray(samples))
    assert found.covered == 25
    assert found.quality == pytest.approx(1 - math.exp(-4.5), abs=2e-3)
    assert 0 <= found.reverse_kl < 2e-3
    one = quality.modes(toys.MIXTURES["grid"], jnp.zeros((100, 2)).at[50:, 0].set(0.16))  # half beyond 3 * 0.05
    np.testing.assert_allclose(one, quality.Modes(1, 0.5, math.log(25)), rtol=1e-6)


def test_reverse_divergence_by_hand():
    label = jnp.array([0, 0, 0, 2])
    expected = 0.75 * math.log(0.75 * 4) + 0.25 * math.log(0.25 * 4)
    np.testing.assert_allclose(quality.reverse_kl(label, 4), expected, rtol=1e-6)
    np.testing.assert_allclose(quality.modes_of_labels(label, 4), (2, expected), rtol=1e-6)
