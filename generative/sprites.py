"""White or coloured sprites whose factors are known exactly, drawn on the device as functions of their number.

The factor grid of dSprites (Matthey et al. 2017): 3 shapes x 6 scales x 40 orientations x 32 x 32 positions, 737,280
images, the last factor counting fastest. Edges are smooth, where dSprites has black and white alone, and the 40
orientations are equally far from each other, where its last one repeats its first.
Axes: F factors, H height, W width, C channels.
"""

import math
from dataclasses import dataclass

from jax import Array
from jax import numpy as jnp

SHAPES = ("square", "ellipse", "heart")
SIZES = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}  # values of each factor
NUM_COLORS = 8
SMALLEST = 0.5  # scale; the largest is 1
CENTERS = 0.25, 0.75  # least and greatest position, in sides of the image; every sprite stays inside it
SQUARE, ELLIPSE, HEART = 0.15, (0.21, 0.11), 0.21  # half a side, both half axes, side of the heart's square


@dataclass(frozen=True)
class Grid:
    """All images of one size. Numbers of images and values of factors are integers from 0."""

    side: int = 32  # pixels of height and of width
    color: bool = False  # a first factor of 8 hues, which makes it 5,898,240 images

    def __post_init__(self) -> None:
        if self.side < 16:
            raise ValueError(f"Sprites on {self.side}x{self.side} pixels cannot be told apart: use side=16 or more.")

    @property
    def factors(self) -> tuple[str, ...]:
        """Their names, in the order of all arrays."""
        return ("color", *SIZES) if self.color else tuple(SIZES)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each factor has."""
        return (NUM_COLORS, *SIZES.values()) if self.color else tuple(SIZES.values())

    @property
    def num_images(self) -> int:
        return math.prod(self.sizes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, [H, W, C]."""
        return self.side, self.side, 3 if self.color else 1

    def values(self, number: Array) -> Array:
        """The factors [..., F] int32 of the images with `number` [...]."""
        found = []
        for size in reversed(self.sizes):
            number, value = jnp.divmod(number, size)
            found.append(value)
        return jnp.stack(found[::-1], -1).astype(jnp.int32)

    def number(self, values: Array) -> Array:
        """The inverse of `values`, [..., F] -> [...] int32."""
        number = jnp.zeros(values.shape[:-1], jnp.int32)
        for place, size in enumerate(self.sizes):
            number = number * size + values[..., place]
        return number

    def images(self, values: Array) -> Array:
        """The images [..., H, W, C] uint8 of factors `values` [..., F]."""
        shape, scale, orientation, x, y = jnp.moveaxis(values[..., -len(SIZES) :], -1, 0)
        scale = SMALLEST + (1.0 - SMALLEST) * scale / (SIZES["scale"] - 1)
        angle = 2 * math.pi * orientation / SIZES["orientation"]
        low, high = CENTERS
        x, y = (low + (high - low) * place / (SIZES["x"] - 1) for place in (x, y))
        images = coverage(shape, scale, angle, x, y, self.side)[..., None]
        if self.color:
            images = images * hue(values[..., 0] / NUM_COLORS)[..., None, None, :]
        return jnp.round(255 * images).astype(jnp.uint8)


def coverage(shape: Array, scale: Array, angle: Array, x: Array, y: Array, side: int) -> Array:
    """How much of each pixel [..., H, W] in [0, 1] a sprite covers.

    `shape` [...] counts in SHAPES, `angle` [...] turns in radians from the x axis, which points right, to the y axis,
    which points down, and `x`, `y` [...] is its middle in sides of the image.
    """
    shape, scale, angle, x, y = (value[..., None, None] for value in (shape, scale, angle, x, y))
    middles = (jnp.arange(side) + 0.5) / side
    right, down = (middles - x) / scale, (middles[:, None] - y) / scale
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    along, across = cos * right + sin * down, cos * down - sin * right
    distances = square(along, across, SQUARE), ellipse(along, across, *ELLIPSE), heart(along, across, HEART)
    distance = jnp.select([shape == index for index in range(len(SHAPES))], distances)
    return jnp.clip(0.5 - side * scale * distance, 0.0, 1.0)


# Distance [...] of points (x, y) [...] from the edge of a shape around the origin, negative inside; exact at the edge.


def square(x: Array, y: Array, half: float) -> Array:
    """With sides along the axes, `half` a side each way."""
    right, down = jnp.abs(x) - half, jnp.abs(y) - half
    outside = jnp.hypot(jnp.maximum(right, 0.0), jnp.maximum(down, 0.0))
    return outside + jnp.minimum(jnp.maximum(right, down), 0.0)


def ellipse(x: Array, y: Array, along: float, across: float) -> Array:
    """With half axes `along` x and `across` it: to first order, the implicit equation over its slope."""
    radius = jnp.hypot(x / along, y / across)
    slope = jnp.hypot(x / along**2, y / across**2)
    tiny = 1e-6  # in the middle, where both vanish, the distance is minus the shorter half axis
    return (radius - 1.0) * (radius + tiny) / (slope + tiny / across)


def heart(x: Array, y: Array, side: float) -> Array:
    """A square of `side` on its corner and a disc over each of its two upper sides, its point towards y > 0.

    The origin is the middle of mass, above that of the square.
    """
    half = side / 2
    y = y - half * (3 * math.pi + 4) / (3 * math.sqrt(2) * (math.pi + 4))
    left, right = (x + y) / math.sqrt(2), (y - x) / math.sqrt(2)  # turned by 45 degrees
    discs = jnp.minimum(jnp.hypot(left + half, right), jnp.hypot(left, right + half)) - half
    return jnp.minimum(square(left, right, half), discs)


def hue(place: Array) -> Array:
    """Red, green and blue [..., 3] of the brightest colour at `place` [...] in [0, 1) around the circle of hues."""
    return jnp.clip(jnp.abs((6.0 * place[..., None] + jnp.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0, 0.0, 1.0)
