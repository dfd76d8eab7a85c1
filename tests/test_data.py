"""Data sets: every example once per pass, splits fixed, and whatever is wrong with a file said in one line."""

import gzip
import os
from pathlib import Path

import jax
import numpy as np
import pooch
import pytest
from jax import lax, random
from jax import numpy as jnp
from scipy import stats

from generative import data


def data_folder(file):
    """The folder of real data that holds `file`, or skip."""
    folder = Path(os.environ.get(data.FOLDER_VARIABLE) or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / file).exists():
        pytest.skip(f"no {file} in {folder}: set {data.FOLDER_VARIABLE} to a folder that holds it")
    return folder


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


# Data sets


def test_digits():
    spec, source = data.load("digits")
    assert (spec.shape, spec.levels, spec.num_classes) == ((8, 8, 1), 17, 10)
    assert (spec.num_train, spec.num_valid, spec.num_test) == (1297, 200, 300)
    assert source.train.x.dtype == jnp.uint8 and source.train.x.max() == 16
    assert source.valid.label.shape == (200,) and set(source.test.label.tolist()) == set(range(10))
    joined, both = data.load("digits", join_valid=True)
    assert joined.num_train == 1497 and joined.num_valid == 200
    np.testing.assert_array_equal(both.train.x[1297:], source.valid.x)
    np.testing.assert_array_equal(both.train.label[1297:], source.valid.label)


def test_mnist():
    spec, source = data.load("mnist", data_folder("mnist"))
    assert (spec.shape, spec.levels, spec.num_classes) == ((28, 28, 1), 256, 10)
    assert (spec.num_train, spec.num_valid, spec.num_test) == (50000, 10000, 10000)
    assert source.train.x.dtype == jnp.uint8
    np.testing.assert_allclose(np.asarray(source.test.x).mean() / 255, 0.1325, atol=1e-4)  # as published
    labels = np.concatenate([source.train.label, source.valid.label])
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_binarized_mnist():
    spec, source = data.load("binarized_mnist", data_folder("binarized_mnist.npz"))
    assert (spec.shape, spec.levels, spec.num_classes) == ((28, 28, 1), 2, None)
    assert (spec.num_train, spec.num_valid, spec.num_test) == (50000, 10000, 10000)
    assert source.test.x.max() == 1 and source.test.label is None


# Files that are missing or damaged


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST of 6 training and 4 test images; returns the bytes of each file."""
    files = {}
    for name, (md5, shape) in data.MNIST_FILES.items():
        shape = (6 if name.startswith("train") else 4, *shape[1:])
        monkeypatch.setitem(data.MNIST_FILES, name, (md5, shape))
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        files[name] = header + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()
    monkeypatch.delenv(data.FOLDER_VARIABLE, raising=False)
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize("subfolder", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_found(tmp_path, monkeypatch, small_mnist, subfolder, suffix):
    write(tmp_path / subfolder, {name + suffix: raw for name, raw in small_mnist.items()})
    spec, source = data.load("mnist", tmp_path)
    assert spec.num_train == 6 and source.test.label.tolist() == [0, 1, 2, 3]
    monkeypatch.setenv(data.FOLDER_VARIABLE, str(tmp_path))
    assert data.load("mnist")[0] == spec


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: gzip.compress(raw)[:-20], "end-of-stream"),
        (lambda raw: b"<html>not found</html>", "gzip"),
        (lambda raw: gzip.compress(b"\0\0\x0d" + raw[3:]), "magic 00000d03"),
        (lambda raw: gzip.compress(raw[:4] + b"\0\0\0\7" + raw[8:]), "(7, 28, 28)"),
        (lambda raw: gzip.compress(raw[:-1]), "4719 bytes"),
        (lambda raw: gzip.compress(b""), "0 bytes"),
    ],
)
def test_damaged_file(tmp_path, small_mnist, damage, said):
    write(tmp_path, {f"{name}.gz": raw for name, raw in small_mnist.items()})
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(small_mnist["train-images-idx3-ubyte"]))
    with pytest.raises(ValueError, match="is damaged") as error:
        data.load("mnist", tmp_path)
    assert str(path) in one_line(error) and said in str(error.value) and "replace it" in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist"])
def test_missing_file(tmp_path, monkeypatch, name):
    monkeypatch.delenv(data.FOLDER_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError) as error:
        data.load(name, tmp_path)
    assert str(tmp_path) in one_line(error) and data.FOLDER_VARIABLE in str(error.value)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        data.load(name, tmp_path / "nowhere")


def test_damaged_binarized_mnist(tmp_path):
    path = tmp_path / "binarized_mnist.npz"
    whole = {split: np.zeros((2, 98), np.uint8) for split in ("train", "valid", "test")}
    np.savez(path, **whole)
    for content in (path.read_bytes(), path.read_bytes()[:300], b"", b"nonsense"):  # the first: too few images
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged") as error:
            data.load("binarized_mnist", tmp_path)
        assert str(path) in one_line(error)


def test_download(tmp_path, monkeypatch, small_mnist):
    """Where no folder is named, each file is fetched into the user's cache, its checksum checked."""
    calls = []

    def retrieve(url, known_hash, fname, path):
        calls.append((url, known_hash))
        write(path, {fname: small_mnist[fname.removesuffix(".gz")]})
        return str(path / fname)

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    spec, _ = data.load("mnist")
    assert spec.num_train == 6 and len(calls) == 4
    name = "t10k-labels-idx1-ubyte"
    assert (f"{data.MNIST_URL}{name}.gz", f"md5:{data.MNIST_FILES[name][0]}") in calls


def test_failed_download(tmp_path, monkeypatch, small_mnist):
    """The true `pooch.retrieve`, told to fetch what is not there and what has another checksum."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(data, "MNIST_URL", "http://127.0.0.1:9/")  # the discard port: refused
    with pytest.raises(FileNotFoundError, match="download failed") as error:
        data.load("mnist")
    assert data.FOLDER_VARIABLE in one_line(error)

    def wrong(url, output_file, mirror):
        Path(output_file).write_bytes(b"a captive portal")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: wrong)
    with pytest.raises(ValueError, match="does not have md5 f68b3c2d"):
        data.load("mnist")
    assert not list(tmp_path.rglob("*.gz"))  # nothing wrong stays in the cache


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean mnist"):
        data.load("minst")
    with pytest.raises(ValueError, match="digits"):
        data.load("qqqq")


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
    assert said in one_line(error)
