"""Action values: the networks that give them and the ways to act on them. What the learners of values share.

Axes: A actions, C critics; leading axes are batch.
"""

import math
from typing import Any

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl import policies
from jaxrl.core import networks
from jaxrl.envs import Discrete, Spec


def num_actions(spec: Spec) -> int:
    """A, of an environment whose actions can be listed.

    Raises:
        ValueError: continuous actions.
    """
    if not isinstance(spec.action, Discrete):
        raise ValueError(
            f"{spec.name} has continuous actions of shape {spec.action.shape}, infinitely many to value: "
            "use an algorithm with a policy, such as ppo, or an environment with discrete actions."
        )
    return spec.action.num


def network(spec: Spec, description: networks.MLP | networks.CNN, out_scale: float = 1.0) -> networks.Network:
    """Network with `apply(params, obs [..., *obs_shape]) -> values [..., A]`.

    They start of the order of `out_scale`.

    Raises:
        ValueError: continuous actions, or a description that does not suit the observations.
    """
    encode, obs_shape = policies.encoder(spec)
    inner = networks.build(description, obs_shape, num_actions(spec), out_scale)
    return networks.Network(inner.init, lambda params, obs: inner.apply(params, encode(obs)))


def critic(spec: Spec, description: networks.MLP) -> networks.Network:
    """Network with `apply(params, obs [..., *obs_shape], action [..., *action_shape]) -> values [...]`.

    It reads actions in half widths of their bounds, from -1 to 1.

    Raises:
        ValueError: discrete or unbounded actions.
    """
    encode, obs_shape = policies.encoder(spec)
    bounds = policies.bounds(spec)
    obs_size, action_size = math.prod(obs_shape), bounds.low.size
    inner = networks.build(description, (obs_size + action_size,), 1, 1.0)

    def apply(params: Any, obs: Array, action: Array) -> Array:
        batch = action.shape[: action.ndim - bounds.low.ndim]
        unit = (action - bounds.center) / bounds.half_width
        inputs = jnp.concatenate([encode(obs).reshape(*batch, obs_size), unit.reshape(*batch, action_size)], axis=-1)
        return inner.apply(params, inputs)[..., 0]

    return networks.Network(inner.init, apply)


def ensemble(network: networks.Network, size: int) -> networks.Network:
    """`size` networks alike but for their first parameters, as one: outputs [C, ...]."""

    def init(key: Array) -> Any:
        return jax.vmap(network.init)(random.split(key, size))

    def apply(params: Any, *inputs: Array) -> Array:
        return jax.vmap(lambda params: network.apply(params, *inputs))(params)

    return networks.Network(init, apply)


def follow(target_params: Any, params: Any, rate: Any) -> Any:
    """`target_params` moved by `rate` [] of the way to `params`: exactly there at 1, unmoved at 0."""
    # Not a select, which vmap would make of a branch, but as exact.
    return jax.tree.map(lambda target, online: rate * online + (1 - rate) * target, target_params, params)


def chosen(values: Array, action: Array) -> Array:
    """Of `values` [..., A] those of `action` [...]."""
    # A product and a sum: on a CPU the gradient of a gather would be a slow scatter.
    return (values * jax.nn.one_hot(action, values.shape[-1])).sum(axis=-1)


def greedy(values: Array) -> Array:
    """The action [...] of highest value [..., A]."""
    return values.argmax(axis=-1)


def epsilon_greedy(key: Array, values: Array, epsilon: Array | float) -> Array:
    """With chance `epsilon` [] any action, all alike, else the one of highest value [..., A]. Returns [...].

    One draw decides both: among those below `epsilon` it is uniform again.
    """
    num = values.shape[-1]
    draw = random.uniform(key, values.shape[:-1])
    share = draw / jnp.maximum(epsilon, jnp.finfo(draw.dtype).tiny)
    anything = jnp.minimum(share * num, num - 1).astype(jnp.int32)
    return jnp.where(draw < epsilon, anything, greedy(values).astype(jnp.int32))
