"""A small classifier of images, trained here, that says which class a generated image shows."""

from typing import Any

import optax
from jax import Array, lax, random

from generative import data
from jaxrl.core import fit, networks

BATCH_SIZE = 128
LEARNING_RATE = 1e-3
DESCRIPTION = networks.MLP((256,), "relu", dropout=0.3)


def logits(params: Any, x: Array, num_classes: int, key: Array | None = None) -> Array:
    """[N, num_classes] of images `x` [N, *shape] as `data.scale` gives them; a key turns dropout on."""
    return networks.build(DESCRIPTION, x.shape[1:], num_classes).apply(params, x, key)


def features(params: Any, x: Array) -> Array:
    """The hidden layer [N, D] of images `x` [N, *shape] as `data.scale` gives them."""
    return networks.build(DESCRIPTION, x.shape[1:]).apply(params, x)


def train(
    key: Array, examples: Any, shape: tuple[int, ...], levels: int | None, num_classes: int, num_updates: int
) -> Any:
    """Parameters after `num_updates` steps of Adam on the cross-entropy of `examples` of `shape`."""
    init_key, cursor_key, dropout_key = random.split(key, 3)
    network = networks.build(DESCRIPTION, shape, num_classes)
    optimizer = fit.Optimizer()(LEARNING_RATE)

    def loss(params: Any, key: Array, batch: data.Examples) -> tuple[Array, dict[str, Array]]:
        outputs = logits(params, data.scale(batch.x, levels), num_classes, key)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, batch.label).mean(), {}

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        fitted, cursor = carry
        cursor, batch = data.draw(cursor, examples, BATCH_SIZE)
        fitted, _ = fit.step(optimizer, loss, fitted, key, batch)
        return (fitted, cursor), None

    start = fit.start(fit.Optimizer(), network.init(init_key)), data.start(cursor_key)
    (fitted, _), _ = lax.scan(step, start, random.split(dropout_key, num_updates))
    return fitted.params
