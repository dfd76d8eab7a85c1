"""Causal convolutions: the gradient that is written out."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from generative import layers, masks


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "offsets",
    [
        masks.raster_offsets(5, center=True),
        masks.vertical_offsets(3, center=True),
        masks.horizontal_offsets(5, center=False),
    ],
)
def test_gradients_are_those_of_one_product_for_each_offset(offsets, stride):
    conv = layers.Conv(tuple(offsets), 2, 3, stride=stride)
    params, x = layers.init(conv, random.key(0)), random.normal(random.key(1), (2, 6, 5, 2))

    def by_offset(params, x):
        rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
        far = jnp.pad(x, ((0, 0), (8, 8), (8, 8), (0, 0)))
        parts = [
            far[:, 8 + down : 8 + down + stride * rows : stride, 8 + right : 8 + right + stride * columns : stride]
            @ kernel
            for (down, right), kernel in zip(offsets, params.kernel, strict=True)
        ]
        return sum(parts) + params.bias

    def gradients(function):
        return jax.grad(lambda params, x: jnp.sin(function(params, x)).sum(), (0, 1))(params, x)

    ours = gradients(lambda params, x: layers.apply(conv, params, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, gradients(by_offset))
