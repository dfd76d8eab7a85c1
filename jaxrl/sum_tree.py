"""A tree of sums: drawing one of L leaves in proportion to its weight, and changing weights, in O(log L).

Each entry of a level is the sum of 16 entries of the level below, so that a million leaves are five levels. A sum is
always taken anew from its children, never adjusted by a difference: rounding does not accumulate.
Axes: L leaves, B draws.
"""

from jax import Array, lax, random
from jax import numpy as jnp

BRANCHING = 16

Tree = tuple[Array, ...]  # levels from the leaves to the root's children, each [groups, 16] float32


def init(num_leaves: int) -> Tree:
    """All weights zero."""
    levels: list[Array] = []
    size = num_leaves
    while not levels or size > 1:
        size = -(-size // BRANCHING)  # groups
        levels.append(jnp.zeros((size, BRANCHING)))
    return tuple(levels)


def total(tree: Tree) -> Array:
    """[] sum of all weights."""
    return tree[-1].sum()


def put(tree: Tree, index: Array, weight: Array) -> Tree:
    """`tree` with `weight` [B] at the leaves `index` [B]. An index that occurs twice must have one weight."""
    levels = []
    for level in tree:
        group = index // BRANCHING
        level = level.at[group, index % BRANCHING].set(weight, mode="promise_in_bounds")
        levels.append(level)
        index, weight = group, level.at[group].get(mode="promise_in_bounds").sum(-1)
    return tuple(levels)


def draw(key: Array, tree: Tree, num_draws: int) -> tuple[Array, Array]:
    """Indices [B] of leaves and their weights [B], each leaf drawn in proportion to its weight.

    Stratified over the nodes halfway down the tree: draw i falls into one that has a share in the i-th of B equal parts
    of the total (Schaul et al. 2016, arXiv:1511.05952, appendix B.2.1). Within a node, draws are independent.
    """
    uniform = random.uniform(key, (2, num_draws))
    return find(tree, (jnp.arange(num_draws) + uniform[0]) / num_draws, uniform[1])


def find(tree: Tree, fraction: Array, remainder: Array) -> tuple[Array, Array]:
    """The leaf at `fraction` [B] of the total weight: its index [B] and weight [B].

    Never one of weight zero, whatever the rounding, unless all are. The 24 bits of a number in [0, 1) cannot tell a
    million leaves apart: halfway down, `remainder` [B] takes over.
    """
    index = jnp.zeros(fraction.shape, jnp.int32)
    places = jnp.arange(BRANCHING)
    upto = (places[:, None] <= places).astype(jnp.float32)
    for depth, level in enumerate(reversed(tree)):
        children = level.at[index].get(mode="promise_in_bounds")
        sums = jnp.matmul(children, upto, precision=lax.Precision.HIGHEST)
        if depth == 0:
            mass = fraction * sums[:, -1]
        elif depth == len(tree) // 2:
            mass = remainder * sums[:, -1]
        # The first child whose sum exceeds the mass, or the last with any weight if rounding leaves none.
        heavy = children > 0
        first = jnp.where(heavy & (sums > mass[:, None]), places, BRANCHING).min(-1)
        last = jnp.where(heavy, places, 0).max(-1)
        child = jnp.minimum(first, last)
        before = jnp.where(places < child[:, None], children, 0.0).sum(-1)
        mass = jnp.maximum(mass - before, 0.0)
        index = index * BRANCHING + child
    # Read from the same entries: a second look at the tree, once it may be written again, would cost a copy of it.
    return index, jnp.where(places == child[:, None], children, 0.0).sum(-1)
