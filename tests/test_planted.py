"""Bugs written into the models' own source, one at a time: each must be found by the public checks."""

import inspect

import numpy as np
import pytest
from jax import random
from test_autoregressive import SMALL_GATED, SMALL_PIXELCNN, Case, Made

from generative import checks, layers, masks
from generative.models import gated_pixelcnn, made, nade, pixelcnn, pixelrnn, wavenet

pytestmark = pytest.mark.slow

PIXELCNN = Case(pixelcnn, SMALL_PIXELCNN)
GATED = Case(gated_pixelcnn, SMALL_GATED)
ROW, DIAGONAL = (Case(pixelrnn, pixelrnn.Config(kind, 18, 1, first_kernel=3, head=18)) for kind in ("row", "diagonal"))
WAVENET = Case(wavenet, wavenet.Config(6, 8, num_layers=3), (7,))


def plant(monkeypatch, module, name, right, wrong):
    """The function `name` of `module` with `wrong` where its source has `right`."""
    source = inspect.getsource(getattr(module, name))
    assert source.count(right) == 1, f"{name} does not say {right!r} once: plant the bug anew"
    found = {}
    exec(compile(source.replace(right, wrong), module.__file__, "exec"), module.__dict__, found)
    monkeypatch.setattr(module, name, found[name])


def causality(case):
    model = Made(case)
    return checks.check_causal(model.outputs, case.shape, random.key(0), model.model.order)


@pytest.mark.parametrize("case", [PIXELCNN, GATED], ids=["pixelcnn", "gated"])
def test_a_residual_around_the_first_layer(monkeypatch, case):
    apply = layers.apply
    around = lambda conv, params, x: apply(conv, params, x) + (x if conv.strict else 0)  # noqa: E731
    monkeypatch.setattr(layers, "apply", around)
    report = causality(case)
    assert not report.passed and {(d, d) for d in range(9)} <= {tuple(leak) for leak in report.leaks.tolist()}


@pytest.mark.parametrize("case", [PIXELCNN, ROW], ids=["pixelcnn", "row"])
def test_mask_b_in_the_first_layer_of_one_colour(monkeypatch, case):
    monkeypatch.setattr(layers, "first", lambda offsets, *sizes: layers.Conv((*offsets, (0, 0)), *sizes))
    report = causality(case)
    assert not report.passed and {(d, d) for d in range(9)} <= {tuple(leak) for leak in report.leaks.tolist()}


def test_mask_a_in_a_later_layer_of_one_colour(monkeypatch):
    """Nothing is then left of the features of the pixel, which hold all that it may see."""
    plant(monkeypatch, layers, "dense", "channels)", "channels, strict=True)")
    model = Made(PIXELCNN)
    assert checks.check_causal(model.outputs, (3, 3, 1), random.key(0)).passed
    report = checks.check_receptive(model.outputs, (3, 3, 1), random.key(0))
    assert not report.passed and len(report.missing) == 9 * 8 // 2


@pytest.mark.parametrize("case", [GATED, ROW, DIAGONAL], ids=["gated", "row", "diagonal"])
def test_swapped_colours(monkeypatch, case):
    straight = masks.colors
    monkeypatch.setattr(masks, "colors", lambda *args: straight(*args)[::-1, ::-1])
    report = causality(case._replace(shape=(2, 2, 3)))
    assert not report.passed and "outputs of (0, 0, 0) have a derivative by (0, 0, 1)" in report.message


@pytest.mark.parametrize(
    ("case", "right", "wrong"),
    [
        (GATED, "above[number], row, 0, v)", "above[number], row + 1, 0, v)"),
        (GATED, "left[number], row, column, h[None])", "left[number], row, column + 1, h[None])"),
        (ROW, "caches[1 + number], row, column, h[None])", "caches[1 + number], row, column + 1, h[None])"),
        (DIAGONAL, "states.at[1 + column]", "states.at[column]"),
        (WAVENET, "(rings[number], place, 0, False)", "(rings[number], (time + 1) % len(rings[number]), 0, False)"),
    ],
    ids=["gated-rows", "gated-pixels", "row", "diagonal", "wavenet"],
)
def test_a_cache_one_off(monkeypatch, case, right, wrong):
    plant(monkeypatch, case.module, "draw_cached", right, wrong)
    report = checks.check_sampler(Made(case).samplers(50), random.key(1), 2)
    assert not report.passed and "examples of naive are not those of cached, first example" in report.message


@pytest.mark.parametrize(
    ("case", "name", "right", "wrong"),
    [
        (Case(made, made.Config((12,), direct=False)), "outputs", "last > below", "last >= below"),
        (Case(made, made.Config((12,))), "outputs", "last > last", "last >= last"),
        (Case(nade, nade.Config((7,))), "_scan_forward", "deeper, a)\n\n", "deeper, enter(row, a, x))\n\n"),
        (WAVENET, "outputs", "jnp.pad(x, ((0, 0), (1, 0)), constant_values=0.5)[:, :-1]", "x"),
    ],
    ids=["made", "made-direct", "nade", "wavenet"],
)
def test_a_variable_that_sees_itself(monkeypatch, case, name, right, wrong):
    plant(monkeypatch, case.module, name, right, wrong)
    report = causality(case)
    size = int(np.prod(case.shape))
    assert not report.passed and len(report.disturbed) >= size // 2, report.message
    assert not checks.check_normalised(Made(case).log_prob, case.shape, 2).passed
