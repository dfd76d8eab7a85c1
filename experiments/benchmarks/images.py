"""The images of the contests: scikit-learn's digits in black and white, enlarged. All contestants read one file."""

from pathlib import Path

import numpy as np

from generative import datasets

SIDE = 8  # of the digits


def enlarged(side: int) -> dict[str, np.ndarray]:
    """Zeros and ones [N, side, side], `train` and `test`: each pixel of a digit as a square, blank around the digit."""
    _, source = datasets.load("digits", levels=2)
    times = side // SIDE
    blank = side - times * SIDE
    around = (blank // 2, blank - blank // 2)

    def enlarge(x: np.ndarray) -> np.ndarray:
        return np.pad(x.repeat(times, 1).repeat(times, 2), ((0, 0), around, around))

    return {split: enlarge(np.asarray(getattr(source, split).x)[..., 0]) for split in ("train", "test")}


def write(side: int, folder: Path) -> Path:
    """The file of `enlarged(side)` in `folder`."""
    target = folder / "images.npz"
    np.savez(target, **enlarged(side))  # type: ignore[arg-type]
    return target


def read(file: str, side: int) -> dict[str, np.ndarray]:
    """What `write` wrote, or the same without a file."""
    return dict(np.load(file)) if file else enlarged(side)
