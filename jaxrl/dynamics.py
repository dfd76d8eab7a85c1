"""Models of an environment, learned: ensembles of probabilistic networks.

Chua et al. 2018 (arXiv:1805.12114), sections 4 and 5. Each member gives a Gaussian over how the observation changes,
whose width is what the environment leaves to chance; how far members differ is what they do not know yet. Here they
also give the reward and the chance that the task ends, which the paper is told.
Axes: M members, B samples, N environments, C plans for each, H steps of a plan, D numbers of an observation, A of an
action.
"""

import math
from typing import Any, NamedTuple

import distrax
import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import normalize, policies
from jaxrl.core import networks
from jaxrl.envs import Spec

LOG_STD_RANGE = (-5.0, 0.5)  # of what is predicted, in its own standard deviations


class Scale(NamedTuple):
    """In what units networks read and predict."""

    obs: normalize.Statistics  # [D]
    change: normalize.Statistics  # [D + 1] of the change of the observation, and the reward


class Prediction(NamedTuple):
    """What one step is expected to do."""

    mean: Array  # [..., D + 1] change of the observation, and reward, normalised
    std: Array  # [..., D + 1]
    end_logit: Array  # [...] of the chance that the task ends


class Batch(NamedTuple):
    """Transitions to learn from, leaves [..., B, ...]."""

    obs: Array  # [..., B, D]
    action: Array  # [..., B, A] in half widths of the bounds
    change: Array  # [..., B, D + 1] of the observation, and the reward
    terminated: Array  # [..., B] float32: 1 where the task ended
    weight: Array  # [..., B] of each in the loss


def check(spec: Spec) -> None:
    """Refuse what cannot be predicted here.

    Raises:
        ValueError: observations that are no vectors of numbers, discrete or unbounded actions.
    """
    policies.bounds(spec)
    if len(spec.obs_shape) != 1:
        raise ValueError(
            f"{spec.name} has observations of shape {spec.obs_shape}, and a model here predicts vectors: "
            "use wrappers.flatten_observation or wrappers.one_hot_observation."
        )


def network(spec: Spec, description: networks.MLP) -> networks.Network:
    """Network with `apply(params, obs [..., D], action [..., A]) -> Prediction`, all normalised."""
    (obs_size,) = spec.obs_shape
    num_targets = obs_size + 1
    in_size = obs_size + math.prod(policies.bounds(spec).low.shape)
    inner = networks.build(description, (in_size,), 2 * num_targets + 1, 0.1)
    low, high = LOG_STD_RANGE

    def apply(params: Any, obs: Array, action: Array) -> Prediction:
        outputs = inner.apply(params, jnp.concatenate([obs, action], axis=-1))
        mean, raw, end_logit = jnp.split(outputs, (num_targets, 2 * num_targets), axis=-1)
        # Appendix A.1: bounds that are approached, so that gradients stay.
        log_std = high - jax.nn.softplus(high - raw)
        log_std = low + jax.nn.softplus(log_std - low)
        return Prediction(mean, jnp.exp(log_std), end_logit[..., 0])

    return networks.Network(inner.init, apply)


def start(spec: Spec) -> Scale:
    """Units before the first transition."""
    (obs_size,) = spec.obs_shape
    return Scale(normalize.init((obs_size,)), normalize.init((obs_size + 1,)))


def widen(scale: Scale, batch: Batch) -> Scale:
    """`scale` after the transitions of `batch` [..., B] too."""
    return Scale(normalize.update(scale.obs, batch.obs), normalize.update(scale.change, batch.change))


def transitions(
    bounds: policies.Bounds,
    obs: Array,
    action: Array,
    reward: Array,
    next_obs: Array,
    terminated: Array,
    weight: Array | float = 1.0,
) -> Batch:
    """Steps of an environment, leaves [..., B, ...], as a batch; `next_obs` are true successors."""
    obs, next_obs = obs.astype(jnp.float32), next_obs.astype(jnp.float32)  # bytes would wrap
    unit = ((action - bounds.center) / bounds.half_width).reshape(*reward.shape, -1)
    change = jnp.concatenate([next_obs - obs, reward[..., None]], axis=-1)
    return Batch(obs, unit, change, terminated.astype(jnp.float32), jnp.broadcast_to(weight, reward.shape))


def loss(params: Any, network: networks.Network, scale: Scale, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Negative log-likelihood in nats of `batch` [M, B] under M networks, each of its own samples (section 4).

    Summed over members, what is predicted and the end of the task; mean over B. Returns (scalar, metrics).
    """
    obs = normalize.normalize(scale.obs, batch.obs)
    target = normalize.normalize(scale.change, batch.change, clip=jnp.inf)  # a rare reward lies far from the mean
    found = jax.vmap(network.apply)(params, obs, batch.action)
    log_prob = distrax.MultivariateNormalDiag(found.mean, found.std).log_prob(target)
    log_prob = log_prob + distrax.Bernoulli(found.end_logit).log_prob(batch.terminated)
    each = -(batch.weight * log_prob).mean(-1)
    error = batch.weight * jnp.square(found.mean - target).mean(-1)
    return each.sum(), {"loss": each.mean(), "error": error.mean()}


def imagine(
    network: networks.Network, params: Any, scale: Scale, obs: Array, discount: Any, key: Array, plans: Array
) -> Array:
    """Return [N, C] expected of each of `plans` [N, C, H, A] from `obs` [N, D] on, over H steps.

    Every member imagines every plan once, the same member from first to last (the paper's TS-infinity). What is left to
    chance falls out alike for all plans of an environment, so that they differ by nothing but themselves.
    """
    num_members = jax.tree.leaves(params)[0].shape[0]
    num_envs, num_plans, horizon, _ = plans.shape
    noise = random.normal(key, (horizon, num_members, num_envs, 1, obs.shape[-1] + 1))

    def step(carry: tuple[Array, Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, None]:
        obs, weight, total = carry
        noise, action = inputs
        seen = normalize.normalize(scale.obs, obs)
        found = jax.vmap(network.apply, (0, 0, None))(params, seen, action)
        deviation = jnp.sqrt(scale.change.var + normalize.EPSILON)
        change = scale.change.mean + deviation * (found.mean + found.std * noise)
        total = total + weight * change[..., -1]
        weight = weight * discount * jax.nn.sigmoid(-found.end_logit)
        return (obs + change[..., :-1], weight, total), None

    each = num_members, num_envs, num_plans
    first = jnp.broadcast_to(obs[:, None].astype(jnp.float32), (*each, obs.shape[-1]))
    carry = first, jnp.ones(each), jnp.zeros(each)
    (_, _, total), _ = lax.scan(step, carry, (noise, jnp.moveaxis(plans, 2, 0)))
    return total.mean(0)
