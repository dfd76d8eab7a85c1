"""PixelCNN++: its mixtures against sums, halving and doubling, planted bugs. See also `test_autoregressive`."""

from functools import partial

import numpy as np
import pytest
from jax import grad, random
from jax import numpy as jnp
from scipy.special import expit, logsumexp
from test_autoregressive import Case, Made, jit

from generative import autoregressive, checks, layers, likelihoods, masks
from generative.models import pixelcnnpp

SMALL = Case(pixelcnnpp, pixelcnnpp.Config(4, 1, num_sizes=2, num_logistics=2))
FLAT = Case(pixelcnnpp, pixelcnnpp.Config(4, 1, num_sizes=1, num_logistics=2), (2, 2, 1))


def chances(mean, log_scale, levels):
    """Of every level [L], of one logistic variable from -1 to 1 rounded to them, in double precision."""
    ends = (2 * np.arange(levels - 1) + 1) / (levels - 1) - 1
    return np.diff(np.r_[0.0, expit((ends - mean) / np.exp(np.clip(log_scale, -7, 7))), 1.0])


@pytest.mark.parametrize("log_scale", [*(pytest.param(s, marks=pytest.mark.slow) for s in (-20, -5, -1, 100)), -7, 3])
def test_mixtures_sum_to_one(log_scale):
    """Over all 256 values, with means inside and outside them and on an edge; and every gradient is finite."""
    means = np.array([-3.0, -1.0, 0.1, 127 / 255, 1.0, 1.5], np.float32)
    outputs = jnp.concatenate([jnp.linspace(-1, 1, 6), means, jnp.full(6, float(log_scale))])
    log_p = partial(likelihoods.logistic_mixture, levels=256)
    x = jnp.arange(256) / 255
    p = jnp.exp(jit(log_p)(outputs, x))
    assert p.sum() == pytest.approx(1, abs=1e-4)  # neighbours round the edge between them apart
    weights = np.exp(np.linspace(-1, 1, 6) - logsumexp(np.linspace(-1, 1, 6)))
    expected = sum(weight * chances(mean, log_scale, 256) for weight, mean in zip(weights, means, strict=True))
    np.testing.assert_allclose(p, expected, rtol=2e-3, atol=1e-6)
    ends = jit(likelihoods.logistic_mixture_ends, static_argnums=1)(outputs, 256)
    np.testing.assert_allclose(ends, np.cumsum(expected)[:-1], atol=2e-5)
    gradients = jit(grad(lambda *args: log_p(*args).sum(), (0, 1)))(outputs, x)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_colors_one_by_one_are_those_of_one_mixture():
    """Equation 3: one part is drawn for all colours of a pixel, whose means move with the colours before."""
    num_logistics, levels = 3, 4
    raw = np.random.default_rng(0).normal(size=(1 + 3 + 3 + 3, num_logistics))
    x = checks.enumerate_inputs((3,), levels)
    conditional = autoregressive.logistic_mixture(levels, num_logistics)
    flat = jnp.asarray(raw.ravel(), jnp.float32)
    nats = jit(lambda x: conditional.log_prob(pixelcnnpp.colors(flat, x / (levels - 1), levels), x).sum())
    ours = np.array([nats(jnp.asarray(row)) for row in x])
    (r, g, _), slopes = 2 * x.T / (levels - 1) - 1, np.tanh(raw[7:])
    expected = np.zeros(len(x))
    for part, weight in enumerate(np.exp(raw[0] - logsumexp(raw[0]))):
        means = [
            raw[1, part] + 0 * r,
            raw[2, part] + slopes[0, part] * r,
            raw[3, part] + slopes[1, part] * r + slopes[2, part] * g,
        ]
        each = [
            chances(mean, raw[4 + color, part], levels)[value]
            for color in range(3)
            for mean, value in zip(means[color], x[:, color], strict=True)
        ]
        expected += weight * np.reshape(each, (3, -1)).prod(0)
    np.testing.assert_allclose(np.exp(ours), expected, rtol=1e-4)


# Halving and doubling


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 6), (3, 5)])
def test_a_stride_leaves_every_other_pixel(shape):
    plain = layers.Conv(((-1, -1), (-1, 0), (0, -1), (0, 0)), 3, 5)
    half = layers.Conv(plain.offsets, 3, 5, stride=2)
    params = layers.init(plain, random.key(0))
    x = random.normal(random.key(1), (2, *shape, 3))
    every_other = layers.apply(plain, params, x)[:, ::2, ::2]
    # Two programs: on some processors their products are rounded differently.
    np.testing.assert_allclose(layers.apply(half, params, x), every_other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_images_that_do_not_halve_evenly_are_drawn_alike():
    """Five rows of six pixels, halved twice: caches of rows that several rows share."""
    case = Case(pixelcnnpp, pixelcnnpp.Config(4, 1, num_sizes=3, num_logistics=2), (5, 6, 1), 4)
    report = checks.check_sampler(Made(case).samplers(20), random.key(1), 4)
    assert report.passed, report.message


# Planted bugs


@pytest.mark.slow
def test_mask_b_in_the_first_layer_is_found(monkeypatch):
    offsets = masks.raster_offsets
    monkeypatch.setattr(masks, "raster_offsets", lambda kernel, center: offsets(kernel, center=True))
    report = checks.check_causal(Made(FLAT).outputs, FLAT.shape, random.key(0))
    assert not report.passed and "(0, 0, 0) have a derivative by (0, 0, 0)" in report.message


@pytest.mark.slow
def test_colors_that_see_later_ones_are_found(monkeypatch):
    colors = pixelcnnpp.colors
    monkeypatch.setattr(pixelcnnpp, "colors", lambda raw, x, levels: colors(raw, x[..., ::-1], levels))
    report = checks.check_causal(Made(FLAT._replace(shape=(1, 1, 3))).outputs, (1, 1, 3), random.key(0))
    assert not report.passed and "outputs of (0, 0, 1) have a derivative by (0, 0, 2)" in report.message


@pytest.mark.slow
def test_a_cache_without_room_for_the_rows_of_a_stride_is_found(monkeypatch):
    monkeypatch.setattr(layers.Conv, "rows", property(lambda conv: 1 - min(row for row, _ in conv.offsets)))
    report = checks.check_sampler(Made(SMALL).samplers(50), random.key(1), 2)
    assert not report.passed and "examples of naive are not those of cached, first example" in report.message
