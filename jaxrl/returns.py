"""Returns and advantages along paths. Axes: T steps; whatever follows is batch.

`terminated` stops the bootstrap: nothing follows a task's end. `terminated | truncated` stops the recursion: what
follows an automatic reset belongs to another episode. A time limit is only the second.
"""

from jax import Array, lax
from jax import numpy as jnp


def generalized_advantage(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    gae_lambda: Array | float,
) -> Array:
    """GAE(lambda) advantages [T, ...] (Schulman et al. 2015, arXiv:1506.02438, eq. 16).

    All arrays [T, ...]; `next_value` is the value of the true successor, not of the observation after a reset.
    """
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    decay = discount * gae_lambda * (1.0 - (terminated | truncated))

    return _backward_sum(decay, delta)


def lambda_returns(
    reward: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lambda_: Array | float,
) -> Array:
    """Lambda-returns [T, ...] (Sutton and Barto 2018, equation 12.20).

    All arrays [T, ...]; `next_value` is the value of the true successor, not of the observation after a reset. With
    the highest action value there, these are the targets of Peng's Q(lambda). `lambda_` 0 gives one-step targets, 1
    the discounted rewards up to the episode's or the path's end and the value there.
    """
    bootstrap = jnp.where(terminated, 0.0, next_value)
    # The last step has no later return to mix in, as if it were a time limit.
    last = (terminated | truncated).at[-1].set(True)
    decay = discount * lambda_ * (1.0 - last)
    return _backward_sum(decay, reward + (discount - decay) * bootstrap)


def _backward_sum(decay: Array, term: Array) -> Array:
    """total[t] = term[t] + decay[t] * total[t + 1] [T, ...], with 0 after the last.

    Affine maps compose associatively, so the recursion needs log T vectorised passes instead of T tiny steps.
    """

    def compose(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        later_decay, later_sum = later
        decay, total = earlier
        return decay * later_decay, total + decay * later_sum

    return lax.associative_scan(compose, (decay, term), reverse=True)[1]


def explained_variance(prediction: Array, target: Array) -> Array:
    """[] share of the variance of `target` that `prediction` explains: 1 perfect, 0 no better than the mean."""
    return 1.0 - jnp.var(target - prediction) / jnp.maximum(jnp.var(target), jnp.finfo(target.dtype).tiny)


def standardize(x: Array) -> Array:
    """`x` [...] moved to mean 0 and scaled to variance 1 over all it holds; finite where it does not vary."""
    return (x - x.mean()) / (x.std() + 1e-8)
