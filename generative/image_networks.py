"""Networks of adversarial models, with what they remember of past batches as explicit statistics.

A layer is a convolution, a normalisation and an activation; its parameters are {kernel, bias} or {kernel, scale,
offset}, its statistics {mean, variance} or nothing.
Axes: B batch, H height, W width, C channels, D features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, nn, random
from jax import numpy as jnp

from generative import adversarial
from jaxrl.core import convolutions, networks

Norm = Literal["batch", "instance", "none"]
KERNEL = 4  # side of every kernel with stride 2, so that no pixel counts more than another
STATS_DECAY = 0.9  # per batch, of the statistics that stand in for a batch's own after training
EPSILON = 1e-5  # added to variances
SLOPE = 0.2  # of the discriminators' activation below zero


class StatefulNetwork(NamedTuple):
    """`init(key) -> (params, stats)` and `apply(params, stats, inputs, training=True) -> (outputs, stats)`."""

    init: Callable[..., Any]
    apply: Callable[..., Any]


@dataclass(frozen=True)
class DCGAN:
    """Strided convolutions, transposed ones in the generator (Radford et al. 2015, arXiv:1511.06434, section 3)."""

    channels: tuple[int, ...] = (64, 128)  # after each halving of the sides, as the discriminator reads an image
    norm: Literal["batch", "none"] = "batch"  # not at the image itself

    def __post_init__(self) -> None:
        _check_channels(self)


@dataclass(frozen=True)
class UNet:
    """Convolutions down and transposed ones up, each given what the way down had at its size.

    Isola et al. 2017, arXiv:1611.07004, section 3.1.
    """

    channels: tuple[int, ...] = (32, 64, 64)  # after each halving of the sides
    norm: Norm = "batch"  # not at the image nor where it is smallest

    def __post_init__(self) -> None:
        _check_channels(self)


@dataclass(frozen=True)
class ResNet:
    """Residual blocks between strided convolutions down and transposed ones up.

    Zhu et al. 2017, arXiv:1703.10593, appendix 7.2.
    """

    channels: tuple[int, ...] = (32,)  # at full size, then after each halving of the sides
    num_blocks: int = 2  # of two convolutions each, where the image is smallest
    norm: Norm = "instance"  # not where the image is made

    def __post_init__(self) -> None:
        _check_channels(self)


@dataclass(frozen=True)
class Patch:
    """A discriminator that judges patches of an image, each alone (Isola et al. 2017, section 3.2)."""

    channels: tuple[int, ...] = (32, 64)  # after each halving of the sides
    norm: Norm = "batch"  # not at the image

    def __post_init__(self) -> None:
        _check_channels(self)


def _check_channels(description: Any) -> None:
    if not description.channels:
        raise ValueError(f"A {type(description).__name__} of channels=() has no convolutions: give it one or more.")


def generator(
    description: networks.MLP | networks.TransposedCNN | DCGAN, in_size: int, shape: tuple[int, ...]
) -> StatefulNetwork:
    """From inputs [B, in_size] to examples [B, *shape], not yet squashed into their range.

    Raises:
        ValueError: a convolutional network and examples that are no images, or whose sides cannot be halved so often;
            dropout.
    """
    _check_dropout(description)
    if not isinstance(description, DCGAN):
        return _stateless(networks.image_generator(description, in_size, shape, 1.0))
    _check_image("A DCGAN makes", shape)
    enlargement = 2 ** len(description.channels)
    if shape[0] % enlargement or shape[1] % enlargement:
        raise ValueError(
            f"{len(description.channels)} transposed convolutions double an image's sides as often, and "
            f"{shape[0]}x{shape[1]} pixels are no multiple of {enlargement}: use fewer channels than "
            f"{description.channels}, or images of another size."
        )
    small = shape[0] // enlargement, shape[1] // enlargement, description.channels[-1]
    sizes = [*description.channels[::-1], shape[-1]]
    start = _Layer(description.norm, nn.relu, lambda x, kernel: (x @ kernel).reshape(*x.shape[:-1], *small))
    middle = [_Layer(description.norm, nn.relu, _up)] * (len(sizes) - 2)
    layers = [start, *middle, _Layer("none", None, _up)]

    def init(key: Array) -> tuple[Any, Any]:
        keys = random.split(key, len(layers))
        first = start.init(keys[0], (in_size, math.prod(small)), small[-1])
        shapes = [(KERNEL, KERNEL, *pair) for pair in pairwise(sizes)]
        rest = [layer.init(key, shape) for layer, key, shape in zip(layers[1:], keys[1:], shapes, strict=True)]
        params, stats = zip(first, *rest, strict=True)
        return params, stats

    return StatefulNetwork(init, _chain(layers))


def discriminator(description: networks.MLP | networks.CNN | DCGAN, shape: tuple[int, ...]) -> StatefulNetwork:
    """From examples [B, *shape] to logits [B].

    Raises:
        ValueError: a convolutional network and examples that are no images; dropout.
    """
    _check_dropout(description)
    if not isinstance(description, DCGAN):
        plain = networks.build(description, shape, 1, 1.0)
        return _stateless(networks.Network(plain.init, lambda params, x: plain.apply(params, x)[..., 0]))
    _check_image("A DCGAN reads", shape)
    layers, shapes = _downward(description.channels, description.norm, shape)
    reduced = [-(-side // 2 ** len(layers)) for side in shape[:2]]
    layers.append(_Layer("none", None, lambda x, kernel: x.reshape(*x.shape[:-3], -1) @ kernel))
    network = _sequence(layers, [*shapes, (math.prod(reduced) * description.channels[-1], 1)])

    def apply(params: Any, stats: Any, x: Array, training: bool = True) -> tuple[Array, Any]:
        logits, stats = network.apply(params, stats, x, training)
        return logits[..., 0], stats

    return StatefulNetwork(network.init, apply)


def patches(description: Patch, shape: tuple[int, ...]) -> StatefulNetwork:
    """From images [B, *shape] of any size to logits [B, h, w], one for each patch.

    Raises:
        ValueError: examples that are no images, or too small for instance normalisation.
    """
    _check_image("A patch discriminator reads", shape)
    _check_instances(description, shape, len(description.channels))
    layers, shapes = _downward(description.channels, description.norm, shape)
    layers.append(_Layer("none", None, _same))
    network = _sequence(layers, [*shapes, (KERNEL, KERNEL, description.channels[-1], 1)])

    def apply(params: Any, stats: Any, x: Array, training: bool = True) -> tuple[Array, Any]:
        logits, stats = network.apply(params, stats, x, training)
        return logits[..., 0], stats

    return StatefulNetwork(network.init, apply)


def translator(description: UNet | ResNet, shape: tuple[int, ...], out_channels: int) -> StatefulNetwork:
    """From images [B, *shape] of any size to images [B, H, W, out_channels] in [-1, 1].

    Sides that cannot be halved so often are filled up by repeating the last pixels, which the result does not show.

    Raises:
        ValueError: examples that are no images, or too small for instance normalisation.
    """
    _check_image("A translation is of", shape)
    if isinstance(description, UNet):
        network, halvings = _u_net(description, shape[-1], out_channels), len(description.channels)
    else:
        network, halvings = _res_net(description, shape[-1], out_channels), len(description.channels) - 1
        _check_instances(description, shape, halvings)

    def apply(params: Any, stats: Any, x: Array, training: bool = True) -> tuple[Array, Any]:
        height, width = x.shape[-3:-1]
        fill = [(0, -side % 2**halvings) for side in (height, width)]
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*fill, (0, 0)], mode="edge")
        made, stats = network.apply(params, stats, padded, training)
        return jnp.tanh(made[..., :height, :width, :]), stats

    return StatefulNetwork(network.init, apply)


def spectrally_normalized(network: StatefulNetwork) -> StatefulNetwork:
    """`network` with each kernel divided by its largest singular value; the power iterations are statistics too."""

    def init(key: Array) -> tuple[Any, Any]:
        network_key, vectors_key = random.split(key)
        params, stats = network.init(network_key)
        return params, (stats, adversarial.start_power_iterations(vectors_key, params))

    def apply(params: Any, stats: Any, inputs: Array, training: bool = True) -> tuple[Array, Any]:
        inner, vectors = stats
        normalized, advanced = adversarial.spectrally_normalized(params, vectors)
        outputs, inner = network.apply(normalized, inner, inputs, training)
        return outputs, (inner, advanced if training else vectors)

    return StatefulNetwork(init, apply)


def batch_norm(stats: Any, x: Array, training: bool) -> tuple[Array, Any]:
    """`x` [B, ..., C] less its mean and over its deviation in each channel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    In training they are the batch's own, and the statistics follow them; after it they are the statistics.
    """
    if not training:
        return (x - stats["mean"]) / jnp.sqrt(stats["variance"] + EPSILON), stats
    axes = tuple(range(x.ndim - 1))
    found = {"mean": x.mean(axes), "variance": x.var(axes)}
    followed = adversarial.moving_average(stats, jax.lax.stop_gradient(found), STATS_DECAY)
    return (x - found["mean"]) / jnp.sqrt(found["variance"] + EPSILON), followed


def instance_norm(x: Array) -> Array:
    """`x` [B, H, W, C] with mean 0 and deviation 1 in each channel of each image (Ulyanov et al. 2016)."""
    mean, variance = x.mean((-3, -2), keepdims=True), x.var((-3, -2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + EPSILON)


class _Layer(NamedTuple):
    """A product with a kernel, then normalisation and activation."""

    norm: Norm
    activation: Callable[[Array], Array] | None
    product: Callable[[Array, Array], Array]  # (inputs, kernel) -> outputs

    def init(self, key: Array, shape: tuple[int, ...], channels: int | None = None) -> tuple[Any, Any]:
        """Parameters and statistics for a kernel of `shape`, with `channels` of outputs if not its last axis."""
        channels = shape[-1] if channels is None else channels
        gain = 1.0 if self.activation is None else math.sqrt(2)
        # A transposed convolution with stride 2 sums over half of its kernel's rows and of its columns.
        params = {"kernel": networks.orthogonal(2.0 * gain if self.product is _up else gain)(key, shape)}
        if self.norm == "none":
            return {**params, "bias": jnp.zeros(channels)}, ()
        stats = {"mean": jnp.zeros(channels), "variance": jnp.ones(channels)} if self.norm == "batch" else ()
        return {**params, "scale": jnp.ones(channels), "offset": jnp.zeros(channels)}, stats

    def apply(self, params: Any, stats: Any, x: Array, training: bool) -> tuple[Array, Any]:
        """Outputs and statistics."""
        x = self.product(x, params["kernel"])
        if self.norm == "none":
            x = x + params["bias"]
        else:
            x, stats = batch_norm(stats, x, training) if self.norm == "batch" else (instance_norm(x), stats)
            x = x * params["scale"] + params["offset"]
        return (x if self.activation is None else self.activation(x)), stats


def _down(x: Array, kernel: Array) -> Array:
    return convolutions.convolve(x, kernel, (2, 2), "SAME")


def _same(x: Array, kernel: Array) -> Array:
    return convolutions.convolve(x, kernel, (1, 1), "SAME")


def _up(x: Array, kernel: Array) -> Array:
    return convolutions.transposed_convolve(x, kernel, 2)


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, SLOPE)


def _chain(layers: Sequence[_Layer]) -> Callable[..., tuple[Array, Any]]:
    """`apply` of layers one after the other."""

    def apply(params: Any, stats: Any, x: Array, training: bool = True) -> tuple[Array, Any]:
        after = []
        for layer, layer_params, layer_stats in zip(layers, params, stats, strict=True):
            x, layer_stats = layer.apply(layer_params, layer_stats, x, training)
            after.append(layer_stats)
        return x, tuple(after)

    return apply


def _sequence(layers: Sequence[_Layer], shapes: Sequence[tuple[int, ...]]) -> StatefulNetwork:
    """Layers one after the other, with kernels of `shapes`."""

    def init(key: Array) -> tuple[Any, Any]:
        keys = random.split(key, len(layers))
        pairs = [layer.init(key, shape) for layer, key, shape in zip(layers, keys, shapes, strict=True)]
        params, stats = zip(*pairs, strict=True)
        return params, stats

    return StatefulNetwork(init, _chain(layers))


def _downward(
    channels: tuple[int, ...], norm: Norm, shape: tuple[int, ...]
) -> tuple[list[_Layer], list[tuple[int, ...]]]:
    """Convolutions that halve the sides, none normalised that reads the image, and the shapes of their kernels."""
    layers = [_Layer("none" if i == 0 else norm, _leaky, _down) for i in range(len(channels))]
    shapes: list[tuple[int, ...]] = [(KERNEL, KERNEL, *pair) for pair in pairwise((shape[-1], *channels))]
    return layers, shapes


def _u_net(description: UNet, in_channels: int, out_channels: int) -> StatefulNetwork:
    channels, depth = description.channels, len(description.channels)
    down, down_shapes = _downward(channels, description.norm, (in_channels,))
    down[-1] = down[-1]._replace(norm="none")  # of one pixel nothing would be left
    up = [_Layer("none" if i == 0 else description.norm, None if i == 0 else nn.relu, _up) for i in range(depth)]
    inputs = [size if i == depth - 1 else 2 * size for i, size in enumerate(channels)]
    outputs = (out_channels, *channels[:-1])
    up_shapes = [(KERNEL, KERNEL, *pair) for pair in zip(inputs, outputs, strict=True)]
    layers, shapes = [*down, *up], [*down_shapes, *up_shapes]

    def apply(params: Any, stats: Any, x: Array, training: bool) -> tuple[Array, Any]:
        after, passed = list(stats), []
        for i in range(depth):
            x, after[i] = layers[i].apply(params[i], stats[i], x, training)
            passed.append(x)
        for i in reversed(range(depth)):
            x = x if i == depth - 1 else jnp.concatenate([x, passed[i]], -1)
            j = depth + i
            x, after[j] = layers[j].apply(params[j], stats[j], x, training)
        return x, tuple(after)

    return StatefulNetwork(_sequence(layers, shapes).init, apply)


def _res_net(description: ResNet, in_channels: int, out_channels: int) -> StatefulNetwork:
    channels, norm = description.channels, description.norm
    wide = channels[-1]
    first, first_shape = _Layer(norm, nn.relu, _same), (3, 3, in_channels, channels[0])
    down = [_Layer(norm, nn.relu, _down)] * (len(channels) - 1)
    blocks = [_Layer(norm, nn.relu, _same), _Layer(norm, None, _same)] * description.num_blocks
    up = [_Layer(norm, nn.relu, _up)] * (len(channels) - 1)
    pairs = list(pairwise(channels))
    layers = [first, *down, *blocks, *up, _Layer("none", None, _same)]
    shapes = [
        first_shape,
        *((KERNEL, KERNEL, *pair) for pair in pairs),
        *[(3, 3, wide, wide)] * len(blocks),
        *((KERNEL, KERNEL, *pair[::-1]) for pair in pairs[::-1]),
        (3, 3, channels[0], out_channels),
    ]
    start = 1 + len(down)

    def apply(params: Any, stats: Any, x: Array, training: bool) -> tuple[Array, Any]:
        after, before = [], x
        for i, layer in enumerate(layers):
            in_block = start <= i < start + len(blocks)
            if in_block and (i - start) % 2 == 0:
                before = x
            x, layer_stats = layer.apply(params[i], stats[i], x, training)
            if in_block and (i - start) % 2 == 1:
                x = before + x
            after.append(layer_stats)
        return x, tuple(after)

    return StatefulNetwork(_sequence(layers, shapes).init, apply)


def _stateless(network: networks.Network) -> StatefulNetwork:
    def apply(params: Any, stats: Any, inputs: Array, training: bool = True) -> tuple[Array, Any]:
        return network.apply(params, inputs), stats

    return StatefulNetwork(lambda key: (network.init(key), ()), apply)


def _check_dropout(description: Any) -> None:
    if getattr(description, "dropout", 0.0):
        raise ValueError(f"dropout={description.dropout}, but the players of a GAN have none: use dropout=0.")


def _check_instances(description: Patch | ResNet, shape: tuple[int, ...], halvings: int) -> None:
    """Less its own mean, an image of one pixel is zero whatever it was."""
    if description.norm == "instance" and max(shape[0], shape[1]) <= 2**halvings:
        raise ValueError(
            f"{shape[0]}x{shape[1]} pixels are one after {halvings} halvings, and its instance normalisation leaves "
            f"nothing of it: use fewer channels than {description.channels}, or norm='none'."
        )


def _check_image(what: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise ValueError(f"{what} images [height, width, channels], not examples of shape {shape}.")
