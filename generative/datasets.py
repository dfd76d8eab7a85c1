"""Data sets by name: made, or read from files and checked.

Files are looked for in the folder given, else in the folder that the environment variable JAXRL_DATA names; without
either, MNIST is downloaded once into the user's cache.
Axes: N examples, H height, W width, C channels.
"""

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax import numpy as jnp

from generative import data, sprites, toys, translation, waves
from generative.data import Examples
from jaxrl.core import checks

FOLDER_VARIABLE = "JAXRL_DATA"
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {  # name: (md5 of the compressed file, sizes)
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", (60000, 28, 28)),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", (60000,)),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", (10000, 28, 28)),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", (10000,)),
}


def names() -> list[str]:
    """Every data set that `load` knows."""
    return sorted([*_LOADERS, "sprites"])


def load(
    name: str, folder: str | Path | None = None, *, join_valid: bool = False, **options: Any
) -> tuple[data.Spec, data.Source]:
    """A data set by name, its splits fixed.

    - `digits`: scikit-learn's 1797 handwritten digits, 8x8, 17 grey levels; in the order given, so that other people
      wrote the test images: the first 1297 train, the next 200 valid, the last 300 test. Needs no file.
    - `mnist`: 28x28, 256 grey levels; the first 50,000 training images train, the last 10,000 valid, 10,000 test.
      Of both, `options` are fewer levels: 2 for black and white.
    - `binarized_mnist`: the fixed binary images of Larochelle and Murray 2011; 50,000 train, 10,000 valid, 10,000 test.
    - `ring`, `grid`, `spirals`, `moons`: points in the plane, see `toys`; 100,000 train, 10,000 test. Need no file.
    - `stacked_digits`, `stacked_mnist`: a digit in each colour, 1000 classes; 50,000 train, 10,000 valid, 10,000 test.
    - `digits_inverted`, `digits_rotated`, `sprites_filled`: pairs [2, H, W, C] for translation, see `translation`;
      of the sprites 5000 train, 500 test, with the options of `sprites`.
    - `sprites`: shapes of known size, orientation and place, see `sprites`, rendered as they are drawn; `options` are
      its side (32) and color (False). 2000 valid and 5000 test; their shape is their label. Squares and ellipses look
      alike at several orientations, so that two thirds of these have a twin in training. Needs no file.
    - `sines`, `strings`, `sounds`: sums of sines, plucked strings, and both, labelled, see `waves`; 2000 train, 200
      valid, 200 test. `wav`: the pieces of a file, its last fifth valid and test. `options` are length and levels, and
      file.

    `join_valid` appends the validation examples to the training examples, as Burda et al. 2015 train on MNIST's 60,000;
    `valid` stays as it was, but counts as none, for nothing can be held out by it.

    Raises:
        ValueError: unknown name, with the nearest known ones; a damaged file.
        FileNotFoundError: no such file, with where it was looked for and how to get it.
    """
    if name not in names():
        raise ValueError(checks.unknown("data set", name, names()))
    if name == "sprites":
        return _sprites(sprites.Grid(**options), join_valid)
    return data.from_arrays(name, **_LOADERS[name](folder, **options), join_valid=join_valid)


def _sprites(grid: sprites.Grid, join_valid: bool) -> tuple[data.Spec, data.Source]:
    num_valid, num_test = 2000, 5000
    held_out = data.Rendered(grid, grid.num_images - num_valid - num_test, num_valid + num_test)
    train = data.Rendered(grid, 0, held_out.first + (num_valid if join_valid else 0))
    counts = train.count, 0 if join_valid else num_valid, num_test
    spec = data.Spec("sprites", grid.shape, 256, 0.0, 1.0, len(sprites.SHAPES), *counts)
    x, label = held_out.take(jnp.arange(held_out.count))
    valid, test = Examples(x[:num_valid], label[:num_valid]), Examples(x[num_valid:], label[num_valid:])
    return spec, data.Source(train, valid, test)


def _digits(folder: str | Path | None, levels: int = 17) -> dict[str, Any]:
    del folder
    from sklearn import datasets

    digits = datasets.load_digits()
    images, labels = _coarser(digits.images[..., None], 17, levels), digits.target
    test = Examples(images[1497:], labels[1497:])
    return {**_train_and_valid(images[:1497], labels[:1497], 1297), "test": test, "levels": levels}


def _mnist(folder: str | Path | None, levels: int = 256) -> dict[str, Any]:
    train, train_label, test, test_label = (_read_idx(_find_mnist(name, folder), name) for name in MNIST_FILES)
    train, test = (_coarser(x[..., None], 256, levels) for x in (train, test))
    return {**_train_and_valid(train, train_label, 50000), "test": Examples(test, test_label), "levels": levels}


def _coarser(x: np.ndarray, levels: int, fewer: int) -> np.ndarray:
    """Integers below `levels` as bytes below `fewer`, each level standing for equally many, up to one."""
    if not 2 <= fewer <= levels:
        raise ValueError(f"levels={fewer} must be from 2 to the {levels} that there are.")
    return (x.astype(np.int64) * fewer // levels).astype(np.uint8)


def _train_and_valid(x: Any, label: Any, num_train: int) -> dict[str, Examples]:
    return {"train": Examples(x[:num_train], label[:num_train]), "valid": Examples(x[num_train:], label[num_train:])}


def _binarized_mnist(folder: str | Path | None) -> dict[str, Any]:
    file = "binarized_mnist.npz"
    path, searched = _find([file], ["", "mnist", "binarized_mnist"], folder)
    if path is None:
        raise FileNotFoundError(
            f"binarized_mnist: no {file} in {searched}; name the folder that holds it (--data-folder, in Python "
            f"folder=..., or the environment variable {FOLDER_VARIABLE}), or make it from Larochelle's "
            "binarized_mnist_{train,valid,test}.amat: "
            f"numpy.savez_compressed({file!r}, train=numpy.packbits(numpy.loadtxt(...).astype('uint8'), axis=-1), ...)."
        )
    splits = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for split, count in (("train", 50000), ("valid", 10000), ("test", 10000)):
                packed = arrays[split]
                if packed.shape != (count, 98) or packed.dtype != np.uint8:
                    raise ValueError(f"{split} is {packed.dtype} of shape {packed.shape}, not uint8 of ({count}, 98)")
                splits[split] = np.unpackbits(packed, axis=-1).reshape(count, 28, 28, 1)
    except (OSError, EOFError, KeyError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"binarized_mnist: {path} is damaged ({error}): replace it.") from error
    return {**splits, "levels": 2}


def _toy(name: str) -> Callable[[str | Path | None], dict[str, Any]]:
    def loader(folder: str | Path | None) -> dict[str, Any]:
        del folder
        generator = np.random.default_rng(0)
        sizes = {"train": toys.NUM_TRAIN, "test": toys.NUM_TEST}
        return {split: Examples(*toys.draw(generator, name, size)) for split, size in sizes.items()}

    return loader


def _stacked(digits: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def loader(folder: str | Path | None, **options: Any) -> dict[str, Any]:
        generator, found = np.random.default_rng(0), digits(folder, **options)
        for split, count in (("train", 50_000), ("valid", 10_000), ("test", 10_000)):
            x, label = found[split]
            found[split] = Examples(*translation.stacked(generator, x, label, count))
        return found

    return loader


def _pairs(kind: str) -> Callable[..., dict[str, Any]]:
    pair = translation.PAIRS[kind]

    def loader(folder: str | Path | None, **options: Any) -> dict[str, Any]:
        found = _digits(folder, **options)
        for split in ("train", "valid", "test"):
            found[split] = found[split]._replace(x=pair(found[split].x, found["levels"]))
        return found

    return loader


def _sprites_filled(folder: str | Path | None, side: int = 32, color: bool = False) -> dict[str, Any]:
    del folder
    grid = sprites.Grid(side, color)
    number = np.random.default_rng(0).choice(grid.num_images, 5500, replace=False)
    values = grid.values(jnp.asarray(number))
    x, label = (
        translation.filled(np.asarray(grid.images(values)), 256),
        np.asarray(values[:, grid.factors.index("shape")]),
    )
    return {"train": Examples(x[:5000], label[:5000]), "test": Examples(x[5000:], label[5000:])}


def _find(files: list[str], subfolders: list[str], folder: str | Path | None) -> tuple[Path | None, str]:
    """The first of `files` in the data folder or a subfolder, and where it was looked for, in words."""
    named = folder or os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None, f"any folder, for none was named and {FOLDER_VARIABLE} is not set"
    root = Path(named).expanduser()
    for subfolder in subfolders:
        for file in files:
            if (root / subfolder / file).is_file():
                return root / subfolder / file, str(root)
    places = " or its ".join([str(root), *(f"{subfolder}/" for subfolder in subfolders if subfolder)])
    return None, places if root.is_dir() else f"{root}, which does not exist"


def _find_mnist(name: str, folder: str | Path | None) -> Path:
    """The file in the data folder, or downloaded where no folder was named."""
    dotted = name.replace("-idx", ".idx")  # as some tools unpack it
    files = [name, f"{name}.gz", dotted, f"{dotted}.gz"]
    path, searched = _find(files, ["", "mnist", "MNIST/raw"], folder)
    if path is not None:
        return path
    advice = (
        f"put the four files of {MNIST_URL} into a folder and name it (--data-folder, in Python folder=..., or the "
        f"environment variable {FOLDER_VARIABLE})"
    )
    if folder or os.environ.get(FOLDER_VARIABLE):
        raise FileNotFoundError(f"mnist: no {name}[.gz] in {searched}; {advice}, or name none to download them.")
    import pooch

    md5, _ = MNIST_FILES[name]
    cache = pooch.os_cache("jaxrl") / "mnist"
    try:
        return Path(pooch.retrieve(f"{MNIST_URL}{name}.gz", f"md5:{md5}", fname=f"{name}.gz", path=cache))
    except ValueError as error:
        raise ValueError(
            f"mnist: the download of {name}.gz does not have md5 {md5}: try again, or {advice}."
        ) from error
    except OSError as error:  # every network error of requests is one
        raise FileNotFoundError(
            f"mnist: no {name}.gz in {cache}, and its download failed ({type(error).__name__}): {advice}."
        ) from error


def _read_idx(path: Path, name: str) -> np.ndarray:
    """The array of bytes in an IDX file, compressed or not, checked against what `name` should hold."""
    _, shape = MNIST_FILES[name]
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"mnist: {path} is damaged ({error}): replace it.") from error
    header = 4 + 4 * len(shape)
    magic = bytes([0, 0, 0x08, len(shape)])  # two zeros, the type (unsigned bytes), the number of axes
    length = header + math.prod(shape)
    sizes = tuple(np.frombuffer(raw[4:header], ">u4").tolist()) if len(raw) >= header else ()
    if raw[:4] != magic or sizes != shape or len(raw) != length:
        raise ValueError(
            f"mnist: {path} is damaged (magic {raw[:4].hex()}, sizes {sizes}, {len(raw)} bytes; expected "
            f"{magic.hex()}, {shape}, {length}): replace it."
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _sounds(*makers: Callable[..., np.ndarray]) -> Callable[..., dict[str, Any]]:
    """A loader of sounds of all `makers`, which are their labels if there are several."""

    def load(folder: str | Path | None, length: int = 256, levels: int = 256) -> dict[str, Any]:
        del folder
        generator = np.random.default_rng(0)
        splits = {}
        for split, count in (("train", 2000), ("valid", 200), ("test", 200)):
            x = np.stack([make(generator, count // len(makers), length) for make in makers], 1)
            label = np.tile(np.arange(len(makers)), count // len(makers)) if len(makers) > 1 else None
            splits[split] = Examples(waves.encode(x.reshape(count, length), levels), label)
        return {**splits, "levels": levels}

    return load


def _wav(folder: str | Path | None, file: str = "", length: int = 1024, levels: int = 256) -> dict[str, Any]:
    if not file:
        raise ValueError("wav: which file? Give --data-kwargs file=name.wav, in Python file='name.wav'.")
    found, searched = _find([file], [""], folder)
    path = found or Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"wav: {path} is no file, and there is none of that name in {searched}: name the folder that holds it "
            f"(--data-folder, in Python folder=..., or the environment variable {FOLDER_VARIABLE})."
        )
    pressure, rate = waves.read_wav(path)
    sound = waves.encode(pressure, levels)
    pieces = sound[: len(sound) // length * length].reshape(-1, length)
    held = max(1, len(pieces) // 10)
    if len(pieces) < 3:
        raise ValueError(f"wav: the {len(sound)} samples of {path} give fewer than 3 pieces of length={length}.")
    parts = {"train": pieces[: -2 * held], "valid": pieces[-2 * held : -held], "test": pieces[-held:]}
    return {**parts, "levels": levels, "rate": rate}


_LOADERS: dict[str, Callable[..., dict[str, Any]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "binarized_mnist": _binarized_mnist,
    **{name: _toy(name) for name in (*toys.MIXTURES, *toys.NOISE)},
    "stacked_digits": _stacked(_digits),
    "stacked_mnist": _stacked(_mnist),
    "digits_inverted": _pairs("inverted"),
    "digits_rotated": _pairs("rotated"),
    "sprites_filled": _sprites_filled,
    "sines": _sounds(waves.sines),
    "strings": _sounds(waves.strings),
    "sounds": _sounds(waves.sines, waves.strings),
    "wav": _wav,
}
