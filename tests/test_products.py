"""Products whose weight gradient is summed over blocks: the same numbers, in every kind of differentiation."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl.core import networks, products


@pytest.mark.parametrize(
    ("rows", "kernel_size", "blocks"),
    [(100, 10, 1), (128, 10, 1), (255, 10, 1), (256, 10, 2), (384, 10, 2), (2048, 64 * 64, 16), (2048, 2**15, 1)],
)
def test_number_of_blocks(rows, kernel_size, blocks):
    assert products.num_blocks(rows, kernel_size) == blocks
    assert rows % blocks == 0


@pytest.mark.parametrize("shape", [(7,), (256, 7), (4, 128, 7)])
def test_derivatives_are_those_of_a_product(shape):
    x, kernel = random.normal(random.key(0), shape), random.normal(random.key(1), (7, 3))

    def scalar(product):
        return lambda x, kernel: jnp.sin(product(x, kernel)).sum()

    ours, plain = scalar(products.product), scalar(jnp.matmul)
    arguments, directions = (x, kernel), (jnp.cos(x), jnp.cos(kernel))

    def close(transform):
        one, other = transform(ours)(*arguments), transform(plain)(*arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, other)

    close(lambda function: function)
    close(lambda function: jax.grad(function, (0, 1)))
    close(lambda function: lambda *args: jax.jvp(function, args, directions))
    close(lambda function: lambda *args: jax.jvp(jax.grad(function, 1), args, directions))


def test_lanes_are_alike():
    x, kernels = random.normal(random.key(0), (256, 7)), random.normal(random.key(1), (5, 7, 3))
    gradient = jax.grad(lambda kernel: jnp.sin(products.product(x, kernel)).sum())
    lanes = jax.vmap(gradient)(kernels)
    for kernel, lane in zip(kernels, lanes, strict=True):
        np.testing.assert_allclose(lane, gradient(kernel), rtol=1e-4, atol=1e-4)


def test_networks_contract_a_long_batch_in_blocks():
    network = networks.build(networks.MLP((64, 64)), (64,), 2)
    params = network.init(random.key(0))
    gradient = jax.grad(lambda params, x: network.apply(params, x).sum())
    text = jax.jit(gradient).lower(params, jnp.ones((2048, 64))).as_text()
    assert "tensor<16x64x64xf32>" in text and "tensor<16x64x2xf32>" in text
