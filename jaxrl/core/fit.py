"""Gradient steps: an optimiser's state beside the parameters it moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import optax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import devices, shuffle

Step = Callable[[Any, Any], tuple[Any, dict[str, Array]]]  # (carry, minibatch) -> (carry, metrics)
OptimizerFactory = Callable[[Any], optax.GradientTransformation]  # learning rate [] -> transformation


@dataclass(frozen=True)
class Optimizer:
    """A static factory from a learning rate, which may be traced, to an optax transformation.

    Any other such function, `optax.lion` say, may stand in its place.
    """

    name: Literal["adam", "adamw", "radam", "rmsprop", "sgd"] = "adam"
    epsilon: float = 1e-8  # added to the root of the second moment, of rmsprop under the root; not of sgd
    weight_decay: float = 1e-4  # adamw alone
    momentum: float = 0.9  # decay of the first moment: all but rmsprop
    square_decay: float = 0.999  # decay of the second moment: adam, adamw and radam; that of rmsprop is 0.99

    def __call__(self, learning_rate: Any) -> optax.GradientTransformation:
        moments = {"b1": self.momentum, "b2": self.square_decay, "eps": self.epsilon}
        match self.name:
            case "adam":
                return optax.adam(learning_rate, **moments)
            case "adamw":
                return optax.adamw(learning_rate, weight_decay=self.weight_decay, **moments)
            case "radam":
                return optax.radam(learning_rate, **moments)
            case "rmsprop":
                return optax.rmsprop(learning_rate, decay=0.99, eps=self.epsilon)
            case "sgd":
                return optax.sgd(learning_rate, momentum=self.momentum)
        raise ValueError(f"Unknown optimiser {self.name!r}: use adam, adamw, radam, rmsprop or sgd.")


class Fit(NamedTuple):
    """Parameters and the optimiser state that belongs to them."""

    params: Any
    opt_state: Any


def clip_by_global_norm(gradients: Any, max_norm: Any) -> tuple[Any, Array]:
    """Scale `gradients` so that their joint Euclidean norm is at most `max_norm` []. Returns them and the norm [].

    The norm is of all leaves together: [3, 4] with bound 1 becomes [0.6, 0.8].
    """
    norm = optax.tree.norm(gradients)
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
    return jax.tree.map(lambda gradient: gradient * scale.astype(gradient.dtype), gradients), norm


def start(optimizer: OptimizerFactory, params: Any) -> Fit:
    """`params` before their first step. The state of an optimiser does not depend on its learning rate."""
    return Fit(params, optimizer(0.0).init(params))


def step(
    optimizer: optax.GradientTransformation, loss: Callable[..., Any], fit: Fit, *args: Any, max_grad_norm: Any = None
) -> tuple[Fit, Any]:
    """One gradient step on `loss(params, *args) -> (scalar, metrics)`, clipped by global norm if a bound is given.

    In place of metrics a loss may give any other pytree, if there is no bound.
    """
    gradients, metrics = jax.grad(loss, has_aux=True)(fit.params, *args)
    return _descend(optimizer, fit, gradients, metrics, max_grad_norm)


def step_in_parts(
    optimizer: optax.GradientTransformation,
    loss: Callable[..., Any],
    fit: Fit,
    batch: Any,
    at_once: int,
    max_grad_norm: Any = None,
) -> tuple[Fit, Any]:
    """`step` on a loss that is the mean over `batch`, leaves [B, ...], of what it is for each example by itself.

    On a CPU no more than `at_once` examples are taken at once, so that all that is computed of them stays in the caches
    of its core: convolutions of whole images take half the time then. If runs are split over devices, each takes its
    share of the examples, and gradients are added up once.
    """
    gradient = jax.grad(loss, has_aux=True)

    def mean(params: Any, batch: Any) -> Any:
        return lax.platform_dependent(params, batch, cpu=part_by_part, default=gradient)

    def part_by_part(params: Any, batch: Any) -> Any:
        size = jax.tree.leaves(batch)[0].shape[0]
        count = next(count for count in range(-(-size // at_once), size + 1) if size % count == 0)
        parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), batch)

        def add(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, part)), None

        if count == 1:
            return gradient(params, batch)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(gradient, params, batch))
        return jax.tree.map(lambda leaf: leaf / count, lax.scan(add, zeros, parts)[0])

    gradients, metrics = devices.mean_of_shares(mean, fit.params, batch)
    return _descend(optimizer, fit, gradients, metrics, max_grad_norm)


def _descend(
    optimizer: optax.GradientTransformation, fit: Fit, gradients: Any, metrics: Any, max_grad_norm: Any
) -> tuple[Fit, Any]:
    if max_grad_norm is not None:
        gradients, norm = clip_by_global_norm(gradients, max_grad_norm)
        metrics = {**metrics, "grad_norm": norm}
    updates, opt_state = optimizer.update(gradients, fit.opt_state, fit.params)
    return Fit(optax.apply_updates(fit.params, updates), opt_state), metrics


def epochs(
    key: Array, step: Step, carry: Any, batch: Any, num_epochs: int, num_minibatches: int
) -> tuple[Any, dict[str, Array]]:
    """Scan `step` over `num_epochs` passes through `batch`, leaves [B, ...], each in a new random order.

    Returns the carry and the metrics averaged over all steps.
    """

    def epoch(carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        return lax.scan(step, carry, shuffle.minibatches(key, batch, num_minibatches))

    carry, metrics = lax.scan(epoch, carry, random.split(key, num_epochs))
    return carry, jax.tree.map(jnp.mean, metrics)
