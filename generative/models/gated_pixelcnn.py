"""Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328, equations 2 and 4, figure 2).

A vertical stack of convolutions sees the rows above each pixel, a horizontal one the pixels to its left and what the
vertical one found: together all pixels before it, without the blind spot of PixelCNN. Activations are gated, and may
depend on the class of the image.
Axes: B batch, H height, W width, C colours, F features, P outputs per variable, K classes.
"""

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

    features: int = 32  # of each stack, F
    num_layers: int = 8  # gated layers
    first_kernel: int = 7  # side of the first kernel, odd
    kernel: int = 3  # side of the further kernels, odd
    head: int = 32  # features of the last hidden layer
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


class Gated(NamedTuple):
    """A layer of both stacks. Convolutions, or their parameters."""

    vertical: Any
    link: Any  # from vertical to horizontal
    horizontal: Any
    out: Any
    label: Any = None  # [K, 4 F] added to both stacks, or None; of parameters alone


class Layers(NamedTuple):
    """The whole network. Convolutions, or their parameters."""

    stack: tuple[Gated, ...]
    hidden: Any
    output: Any


State = autoregressive.State


def build(config: Config, channels: int, num_outputs: int) -> Layers:
    """The convolutions of images of `channels` colours. The rows above hold whole pixels: they need no colours."""
    size = config.features
    link, out = layers.dense(2 * size, 2 * size), layers.dense(size, size, channels)
    first = Gated(
        Conv(tuple(masks.vertical_offsets(config.first_kernel, center=False)), channels, 2 * size),
        link,
        layers.first(masks.horizontal_offsets(config.first_kernel, center=False), channels, 2 * size),
        out,
    )
    further = Gated(
        Conv(tuple(masks.vertical_offsets(config.kernel, center=True)), size, 2 * size),
        link,
        Conv(tuple(masks.horizontal_offsets(config.kernel, center=True)), size, 2 * size, channels),
        out,
    )
    return Layers(
        (first, *[further] * (config.num_layers - 1)),
        layers.dense(size, config.head, channels),
        layers.dense(config.head, channels * num_outputs, channels),
    )


def init_params(net: Layers, key: Array, num_classes: int | None) -> Layers:
    """Parameters, such that outputs start small and all classes alike."""
    convs, structure = jax.tree.flatten(net, is_leaf=lambda leaf: isinstance(leaf, Conv))
    keys = random.split(key, len(convs))
    params: Layers = jax.tree.unflatten(
        structure, [layers.init(conv, key, 1.0) for conv, key in zip(convs, keys, strict=True)]
    )
    label = None if num_classes is None else jnp.zeros((num_classes, 2 * net.stack[0].vertical.out_size))
    stack = tuple(layer._replace(label=label) for layer in params.stack)
    return params._replace(stack=stack, output=ConvParams(params.output.kernel * 0.1, params.output.bias))


def gate(h: Array, channels: int) -> Array:
    """Features [..., F] of [..., 2 F]: in each colour's part, the tanh of one half times the sigmoid of the other."""
    parts = h.reshape(*h.shape[:-1], channels, 2, -1)
    gated = jnp.tanh(parts[..., 0, :]) * nn.sigmoid(parts[..., 1, :])
    return gated.reshape(*h.shape[:-1], -1)


def label_terms(params: Layers, label: Array | None) -> list[tuple[Any, Any]]:
    """What the classes `label` [B] add to the vertical and the horizontal stack, [B, 2 F] each, layer by layer."""
    if label is None:
        return [(0.0, 0.0)] * len(params.stack)
    terms = []
    for layer in params.stack:
        vertical, horizontal = jnp.split(jnp.take(layer.label, label, axis=0), 2, axis=-1)  # NaN for an unknown class
        terms.append((vertical, horizontal))
    return terms


def vertical_stack(
    net: Layers, params: Layers, terms: list[tuple[Any, Any]], spatial: Callable[[int, Any], Array]
) -> list[Array]:
    """What each layer hands to the horizontal stack [..., 2 F]; `spatial(n, v)` applies layer n's convolution."""
    links, v = [], None
    channels = net.output.channels
    for number, (layer, weights) in enumerate(zip(net.stack, params.stack, strict=True)):
        v = spatial(number, v) + terms[number][0]
        links.append(layers.apply_here(layer.link, weights.link, v))
        v = gate(v, channels)
    return links


def horizontal_stack(
    net: Layers,
    params: Layers,
    terms: list[tuple[Any, Any]],
    links: list[Array],
    spatial: Callable[[int, Any], Array],
) -> Array:
    """Outputs [..., C * P], given what the vertical stack hands over; `spatial(n, h)` applies layer n's convolution."""
    h: Any = None
    for number, (layer, weights) in enumerate(zip(net.stack, params.stack, strict=True)):
        g = gate(spatial(number, h) + links[number] + terms[number][1], net.output.channels)
        g = layers.apply_here(layer.out, weights.out, g)
        h = g if h is None else h + g  # the first layer reads the image itself, which must not go around its mask
    h = layers.apply_here(net.hidden, params.hidden, nn.relu(h))
    return layers.apply_here(net.output, params.output, nn.relu(h))


def outputs(net: Layers, params: Layers, x: Array, label: Array | None = None) -> Array:
    """Outputs [B, H, W, C, P] given images `x` [B, H, W, C] in [0, 1], and their classes [B] if it reads them."""
    terms: list[tuple[Any, Any]] = jax.tree.map(
        lambda term: term if label is None else term[:, None, None], label_terms(params, label)
    )

    def vertical(number: int, v: Any) -> Array:
        return layers.apply(net.stack[number].vertical, params.stack[number].vertical, x if v is None else v)

    def horizontal(number: int, h: Any) -> Array:
        return layers.apply(net.stack[number].horizontal, params.stack[number].horizontal, x if h is None else h)

    links = vertical_stack(net, params, terms, vertical)
    return horizontal_stack(net, params, terms, links, horizontal).reshape(*x.shape, -1)


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

    The inputs of each convolution are kept for as many rows as its kernel sees.
    """
    height, width, channels = shape
    batch_size = len(wish.x)
    terms = label_terms(params, label)
    first = net.stack[0]

    def draw_row(caches: tuple[list[Array], list[Array]], moment: tuple[Array, Array]) -> Any:
        above, left = list(caches[0]), caches[1]
        noise, row = moment

        def vertical(number: int, v: Array | None) -> Array:
            conv = net.stack[number].vertical
            if v is not None:
                above[number] = layers.write(conv, above[number], row, 0, v)
            return layers.apply_to_row(conv, params.stack[number].vertical, above[number], row)

        links = vertical_stack(net, params, terms, vertical)  # each [W, B, 2 F]

        def draw_value(left: list[Array], moment: tuple[Array, Array]) -> tuple[list[Array], Array]:
            noise, place = moment
            column, color = place // channels, place % channels
            left = list(left)

            def horizontal(number: int, h: Array | None) -> Array:
                conv = net.stack[number].horizontal
                if h is not None:
                    left[number] = layers.write(conv, left[number], row, column, h[None])
                return layers.apply_to_pixel(conv, params.stack[number].horizontal, left[number], row, column)

            here = [link[column] for link in links]
            y = horizontal_stack(net, params, terms, here, horizontal).reshape(batch_size, channels, -1)
            variable = row * width * channels + place
            value = autoregressive.choose(conditional, noise, y[:, color], wish, variable)
            seen = data.scale(value, levels)[None, :, None]
            left[0] = layers.write(first.horizontal, left[0], row, column, seen, color)
            return left, value

        left, values = lax.scan(draw_value, left, (noise, jnp.arange(width * channels)))
        pixels = data.scale(values, levels).reshape(width, channels, batch_size).transpose(0, 2, 1)
        above[0] = layers.write(first.vertical, above[0], row, 0, pixels)
        return (above, left), values

    above = [layers.cache(layer.vertical, width, batch_size) for layer in net.stack]
    left = [layers.cache(layer.horizontal, width, batch_size) for layer in net.stack]
    rows = noise.reshape(height, width * channels, batch_size), jnp.arange(height)
    _, values = lax.scan(draw_row, (above, left), rows)
    return values.reshape(-1, batch_size).T


def make(spec: data.Spec, config: Config) -> Model:
    """A Gated PixelCNN of images of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not images of integers; a split without examples; classes
            asked for and none in the data.
    """
    levels = autoregressive.check(spec, config.eval_split, images=True)
    height, width, channels = spec.shape
    _check(config, channels)
    conditional = autoregressive.categorical(levels)
    net = build(config, channels, conditional.size)
    num_classes = autoregressive.classes(spec, config.conditional)

    def start(key: Array) -> Layers:
        return init_params(net, key, num_classes)

    def draw(noise: Array, params: Layers, wish: Wish, label: Array | None) -> Array:
        return draw_cached(conditional, noise, net, params, wish, label, (height, width, channels), levels)

    return autoregressive.model(spec, config, conditional, start, partial(outputs, net), draw, EVAL_BATCH, num_classes)


def _check(config: Config, channels: int) -> None:
    checks.choices(config)
    checks.at_least_one(
        features=config.features, num_layers=config.num_layers, head=config.head, batch_size=config.batch_size
    )
    layers.check(channels, {"features": config.features, "head": config.head}, config.first_kernel, config.kernel)
