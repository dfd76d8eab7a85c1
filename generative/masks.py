"""Who may see whom: the orders and masks of autoregressive networks.

Dense networks are masked by degrees (Germain et al. 2015, arXiv:1502.03509, equations 12 and 13): the degree of a
variable is its place in the order, and a hidden unit of degree m sees the variables of places 0 to m. Convolutions are
masked by leaving out the offsets of pixels that are not drawn yet (van den Oord et al. 2016, arXiv:1601.06759,
section 3.4).
Axes: D variables, F features, M masks.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax import Array, random
from jax import numpy as jnp

from jaxrl.core import shuffle

Offset = tuple[int, int]  # rows down and columns right of the pixel being drawn


class Degrees(NamedTuple):
    """One mask of a dense network; a stack of them has leaves [M, ...]."""

    variables: Array  # [D] int32, the place of each variable in the order
    hidden: tuple[Array, ...]  # [F] int32 for each hidden layer, in 0 .. D - 2


def spread(num_units: int, num_variables: int) -> np.ndarray:
    """Degrees [num_units] as even as can be, ascending.

    Germain et al. draw each degree; here each occurs equally often, up to one, so that a sampler knows how many units
    depend on a variable.
    """
    return np.arange(num_units) * max(num_variables - 1, 1) // num_units


def degrees(key: Array, num_variables: int, hidden: Sequence[int], order: Literal["raster", "random"]) -> Degrees:
    """A mask: the order of the variables, as they are numbered or random, and degrees dealt to units at random."""
    order_key, *hidden_keys = random.split(key, 1 + len(hidden))
    numbers = jnp.arange(num_variables)
    variables = numbers if order == "raster" else shuffle.permutation(order_key, num_variables)
    dealt = [
        jnp.asarray(spread(size, num_variables))[shuffle.permutation(key, size)]
        for key, size in zip(hidden_keys, hidden, strict=True)
    ]
    return Degrees(variables.astype(jnp.int32), tuple(each.astype(jnp.int32) for each in dealt))


def orders(degrees: Any) -> Array:
    """The variables [..., D] in the order they are drawn, given the place [..., D] of each."""
    return jnp.argsort(degrees, axis=-1)


def raster_offsets(kernel: int, center: bool) -> list[Offset]:
    """What a square kernel of odd side may see in raster order: rows above, and the row itself up to the pixel.

    The pixel itself, seen by a mask of type B and not by one of type A, only if `center`.
    """
    reach = kernel // 2
    above = vertical_offsets(kernel, center=False)
    return [*above, *((0, column) for column in range(-reach, 1 if center else 0))]


def vertical_offsets(kernel: int, center: bool) -> list[Offset]:
    """The rows of a square kernel above the pixel's, with the pixel's own whole row only if `center`."""
    reach = kernel // 2
    return [(row, column) for row in range(-reach, 1 if center else 0) for column in range(-reach, reach + 1)]


def horizontal_offsets(kernel: int, center: bool) -> list[Offset]:
    """The pixels of the same row to the left, and the pixel itself only if `center`."""
    return [(0, column) for column in range(-(kernel // 2), 1 if center else 0)]


def colors(in_size: int, out_size: int, channels: int, strict: bool) -> np.ndarray:
    """Which features [in_size, out_size] of one pixel see each other, bool.

    Features belong to the colours in equal, consecutive parts; a colour sees those before it, and itself unless
    `strict` (mask A).
    """
    before = np.arange(in_size) * channels // in_size
    after = np.arange(out_size) * channels // out_size
    return before[:, None] < after if strict else before[:, None] <= after


def earlier(order: Any) -> np.ndarray:
    """Bool [D, D]: whether the variable of the column is drawn before that of the row."""
    place = np.argsort(np.asarray(order))
    return place < place[:, None]
