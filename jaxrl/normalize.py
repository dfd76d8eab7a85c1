"""Running mean and variance of observations and returns, as explicit state.

Batches are merged by the pairwise formula of Chan, Golub and LeVeque (1979), which generalises Welford's (1962). It is
written with the share of the new batch among all samples, so that nothing grows with their number.
Axes: T steps, N environments, B samples (any number of leading axes).
"""

import math
from typing import Any, NamedTuple

from jax import Array, lax
from jax import numpy as jnp

from jaxrl.envs import Spec
from jaxrl.rollout import Transition

# The largest count in steps of one that float32 can hold. From there on the statistics are a moving average over
# about this many samples: a single new one still moves them, and a billion change nothing about their precision.
MAX_COUNT = 2.0**24
EPSILON = 1e-8  # added to the variance, so that what never changes is divided by 1e-4 and not by zero


class Statistics(NamedTuple):
    """Mean and variance of all samples so far."""

    mean: Array  # [...] float32
    var: Array  # [...] float32, of the samples themselves: divided by their number
    num_samples: Array  # [] float32, so far, at most MAX_COUNT


def init(shape: tuple[int, ...]) -> Statistics:
    """No samples of `shape` yet: normalising with these statistics changes nothing but clips."""
    return Statistics(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()))


def update(statistics: Statistics, batch: Array) -> Statistics:
    """`statistics` after the samples `batch` [B, ...]."""
    axes = tuple(range(batch.ndim - statistics.mean.ndim))
    batch = batch.astype(jnp.float32)
    size = math.prod(batch.shape[: len(axes)])
    mean, var = batch.mean(axes), batch.var(axes)
    share = size / (statistics.num_samples + size)
    difference = mean - statistics.mean
    return Statistics(
        mean=statistics.mean + share * difference,
        var=(1 - share) * statistics.var + share * var + share * (1 - share) * difference**2,
        num_samples=jnp.minimum(statistics.num_samples + size, MAX_COUNT),
    )


def normalize(statistics: Statistics, obs: Array, clip: float = 10.0) -> Array:
    """Observations [B, ...] less their mean over their standard deviation, float32 within +-`clip`."""
    deviations = (obs.astype(jnp.float32) - statistics.mean) * lax.rsqrt(statistics.var + EPSILON)
    return jnp.clip(deviations, -clip, clip)


class Returns(NamedTuple):
    """Discounted returns so far of N unfinished episodes, and the statistics of all such returns."""

    running: Array  # [N] float32
    statistics: Statistics  # of numbers, shape []


def init_returns(num_envs: int) -> Returns:
    """N episodes about to begin."""
    return Returns(jnp.zeros(num_envs), init(()))


def update_returns(returns: Returns, reward: Array, done: Array, discount: Any) -> Returns:
    """`returns` after a path: `reward` [T, N] and `done` [T, N] bool, true where the episode ended for any reason.

    The return so far of step t is its reward plus `discount` [] times that of step t - 1 in the same episode.
    """

    def one(running: Array, path: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, done = path
        running = discount * running + reward
        return jnp.where(done, 0.0, running), running

    running, path = lax.scan(one, returns.running, (reward, done))
    return Returns(running, update(returns.statistics, path))


def scale_rewards(returns: Returns, reward: Array, clip: float = 10.0) -> Array:
    """Rewards [...] over the standard deviation of the returns, within +-`clip`; their mean is left alone."""
    return jnp.clip(reward * lax.rsqrt(returns.statistics.var + EPSILON), -clip, clip)


class Normalizer(NamedTuple):
    """What a learner normalises by. A field is None where the learner is told not to."""

    observations: Statistics | None
    returns: Returns | None  # its rewards are divided by their standard deviation


def check(spec: Spec) -> None:
    """Refuse to normalise observations that are numbers of states.

    Raises:
        ValueError: discrete observations.
    """
    if spec.num_obs is not None:
        raise ValueError(
            f"{spec.name} shows one of {spec.num_obs} discrete observations, which have no mean: "
            "use normalize_observations=False."
        )


def start(obs_shape: tuple[int, ...], num_envs: int, *, observations: bool, rewards: bool) -> Normalizer:
    """A normaliser before the first path of N environments."""
    return Normalizer(init(obs_shape) if observations else None, init_returns(num_envs) if rewards else None)


def see(normalizer: Normalizer, obs: Array) -> Array:
    """Observations [..., *obs_shape] as a network reads them."""
    return obs if normalizer.observations is None else normalize(normalizer.observations, obs)


def learn_from(normalizer: Normalizer, path: Transition, discount: Any) -> tuple[Transition, Normalizer]:
    """A path [T, N, ...] as a network learns from it, and the normaliser after it.

    The observations are normalised as they were while acting, so that the same network gives the same outputs
    for them again; only the next path sees the new statistics. Rewards are scaled by statistics that include them.
    """
    observations, returns = normalizer
    seen = path._replace(obs=see(normalizer, path.obs), next_obs=see(normalizer, path.next_obs))
    if observations is not None:
        observations = update(observations, path.obs)
    if returns is not None:
        returns = update_returns(returns, path.reward, path.terminated | path.truncated, discount)
        seen = seen._replace(reward=scale_rewards(returns, path.reward))
    return seen, Normalizer(observations, returns)
