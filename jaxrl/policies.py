"""Policy heads: from a network's outputs to a distribution over actions, in the environment's own units.

Axes: P outputs of the network, D action dimensions; leading axes are batch.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import distrax
import jax
import numpy as np
from jax import Array, random
from jax import numpy as jnp

from jaxrl.core import networks, recurrent
from jaxrl.envs import Box, Discrete, Spec

LOG_STD_RANGE = (-5.0, 2.0)  # of standard deviations that depend on the observation

HeadName = Literal["gaussian", "squashed_gaussian"]


class Bounds(NamedTuple):
    """Of a continuous action space. Static: arrays of numpy, each of the shape of an action."""

    low: np.ndarray
    high: np.ndarray
    center: np.ndarray
    half_width: np.ndarray


def bounds(spec: Spec) -> Bounds:
    """Those of the actions of an environment.

    Raises:
        ValueError: discrete actions, or bounds that are not finite.
    """
    if isinstance(spec.action, Discrete):
        raise ValueError(
            f"{spec.name} has {spec.action.num} discrete actions where continuous ones are needed: use an algorithm "
            "for discrete actions, such as dqn, or an environment with continuous ones."
        )
    low, high, bounded = _limits(spec.action)
    if not bounded.all():
        raise ValueError(
            f"{spec.name} has actions from low={spec.action.low} to high={spec.action.high}, where finite bounds are "
            "needed: use an environment that has them, or ppo with distribution='gaussian'."
        )
    low, high = low.reshape(spec.action.shape), high.reshape(spec.action.shape)
    return Bounds(low, high, (low + high) / 2, (high - low) / 2)


def _limits(action: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest value of each entry [D], and which have both: bounds at the end of float32 stand for none."""
    if not all(low < high for low, high in zip(action.low, action.high, strict=True)):
        raise ValueError(
            f"Actions from low={action.low} to high={action.high} leave some entry no choice: let the environment fill "
            "in what is fixed."
        )
    low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
    with np.errstate(over="ignore"):
        return low, high, np.isfinite(high - low)


class Head(NamedTuple):
    """How actions are drawn. Static: a number and two functions."""

    num_outputs: int  # P, what the actor network must give: logits, or means
    num_free: int  # parameters that do not depend on the observation: D log standard deviations, or none
    distribution: Callable[..., Any]  # (outputs [..., P], free [num_free]) -> distrax distribution over actions
    to_env: Callable[[Array], Array]  # action as sampled -> action within the environment's bounds


class SquashedGaussian(distrax.Transformed):
    """tanh of a diagonal Gaussian, moved to the bounds of the action space.

    Its log-probability carries the corrections of both steps (Haarnoja et al. 2018, arXiv:1801.01290, appendix C)
    and is finite at the bounds, where float32 rounds tanh to one.
    """

    def __init__(self, mean: Array, std: Array, center: Array | np.ndarray, half_width: Array | np.ndarray) -> None:
        self._gaussian = distrax.MultivariateNormalDiag(mean, std)
        self._center, self._half_width = center, half_width
        squash = distrax.Chain([distrax.ScalarAffine(center, half_width), distrax.Tanh()])
        super().__init__(self._gaussian, distrax.Block(squash, 1))

    def log_prob(self, value: Array) -> Array:
        inside = 1.0 - jnp.finfo(value.dtype).epsneg
        unit = jnp.clip((value - self._center) / self._half_width, -inside, inside)
        latent = jnp.arctanh(unit)
        log_slope = 2.0 * (math.log(2.0) - latent - jax.nn.softplus(-2.0 * latent))
        return self._gaussian.log_prob(latent) - (log_slope + jnp.log(self._half_width)).sum(-1)

    def entropy(self) -> Array:
        """[...] nats: the Gaussian's plus the mean log-slope of the squashing, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(16)
        mean, std = self._gaussian.loc[..., None], self._gaussian.scale_diag[..., None]
        latent = mean + std * nodes
        log_slope = 2.0 * (math.log(2.0) - latent - jax.nn.softplus(-2.0 * latent))
        expected = (log_slope * (weights / weights.sum())).sum(-1) + jnp.log(self._half_width)
        return self._gaussian.entropy() + expected.sum(-1)

    def mode(self) -> Array:
        """The squashed mean, which is the median: the density's own mode has no closed form."""
        return self.bijector.forward(self._gaussian.mean())

    def kl_divergence(self, other: "SquashedGaussian") -> Array:
        """[...] nats; a bijection common to both leaves the divergence of the Gaussians unchanged."""
        return self._gaussian.kl_divergence(other._gaussian)


def head(action: Discrete | Box, name: HeadName) -> Head:
    """Categorical over discrete actions; over boxes a diagonal Gaussian or its tanh.

    A Gaussian's unit is half the width of the action space, so that a standard deviation of 1 explores it all
    whatever its bounds; where a bound is infinite the unit is 1. Samples beyond a bound are clipped on their way
    to the environment, the log-probability stays that of the sample.

    Raises:
        ValueError: a squashed Gaussian without finite bounds to squash into; bounds that are equal or not in order.
    """
    if isinstance(action, Discrete):
        return Head(action.num, 0, lambda outputs, free: distrax.Categorical(outputs), lambda sample: sample)

    low, high, bounded = _limits(action)
    if name == "squashed_gaussian" and not bounded.all():
        raise ValueError(
            f"A squashed Gaussian needs finite action bounds, got low={action.low}, high={action.high}: "
            "use distribution='gaussian'."
        )
    size = math.prod(action.shape)
    finite_low, finite_high = np.where(bounded, low, -1), np.where(bounded, high, 1)
    center, half_width = (finite_low + finite_high) / 2, (finite_high - finite_low) / 2

    def distribution(mean: Array, log_std: Array) -> Any:
        std = jnp.broadcast_to(jnp.exp(log_std), mean.shape)
        if name == "squashed_gaussian":
            return SquashedGaussian(mean, std, center, half_width)
        return distrax.MultivariateNormalDiag(center + half_width * mean, half_width * std)

    def to_env(sample: Array) -> Array:
        return jnp.clip(sample, low, high).reshape(*sample.shape[:-1], *action.shape)

    return Head(size, size, distribution, to_env)


def encoder(spec: Spec) -> tuple[Callable[[Array], Array], tuple[int, ...]]:
    """How a network reads observations: a function on them and the shape it gives.

    Discrete ones become one-hot, bytes (pixels) numbers from 0 to 1.
    """
    if spec.obs_dtype == "uint8" and spec.num_obs is None:
        # Normalised observations come as numbers already.
        return lambda obs: obs / jnp.float32(255) if obs.dtype == jnp.uint8 else obs, spec.obs_shape
    if spec.num_obs is None:
        return lambda obs: obs, spec.obs_shape
    return lambda obs: jax.nn.one_hot(obs, spec.num_obs), (spec.num_obs,)


def uniform(spec: Spec) -> Callable[[Array, Array], tuple[Array, None]]:
    """A policy that knows nothing: `(key, obs [N, ...]) -> (action [N, *action_shape], None)`.

    Raises:
        ValueError: continuous actions without bounds.
    """
    if isinstance(spec.action, Discrete):
        num_actions = spec.action.num
        return lambda key, obs: (random.randint(key, (len(obs),), 0, num_actions), None)
    box = bounds(spec)

    def act(key: Array, obs: Array) -> tuple[Array, None]:
        return random.uniform(key, (len(obs), *box.low.shape), minval=box.low, maxval=box.high), None

    return act


def deterministic(spec: Spec, description: networks.MLP | networks.CNN) -> networks.Network:
    """Network with `apply(params, obs [..., *obs_shape]) -> action [..., *action_shape]`: tanh moved to the bounds.

    Its last layer starts near zero, so that the first actions are near the middle.

    Raises:
        ValueError: discrete or unbounded actions, or a description that does not suit the observations.
    """
    encode, obs_shape = encoder(spec)
    box = bounds(spec)
    inner = networks.build(description, obs_shape, box.low.size, 0.01)

    def apply(params: Any, obs: Array) -> Array:
        unit = jnp.tanh(inner.apply(params, encode(obs)))
        return box.center + box.half_width * unit.reshape(*unit.shape[:-1], *box.low.shape)

    return networks.Network(inner.init, apply)


def gaussian(spec: Spec, description: networks.MLP | networks.CNN) -> networks.Network:
    """Network with `apply(params, obs [..., *obs_shape]) -> (mean, log standard deviation), [..., D] each`.

    What `Head.distribution` takes, with a standard deviation that depends on the observation.

    Raises:
        ValueError: discrete or unbounded actions, or a description that does not suit the observations.
    """
    encode, obs_shape = encoder(spec)
    inner = networks.build(description, obs_shape, 2 * bounds(spec).low.size, 0.01)

    def apply(params: Any, obs: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(inner.apply(params, encode(obs)), 2, axis=-1)
        return mean, jnp.clip(log_std, *LOG_STD_RANGE)

    return networks.Network(inner.init, apply)


def actor_critic(
    spec: Spec, head: Head, description: networks.MLP | networks.CNN, *, shared: bool = False
) -> networks.Network:
    """Network with `apply(params, obs [..., *obs_shape]) -> ((outputs [..., P], free [num_free]), value [...])`.

    Actor and critic have torsos of their own, or one together if `shared`. The actor's last layer starts near
    zero, so that the first policy is near uniform (Andrychowicz et al. 2020, arXiv:2006.05990, section 3.2).
    """
    encode, obs_shape = encoder(spec)
    if shared:
        torso = networks.build(description, obs_shape)
        feature_shape = networks.out_shape(torso, obs_shape)
        top = networks.MLP(hidden=())
        actor = networks.build(top, feature_shape, head.num_outputs, 0.01)
        critic = networks.build(top, feature_shape, 1, 1.0)
    else:
        torso = networks.Network(lambda key: {}, lambda params, obs: obs)
        actor = networks.build(description, obs_shape, head.num_outputs, 0.01)
        critic = networks.build(description, obs_shape, 1, 1.0)

    def init(key: Array) -> dict[str, Any]:
        torso_key, actor_key, critic_key = random.split(key, 3)
        return {
            "torso": torso.init(torso_key),
            "actor": actor.init(actor_key),
            "critic": critic.init(critic_key),
            "free": jnp.zeros(head.num_free),
        }

    def apply(params: dict[str, Any], obs: Array) -> tuple[tuple[Array, Array], Array]:
        features = torso.apply(params["torso"], encode(obs))
        outputs = actor.apply(params["actor"], features)
        return (outputs, params["free"]), critic.apply(params["critic"], features)[..., 0]

    return networks.Network(init, apply)


def recurrent_actor_critic(spec: Spec, head: Head, description: recurrent.Recurrent) -> recurrent.RecurrentNetwork:
    """Actor and critic, each with a memory of its own; the outputs are those of `actor_critic`.

    `step(params, memory, obs [..., *obs_shape]) -> (memory, ((outputs [..., P], free [num_free]), value [...]))`, and
    `scan` likewise over observations [T, N, *obs_shape].
    """
    encode, obs_shape = encoder(spec)
    actor = recurrent.build(description, obs_shape, head.num_outputs, 0.01)
    critic = recurrent.build(description, obs_shape, 1, 1.0)

    def init(key: Array) -> dict[str, Any]:
        actor_key, critic_key = random.split(key)
        return {"actor": actor.init(actor_key), "critic": critic.init(critic_key), "free": jnp.zeros(head.num_free)}

    def memory(*axes: int) -> Any:
        return actor.memory(*axes), critic.memory(*axes)

    def step(params: dict[str, Any], memory: Any, obs: Array) -> Any:
        actor_memory, outputs = actor.step(params["actor"], memory[0], encode(obs))
        critic_memory, value = critic.step(params["critic"], memory[1], encode(obs))
        return (actor_memory, critic_memory), ((outputs, params["free"]), value[..., 0])

    def scan(params: dict[str, Any], memory: Any, obs: Array, started: Array) -> Any:
        actor_memory, outputs = actor.scan(params["actor"], memory[0], encode(obs), started)
        critic_memory, value = critic.scan(params["critic"], memory[1], encode(obs), started)
        return (actor_memory, critic_memory), ((outputs, params["free"]), value[..., 0])

    return recurrent.RecurrentNetwork(init, memory, step, scan)
