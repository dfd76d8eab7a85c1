"""Sprites: a bijection of numbers and factors, the symmetries of the shapes, and drawing without storing."""

import jax
import numpy as np
import pytest
from jax import lax, random
from jax import numpy as jnp

from generative import data, datasets, sprites
from jaxrl.core import shuffle

GRID = sprites.Grid()
render = jax.jit(lambda grid, values: grid.images(values), static_argnums=0)


def test_numbers_and_factors_are_one_to_one():
    """dSprites' 737,280 images, in dSprites' order: the last factor, y, counts fastest."""
    number = jnp.arange(GRID.num_images)
    values = jax.jit(GRID.values)(number)
    assert GRID.num_images == 737_280 and GRID.factors == ("shape", "scale", "orientation", "x", "y")
    np.testing.assert_array_equal(jax.jit(GRID.number)(values), number)
    np.testing.assert_array_equal(values.max(0) + 1, GRID.sizes)
    assert not values.min()
    np.testing.assert_array_equal(values[1], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(values[-1], [2, 5, 39, 31, 31])
    colored = sprites.Grid(color=True)
    assert colored.num_images == 8 * 737_280 and colored.factors[0] == "color"
    np.testing.assert_array_equal(colored.values(jnp.int32(737_280 * 3 + 1)), [3, 0, 0, 0, 0, 1])


def drawn(*values, grid=GRID):
    return np.asarray(render(grid, jnp.array(values))).astype(int)


def test_symmetries():
    """A quarter turn leaves a square as it was and half a turn an ellipse; mirrored positions are mirrored images."""
    quarter, half, third = 10, 20, 13
    turned = lambda shape, turn: drawn(*([shape, 5, 3 + by, 7, 20] for by in (0, turn)))  # noqa: E731
    for shape, turn in ((0, quarter), (1, half)):
        one, other = turned(shape, turn)
        assert abs(one - other).max() <= 1  # of 255
    for shape, turn in ((0, third), (1, quarter), (2, quarter), (2, half), (2, 39)):
        one, other = turned(shape, turn)
        assert abs(one - other).max() > 60
    for shape in range(3):
        # A heart points down the y axis, along which it is symmetric, so turning it the other way mirrors it.
        one, mirrored = drawn([shape, 5, 3, 7, 20], [shape, 5, 37, 31 - 7, 20])
        assert abs(one[:, ::-1] - mirrored).max() <= 1


def test_every_factor_shows_and_nothing_else_does():
    """Area is as the scale squared, whatever the rest; the middle of mass is where x and y say; colours are hues."""
    numbers = random.randint(random.key(0), (500,), 0, GRID.num_images)
    values = np.asarray(GRID.values(numbers))
    images = np.asarray(render(GRID, values))[..., 0] / 255
    square, (along, across), side = sprites.SQUARE, sprites.ELLIPSE, sprites.HEART
    area = np.array([4 * square**2, np.pi * along * across, side**2 * (1 + np.pi / 4)])[values[:, 0]]
    scale = 0.5 + 0.1 * values[:, 1]
    np.testing.assert_allclose(images.sum((1, 2)) / 32**2, area * scale**2, rtol=0.06)
    place = (np.arange(32) + 0.5) / 32
    middle = np.stack([(images.sum(axis) * place).sum(-1) for axis in (1, 2)], -1) / images.sum((1, 2))[:, None]
    expected = 0.25 + 0.5 * values[:, 3:] / 31
    assert abs(middle - expected).max() < 0.003
    assert not images[:, [0, -1]].any() and not images[:, :, [0, -1]].any()  # inside the image
    red, cyan = drawn([0, 0, 5, 0, 16, 16], [4, 0, 5, 0, 16, 16], grid=sprites.Grid(color=True))
    np.testing.assert_array_equal(red[16, 16], [255, 0, 0])
    np.testing.assert_array_equal(cyan[16, 16], [0, 255, 255])


def test_larger_images_are_the_same_in_more_pixels():
    values = GRID.values(random.randint(random.key(1), (20,), 0, GRID.num_images))
    small, large = (np.asarray(render(sprites.Grid(side), values), float) for side in (32, 64))
    assert abs(large.reshape(20, 32, 2, 32, 2, 1).mean((2, 4)) - small).max() < 64
    assert sprites.Grid(64).shape == (64, 64, 1) and sprites.Grid(64, color=True).shape == (64, 64, 3)


@pytest.fixture(scope="module")
def loaded():
    return datasets.load("sprites")


def test_training_images_are_drawn_and_never_stored(loaded):
    spec, source = loaded
    assert jax.tree.leaves(source.train) == []
    assert (spec.shape, spec.levels, spec.num_classes) == ((32, 32, 1), 256, 3)
    assert source.test.x.shape == (5000, 32, 32, 1) and source.valid.x.shape == (2000, 32, 32, 1)

    def two_batches(key, train):  # `train` is an argument of the program, as in a training run
        return lax.scan(lambda cursor, _: data.draw(cursor, train, 50), data.start(key), length=2)

    _, batches = jax.jit(two_batches)(random.key(0), source.train)
    assert batches.x.shape == (2, 50, 32, 32, 1) and batches.x.dtype == jnp.uint8
    assert set(np.unique(batches.label)) == {0, 1, 2}
    assert len({image.tobytes() for image in np.asarray(batches.x).reshape(100, -1)}) > 95
    mean = data.mean(spec, source.train)
    np.testing.assert_allclose(mean, np.asarray(source.test.x).mean(0) / 255, atol=0.1)


def test_splits_share_no_image(loaded):
    """Train, valid and test follow each other in one order of all images."""
    spec, source = loaded
    place = jnp.arange(GRID.num_images)
    number = jax.jit(lambda place: shuffle.elements(random.key(0), place, GRID.num_images))(place)
    assert len(np.unique(number)) == GRID.num_images
    np.testing.assert_array_equal(jax.jit(source.train.take)(place[-7000:][:10]).x, source.valid.x[:10])
    np.testing.assert_array_equal(render(GRID, GRID.values(number[-5000:][:10])), source.test.x[:10])
    assert spec.num_train + spec.num_valid + spec.num_test == GRID.num_images


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="8x8 pixels"):
        datasets.load("sprites", side=8)
