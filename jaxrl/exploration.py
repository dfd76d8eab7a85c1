"""How to try other actions than the best known one: as the chance of each of A actions, or as noise on continuous ones.

Axes: A actions; leading axes are batch.
"""

from typing import Any, Literal

import jax
from jax import Array, random
from jax import numpy as jnp

Rule = Literal["epsilon_greedy", "softmax", "ucb"]


def greedy(values: Array) -> Array:
    """The best actions alike, [..., A] of values [..., A]: a new table, all zeros, prefers none."""
    best = (values == values.max(-1, keepdims=True)).astype(values.dtype)
    return best / best.sum(-1, keepdims=True)


def epsilon_greedy(values: Array, epsilon: Array | float) -> Array:
    """With chance `epsilon` [] any action, else one of the best."""
    return epsilon / values.shape[-1] + (1 - epsilon) * greedy(values)


def softmax(values: Array, temperature: Array | float) -> Array:
    """Chances proportional to exp(value / temperature); a temperature [] of 0 is greedy."""
    # Of differences from the best: of the values themselves, all could be infinite.
    behind = values - values.max(-1, keepdims=True)
    return jax.nn.softmax(behind / jnp.maximum(temperature, jnp.finfo(values.dtype).tiny))


def ucb(values: Array, visits: Array, width: Array | float) -> Array:
    """The actions of highest upper confidence bound, value + width * sqrt(log(total visits) / visits).

    Untried actions first (Auer et al. 2002, doi:10.1023/A:1013689704352; their UCB1 has width sqrt(2) for rewards in
    [0, 1]).
    """
    total = jnp.maximum(visits.sum(-1, keepdims=True), 1.0)
    bound = values + width * jnp.sqrt(jnp.log(total) / jnp.maximum(visits, 1.0))
    return greedy(jnp.where(visits > 0, bound, jnp.inf))


def chances(rule: Rule, values: Array, visits: Array, amount: Array | float) -> Array:
    """[..., A] by a rule's name; `amount` [] is its epsilon, temperature or width."""
    match rule:
        case "epsilon_greedy":
            return epsilon_greedy(values, amount)
        case "softmax":
            return softmax(values, amount)
        case "ucb":
            return ucb(values, visits, amount)
    raise ValueError(f"Unknown exploration {rule!r}: use epsilon_greedy, softmax or ucb.")


def ornstein_uhlenbeck(key: Array, noise: Array, reversion: Any, scale: Any) -> Array:
    """Noise [...] one step after `noise` [...]: correlated over time, of standard deviation `scale` in the long run.

    With `reversion` 1 each step is Gaussian noise of its own; the smaller it is, the longer noise lasts. The process
    of Lillicrap et al. 2016, arXiv:1509.02971, section 7, theta 0.15 and sigma 0.2, is reversion 0.15 and scale 0.38.
    """
    kept = 1 - reversion
    return kept * noise + scale * jnp.sqrt(1 - kept**2) * random.normal(key, noise.shape)
