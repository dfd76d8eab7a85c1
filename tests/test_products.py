"""Products whose weight gradient is computed transposed: the same numbers, in every kind of differentiation."""

import re

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl.core import networks, products


@pytest.mark.parametrize("shape", [(7,), (256, 7), (4, 128, 7)])
@pytest.mark.parametrize("num_outputs", [3, 9])
def test_derivatives_are_those_of_a_product(shape, num_outputs):
    x, kernel = random.normal(random.key(0), shape), random.normal(random.key(1), (7, num_outputs))

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


@pytest.mark.parametrize("transform", [lambda function: function, jax.vmap])
def test_weight_gradients_are_fast_products(transform):
    """Every product of a compiled gradient contracts the columns of its left factor with the rows of its right one."""
    network = networks.build(networks.MLP((64, 64)), (4,), 2)
    x, keys = random.normal(random.key(0), (3, 256, 4)), random.split(random.key(1), 3)
    params = jax.vmap(network.init)(keys)
    if transform is not jax.vmap:
        x, params = x[0], jax.tree.map(lambda leaf: leaf[0], params)
    gradient = transform(jax.grad(lambda params, x: jnp.sin(network.apply(params, x)).sum()))
    text = jax.jit(gradient).lower(params, x).compile().as_text()
    products_of_text = [line for line in text.splitlines() if re.search(r"= \S+ dot\(", line)]
    assert products_of_text
    for line in products_of_text:
        dims = re.search(r"(?:lhs_batch_dims=\{(\d*)\}, )?lhs_contracting_dims=\{(\d)\}", line)
        assert dims, line
        assert int(dims[2]) == (2 if dims[1] else 1), line
