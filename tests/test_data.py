"""Minibatches: every example once per pass. Arrays: kept as they are, or what is wrong with them said in one line."""

import jax
import numpy as np
import pytest
from jax import lax, random
from jax import numpy as jnp
from scipy import stats

from generative import data

# Minibatches


def draw_many(key, size, batch_size, count):
    """Indices [count * B] drawn by a scan over batches."""
    examples = data.Examples(jnp.arange(size), jnp.arange(size) * 10)

    def step(cursor, _):
        return data.draw(cursor, examples, batch_size)

    cursor, batches = lax.scan(step, data.start(key), length=count)
    return cursor, batches.x.ravel(), batches.label.ravel()


@pytest.mark.parametrize(("size", "batch_size"), [(10, 1), (10, 4), (97, 97), (97, 20), (97, 96), (97, 250), (1, 3)])
def test_every_example_once_per_epoch(size, batch_size):
    num_epochs = 5
    count = -(-num_epochs * size // batch_size)
    cursor, drawn, label = draw_many(random.key(0), size, batch_size, count)
    epochs = np.asarray(drawn)[: num_epochs * size].reshape(num_epochs, size)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (num_epochs, 1)))
    np.testing.assert_array_equal(label, drawn * 10)  # a label stays with its example
    assert cursor.epoch * size + cursor.position == count * batch_size
    if size > 1:
        assert len({tuple(epoch) for epoch in epochs}) == num_epochs  # each pass in its own order


def test_lanes_draw_what_single_runs_draw():
    keys = random.split(random.key(1), 3)
    _, drawn, _ = jax.vmap(lambda key: draw_many(key, 97, 20, 6))(keys)
    assert len({tuple(lane) for lane in drawn.tolist()}) == 3
    np.testing.assert_array_equal(drawn[2], draw_many(keys[2], 97, 20, 6)[1])


def test_cursor_does_not_overflow():
    """After 1e14 examples the cursor is as good as new, and no larger."""
    epoch = jnp.int32(2_000_000_000)
    cursor = data.Cursor(random.key(0), epoch, jnp.int32(49_990))
    cursor, batch = data.draw(cursor, jnp.arange(50_000), 100)
    assert (cursor.epoch, cursor.position) == (epoch + 1, 90)
    assert cursor.epoch.dtype == cursor.position.dtype == jnp.int32
    assert len(set(batch[:10].tolist())) == 10 and len(set(batch[10:].tolist())) == 90
    assert batch.min() >= 0 and batch.max() < 50_000


# Values


def test_scale():
    np.testing.assert_allclose(data.scale(jnp.uint8([0, 51, 255]), 256), [0, 0.2, 1])
    np.testing.assert_allclose(data.scale(jnp.uint8([0, 4, 16]), 17), [0, 0.25, 1])
    np.testing.assert_allclose(data.scale(jnp.float32([-3.5, 300]), None), [-3.5, 300])


@pytest.mark.parametrize(("levels", "values"), [(256, [0, 1, 100, 254, 255]), (17, [0, 1, 8, 16]), (2, [0, 1])])
def test_binarize_has_the_chance_of_the_brightness(levels, values):
    count = 400_000
    x = jnp.uint8(values)[:, None] * jnp.ones((1, count), jnp.uint8)
    drawn = np.asarray(data.binarize(random.key(0), x, levels))
    assert set(np.unique(drawn)) <= {0.0, 1.0} and drawn.dtype == np.float32
    for value, row in zip(values, drawn, strict=True):
        if value in (0, levels - 1):
            assert (row == (value > 0)).all()  # black and white never change
        else:
            assert stats.binomtest(int(row.sum()), count, value / (levels - 1)).pvalue > 1e-4


def test_binarize_draws_pixels_independently():
    """Neighbours within an image, one pixel in many images of one key, and one pixel under many keys."""
    x = jnp.full((1000, 784), 128, jnp.uint8)
    drawn = np.asarray(data.binarize(random.key(0), x, 256))
    many = np.asarray(jax.vmap(lambda key: data.binarize(key, x[0], 256))(random.split(random.key(1), 1000)))
    for images in (drawn, many):
        for lag in (1, 2, 28, 29, 256):
            assert abs(np.corrcoef(images[:, :-lag].ravel(), images[:, lag:].ravel())[0, 1]) < 4.5 / 784_000**0.5
            assert abs(np.corrcoef(images[:-lag].ravel(), images[lag:].ravel())[0, 1]) < 4.5 / 500_000**0.5
        sums = np.square((images.sum(0) - 1000 * 128 / 255) / np.sqrt(1000 * 0.25))  # of each pixel
        assert 1e-4 < stats.chi2.cdf(sums.sum(), 784) < 1 - 1e-4
        sums = np.square((images.sum(1) - 784 * 128 / 255) / np.sqrt(784 * 0.25))  # of each image
        assert 1e-4 < stats.chi2.cdf(sums.sum(), 1000) < 1 - 1e-4


def test_binarize_real_numbers():
    drawn = data.binarize(random.key(0), jnp.full(100_000, 0.3), None)
    assert abs(drawn.mean() - 0.3) < 0.01


# A user's own arrays


def test_from_arrays():
    x = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    spec, source = data.from_arrays("mine", data.Examples(x, [0, 2, 1, 0]), data.Examples(x[:1], [4]))
    assert (spec.shape, spec.levels, spec.num_classes, spec.num_valid) == ((3, 2), 256, 5, 0)
    assert source.valid.x.shape == (0, 3, 2) and source.valid.label.shape == (0,)

    spec, source = data.from_arrays("points", np.array([[-1.0, 3.0]]), np.array([[0.0, 7.5]]), np.array([[-4.0, 0.0]]))
    assert (spec.shape, spec.levels, spec.low, spec.high, spec.num_classes) == ((2,), None, -4.0, 7.5, None)
    assert source.train.x.dtype == jnp.float32 and source.train.label is None

    spec, source = data.from_arrays("bits", x > 9, x > 3)
    assert spec.levels == 2 and source.train.x.dtype == jnp.uint8


GOOD = np.zeros((4, 3), np.float32)
BAD_ARRAYS = {
    "NaN": ({"train": np.where(np.eye(4, 3), np.nan, GOOD), "test": GOOD}, "train holds 3 values that are NaN"),
    "infinity": ({"train": GOOD, "test": GOOD + np.inf}, "test holds 12 values"),
    "shape": ({"train": GOOD, "test": GOOD[:, :2]}, "test holds float32 examples of shape"),
    "dtype": ({"train": GOOD, "test": GOOD.astype(np.uint8)}, "uint8"),
    "empty": ({"train": GOOD[:0], "test": GOOD}, "train must hold examples"),
    "flat": ({"train": GOOD[0], "test": GOOD[0]}, "train must hold examples"),
    "levels": ({"train": GOOD.astype(int) + 17, "test": GOOD.astype(int), "levels": 17}, "17 to 17, outside 0 .. 16"),
    "negative": ({"train": GOOD.astype(int) - 1, "test": GOOD.astype(int), "levels": 17}, "-1 to -1"),
    "no levels": ({"train": GOOD.astype(int), "test": GOOD.astype(int)}, "levels=None"),
    "levels of reals": ({"train": GOOD, "test": GOOD, "levels": 17}, "levels=17"),
    "text": ({"train": np.full((4, 3), "a"), "test": np.full((4, 3), "a")}, "levels=None"),
    "label length": ({"train": data.Examples(GOOD, [0, 1]), "test": data.Examples(GOOD, [0, 1])}, "must be 4 integers"),
    "label kind": ({"train": data.Examples(GOOD, [0.5] * 4), "test": data.Examples(GOOD, [0] * 4)}, "float64"),
    "one label": ({"train": data.Examples(GOOD, [0] * 4), "test": GOOD}, "only one of train and test"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused(case):
    arrays, said = BAD_ARRAYS[case]
    with pytest.raises(ValueError, match="mine: ") as error:
        data.from_arrays("mine", **arrays)
    assert said in str(error.value) and "\n" not in str(error.value)
