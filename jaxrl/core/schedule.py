"""Hyperparameters that change over a run.

Any field of any `Hyperparams` may hold a `Linear` in place of a number. The loop turns it into the number
of the moment before the learner sees it, so no learner knows about schedules, and both ends of a schedule
can be swept like every other traced number.
"""

from typing import Any, NamedTuple, TypeVar

import jax
from jax import Array
from jax import numpy as jnp

Hyperparams = TypeVar("Hyperparams")


class Linear(NamedTuple):
    """A straight line from `initial` to `final`, reached at the fraction `until` of the run, constant after."""

    initial: Any  # [] value at the first update
    final: Any = 0.0  # [] value from the fraction `until` on
    until: Any = 1.0  # [] fraction of the run in (0, 1]


def at(hparams: Hyperparams, progress: Array) -> Hyperparams:
    """`hparams` with every schedule replaced by its value [] at `progress` [] in [0, 1], the part of the run done."""

    def value(leaf):
        if not isinstance(leaf, Linear):
            return leaf
        fraction = jnp.clip(progress / leaf.until, 0.0, 1.0)
        # What stays as it is may be infinite.
        change = jnp.where(leaf.final == leaf.initial, 0.0, leaf.final - leaf.initial)
        return leaf.initial + fraction * change

    return jax.tree.map(value, hparams, is_leaf=lambda leaf: isinstance(leaf, Linear))
