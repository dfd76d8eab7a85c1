"""Further exactness of autoregressive models: large kernels and gaps, many levels, partly given examples, lanes."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from test_autoregressive import CASES, SMALL_GATED, SMALL_PIXELCNN, Case, Made, jit

from generative import checks, data
from generative.models import gated_pixelcnn, pixelcnn, pixelcnnpp, pixelrnn, wavenet

SIX_BY_THREE = (6, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(pixelcnn, pixelcnn.Config(8, 1, first_kernel=7, kernel=5, head=8), SIX_BY_THREE),
        Case(pixelcnn, pixelcnn.Config(8, 1, first_kernel=27, kernel=5, head=8), SIX_BY_THREE),
        Case(gated_pixelcnn, gated_pixelcnn.Config(6, 2, first_kernel=7, kernel=5, head=8), SIX_BY_THREE),
        Case(gated_pixelcnn, gated_pixelcnn.Config(6, 2, first_kernel=27, kernel=5, head=8), SIX_BY_THREE),
        Case(pixelrnn, pixelrnn.Config("row", 6, 1, first_kernel=7, kernel=5, head=8), SIX_BY_THREE),
    ],
    ids=["pixelcnn-7", "pixelcnn-27", "gated-7", "gated-27", "row-7"],
)
def test_large_kernels(case):
    """Images of six rows: of kernels of side 5 and 7 some rows above lie inside, of side 27 all."""
    model = Made(case)
    report = checks.check_causal(model.outputs, case.shape, random.key(0))
    assert report.passed, report.message
    report = checks.check_receptive(model.outputs, case.shape, random.key(0))
    assert report.passed, report.message
    report = checks.check_sampler(model.samplers(20), random.key(1), 2)
    assert report.passed, report.message


@pytest.mark.slow
def test_wavenet_beyond_its_reach():
    """Gaps 1 to 128 see 256 steps back, and no further; each ring is passed through more than once."""
    case = Case(wavenet, wavenet.Config(6, 8, num_layers=8), (300,))
    model = Made(case)
    back = np.arange(300)[:, None] - np.arange(300)
    report = checks.check_receptive(
        model.outputs, (300,), random.key(0), expected=(back > 0) & (back <= 256), num_inputs=1
    )
    assert report.passed, report.message
    report = checks.check_sampler(model.samplers(4), random.key(1), 2)
    assert report.passed, report.message


@pytest.mark.parametrize(
    "case",
    [
        Case(pixelcnn, pixelcnn.Config(8, 1, first_kernel=3, head=8), (1, 2, 1), 256),
        pytest.param(Case(pixelcnnpp, pixelcnnpp.Config(4, 1, 1, 3), (1, 2, 1), 256), marks=pytest.mark.slow),
        pytest.param(Case(wavenet, wavenet.Config(6, 8, num_layers=2), (2,), 256), marks=pytest.mark.slow),
    ],
    ids=["pixelcnn", "pixelcnnpp", "wavenet"],
)
def test_256_levels(case):
    """All 65,536 pairs of bytes; a byte holds no 256."""
    model = Made(case)
    report = checks.check_normalised(model.log_prob, case.shape, 256, 1e-4)
    assert report.passed, report.message
    assert np.isfinite(model.log_prob(model.source.test.x)).all()  # bytes, as data come
    report = checks.check_sampler(model.samplers(200), random.key(1), 256)
    assert report.passed and report.off_grid == 0, report.message


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(pixelcnn, SMALL_PIXELCNN, (1, 2, 3), 3),
        Case(gated_pixelcnn, SMALL_GATED, (1, 2, 3), 3),
        Case(pixelrnn, pixelrnn.Config("diagonal", 18, 1, first_kernel=3, head=18), (1, 2, 3), 3),
        Case(pixelcnnpp, pixelcnnpp.Config(4, 1, 1, 3), (1, 2, 3), 3),
    ],
    ids=["pixelcnn", "gated", "diagonal", "pixelcnnpp"],
)
def test_frequencies_of_colours(case):
    """Of all 729 images those that make up nearly everything are counted each by itself."""
    model = Made(case)
    fast, _ = model.samplers(100_000).items()
    report = checks.check_sampler(dict([fast]), random.key(2), 3, model.log_prob)
    assert report.passed and report.kept >= 0.9, (report.message, report.kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["made", "nade-orders", "pixelcnn", "gated", "wavenet"])
def test_completion_of_scattered_values(name):
    """Other values given in each example."""
    model, case = Made(CASES[name]), CASES[name]
    given = np.random.default_rng(0).random((20, *case.shape)) < 0.5
    x = np.asarray(model.source.test.x[:20])
    fast, slow = (
        jit(lambda key, m=m: model.model.complete(key, model.state, x, given, model.label(20), m))(random.key(3))
        for m in case.module.METHODS
    )
    np.testing.assert_array_equal(fast, slow)
    scaled = data.scale(x, case.levels)
    np.testing.assert_array_equal(np.asarray(fast)[given], scaled[given])
    assert (np.asarray(fast)[~given] != scaled[~given]).any()


@pytest.mark.parametrize(
    "name",
    ["made", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nade-orders", "gated", "pixelrnn-row", "wavenet"))],
)
def test_lanes_sample_what_single_runs_do(name):
    """Over seeds and over parameters."""
    model = Made(CASES[name])
    params = [model.params, jax.tree.map(lambda leaf: 1.5 * leaf, model.params)]
    keys = random.split(random.key(0), 2)

    def sample(key, params):
        state = model.state._replace(fit=model.state.fit._replace(params=params))
        return model.model.sample(key, state, 5, model.label(5))

    alone = [jit(sample)(key, each) for key, each in zip(keys, params, strict=True)]
    lanes = jit(jax.vmap(sample))(keys, jax.tree.map(lambda *leaves: jnp.stack(leaves), *params))
    np.testing.assert_array_equal(lanes, alone)
    assert (alone[0] != alone[1]).any()
