"""Data sets by name: their splits fixed, and whatever is wrong with a file said in one line."""

import gzip
import os
from pathlib import Path

import numpy as np
import pooch
import pytest
from jax import numpy as jnp

from generative import datasets


def data_folder(file):
    """The folder of real data that holds `file`, or skip."""
    folder = Path(os.environ.get(datasets.FOLDER_VARIABLE) or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / file).exists():
        pytest.skip(f"no {file} in {folder}: set {datasets.FOLDER_VARIABLE} to a folder that holds it")
    return folder


def test_digits():
    spec, source = datasets.load("digits")
    assert (spec.shape, spec.levels, spec.num_classes) == ((8, 8, 1), 17, 10)
    assert (spec.num_train, spec.num_valid, spec.num_test) == (1297, 200, 300)
    assert source.train.x.dtype == jnp.uint8 and source.train.x.max() == 16
    assert source.valid.label.shape == (200,) and set(source.test.label.tolist()) == set(range(10))
    joined, both = datasets.load("digits", join_valid=True)
    assert joined.num_train == 1497 and joined.num_valid == 0
    np.testing.assert_array_equal(both.train.x[1297:], source.valid.x)
    np.testing.assert_array_equal(both.train.label[1297:], source.valid.label)


def test_mnist():
    spec, source = datasets.load("mnist", data_folder("mnist"))
    assert (spec.shape, spec.levels, spec.num_classes) == ((28, 28, 1), 256, 10)
    assert (spec.num_train, spec.num_valid, spec.num_test) == (50000, 10000, 10000)
    assert source.train.x.dtype == jnp.uint8
    np.testing.assert_allclose(np.asarray(source.test.x).mean() / 255, 0.1325, atol=1e-4)  # as published
    labels = np.concatenate([source.train.label, source.valid.label])
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_binarized_mnist():
    spec, source = datasets.load("binarized_mnist", data_folder("binarized_mnist.npz"))
    assert (spec.shape, spec.levels, spec.num_classes) == ((28, 28, 1), 2, None)
    assert (spec.num_train, spec.num_valid, spec.num_test) == (50000, 10000, 10000)
    assert source.test.x.max() == 1 and source.test.label is None


# Files that are missing or damaged


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST of 6 training and 4 test images; returns the bytes of each file."""
    files = {}
    for name, (md5, shape) in datasets.MNIST_FILES.items():
        shape = (6 if name.startswith("train") else 4, *shape[1:])
        monkeypatch.setitem(datasets.MNIST_FILES, name, (md5, shape))
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        files[name] = header + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()
    monkeypatch.delenv(datasets.FOLDER_VARIABLE, raising=False)
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
    spec, source = datasets.load("mnist", tmp_path)
    assert spec.num_train == 6 and source.test.label.tolist() == [0, 1, 2, 3]
    monkeypatch.setenv(datasets.FOLDER_VARIABLE, str(tmp_path))
    assert datasets.load("mnist")[0] == spec


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
        datasets.load("mnist", tmp_path)
    assert str(path) in one_line(error) and said in str(error.value) and "replace it" in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist"])
def test_missing_file(tmp_path, monkeypatch, name):
    monkeypatch.delenv(datasets.FOLDER_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError) as error:
        datasets.load(name, tmp_path)
    assert str(tmp_path) in one_line(error) and datasets.FOLDER_VARIABLE in str(error.value)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        datasets.load(name, tmp_path / "nowhere")


def test_damaged_binarized_mnist(tmp_path):
    path = tmp_path / "binarized_mnist.npz"
    whole = {split: np.zeros((2, 98), np.uint8) for split in ("train", "valid", "test")}
    np.savez(path, **whole)
    for content in (path.read_bytes(), path.read_bytes()[:300], b"", b"nonsense"):  # the first: too few images
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged") as error:
            datasets.load("binarized_mnist", tmp_path)
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
    spec, _ = datasets.load("mnist")
    assert spec.num_train == 6 and len(calls) == 4
    name = "t10k-labels-idx1-ubyte"
    assert (f"{datasets.MNIST_URL}{name}.gz", f"md5:{datasets.MNIST_FILES[name][0]}") in calls


def test_failed_download(tmp_path, monkeypatch, small_mnist):
    """The true `pooch.retrieve`, told to fetch what is not there and what has another checksum."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(datasets, "MNIST_URL", "http://127.0.0.1:9/")  # the discard port: refused
    with pytest.raises(FileNotFoundError, match="download failed") as error:
        datasets.load("mnist")
    assert datasets.FOLDER_VARIABLE in one_line(error)

    def wrong(url, output_file, mirror):
        Path(output_file).write_bytes(b"a captive portal")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: wrong)
    with pytest.raises(ValueError, match="does not have md5 f68b3c2d"):
        datasets.load("mnist")
    assert not list(tmp_path.rglob("*.gz"))  # nothing wrong stays in the cache


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean mnist"):
        datasets.load("minst")
    with pytest.raises(ValueError, match="digits"):
        datasets.load("qqqq")
