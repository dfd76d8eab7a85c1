"""Objectives of importance-weighted policy gradients, per transition. Leading axes [...] are batch."""

from jax import Array
from jax import numpy as jnp


def clipped_surrogate(log_ratio: Array, advantage: Array, clip: Array) -> Array:
    """The pessimistic one of the plain and the clipped importance-weighted advantage [...].

    Schulman et al. 2017, arXiv:1707.06347, equation 7.
    """
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def penalized_surrogate(log_ratio: Array, advantage: Array, kl: Array, kl_coef: Array) -> Array:
    """Importance-weighted advantage less the weighted divergence [...] of the new policy from the old.

    Schulman et al. 2017, equation 8: `kl` [...] is that of the whole distributions, `kl_coef` [] its beta.
    """
    return jnp.exp(log_ratio) * advantage - kl_coef * kl


def adapt_kl_coef(kl_coef: Array, kl: Array, target_kl: Array) -> Array:
    """The weight [] of the penalty for the next update: half or twice as much if `kl` [] missed the target [].

    Schulman et al. 2017, section 4. Bounded, because no doubling would bring back a weight that halving made 0.
    """
    halved = jnp.where(kl < target_kl / 1.5, kl_coef / 2, kl_coef)
    adapted = jnp.where(kl > target_kl * 1.5, kl_coef * 2, halved)
    return jnp.clip(adapted, 1e-6, 1e6)


def clipped_value_loss(value: Array, old_value: Array, target: Array, clip: Array) -> Array:
    """Half squared error [...], the larger with and without `value` kept within `clip` of the old."""
    clipped = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(clipped - target))
