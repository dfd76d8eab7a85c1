"""PixelCNN++ (Salimans, Karpathy, Chen and Kingma 2017, arXiv:1701.05517, section 2).

A vertical stack sees the rows above each pixel, a horizontal one also what is left of it. Both halve the image several
times and double it again, and what was found on the way down is added on the way up at the same size. A pixel's colours
are drawn from one mixture of logistic variables, in which the mean of a colour moves with the colours before it; given
those, each colour has a mixture of its own, whose likelihood is exact. Left out are the paper's dropout, weight
normalisation and averaging of parameters.
Axes: B batch, H height, W width, C colours, F features, K logistic variables, L levels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import autoregressive, data, layers, likelihoods, masks
from generative.autoregressive import Wish
from generative.layers import Conv, ConvParams
from generative.masks import Offset
from generative.model import Model
from jaxrl.core import checks, fit

METHODS = autoregressive.METHODS
EVAL_BATCH = 50  # examples evaluated at once

Kind = Literal["start", "encode", "shrink", "decode", "grow"]
Spatial = Callable[[int, int, Any], Array]  # (number of a layer, of its convolution, its inputs) -> features


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    features: int = 32  # of each stack, F
    num_layers: int = 2  # residual layers at each size of the image, on the way down and on the way up
    num_sizes: int = 3  # of the image, each half the one before; 1 never halves it
    num_logistics: int = 5  # logistic variables that are mixed, K
    conditional: bool = False  # on the class of the image
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


@dataclass(frozen=True)
class Layer:
    """What is static about a layer of one stack."""

    kind: Kind
    halvings: int  # of the image that it reads
    convs: tuple[Conv, ...]  # that see other pixels: two if it is residual
    side: Conv | None = None  # of what comes from the other stack and from the way down


class LayerParams(NamedTuple):
    """Parameters."""

    convs: tuple[ConvParams, ...]
    side: ConvParams | None
    label: Any  # [classes, 2 F] added in a residual layer, or None


class Layers(NamedTuple):
    """The whole network. Layers and a convolution, or their parameters."""

    vertical: tuple[Any, ...]
    horizontal: tuple[Any, ...]
    output: Any


State = autoregressive.State


def build(config: Config, channels: int) -> Layers:
    """The layers for images of `channels` colours. Networks see whole pixels: the mixture alone knows colours."""
    size = config.features
    above = [(row, column) for row in (-2, -1) for column in (-1, 0, 1)]
    vertical = [(row, column) for row in (-1, 0) for column in (-1, 0, 1)]  # a row down from `above`: never the pixel's
    horizontal = [(row, column) for row in (-1, 0) for column in (-1, 0)]
    before = masks.raster_offsets(3, center=False)
    order = plan(config)
    return Layers(
        tuple(build_layer(*place, size, channels, above, vertical, [(0, 0), (0, 1)], (0, 1)) for place in order),
        tuple(build_layer(*place, size, channels, before, horizontal, [(0, 0)], (1, 2)) for place in order),
        layers.dense(size, config.num_logistics * (1 + 2 * channels + math.comb(channels, 2))),
    )


def plan(config: Config) -> list[tuple[Kind, int]]:
    """Kind and halvings of the layers of a stack: each "decode" has its partner, an "encode" or a "shrink"."""
    order: list[tuple[Kind, int]] = [("start", 0)]
    last = config.num_sizes - 1
    for halvings in range(config.num_sizes):
        order += [("encode", halvings)] * config.num_layers
        order += [("shrink", halvings)] * (halvings < last)
    for halvings in reversed(range(config.num_sizes)):
        order += [("decode", halvings)] * (config.num_layers + (halvings < last))
        order += [("grow", halvings)] * (halvings > 0)
    return order


def build_layer(
    kind: Kind,
    halvings: int,
    size: int,
    channels: int,
    start: list[Offset],
    offsets: list[Offset],
    grow: list[Offset],
    sides: tuple[int, int],
) -> Layer:
    """A layer that sees `start` of the image or `offsets` of features, and `sides` features in encoder and decoder."""
    if kind == "start":
        return Layer(kind, halvings, (Conv(tuple(start), channels, size),))
    if kind == "shrink":
        return Layer(kind, halvings, (Conv(tuple(offsets), size, size, stride=2),))
    if kind == "grow":
        return Layer(kind, halvings, (Conv(tuple(grow), size, 4 * size),))
    convs = Conv(tuple(offsets), 2 * size, size), Conv(tuple(offsets), 2 * size, 2 * size)
    num_sides = sides[kind == "decode"]
    return Layer(kind, halvings, convs, layers.dense(2 * size * num_sides, size) if num_sides else None)


def init_params(config: Config, net: Layers, key: Array, channels: int, num_classes: int | None) -> Layers:
    """Parameters, such that residual layers add little, classes start alike, and logistic variables evenly apart."""
    keys = iter(random.split(key, 3 * (len(net.vertical) + len(net.horizontal)) + 1))

    def start(layer: Layer) -> LayerParams:
        convs = [layers.init(conv, next(keys), 1.0) for conv in layer.convs]
        if len(convs) == 1:
            return LayerParams(tuple(convs), None, None)
        convs[1] = ConvParams(convs[1].kernel * 0.1, convs[1].bias)
        label = None if num_classes is None else jnp.zeros((num_classes, layer.convs[1].out_size))
        side = None if layer.side is None else layers.init(layer.side, next(keys), 1.0)
        return LayerParams(tuple(convs), side, label)

    stacks = [tuple(start(layer) for layer in stack) for stack in (net.vertical, net.horizontal)]
    output = layers.init(net.output, next(keys), 0.01)
    means = jnp.linspace(-1.0, 1.0, config.num_logistics)
    bias = output.bias.reshape(-1, config.num_logistics).at[1 : 1 + channels].set(means).ravel()
    return Layers(stacks[0], stacks[1], ConvParams(output.kernel, bias))


def run(
    stack: Sequence[Layer],
    params: Sequence[LayerParams],
    links: Sequence[Array] | None,
    label: Array | None,
    spatial: Spatial,
) -> list[Array]:
    """Features [..., F] after every residual layer, given those of the vertical stack or None if this is it.

    `label` are the classes, of a shape that fits that of the features without F.
    """
    h: Any = None
    kept: list[Array] = []
    found: list[Array] = []
    for number, (layer, weights) in enumerate(zip(stack, params, strict=True)):
        if layer.kind in ("encode", "shrink"):
            kept.append(h)
        if len(layer.convs) == 1:
            h = spatial(number, 0, h)
            continue
        sides = ([] if links is None else [links[len(found)]]) + ([kept.pop()] if layer.kind == "decode" else [])
        y = spatial(number, 0, rectified(h))
        if layer.side is not None and weights.side is not None:
            y += layers.apply_here(layer.side, weights.side, rectified(jnp.concatenate(sides, axis=-1)))
        y = spatial(number, 1, rectified(y))
        if label is not None:
            y += jnp.take(weights.label, label, axis=0)  # NaN for an unknown class
        change, gate = jnp.split(y, 2, axis=-1)
        h += change * nn.sigmoid(gate)
        found.append(h)
    return found


def rectified(x: Array) -> Array:
    """[..., 2 F] of `x` [..., F]: both it and its negative, through an exponential linear unit."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


def spread(y: Array) -> Array:
    """Features [..., 2 H, 2 W, F] of `y` [..., H, W, 4 F], four pixels of each."""
    *batch, height, width, size = y.shape
    parts = y.reshape(*batch, height, width, 2, 2, size // 4)
    return jnp.moveaxis(parts, -3, -4).reshape(*batch, 2 * height, 2 * width, size // 4)


def colors(raw: Array, x: Array, levels: int) -> Array:
    """Outputs [..., C, 3 K] for `likelihoods.logistic_mixture`, of each colour given those before it in `x` [..., C].

    `raw` [..., R] holds the K logits of a pixel's mixture, C K means, C K log-scales and C (C - 1) / 2 K coefficients:
    the mean of a colour is its own plus, for each colour before it, a coefficient times that colour's value from -1 to
    1 (section 2.2). What those values tell about which part of the mixture drew them goes into the logits.
    """
    channels = x.shape[-1]
    parts = raw.reshape(*raw.shape[:-1], 1 + 2 * channels + math.comb(channels, 2), -1)
    logits, means, log_scales, coefficients = jnp.split(parts, (1, 1 + channels, 1 + 2 * channels), axis=-2)
    logits, slopes = logits[..., 0, :], iter(jnp.moveaxis(jnp.tanh(coefficients), -2, 0))
    found: list[Array] = []
    for color in range(channels):
        mean = means[..., color, :]
        for before in range(color):
            mean += next(slopes) * (2.0 * x[..., before, None] - 1.0)
        found.append(jnp.concatenate([logits, mean, log_scales[..., color, :]], axis=-1))
        logits += likelihoods.logistic_parts(found[-1], x[..., color], levels)
    return jnp.stack(found, axis=-2)


def outputs(net: Layers, params: Layers, x: Array, levels: int, label: Array | None = None) -> Array:
    """Outputs [B, H, W, C, 3 K] given images `x` [B, H, W, C] in [0, 1], and their classes [B] if it reads them."""

    def features(stack: Sequence[Layer], weights: Sequence[LayerParams], links: Sequence[Array] | None) -> list[Array]:
        def spatial(number: int, index: int, h: Any) -> Array:
            layer = stack[number]
            y = layers.apply(layer.convs[index], weights[number].convs[index], x if h is None else h)
            if layer.kind != "grow":
                return y
            height, width = (side(length, layer.halvings - 1) for length in x.shape[1:3])
            return spread(y)[:, :height, :width]

        return run(stack, weights, links, None if label is None else label[:, None, None], spatial)

    links = features(net.vertical, params.vertical, None)
    h = features(net.horizontal, params.horizontal, links)[-1]
    return colors(layers.apply_here(net.output, params.output, nn.elu(h)), x, levels)


def side(length: int, halvings: int) -> int:
    """`length` halved, rounding up."""
    return -(-length // 2**halvings)


loss = autoregressive.loss


def draw_cached(
    conditional: autoregressive.Conditional,
    noise: Array,
    net: Layers,
    params: Layers,
    wish: Wish,
    label: Array | None,
    shape: tuple[int, int, int],
    levels: int,
) -> Array:
    """Examples [B, D] int32 from `noise` [D, B]: the vertical stack row by row, the horizontal one pixel by pixel.

    The inputs of each convolution are kept for as many rows as its kernel sees. Of a halved image, the row or pixel
    that several of the whole one share is computed anew for each of these: it sees none that are later than the first.
    """
    height, width, channels = shape
    batch_size = len(wish.x)

    def caches(stack: Sequence[Layer]) -> list[list[Array]]:
        return [
            [layers.cache(conv, side(width, layer.halvings), batch_size) for conv in layer.convs] for layer in stack
        ]

    def draw_row(carry: tuple[Any, Any], moment: tuple[Array, Array]) -> Any:
        above, left = jax.tree.map(lambda leaf: leaf, carry)  # lists of our own, to write in
        noise, row = moment

        def vertical(number: int, index: int, h: Any) -> Array:
            layer = net.vertical[number]
            conv, weights = layer.convs[index], params.vertical[number].convs[index]
            if h is not None:
                above[number][index] = layers.write(conv, above[number][index], row >> layer.halvings, 0, h)
            y = layers.apply_to_row(conv, weights, above[number][index], row >> after(layer))
            if layer.kind != "grow":
                return y
            both = spread(y.swapaxes(0, 1)[:, None])  # [B, 2, W, F]
            half = lax.dynamic_index_in_dim(both, (row >> layer.halvings - 1) % 2, 1, False)
            return half[:, : side(width, layer.halvings - 1)].swapaxes(0, 1)

        links = run(net.vertical, params.vertical, None, label, vertical)

        def draw_pixel(left: Any, moment: tuple[Array, Array]) -> tuple[Any, Array]:
            noise, column = moment
            left = jax.tree.map(lambda leaf: leaf, left)

            def horizontal(number: int, index: int, h: Any) -> Array:
                layer = net.horizontal[number]
                conv, weights = layer.convs[index], params.horizontal[number].convs[index]
                if h is not None:
                    place = row >> layer.halvings, column >> layer.halvings
                    left[number][index] = layers.write(conv, left[number][index], *place, h[None])
                place = row >> after(layer), column >> after(layer)
                y = layers.apply_to_pixel(conv, weights, left[number][index], *place)
                if layer.kind != "grow":
                    return y
                part = (row >> layer.halvings - 1) % 2, (column >> layer.halvings - 1) % 2
                return spread(y[:, None, None])[:, *part]

            here = [
                lax.dynamic_index_in_dim(link, column >> layer.halvings, 0, False)
                for link, layer in zip(links, residual, strict=True)
            ]
            h = run(net.horizontal, params.horizontal, here, label, horizontal)[-1]
            raw = layers.apply_here(net.output, params.output, nn.elu(h))
            values = jnp.zeros((batch_size, channels), jnp.int32)
            for color in range(channels):
                y = colors(raw, data.scale(values, levels), levels)[:, color]
                variable = (row * width + column) * channels + color
                values = values.at[:, color].set(autoregressive.choose(conditional, noise[color], y, wish, variable))
            seen = data.scale(values, levels)[None]
            left[0][0] = layers.write(net.horizontal[0].convs[0], left[0][0], row, column, seen)
            return left, values

        left, values = lax.scan(draw_pixel, left, (noise, jnp.arange(width)))  # values [W, B, C]
        pixels = data.scale(values, levels)
        above[0][0] = layers.write(net.vertical[0].convs[0], above[0][0], row, 0, pixels)
        return (above, left), values

    residual = [layer for layer in net.vertical if len(layer.convs) > 1]
    rows = noise.reshape(height, width, channels, batch_size), jnp.arange(height)
    _, values = lax.scan(draw_row, (caches(net.vertical), caches(net.horizontal)), rows)
    return values.transpose(2, 0, 1, 3).reshape(batch_size, -1)


def after(layer: Layer) -> int:
    """Halvings of the image whose pixels a layer's convolutions are applied to."""
    return layer.halvings + (layer.kind == "shrink")


def make(spec: data.Spec, config: Config) -> Model:
    """A PixelCNN++ of images of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not images of integers; a split without examples; classes
            asked for and none in the data.
    """
    levels = autoregressive.check(spec, config.eval_split, images=True)
    height, width, channels = spec.shape
    _check(config)
    conditional = autoregressive.logistic_mixture(levels, config.num_logistics)
    net = build(config, channels)
    num_classes = autoregressive.classes(spec, config.conditional)

    def start(key: Array) -> Layers:
        return init_params(config, net, key, channels, num_classes)

    def read(params: Layers, x: Array, label: Array | None) -> Array:
        return outputs(net, params, x, levels, label)

    def draw(noise: Array, params: Layers, wish: Wish, label: Array | None) -> Array:
        return draw_cached(conditional, noise, net, params, wish, label, (height, width, channels), levels)

    return autoregressive.model(spec, config, conditional, start, read, draw, EVAL_BATCH, num_classes)


def _check(config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(
        features=config.features,
        num_layers=config.num_layers,
        num_sizes=config.num_sizes,
        num_logistics=config.num_logistics,
        batch_size=config.batch_size,
    )
