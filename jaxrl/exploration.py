"""How to try other actions than the best known one: as the chance of each action, given its value.

Axes: A actions; leading axes are batch.
"""

from typing import Literal

import jax
from jax import Array
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
    """Chances proportional to exp(value / temperature); a temperature [] near 0 is greedy."""
    return jax.nn.softmax(values / jnp.maximum(temperature, jnp.finfo(values.dtype).tiny))


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
