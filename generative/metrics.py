"""What is measured of generative models. Likelihoods in nats."""

import math
from collections.abc import Callable, Sequence

from jax import Array, lax, random
from jax import numpy as jnp
from jax.scipy.special import logsumexp

from jaxrl.core import checks


def importance_log_likelihood(
    key: Array, log_weights: Callable[[Array, int], Array], num_samples: int, chunk_size: int = 100
) -> Array:
    """Log of the mean of K = `num_samples` importance weights: the bound of Burda et al. 2015, arXiv:1509.00519, eq. 8.

    `log_weights(key, count)` draws `count` latents and returns log p(x, z) - log q(z | x), [count, ...]. At most
    `chunk_size` are held at once. In expectation the result [...] is below log p(x), and approaches it as K grows;
    K = 1 is the evidence lower bound.
    """
    chunk_size = min(chunk_size, num_samples)
    num_chunks = math.ceil(num_samples / chunk_size)

    def chunk_sum(index: Array) -> Array:
        drawn = log_weights(random.fold_in(key, index), chunk_size)
        number = index * chunk_size + jnp.arange(chunk_size)
        used = (number < num_samples).reshape(-1, *[1] * (drawn.ndim - 1))  # the last chunk may draw too many
        return logsumexp(jnp.where(used, drawn, -jnp.inf), axis=0)

    def add(total: Array, index: Array) -> tuple[Array, None]:
        return jnp.logaddexp(total, chunk_sum(index)), None

    total, _ = lax.scan(add, chunk_sum(jnp.int32(0)), jnp.arange(1, num_chunks))
    return total - math.log(num_samples)


def importance_curve(log_weights: Array, counts: Sequence[int]) -> Array:
    """The bounds [len(counts), ...] with K = each of `counts` importance weights, from the same weights [S, ...].

    They are split into groups of K, whose bounds are averaged: with K = 1 the mean of all logarithms.

    Raises:
        ValueError: a count that does not divide their number.
    """
    size = len(log_weights)
    for count in counts:
        checks.divides(count, size, "a count", "the number of weights")
    groups = [log_weights.reshape(size // count, count, *log_weights.shape[1:]) for count in counts]
    return jnp.stack([(logsumexp(group, axis=1) - math.log(group.shape[1])).mean(0) for group in groups])
