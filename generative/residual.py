"""Residual networks from images to vectors and back, whose blocks halve or double an image's sides.

A block is two convolutions, each after its activation, beside a skip (He et al. 2016, arXiv:1603.05027, section 4),
which is averaged or repeated where the sides change, and projected where the channels do.
Axes: H height, W width, C channels, D features.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from jax import Array, nn, random
from jax import numpy as jnp

from jaxrl.core import convolutions, networks

SIDE = 3  # of a block's first kernel, and of its last where the image keeps its size
RESIZING_SIDE = 4  # of every kernel with stride 2, so that no pixel counts more than another


@dataclass(frozen=True)
class Residual:
    """As an encoder, a convolution that halves an image, then blocks; as a decoder the same the other way round."""

    channels: tuple[int, ...] = (32, 64)  # after each halving of the sides
    num_blocks: int = 1  # at each size, besides the one that leads from size to size

    def __post_init__(self) -> None:
        if not self.channels or self.num_blocks < 0:
            raise ValueError(
                f"A residual network needs channels for one size or more, and no less than no blocks at each: got "
                f"channels={self.channels}, num_blocks={self.num_blocks}."
            )


class Block(NamedTuple):
    """What is static about a block."""

    in_channels: int
    out_channels: int
    resize: Literal["keep", "halve", "double"]


def encoder(description: Residual, shape: tuple[int, ...], out_size: int) -> networks.Network:
    """Network with `apply(params, x [..., *shape]) -> [..., out_size]`.

    Raises:
        ValueError: examples that are no images, or whose sides cannot be halved so often.
    """
    size, blocks = math.prod(_smallest(description, shape)), _blocks(description)

    def init(key: Array) -> dict[str, Any]:
        first_key, blocks_key, last_key = random.split(key, 3)
        kernel = RESIZING_SIDE, RESIZING_SIDE, shape[-1], description.channels[0]
        return {
            "first": _layer(first_key, kernel),
            "blocks": _start(blocks_key, blocks),
            "last": _layer(last_key, (size, out_size)),
        }

    def apply(params: dict[str, Any], x: Array) -> Array:
        x = _resized(x, params["first"], "halve")
        x = nn.relu(_chain(blocks, params["blocks"], x))
        return x.reshape(*x.shape[:-3], -1) @ params["last"]["kernel"] + params["last"]["bias"]

    return networks.Network(init, apply)


def decoder(description: Residual, in_size: int, shape: tuple[int, ...]) -> networks.Network:
    """Network with `apply(params, inputs [..., in_size]) -> [..., *shape]`.

    Raises:
        ValueError: examples that are no images, or whose sides cannot be halved so often.
    """
    small = _smallest(description, shape)
    backwards = reversed(_blocks(description))
    blocks = [Block(after, before, "double" if size == "halve" else "keep") for before, after, size in backwards]

    def init(key: Array) -> dict[str, Any]:
        first_key, blocks_key, last_key = random.split(key, 3)
        kernel = RESIZING_SIDE, RESIZING_SIDE, description.channels[0], shape[-1]
        return {
            "first": _layer(first_key, (in_size, math.prod(small))),
            "blocks": _start(blocks_key, blocks),
            "last": _layer(last_key, kernel, 2.0),  # with stride 2 a pixel sums over half of the rows and columns
        }

    def apply(params: dict[str, Any], inputs: Array) -> Array:
        x = inputs @ params["first"]["kernel"] + params["first"]["bias"]
        x = _chain(blocks, params["blocks"], x.reshape(*x.shape[:-1], *small))
        return _resized(nn.relu(x), params["last"], "double")

    return networks.Network(init, apply)


def residual_block(block: Block, params: dict[str, Any], x: Array) -> Array:
    """Outputs of `block` for `x` [..., H, W, in_channels]."""
    inner = _resized(nn.relu(x), params["first"], "keep")
    change = _resized(nn.relu(inner), params["last"], block.resize)
    if block.resize == "halve":
        *axes, height, width, channels = x.shape
        x = x.reshape(*axes, height // 2, 2, width // 2, 2, channels).mean((-4, -2))
    if block.resize == "double":
        x = x.repeat(2, -3).repeat(2, -2)
    return (x @ params["skip"] if "skip" in params else x) + change


def _blocks(description: Residual) -> list[Block]:
    """From the largest image to the smallest."""
    channels, count = description.channels, description.num_blocks
    found = [Block(channels[0], channels[0], "keep")] * count
    for before, after in pairwise(channels):
        found += [Block(before, after, "halve"), *[Block(after, after, "keep")] * count]
    return found


def _start(key: Array, blocks: list[Block]) -> list[dict[str, Any]]:
    """Parameters of blocks that start as their skips, so that their number does not matter."""
    found = []
    for first_key, skip_key, block in zip(*random.split(key, (2, len(blocks))), blocks, strict=True):
        size, out_size = block.in_channels, block.out_channels
        side = SIDE if block.resize == "keep" else RESIZING_SIDE
        params: dict[str, Any] = {
            "first": _layer(first_key, (SIDE, SIDE, size, size), math.sqrt(2)),
            "last": {"kernel": jnp.zeros((side, side, size, out_size)), "bias": jnp.zeros(out_size)},
        }
        if size != out_size:
            params["skip"] = networks.orthogonal()(skip_key, (size, out_size))
        found.append(params)
    return found


def _layer(key: Array, shape: tuple[int, ...], gain: float = 1.0) -> dict[str, Array]:
    return {"kernel": networks.orthogonal(gain)(key, shape), "bias": jnp.zeros(shape[-1])}


def _chain(blocks: list[Block], params: list[dict[str, Any]], x: Array) -> Array:
    for block, own in zip(blocks, params, strict=True):
        x = residual_block(block, own, x)
    return x


def _resized(x: Array, layer: dict[str, Array], resize: Literal["keep", "halve", "double"]) -> Array:
    """A convolution of `x` [..., H, W, C]."""
    if resize == "double":
        return convolutions.transposed_convolve(x, layer["kernel"], 2) + layer["bias"]
    stride = 2 if resize == "halve" else 1
    return convolutions.convolve(x, layer["kernel"], (stride, stride), "SAME") + layer["bias"]


def _smallest(description: Residual, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the image after all halvings."""
    if len(shape) != 3:
        raise ValueError(f"Residual blocks are for images [height, width, channels], not examples of shape {shape}.")
    times = 2 ** len(description.channels)
    if shape[0] % times or shape[1] % times:
        raise ValueError(
            f"{shape[0]}x{shape[1]} pixels cannot be halved {len(description.channels)} times: use fewer channels than "
            f"{description.channels}, or images of another size."
        )
    return shape[0] // times, shape[1] // times, description.channels[-1]
