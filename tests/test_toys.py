"""Toy data where every mode is known, and stacked or translated images made of others."""

import numpy as np
import pytest

from generative import datasets, toys, translation


@pytest.mark.parametrize("name", ["ring", "grid", "spirals", "moons"])
def test_toys_are_points_in_the_plane(name):
    spec, source = datasets.load(name)
    assert (spec.shape, spec.levels, spec.num_train, spec.num_test) == ((2,), None, 100_000, 10_000)
    assert spec.num_classes == {"ring": 8, "grid": 25}.get(name, 2)
    assert len(np.unique(np.concatenate([source.train.x, source.test.x]), axis=0)) > 109_000  # of their own


@pytest.mark.parametrize(("name", "scale"), [("ring", 0.01), ("grid", 0.05)])
def test_mixtures_have_the_modes_of_the_papers(name, scale):
    _, source = datasets.load(name)
    x, label = np.asarray(source.train.x), np.asarray(source.train.label)
    center = toys.MIXTURES[name].mean
    if name == "ring":
        np.testing.assert_allclose(np.linalg.norm(center, axis=1), 1)
        np.testing.assert_allclose(np.linalg.norm(center - np.roll(center, 1, 0), axis=1), 2 * np.sin(np.pi / 8))
    else:
        assert {tuple(mode) for mode in center} == {(a, b) for a in (-4, -2, 0, 2, 4) for b in (-4, -2, 0, 2, 4)}
    for mode in range(len(center)):
        mine = x[label == mode]
        assert abs(len(mine) / len(x) - 1 / len(center)) < 0.005
        np.testing.assert_allclose(mine.mean(0), center[mode], atol=scale / 10)
        np.testing.assert_allclose(np.cov(mine.T), scale**2 * np.eye(2), atol=0.1 * scale**2)


def test_curves_lie_where_they_should():
    x, label = toys.draw(np.random.default_rng(1), "moons", 5000)
    upper = np.where(label[:, None] == 0, x, [1.0, 0.5] - x)
    assert np.linalg.norm(upper, axis=1).std() == pytest.approx(0.1, rel=0.05)
    x, label = toys.draw(np.random.default_rng(1), "spirals", 5000)
    radius = np.linalg.norm(x, axis=1)
    turned = np.arctan2(x[:, 1], x[:, 0]) - 2 * np.pi * toys.SPIRAL_TURNS * radius - np.pi * label
    outer = radius > 0.3
    assert np.abs(np.angle(np.exp(1j * turned[outer]))).max() < 1.5  # a quarter turn is halfway to the other arm


def test_stacked_digits_have_a_digit_in_each_colour():
    spec, source = datasets.load("stacked_digits")
    _, digits = datasets.load("digits")
    assert (spec.shape, spec.num_classes, spec.num_train) == ((8, 8, 3), 1000, 50_000)
    known = {image.tobytes(): int(label) for image, label in zip(*map(np.asarray, digits.test), strict=True)}
    x, label = map(np.asarray, source.test)
    for color, place in enumerate((100, 10, 1)):
        for image, number in zip(x[:50, :, :, color], label, strict=False):
            assert known[image.tobytes()] == number // place % 10
    assert len(np.unique(source.train.label)) == 1000


def test_pairs_of_images():
    _, digits = datasets.load("digits")
    x = np.asarray(digits.test.x)
    for name, change in (("inverted", lambda x: 16 - x), ("rotated", lambda x: np.swapaxes(x, 1, 2)[:, ::-1])):
        spec, source = datasets.load(f"digits_{name}")
        assert spec.shape == (2, 8, 8, 1)
        np.testing.assert_array_equal(source.test.x[:, 0], x)
        np.testing.assert_array_equal(source.test.x[:, 1], change(x))
    square = np.zeros((1, 6, 6, 1), np.uint8)
    square[0, 1:5, 1:5] = 9
    frame = square.copy()
    frame[0, 2:4, 2:4] = 0
    np.testing.assert_array_equal(translation.filled(square, 256), [[frame[0], square[0]]])


def test_filled_sprites_of_another_size_in_colour():
    spec, source = datasets.load("sprites_filled", side=16, color=True)
    assert (spec.shape, spec.num_classes) == ((2, 16, 16, 3), 3)
    assert (source.test.x[:, 1].max((1, 2)).min(-1) == 0).all()  # no hue holds all three colours
