"""Convolutions as matrix products: of all patches with the kernel, or of all pixels with it.

In a loop on a CPU the gradient of XLA's own convolution takes 25 times as long, and with a kernel for each lane of a
vmap it becomes a grouped one, which is slow everywhere.
Axes: H height, W width, C channels in, D channels out; any number of leading axes.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal

from jax import Array, lax
from jax import numpy as jnp

from jaxrl.core import products


def convolve(
    inputs: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Literal["VALID", "SAME"] | Sequence[tuple[int, int]],
) -> Array:
    """`inputs` [..., H, W, C] with `kernel` [rows, columns, C, D], as one product of all patches with it."""
    sides = kernel.shape[:2]
    pads = lax.padtype_to_pads(inputs.shape[-3:-1], sides, strides, padding) if isinstance(padding, str) else padding
    x = jnp.pad(inputs, [(0, 0)] * (inputs.ndim - 3) + [*pads, (0, 0)])
    rows, columns = (
        [slice(first, length - side + first + 1, stride) for first in range(side)]
        for length, side, stride in zip(x.shape[-3:-1], sides, strides, strict=True)
    )
    patches = jnp.concatenate([x[..., row, column, :] for row in rows for column in columns], axis=-1)
    return products.product(patches, kernel.reshape(-1, kernel.shape[-1]))


def transposed_convolve(inputs: Array, kernel: Array, stride: int) -> Array:
    """`inputs` [..., H, W, C] with `kernel` [side, side, C, D] to [..., H * stride, W * stride, D], as one product.

    Each pixel adds to the patch that it stands for its value times the kernel. Equal to `lax.conv_transpose` with
    padding SAME and the kernel turned by 180 degrees.
    """
    side, _, channels, features = kernel.shape
    # A patch is reach x reach blocks of stride x stride pixels, the last ones filled up with zeros.
    reach = -(-side // stride)
    fill = reach * stride - side
    kernel = jnp.pad(kernel, [(0, fill), (0, fill), (0, 0), (0, 0)])
    kernel = kernel.reshape(reach, stride, reach, stride, channels, features).transpose(4, 0, 2, 1, 3, 5)
    blocks = jnp.split(products.product(inputs, kernel.reshape(channels, -1)), reach**2, axis=-1)
    batch = [(0, 0)] * (inputs.ndim - 3)
    x: Any = sum(
        jnp.pad(block, [*batch, (row, reach - 1 - row), (column, reach - 1 - column), (0, 0)])
        for block, (row, column) in zip(blocks, product(range(reach), repeat=2), strict=True)
    )
    *axes, rows, columns, _ = x.shape
    x = x.reshape(*axes, rows, columns, stride, stride, features).swapaxes(-4, -3)
    x = x.reshape(*axes, rows * stride, columns * stride, features)
    first = (side - stride) // 2
    height, width = (first + stride * length for length in inputs.shape[-3:-1])
    return x[..., first:height, first:width, :]
