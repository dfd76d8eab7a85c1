"""What is measured of generative models. Likelihoods in nats."""

import math
from collections.abc import Callable, Sequence

from jax import Array, lax, random
from jax import numpy as jnp
from jax.scipy.special import logsumexp

from jaxrl.core import checks


def draw_log_weights(
    key: Array, log_weights: Callable[[Array, int], Array], num_samples: int, chunk_size: int = 100
) -> Array:
    """Logarithms [num_samples, ...] of importance weights.

    `log_weights(key, count)` draws `count` latents and returns log p(x, z) - log q(z | x), [count, ...]. At most
    `chunk_size` latents are held at once.
    """
    chunk_size = min(chunk_size, num_samples)
    number = jnp.arange(math.ceil(num_samples / chunk_size))
    drawn = lax.map(lambda index: log_weights(random.fold_in(key, index), chunk_size), number)
    return drawn.reshape(-1, *drawn.shape[2:])[:num_samples]  # the last chunk may draw too many


def importance_counts(num_samples: int) -> tuple[int, ...]:
    """The powers of ten that divide `num_samples`, and itself: points of an `importance_curve`."""
    powers = [10**power for power in range(len(str(num_samples))) if num_samples % 10**power == 0]
    return tuple(dict.fromkeys([*powers, num_samples]))


def importance_curve(log_weights: Array, counts: Sequence[int]) -> Array:
    """The bounds [len(counts), ...] with K = each of `counts` importance weights, from the same weights [S, ...].

    Each is the log of the mean of K weights: Burda et al. 2015, arXiv:1509.00519, equation 8. In expectation it is
    below log p(x), and approaches it as K grows; K = 1 is the evidence lower bound. The weights are split into groups
    of K, whose bounds are averaged.

    Raises:
        ValueError: a count that does not divide their number.
    """
    size = len(log_weights)
    for count in counts:
        checks.divides(count, size, "a count", "the number of weights")
    groups = [log_weights.reshape(size // count, count, *log_weights.shape[1:]) for count in counts]
    return jnp.stack([(logsumexp(group, axis=1) - math.log(group.shape[1])).mean(0) for group in groups])
