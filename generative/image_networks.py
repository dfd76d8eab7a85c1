"""Networks of adversarial models, with what they remember of past batches as explicit statistics.

Axes: B batch, H height, W width, C channels, Z latents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from jaxrl.core import networks


class StatefulNetwork(NamedTuple):
    """`init(key) -> (params, stats)` and `apply(params, stats, inputs, training=True) -> (outputs, stats)`."""

    init: Callable[..., Any]
    apply: Callable[..., Any]


def stateless(network: networks.Network) -> StatefulNetwork:
    """`network` with nothing to remember."""

    def apply(params: Any, stats: Any, inputs: Array, training: bool = True) -> tuple[Array, Any]:
        return network.apply(params, inputs), stats

    return StatefulNetwork(lambda key: (network.init(key), ()), apply)


def generator(description: networks.MLP, in_size: int, shape: tuple[int, ...]) -> StatefulNetwork:
    """From inputs [B, in_size] to examples [B, *shape]."""
    return stateless(networks.image_generator(description, in_size, shape, 1.0))


def discriminator(description: networks.MLP | networks.CNN, shape: tuple[int, ...]) -> StatefulNetwork:
    """From examples [B, *shape] to logits [B].

    Raises:
        ValueError: a convolutional network and examples that are no images.
    """
    network = networks.build(description, shape, 1, 1.0)

    def apply(params: Any, inputs: Array) -> Array:
        return network.apply(params, inputs)[..., 0]

    return stateless(networks.Network(network.init, apply))
