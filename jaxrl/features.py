"""Features of observations, for values that are linear in them: value = weights . features.

A table is the case in which each observation has a feature of its own, which is 1 there and 0 elsewhere.
Axes: D features, M numbers of an observation; leading axes are batch.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from jaxrl.envs import Spec


@dataclass(frozen=True)
class Table:
    """One feature per discrete observation."""


@dataclass(frozen=True)
class Fourier:
    """Cosines of all frequencies up to an order (Konidaris et al. 2011, doi:10.1609/aaai.v25i1.7903)."""

    low: tuple[float, ...]  # of each number of an observation, mapped to 0
    high: tuple[float, ...]  # mapped to 1
    order: int = 3  # highest frequency; (order + 1) ** M features


@dataclass(frozen=True)
class Radial:
    """Gaussian bumps about a grid of centres, normalised to sum to 1 (Sutton and Barto 2018, section 9.5.5)."""

    low: tuple[float, ...]  # of each number of an observation, the first centre
    high: tuple[float, ...]  # the last centre
    num: int = 8  # centres per number; num ** M features
    width: float = 1.0  # standard deviation, in distances of neighbours


Description = Table | Fourier | Radial


class Features(NamedTuple):
    """Static: their number and a function."""

    size: int  # D
    apply: Callable[[Array], Array]  # obs [..., *obs_shape] -> [..., D]


def build(description: Description, spec: Spec) -> Features:
    """The features of a description for the observations of an environment.

    Raises:
        ValueError: a table for observations that cannot be counted, bounds that do not fit the observations.
    """
    if isinstance(description, Table):
        if spec.num_obs is None:
            raise ValueError(
                f"{spec.name} has observations of shape {spec.obs_shape}, of which no table can be made: use "
                "features.Fourier or features.Radial with bounds for each number."
            )
        num_obs = spec.num_obs
        return Features(num_obs, lambda obs: jax.nn.one_hot(obs, num_obs))

    low, high = np.asarray(description.low, np.float32), np.asarray(description.high, np.float32)
    size = math.prod(spec.obs_shape)
    if spec.num_obs is not None or not low.shape == high.shape == (size,) or not (low < high).all():
        raise ValueError(
            f"low={description.low} and high={description.high} must bound each of the {size} numbers that "
            f"{spec.name} shows, low below high; discrete observations go into a Table."
        )
    steps = description.order + 1 if isinstance(description, Fourier) else description.num
    if steps < 2:
        raise ValueError(f"{description} has one feature for everything: use at least order=1 or num=2.")
    grid = np.array([*itertools.product(range(steps), repeat=size)], np.float32)  # [D, M]

    def unit(obs: Array) -> Array:
        flat = obs.reshape(*obs.shape[: obs.ndim - len(spec.obs_shape)], size)
        return jnp.clip((flat - low) / (high - low), 0.0, 1.0)

    def cosines(obs: Array) -> Array:
        angle = jnp.pi * jnp.matmul(unit(obs), grid.T, precision="highest")
        # The paper divides the learning rate of a feature by its frequency, which is the same as to divide the
        # feature by the frequency's root.
        frequency = np.sqrt(np.square(grid).sum(-1))
        return jnp.cos(angle) / jnp.sqrt(jnp.where(frequency > 0, frequency, 1.0))

    def bumps(obs: Array, width: float) -> Array:
        distance = jnp.square(unit(obs)[..., None, :] * (steps - 1) - grid).sum(-1)
        return jax.nn.softmax(-distance / (2 * width**2))

    if isinstance(description, Fourier):
        return Features(len(grid), cosines)
    return Features(len(grid), partial(bumps, width=description.width))
