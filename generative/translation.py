"""Pairs of images for translation from one kind to the other, made of other images. Axes: N, H, W, C."""

from collections.abc import Callable

import numpy as np


def outline(images: np.ndarray) -> np.ndarray:
    """What `images` [N, H, W, C] lose where each pixel becomes the darkest of itself and its eight neighbours."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    shifted = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return images - np.min(shifted, axis=0)


def filled(images: np.ndarray, levels: int) -> np.ndarray:
    """Pairs [N, 2, H, W, C]: the outlines of `images`, and `images`."""
    del levels
    return np.stack([outline(images), images], 1)


def inverted(images: np.ndarray, levels: int) -> np.ndarray:
    """Pairs [N, 2, H, W, C]: `images` of so many grey levels, and their negatives."""
    return np.stack([images, levels - 1 - images], 1)


def rotated(images: np.ndarray, levels: int) -> np.ndarray:
    """Pairs [N, 2, H, W, C]: `images`, square ones, and the same turned to the left by a quarter."""
    del levels
    return np.stack([images, np.rot90(images, axes=(1, 2))], 1)


def stacked(
    generator: np.random.Generator, images: np.ndarray, label: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """`count` images [N, H, W, 3] with one of `images` [M, H, W, 1] in each colour, and their labels [N] in 0 .. 999.

    The first colour shows the hundreds: the 1000 modes of Metz et al. 2016, arXiv:1611.02163, section 3.3.1.
    """
    number = generator.integers(len(images), size=(count, 3))
    return np.moveaxis(images[number, ..., 0], 1, -1), label[number] @ np.array([100, 10, 1])


PAIRS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "filled": filled,
    "inverted": inverted,
    "rotated": rotated,
}
