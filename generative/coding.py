"""Encoders and decoders of examples, with or without the label as a further input.

Axes: B batch, D features of an example, E outputs of the encoder, Z latents, Y classes.
"""

import math
from typing import Any, NamedTuple

from jax import Array
from jax import numpy as jnp

from generative import data, residual
from generative.residual import Residual
from jaxrl.core import networks


class Inputs(NamedTuple):
    """A batch as networks read it."""

    x: Array  # [B, *shape], scaled or binarised
    label: Array | None = None  # [B, Y] one-hot, or None


class Networks(NamedTuple):
    """Functions of parameters, inputs, labels [B, Y] or None, and a key that turns dropout on, or None."""

    encoder: networks.Network  # apply(params, x [B, *shape], label, key) -> [B, E]
    decoder: networks.Network  # apply(params, latent [..., B, Z], label, key) -> [..., B, D]


def build(
    spec: data.Spec,
    encoder: networks.MLP | networks.CNN | Residual | networks.Network,
    decoder: networks.MLP | networks.TransposedCNN | Residual | networks.Network,
    num_outputs: int,
    latent_size: int,
    num_labels: int = 0,
) -> Networks:
    """The networks of two descriptions, or of two networks; these and residual ones know nothing of dropout keys.

    The [Y] values of a label, 0 but for a 1, are further inputs of an MLP and further channels for other encoders.

    Raises:
        ValueError: a convolutional network and examples that are no images, or whose sides do not suit it.
    """
    *axes, channels = (math.prod(spec.shape),) if isinstance(encoder, networks.MLP) else spec.shape
    if isinstance(encoder, networks.Network):
        first = _without_key(encoder)
    elif isinstance(encoder, Residual):
        first = _without_key(residual.encoder(encoder, (*axes, channels + num_labels), num_outputs))
    else:
        first = networks.build(encoder, (*axes, channels + num_labels), num_outputs, 1.0)
    if isinstance(decoder, networks.Network):
        second = _without_key(decoder)
    elif isinstance(decoder, Residual):
        second = _without_key(residual.decoder(decoder, latent_size + num_labels, spec.shape))
    else:
        second = networks.image_generator(decoder, latent_size + num_labels, spec.shape, 1.0)

    def encode(params: Any, x: Array, label: Array | None, key: Array | None) -> Array:
        planes = None if label is None else label.reshape(len(x), *[1] * len(axes), -1)
        return first.apply(params, with_label(x.reshape(len(x), *axes, channels), planes), key)

    def decode(params: Any, latent: Array, label: Array | None, key: Array | None) -> Array:
        outputs = second.apply(params, with_label(latent, label), key)
        return outputs.reshape(*latent.shape[:-1], -1)

    return Networks(networks.Network(first.init, encode), networks.Network(second.init, decode))


def with_label(x: Array, label: Array | None) -> Array:
    """`x` [..., C] with its `label` [..., Y], with axes of 1 where it is the same, as Y channels more."""
    if label is None:
        return x
    return jnp.concatenate([x, jnp.broadcast_to(label, (*x.shape[:-1], label.shape[-1]))], -1)


def _without_key(network: networks.Network) -> networks.Network:
    return networks.Network(network.init, lambda params, inputs, key: network.apply(params, inputs))
