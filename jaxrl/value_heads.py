"""What the outputs of a network of action values mean: expected returns, or the distribution of returns.

Each head says how a target is made of outputs for the next observations, and how far outputs are from it.
Axes: B samples, A actions, K outputs for each action: 1, or the atoms or quantiles of a distribution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
from jax import numpy as jnp

from jaxrl import values


def huber(error: Array, delta: Any) -> Array:
    """Half the square of `error` [...] up to `delta` [], beyond it linear with slope `delta` (Huber 1964).

    With unit `delta` its gradient is the clipped error of Mnih et al. 2015, methods.
    """
    size = jnp.abs(error)
    quadratic = jnp.minimum(size, delta)
    return quadratic * (size - 0.5 * quadratic)


def choose(outputs: Array, action: Array) -> Array:
    """Of `outputs` [B, A, K] those of `action` [B]: [B, K]."""
    # A product and a sum: on a CPU the gradient of a gather would be a slow scatter.
    chosen = jax.nn.one_hot(action, outputs.shape[-2])
    return (outputs * chosen[..., None]).sum(-2)


def double_q_target(reward: Array, discount: Array, next_outputs: Array, selector: Array) -> Array:
    """Reward plus discount times the next output [B, A, K] of the action that `selector` [B, A] prefers: [B, K].

    With the target network as selector too, this is Mnih et al. 2015, algorithm 1; with the online network, double
    Q-learning (van Hasselt et al. 2016, arXiv:1509.06461, equation 4).
    """
    return reward[:, None] + discount[:, None] * choose(next_outputs, values.greedy(selector))


def categorical_projection(points: Array, probs: Array, support: Array) -> Array:
    """Probabilities [B, K] of `points` [B, K], moved to `support` [K]: evenly spaced atoms.

    What falls between two atoms is shared by them in proportion to its closeness (Bellemare et al. 2017,
    arXiv:1707.06887, equation 7).
    """
    spacing = support[1] - support[0]
    points = jnp.clip(points, support[0], support[-1])
    closeness = 1.0 - jnp.abs(points[:, None, :] - support[:, None]) / spacing  # [B, K of the support, K]
    return (jnp.clip(closeness, 0.0, 1.0) * probs[:, None, :]).sum(-1)


def quantile_huber_loss(quantiles: Array, target: Array, delta: Any) -> Array:
    """How far `quantiles` [B, K] are from those of the samples `target` [B, K]: [B].

    Dabney et al. 2018, arXiv:1710.10044, equation 10 and algorithm 1: summed over quantiles, mean over samples.
    """
    num = quantiles.shape[-1]
    levels = (jnp.arange(num) + 0.5) / num
    error = target[:, None, :] - quantiles[:, :, None]  # [B, quantiles, samples]
    weight = jnp.abs(levels[:, None] - (error < 0))
    return (weight * huber(error, delta)).mean(-1).sum(-1)


class Head(NamedTuple):
    """What the network's K outputs for each action mean. Static: a number and three functions."""

    num_outputs: int  # K
    mean: Callable[[Array], Array]  # outputs [..., K] -> expected return [...]
    target: Callable[..., Array]  # (reward [B], discount [B], next outputs [B, A, K], selector [B, A]) -> [B, K]
    loss: Callable[..., tuple[Array, Array]]  # (outputs [B, K], target [B, K], huber_delta) -> loss [B], error [B]


def expectation() -> Head:
    """The expected return itself."""

    def loss(outputs, target, delta):
        error = (target - outputs)[:, 0]
        return huber(error, delta), jnp.abs(error)

    return Head(1, lambda outputs: outputs[..., 0], double_q_target, loss)


def categorical(v_min: float, v_max: float, num_atoms: int) -> Head:
    """Logits of K returns evenly spaced from `v_min` to `v_max` (C51, Bellemare et al. 2017, algorithm 1).

    The error of a sample is the divergence from its target in nats.
    """
    support = jnp.linspace(v_min, v_max, num_atoms)

    def mean(outputs):
        return (jax.nn.softmax(outputs) * support).sum(-1)

    def target(reward, discount, next_outputs, selector):
        probs = jax.nn.softmax(choose(next_outputs, values.greedy(selector)))
        return categorical_projection(reward[:, None] + discount[:, None] * support, probs, support)

    def loss(outputs, target, delta):
        cross_entropy = -(target * jax.nn.log_softmax(outputs)).sum(-1)
        divergence = cross_entropy - jax.scipy.special.entr(target).sum(-1)
        return cross_entropy, jnp.maximum(divergence, 0.0)

    return Head(num_atoms, mean, target, loss)


def quantile(num_quantiles: int) -> Head:
    """K quantiles of the return (QR-DQN, Dabney et al. 2018, algorithm 1)."""

    def loss(outputs, target, delta):
        each = quantile_huber_loss(outputs, target, delta)
        return each, each

    return Head(num_quantiles, lambda outputs: outputs.mean(-1), double_q_target, loss)
