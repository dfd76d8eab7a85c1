"""Causal convolutions: of whole images, of one row, and of one pixel from a cache of what was computed before.

A masked kernel is held as the offsets that it sees alone, so that products with masked zeros are neither stored nor
computed, and a convolution is one product of patches: on a CPU the gradient of XLA's own is 25 times slower in a loop.
Axes: B batch, H height, W width, C features in, F features out, K offsets, R rows of a cache.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array, lax, random
from jax import numpy as jnp

from generative import masks
from generative.masks import Offset
from jaxrl.core import products


@dataclass(frozen=True)
class Conv:
    """What is static about a causal convolution."""

    offsets: tuple[Offset, ...]  # it sees, relative to the pixel
    in_size: int
    out_size: int
    channels: int = 1  # colours among which the features of a pixel are shared out
    strict: bool = False  # at the pixel itself, a colour sees only those before it, not itself too
    stride: int = 1  # its pixel (i, j) is that of its input at (i, j) times this

    @property
    def rows(self) -> int:
        """Rows that must be remembered, the present one included, and all that begin the same row of its own."""
        return self.stride - min(row for row, _ in self.offsets)

    @property
    def reach(self) -> int:
        """Columns that it sees to either side."""
        return max(abs(column) for _, column in self.offsets)


class ConvParams(NamedTuple):
    """Parameters."""

    kernel: Array  # [K, C, F]
    bias: Array  # [F]


def dense(in_size: int, out_size: int, channels: int = 1) -> Conv:
    """A convolution that sees the pixel alone."""
    return Conv(((0, 0),), in_size, out_size, channels)


def first(offsets: list[Offset], channels: int, out_size: int) -> Conv:
    """A convolution of an image itself, whose `offsets` come without the pixel: of that, it sees the colours before."""
    return Conv((*offsets, *([(0, 0)] if channels > 1 else [])), channels, out_size, channels, strict=True)


def check(channels: int, sizes: dict[str, int], first_kernel: int, kernel: int) -> None:
    """Refuse sides of kernels, and `sizes` of layers that colours share out, which cannot work.

    Raises:
        ValueError: with the values and ones that would do.
    """
    for name, side in (("first_kernel", first_kernel), ("kernel", kernel)):
        if side < 3 or side % 2 == 0:
            raise ValueError(f"{name}={side} must be odd and see other pixels: use 3, 5 or 7.")
    for name, size in sizes.items():
        if size % channels:
            below, above = size // channels * channels, (size // channels + 1) * channels
            fits = f"{name}={below} or {above}" if below else f"{name}={above}"
            raise ValueError(f"{name}={size} is shared out among {channels} colours: use {fits}.")


def init(conv: Conv, key: Array, gain: float = 2.0) -> ConvParams:
    """Random weights that multiply the variance of the features by `gain`, 2 making up for a rectifier."""
    shape = len(conv.offsets), conv.in_size, conv.out_size
    visible = np.ones(shape) if (mask := _mask(conv)) is None else mask
    fan_in = np.maximum(visible.sum((0, 1)), 1)
    return ConvParams(random.normal(key, shape) * jnp.sqrt(gain / fan_in), jnp.zeros(conv.out_size))


def apply(conv: Conv, params: ConvParams, x: Array) -> Array:
    """Features [B, H, W, F] of whole images `x` [B, H, W, C], taken to be zero outside.

    With a stride there are only H / stride rows and W / stride columns, rounded up.
    """
    return _product(conv, params, _patches(conv, x))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _patches(conv: Conv, x: Array) -> Array:
    """What each pixel sees [B, H, W, K * C] of images `x` [B, H, W, C]."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (conv.rows - 1, 0), (conv.reach, conv.reach), (0, 0)))
    return jnp.concatenate([padded[:, rows, columns] for rows, columns in _windows(conv, height, width)], axis=-1)


def _patches_forward(conv: Conv, x: Array) -> tuple[Array, tuple[int, ...]]:
    return _patches(conv, x), x.shape


def _patches_backward(conv: Conv, shape: tuple[int, ...], g: Array) -> tuple[Array]:
    """Window by window into one array: as a sum of padded ones a CPU takes three times as long."""
    batch_size, height, width, features = shape
    padded = jnp.zeros((batch_size, height + conv.rows - 1, width + 2 * conv.reach, features), g.dtype)
    parts = jnp.split(g, len(conv.offsets), axis=-1)
    for (rows, columns), part in zip(_windows(conv, height, width), parts, strict=True):
        padded = padded.at[:, rows, columns].add(part)
    return (padded[:, conv.rows - 1 :, conv.reach : conv.reach + width],)


_patches.defvjp(_patches_forward, _patches_backward)


def _windows(conv: Conv, height: int, width: int) -> list[tuple[slice, slice]]:
    """For each offset, the rows and columns that all pixels see there, of an image with `reach` zeros around it."""
    above, side = conv.rows - 1, conv.reach
    return [
        (
            slice(above + down, above + down + height, conv.stride),
            slice(side + right, side + right + width, conv.stride),
        )
        for down, right in conv.offsets
    ]


def apply_here(conv: Conv, params: ConvParams, x: Array) -> Array:
    """Features [..., F] of `x` [..., C], for a convolution that sees the pixel alone."""
    return _product(conv, params, x)


def cache(conv: Conv, width: int, batch_size: int) -> Array:
    """Zeros [R, W + 2 * reach, B, C]: room for the rows of inputs that later pixels need, row i at i modulo R."""
    return jnp.zeros((conv.rows, width + 2 * conv.reach, batch_size, conv.in_size))


def write(conv: Conv, cache: Array, row: Array, column: Array | int, x: Array, feature: Array | int = 0) -> Array:
    """`cache` with the inputs `x` [n, B, c] of `row`, from `column` and from `feature` on."""
    return lax.dynamic_update_slice(cache, x[None], (row % conv.rows, column + conv.reach, 0, feature))


def apply_to_row(conv: Conv, params: ConvParams, cache: Array, row: Array) -> Array:
    """Features [W, B, F] of one row, all of whose inputs up to it are in `cache`."""
    width, row = cache.shape[1] - 2 * conv.reach, conv.stride * row
    rows = {down: lax.dynamic_index_in_dim(cache, (row + down) % conv.rows, 0, False) for down, _ in conv.offsets}
    columns = [slice(conv.reach + right, conv.reach + right + width, conv.stride) for _, right in conv.offsets]
    patches = [rows[down][place] for (down, _), place in zip(conv.offsets, columns, strict=True)]
    return _product(conv, params, jnp.concatenate(patches, axis=-1))


def apply_to_pixel(conv: Conv, params: ConvParams, cache: Array, row: Array, column: Array) -> Array:
    """Features [B, F] of one pixel, all of whose inputs are in `cache`."""
    _, _, batch_size, in_size = cache.shape
    row, column = conv.stride * row, conv.stride * column
    patches = []
    for down, first, length in _runs(conv.offsets):
        place = (row + down) % conv.rows, column + conv.reach + first, 0, 0
        patches.append(lax.dynamic_slice(cache, place, (1, length, batch_size, in_size))[0])
    window = jnp.concatenate(patches).transpose(1, 0, 2)  # [B, K, C]
    return _product(conv, params, window.reshape(batch_size, -1))


def _runs(offsets: tuple[Offset, ...]) -> list[tuple[int, int, int]]:
    """Offsets, given row by row, as runs of neighbours: row, first column, length."""
    runs: list[tuple[int, int, int]] = []
    for row, column in offsets:
        if runs and runs[-1][0] == row and sum(runs[-1][1:]) == column:
            runs[-1] = (row, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((row, column, 1))
    return runs


def _product(conv: Conv, params: ConvParams, patches: Array) -> Array:
    """Features [..., F] of `patches` [..., K * C]."""
    mask = _mask(conv)
    kernel = params.kernel if mask is None else params.kernel * mask
    return products.product(patches, kernel.reshape(-1, conv.out_size)) + params.bias


def _mask(conv: Conv) -> np.ndarray | None:
    """Which of the kernel [K, C, F] is in force, 0 or 1, or None if all is: within a pixel colours keep their order."""
    if (0, 0) not in conv.offsets or (conv.channels == 1 and not conv.strict):
        return None
    mask = np.ones((len(conv.offsets), conv.in_size, conv.out_size), np.float32)
    mask[conv.offsets.index((0, 0))] = masks.colors(conv.in_size, conv.out_size, conv.channels, conv.strict)
    return mask
