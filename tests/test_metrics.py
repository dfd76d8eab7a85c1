"""The importance-weighted estimate of a likelihood, against closed forms."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random, vmap
from scipy import stats

from generative import likelihoods, metrics


def bound(key, log_weights, num_samples, chunk_size):
    drawn = metrics.draw_log_weights(key, log_weights, num_samples, chunk_size)
    return metrics.importance_curve(drawn, (num_samples,))[0]


def test_every_sample_counts_once_whatever_the_chunk():
    """Each chunk gives weights 0 .. count - 1, so the mean of their exponentials is known."""
    for num_samples, chunk_size in ((5, 2), (6, 2), (1, 100), (100, 100), (101, 100), (7, 1)):
        drawn = np.arange(num_samples) % chunk_size
        estimate = bound(random.key(0), lambda _, count: jnp.arange(count, dtype=jnp.float32), num_samples, chunk_size)
        np.testing.assert_allclose(estimate, np.log(np.exp(drawn).mean()), rtol=1e-6, atol=1e-6)


def test_chunks_are_independent_and_weights_far_below_one_survive():
    """Log-normal weights around exp(-1000) have a known mean; the same key in every chunk would widen the error."""
    estimate = bound(random.key(0), lambda key, count: random.normal(key, (count, 2)) - 1000, 100_000, 100)
    np.testing.assert_allclose(estimate, -1000 + 0.5, atol=0.02)


@pytest.mark.slow
def test_linear_gaussian_bound_grows_from_elbo_to_likelihood():
    """z ~ N(0, 1), x | z ~ N(z, 1), so x ~ N(0, 2); with the prior as proposal, weights are p(x | z)."""
    x = 1.5
    elbo = -0.5 * math.log(2 * math.pi) - 0.5 * (x**2 + 1)
    likelihood = stats.norm.logpdf(x, scale=math.sqrt(2))

    def log_weights(key, count):
        return likelihoods.gaussian(random.normal(key, (count, 1)), 1.0, jnp.array([x]))

    def mean_bound(num_samples, repeats):
        keys = random.split(random.key(num_samples), repeats)
        return vmap(lambda key: bound(key, log_weights, num_samples, 64))(keys).mean()

    bounds = [mean_bound(1, 40_000), mean_bound(5, 40_000), mean_bound(50, 4000), mean_bound(5000, 40)]
    assert bounds[0] == pytest.approx(elbo, abs=0.03)
    assert bounds[-1] == pytest.approx(likelihood, abs=0.01)
    assert np.all(np.diff(bounds) > 0.005)


def test_bernoulli_takes_logits():
    logits, x = jnp.array([[-30.0, -1.0, 0.0, 200.0]]), jnp.array([[0.0, 1.0, 0.25, 1.0]])
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = [0.0, np.log(chance[0, 1]), np.log(0.5), 0.0]
    np.testing.assert_allclose(likelihoods.bernoulli(logits, x), [sum(expected)], rtol=1e-6)
    np.testing.assert_allclose(
        likelihoods.softplus(jnp.array([-200.0, 0, 3, 200])), [0, 0.693147, 3.048587, 200], atol=1e-6
    )


def test_gaussian_is_scipys():
    mean, x = random.normal(random.key(0), (2, 3, 5))
    expected = stats.norm.logpdf(x, mean, 0.3).sum(-1)
    np.testing.assert_allclose(likelihoods.gaussian(mean, jnp.float32(0.3), x), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [math.exp(-7), 0.01, 0.3, math.exp(3)])
def test_logistic_chances_sum_to_one(scale):
    """Over all 256 values, also where the mean lies outside them; and every gradient is finite."""
    x = jnp.arange(256) / 255
    means = jnp.array([-1.0, 0.0, 0.3, 0.5, 1.0, 1.7])[:, None, None]

    def log_prob(means, scale):
        return likelihoods.discretized_logistic(means, scale, x[:, None], 256)

    log_p = log_prob(means, jnp.float32(scale))
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1, rtol=2e-4)
    gradients = jax.grad(lambda *args: log_prob(*args).sum(), argnums=(0, 1))(means, jnp.float32(scale))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if scale > 0.005:
        edges = (np.arange(257) - 0.5) / 255
        chances = np.diff(stats.logistic.cdf(np.r_[-np.inf, edges[1:-1], np.inf], 0.3, scale))
        np.testing.assert_allclose(jnp.exp(log_p[2]), chances, rtol=1e-3, atol=1e-7)


def test_counts_divide_what_is_drawn():
    given = {1: (1,), 7: (1, 7), 100: (1, 10, 100), 5000: (1, 10, 100, 1000, 5000)}
    assert {size: metrics.importance_counts(size) for size in given} == given


@pytest.mark.slow
def test_importance_curve():
    """From the same weights: the mean of their logarithms with 1, the logarithm of their mean with all."""
    log_weights = 2 * random.normal(random.key(0), (60, 3)) - 500
    curve = metrics.importance_curve(log_weights, (1, 4, 60))
    np.testing.assert_allclose(curve[0], log_weights.mean(0), rtol=1e-6)
    np.testing.assert_allclose(curve[2], np.log(np.exp(log_weights + 500).mean(0)) - 500, rtol=1e-6)
    groups = np.exp(np.asarray(log_weights[:, 0]) + 500).reshape(15, 4).mean(1)
    np.testing.assert_allclose(curve[1, 0], np.log(groups).mean() - 500, rtol=1e-6)
    assert (np.diff(curve, axis=0) > 0).all()
    with pytest.raises(ValueError, match="a count=7 does not divide the number of weights=60"):
        metrics.importance_curve(log_weights, (7,))
