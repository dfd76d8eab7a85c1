"""How good samples are, without a pretrained network: distances between sets of points, and modes counted.

Points are whatever the distance between them should be measured in: coordinates, pixels or features of a classifier.
Axes: N real points, M generated points, D coordinates, K modes.
"""

from typing import NamedTuple

from jax import Array, lax
from jax import numpy as jnp

from generative.toys import Mixture


class Neighbours(NamedTuple):
    """How two sets of points lie among each other; each [] is best at 1."""

    precision: Array  # share of generated points inside a ball around some real point
    recall: Array  # share of real points inside a ball around some generated point
    density: Array  # real balls around a generated point, over k; 1 in expectation where both sets are alike
    coverage: Array  # share of real balls that hold a generated point


class Modes(NamedTuple):
    """What samples found of a mixture; each []."""

    covered: Array  # number of modes with a sample within 3 standard deviations of their mean
    quality: Array  # share of samples within 3 standard deviations of some mean; 0.989 of the mixture's own in a plane
    reverse_kl: Array  # nats, see `reverse_kl`


def squared_distances(x: Array, y: Array) -> Array:
    """[N, M] between `x` [N, D] and `y` [M, D]; not below 0, whatever is lost in rounding."""
    x, y = x - x.mean(0), y - x.mean(0)  # far from the origin, squares would leave nothing of their differences
    product = jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
    return jnp.maximum(jnp.square(x).sum(-1)[:, None] + jnp.square(y).sum(-1) - 2.0 * product, 0.0)


def squared_mmd(x: Array, y: Array, bandwidth: Array | None = None) -> Array:
    """Squared maximum mean discrepancy [] of `x` [N, D] and `y` [M, D], unbiased: below 0 where they are alike.

    Gretton et al. 2012 (JMLR 13), equation 3, with the kernel exp(-|a - b|^2 / (2 bandwidth^2)). Without a bandwidth it
    is the median distance within `x` (their section 8), so `x` is the set that stays the same.

    Raises:
        ValueError: a set of one point.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} and {len(y)} points have no pairs on both sides: give at least 2 of each.")
    # Else what is of `x` alone is computed outside of a training loop, where sums on a CPU have another last bit.
    x, y = lax.optimization_barrier((x, y))
    within_x, within_y, across = squared_distances(x, x), squared_distances(y, y), squared_distances(x, y)
    variance = jnp.median(within_x) if bandwidth is None else jnp.square(bandwidth)
    variance = jnp.maximum(variance, jnp.finfo(within_x.dtype).tiny)  # most of `x` may be one point

    def mean(squares: Array, *, pairs: bool) -> Array:
        kernel = jnp.exp(-0.5 * squares / variance)
        if not pairs:
            return kernel.mean()
        size = len(squares)
        return (kernel.sum() - jnp.trace(kernel)) / (size * (size - 1))

    return mean(within_x, pairs=True) + mean(within_y, pairs=True) - 2.0 * mean(across, pairs=False)


def neighbours(real: Array, generated: Array, k: int = 5) -> Neighbours:
    """Precision, recall, density and coverage of `generated` [M, D] against `real` [N, D].

    Naeem et al. 2020, arXiv:2002.09797, equations 1 to 4. The ball of a point reaches to its k-th nearest neighbour in
    its own set.

    Raises:
        ValueError: a set of no more than k points.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"{len(real)} real and {len(generated)} generated points are too few for k={k}: need {k + 1}.")

    def reach(points: Array) -> Array:
        nearest, _ = lax.top_k(-squared_distances(points, points), k + 1)  # the first is the point itself
        return -nearest[:, k]

    across = squared_distances(real, generated)
    in_real = across <= reach(real)[:, None]
    in_generated = across <= reach(generated)
    return Neighbours(
        precision=in_real.any(0).mean(),
        recall=in_generated.any(1).mean(),
        density=in_real.mean(1).sum() / k,
        coverage=in_real.any(1).mean(),
    )


def reverse_kl(label: Array, num_modes: int) -> Array:
    """Divergence [] in nats of how often each mode is in `label` [M] from equal shares, sum g log(g K).

    As Srivastava et al. 2017 and Lin et al. 2018 report it for stacked digits; finite where modes are missing, log K
    if all samples are in one.
    """
    share = jnp.bincount(label, length=num_modes) / len(label)
    return (share * jnp.log(jnp.where(share > 0, share * num_modes, 1.0))).sum()


def modes(mixture: Mixture, samples: Array) -> Modes:
    """Modes found, share of good samples and reverse divergence of `samples` [M, D], as in Lin et al. 2018.

    For the divergence every sample, good or bad, belongs to its nearest mode.
    """
    squares = jnp.square(samples[:, None] - jnp.asarray(mixture.mean, jnp.float32)).sum(-1)
    within = squares < (3 * mixture.scale) ** 2
    return Modes(
        covered=within.any(0).sum().astype(jnp.float32),
        quality=within.any(1).mean(),
        reverse_kl=reverse_kl(squares.argmin(1), len(mixture.mean)),
    )


def modes_of_labels(label: Array, num_modes: int) -> tuple[Array, Array]:
    """Number of modes that occur in `label` [M], and reverse divergence in nats, [] each."""
    return (jnp.bincount(label, length=num_modes) > 0).sum().astype(jnp.float32), reverse_kl(label, num_modes)
