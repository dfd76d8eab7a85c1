"""Action values: the network that gives them and the ways to act on them. What the learners of values share.

Axes: A actions; leading axes are batch.
"""

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


def network(spec: Spec, description: networks.MLP | networks.CNN) -> networks.Network:
    """Network with `apply(params, obs [..., *obs_shape]) -> values [..., A]`.

    Raises:
        ValueError: continuous actions, or a description that does not suit the observations.
    """
    encode, obs_shape = policies.encoder(spec)
    inner = networks.build(description, obs_shape, num_actions(spec), 1.0)
    return networks.Network(inner.init, lambda params, obs: inner.apply(params, encode(obs)))


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
