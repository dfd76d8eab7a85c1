"""Residual networks: a block by hand, how they start, shapes, and what they refuse."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from generative import residual
from generative.residual import Block, Residual


def test_a_block_by_hand():
    """Kernels that pass on the pixel in their middle: what the convolutions give is known."""
    middle = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    params = {
        "first": {"kernel": 2 * middle, "bias": jnp.array([-3.0])},
        "last": {"kernel": middle, "bias": jnp.ones(1)},
    }
    x = jnp.array([[-1.0, 1.0], [2.0, 4.0]])[..., None]
    keep = residual.residual_block(Block(1, 1, "keep"), params, x)
    np.testing.assert_allclose(keep, x + jnp.array([[0.0, 0.0], [1.0, 5.0]])[..., None] + 1)
    # Four pixels become one: the mean of the skip, and of the branch a sum over the middle of a larger kernel.
    corner = {"kernel": jnp.zeros((4, 4, 1, 1)).at[1:3, 1:3].set(1.0), "bias": jnp.zeros(1)}
    halved = residual.residual_block(Block(1, 1, "halve"), {**params, "last": corner}, x)
    np.testing.assert_allclose(halved, [[[x.mean() + 6]]])
    skip = {"skip": jnp.array([[1.0, -1.0]]), "last": {"kernel": jnp.zeros((4, 4, 1, 2)), "bias": jnp.zeros(2)}}
    doubled = residual.residual_block(Block(1, 2, "double"), {**params, **skip}, x)
    np.testing.assert_array_equal(doubled[..., 0], np.kron(x[..., 0], np.ones((2, 2))))
    np.testing.assert_array_equal(doubled[..., 1], -doubled[..., 0])


def test_shapes_and_leading_axes():
    description = Residual((4, 6), num_blocks=2)
    encoder, decoder = residual.encoder(description, (12, 8, 3), 5), residual.decoder(description, 5, (12, 8, 3))
    for network, inputs, outputs in ((encoder, (12, 8, 3), (5,)), (decoder, (5,), (12, 8, 3))):
        params = jax.eval_shape(network.init, random.key(0))
        for axes in ((), (2,), (3, 2)):
            assert jax.eval_shape(network.apply, params, jnp.zeros((*axes, *inputs))).shape == (*axes, *outputs)
    assert len(params["blocks"]) == 2 + 1 + 2


@pytest.mark.slow
def test_every_parameter_matters():
    description = Residual((3, 4))
    for network, shape in (
        (residual.encoder(description, (8, 4, 2), 5), (2, 8, 4, 2)),
        (residual.decoder(description, 5, (8, 4, 2)), (2, 5)),
    ):
        params = jax.jit(network.init)(random.key(0))
        params = jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(random.key(1), leaf.shape), params)
        inputs = random.normal(random.key(2), shape)
        gradients = jax.jit(jax.grad(lambda params: jnp.square(network.apply(params, inputs)).sum()))(params)  # noqa: B023
        assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"channels=\(\), num_blocks=1"):
        Residual(())
    with pytest.raises(ValueError, match=r"28x30 pixels cannot be halved 2 times: use fewer channels than \(32, 64\)"):
        residual.decoder(Residual(), 5, (28, 30, 1))
    with pytest.raises(ValueError, match=r"not examples of shape \(7,\)"):
        residual.encoder(Residual(), (7,), 5)
