"""Log-probability of examples given a decoder's outputs, in nats, summed over features. Axes: D features."""

import math

from jax import Array
from jax import numpy as jnp


def bernoulli(logits: Array, x: Array) -> Array:
    """Log-probability [...] of `x` [..., D] in [0, 1] under independent Bernoulli variables with `logits` [..., D].

    Between 0 and 1 it is the expected log-probability of `x` binarised: a loss, but no likelihood of `x` itself.
    """
    return (x * logits - softplus(logits)).sum(-1)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), to an absolute error of 1e-7. `jax.nn.softplus` is exact where it is tiny, at twice the cost."""
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


def gaussian(mean: Array, scale: Array, x: Array) -> Array:
    """Log-density [...] of `x` [..., D] under independent normal variables with `mean` [..., D] and `scale`."""
    return (-0.5 * jnp.square((x - mean) / scale) - jnp.log(scale) - 0.5 * math.log(2 * math.pi)).sum(-1)
