"""PixelCNN (van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, sections 3.4, 3.5 and 5.2).

Convolutions that see only pixels drawn before, the first of them (mask A) not the pixel itself; then residual blocks,
with mask B. In images of several colours, each colour of a pixel sees those before it. With square kernels there is a
blind spot to the right above each pixel, `gated_pixelcnn` has none.
Axes: B batch, H height, W width, C colours, F features, P outputs per variable.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import autoregressive, data, layers, masks
from generative.autoregressive import Wish
from generative.layers import Conv, ConvParams
from generative.model import Model
from jaxrl.core import checks, fit

METHODS = autoregressive.METHODS
EVAL_BATCH = 50  # examples evaluated at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    features: int = 32  # of the convolutions; there are twice as many between the blocks, F
    num_blocks: int = 7  # residual blocks
    first_kernel: int = 7  # side of the first kernel, odd
    kernel: int = 3  # side of the kernels in the blocks, odd
    head: int = 32  # features of the last hidden layer
    batch_size: int = 16  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser
    max_grad_norm: Any = 1.0  # bound on the global norm of the gradient, per variable of an example


class Block(NamedTuple):
    """A residual block: the narrow middle sees other pixels. Convolutions, or their parameters."""

    reduce: Any
    spatial: Any
    expand: Any


class Layers(NamedTuple):
    """The whole network. Convolutions, or their parameters."""

    first: Any
    blocks: tuple[Block, ...]
    hidden: Any
    output: Any


State = autoregressive.State


def build(config: Config, channels: int, num_outputs: int) -> Layers:
    """The convolutions of images of `channels` colours."""
    wide, narrow = 2 * config.features, config.features
    above = tuple(masks.raster_offsets(config.kernel, center=True))
    block = Block(
        layers.dense(wide, narrow, channels),
        Conv(above, narrow, narrow, channels),
        layers.dense(narrow, wide, channels),
    )
    return Layers(
        layers.first(masks.raster_offsets(config.first_kernel, center=False), channels, wide),
        (block,) * config.num_blocks,
        layers.dense(wide, config.head, channels),
        layers.dense(config.head, channels * num_outputs, channels),
    )


def init_params(net: Layers, key: Array) -> Layers:
    """Parameters, such that features keep their size through the blocks and outputs start small."""
    is_conv = lambda leaf: isinstance(leaf, Conv)  # noqa: E731
    convs, structure = jax.tree.flatten(net, is_leaf=is_conv)
    keys = random.split(key, len(convs))
    params: Layers = jax.tree.unflatten(
        structure, [layers.init(conv, key) for conv, key in zip(convs, keys, strict=True)]
    )
    shrink = lambda conv, by: ConvParams(conv.kernel * by, conv.bias)  # noqa: E731
    by = 1 / math.sqrt(max(len(net.blocks), 1))
    blocks = tuple(block._replace(expand=shrink(block.expand, by)) for block in params.blocks)
    return params._replace(blocks=blocks, output=shrink(params.output, 0.1))


def network(net: Layers, params: Layers, spatial: Callable[[int, Any], Array]) -> Array:
    """Outputs [..., C * P]; `spatial(0, None)` applies the first convolution, `spatial(n, h)` that of block n."""
    h = spatial(0, None)
    for number, (block, weights) in enumerate(zip(net.blocks, params.blocks, strict=True), 1):
        r = layers.apply_here(block.reduce, weights.reduce, nn.relu(h))
        r = spatial(number, nn.relu(r))
        h += layers.apply_here(block.expand, weights.expand, nn.relu(r))
    h = layers.apply_here(net.hidden, params.hidden, nn.relu(h))
    return layers.apply_here(net.output, params.output, nn.relu(h))


def spatial_convs(net: Layers) -> list[Any]:
    """The convolutions, or their parameters, that see more than one pixel."""
    return [net.first, *(block.spatial for block in net.blocks)]


def outputs(net: Layers, params: Layers, x: Array) -> Array:
    """Outputs [B, H, W, C, P] given images `x` [B, H, W, C] in [0, 1]."""
    convs, weights = spatial_convs(net), spatial_convs(params)
    y = network(net, params, lambda number, h: layers.apply(convs[number], weights[number], x if h is None else h))
    return y.reshape(*x.shape, -1)


loss = autoregressive.loss


def draw_cached(
    conditional: autoregressive.Conditional,
    noise: Array,
    net: Layers,
    params: Layers,
    wish: Wish,
    shape: tuple[int, int, int],
    levels: int,
) -> Array:
    """Examples [B, D] int32 from `noise` [D, B]: at each variable the network is computed for one pixel alone.

    The inputs of each convolution are kept for as many rows as its kernel sees.
    """
    _, width, channels = shape
    batch_size, size = wish.x.shape
    convs, weights = spatial_convs(net), spatial_convs(params)

    def step(caches: list[Array], moment: tuple[Array, Array]) -> tuple[list[Array], Array]:
        noise, variable = moment
        row, column, color = variable // (width * channels), variable // channels % width, variable % channels
        caches = list(caches)

        def spatial(number: int, h: Array | None) -> Array:
            conv = convs[number]
            if h is not None:
                caches[number] = layers.write(conv, caches[number], row, column, h[None])
            return layers.apply_to_pixel(conv, weights[number], caches[number], row, column)

        y = network(net, params, spatial).reshape(batch_size, channels, -1)
        value = autoregressive.choose(conditional, noise, y[:, color], wish, variable)
        caches[0] = layers.write(net.first, caches[0], row, column, data.scale(value, levels)[None, :, None], color)
        return caches, value

    caches = [layers.cache(conv, width, batch_size) for conv in convs]
    _, values = lax.scan(step, caches, (noise, jnp.arange(size)))
    return values.T


def make(spec: data.Spec, config: Config) -> Model:
    """A PixelCNN of images of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not images of integers; a split without examples.
    """
    levels = autoregressive.check(spec, config.eval_split, images=True)
    height, width, channels = spec.shape
    _check(config, channels)
    conditional = autoregressive.categorical(levels)
    net = build(config, channels, conditional.size)

    def read(params: Layers, x: Array, label: None) -> Array:
        return outputs(net, params, x)

    def draw(noise: Array, params: Layers, wish: Wish, label: None) -> Array:
        return draw_cached(conditional, noise, net, params, wish, (height, width, channels), levels)

    return autoregressive.model(spec, config, conditional, partial(init_params, net), read, draw, EVAL_BATCH)


def _check(config: Config, channels: int) -> None:
    checks.choices(config)
    checks.at_least_one(features=config.features, head=config.head, batch_size=config.batch_size)
    layers.check(channels, {"features": config.features, "head": config.head}, config.first_kernel, config.kernel)
