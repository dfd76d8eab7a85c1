"""Two-dimensional data sets whose every mode is known, drawn by numpy from a fixed seed.

`ring` and `grid` are the mixtures on which mode collapse is counted (Srivastava et al. 2017, arXiv:1705.07761, section
4.1; Lin et al. 2018, arXiv:1712.04086, section 4.1). Axes: N examples, K modes.
"""

import math
from typing import NamedTuple

import numpy as np

NUM_TRAIN, NUM_TEST = 100_000, 10_000
SPIRAL_TURNS = 1.5
NOISE = {"spirals": 0.02, "moons": 0.1}  # standard deviation across the curve


class Mixture(NamedTuple):
    """Normal distributions of equal weight and equal standard deviation in every direction."""

    mean: np.ndarray  # [K, 2]
    scale: float


_ANGLE = 2 * math.pi * np.arange(8) / 8
_SIDE = np.linspace(-4.0, 4.0, 5)
MIXTURES = {
    "ring": Mixture(np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], -1), 0.01),
    "grid": Mixture(np.stack(np.meshgrid(_SIDE, _SIDE, indexing="ij"), -1).reshape(-1, 2), 0.05),
}


def draw(generator: np.random.Generator, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` points [N, 2] float32 of "ring", "grid", "spirals" or "moons", and the mode or curve [N] of each."""
    if name in MIXTURES:
        mixture = MIXTURES[name]
        label = generator.integers(len(mixture.mean), size=count)
        center, scale = mixture.mean[label], mixture.scale
    else:
        label = generator.integers(2, size=count)
        center, scale = {"spirals": _spirals, "moons": _moons}[name](generator.random(count), label), NOISE[name]
    return (center + scale * generator.normal(size=(count, 2))).astype(np.float32), label


def _spirals(place: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Points [N, 2] of two arms that wind around each other out to radius 1; `place` [N] in [0, 1) along the arm."""
    radius = np.sqrt(place)  # as many points on an inner turn, per length, as on an outer one
    angle = 2 * math.pi * SPIRAL_TURNS * radius + math.pi * label
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)


def _moons(place: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Points [N, 2] of two half circles, the second upside down with its end in the middle of the first."""
    angle = math.pi * place
    upper = np.stack([np.cos(angle), np.sin(angle)], -1)
    return np.where(label[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)
