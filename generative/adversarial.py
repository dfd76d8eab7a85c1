"""What adversarial models share: losses of both players, penalties, spectral normalisation, moving averages.

A discriminator gives logits: real if positive, generated if negative. A critic's numbers have no such meaning.
Axes: B batch, P samples judged together.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import data
from jaxrl.core import fit


class Player(NamedTuple):
    """One network of a game: its parameters with their optimiser, and its own statistics."""

    fit: fit.Fit
    stats: Any  # of batch normalisation or power iterations; () without


class Average(NamedTuple):
    """Moving average of a generator, from which samples come. Its statistics are those that its parameters need."""

    params: Any
    stats: Any
    updates: Array  # [] int32, how many so far


def start(optimizer: fit.OptimizerFactory, params: Any, stats: Any) -> Player:
    """A player before its first step."""
    return Player(fit.start(optimizer, params), stats)


class Loss(NamedTuple):
    """What each player minimises, of the discriminator's outputs [B] for real and for generated examples."""

    discriminator: Callable[[Array, Array], Array]  # (real, generated) -> []
    generator: Callable[[Array], Array]  # (generated) -> []


def logistic_discriminator(real: Array, generated: Array) -> Array:
    """-E log D(x) - E log(1 - D(G(z))) [], D the logistic of a logit: Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.

    The best discriminator between p and q makes it log 4 - 2 JS(p, q).
    """
    return nn.softplus(-real).mean() + nn.softplus(generated).mean()


def minimax_generator(generated: Array) -> Array:
    """E log(1 - D(G(z))) [], equation 1. Its gradient vanishes where the discriminator is sure of itself."""
    return -nn.softplus(generated).mean()


def non_saturating_generator(generated: Array) -> Array:
    """-E log D(G(z)) []: section 3 of the same paper. Where the discriminator is sure, the gradient is -1."""
    return nn.softplus(-generated).mean()


def hinge_discriminator(real: Array, generated: Array) -> Array:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) []: Miyato et al. 2018, arXiv:1802.05957, equation 16."""
    return nn.relu(1.0 - real).mean() + nn.relu(1.0 + generated).mean()


def critic_generator(generated: Array) -> Array:
    """-E D(G(z)) []: Miyato et al. 2018, equation 17, and Gulrajani et al. 2017, equation 2."""
    return -generated.mean()


def wasserstein_critic(real: Array, generated: Array) -> Array:
    """E D(G(z)) - E D(x) []: Gulrajani et al. 2017, arXiv:1704.00028, equation 3 without its penalty."""
    return generated.mean() - real.mean()


def least_squares_discriminator(real: Array, generated: Array) -> Array:
    """E (D(x) - 1)^2 / 2 + E D(G(z))^2 / 2 []: Mao et al. 2017, arXiv:1611.04076, equation 9."""
    return 0.5 * jnp.square(real - 1.0).mean() + 0.5 * jnp.square(generated).mean()


def least_squares_generator(generated: Array) -> Array:
    """E (D(G(z)) - 1)^2 []: Zhu et al. 2017, arXiv:1703.10593, section 4; Mao et al. halve it too."""
    return jnp.square(generated - 1.0).mean()


LOSSES = {
    "minimax": Loss(logistic_discriminator, minimax_generator),
    "non_saturating": Loss(logistic_discriminator, non_saturating_generator),
    "hinge": Loss(hinge_discriminator, critic_generator),
    "wasserstein": Loss(wasserstein_critic, critic_generator),
    "least_squares": Loss(least_squares_discriminator, least_squares_generator),
}


def input_gradients(critic: Callable[[Array], Array], x: Array) -> Array:
    """Squared norm [B] of the gradient of each output of `critic`, [B * P, ...] -> [B], with respect to all it judges.

    A critic that normalises over the batch would mix them.
    """

    def total(x: Array) -> tuple[Array, Array]:
        outputs = critic(x)
        return outputs.sum(), outputs

    gradients, outputs = jax.grad(total, has_aux=True)(x)
    return jnp.square(gradients).reshape(len(outputs), -1).sum(-1)


def gradient_penalty(critic: Callable[[Array], Array], real: Array, generated: Array, weight: Array) -> Array:
    """E (|gradient| - 1)^2 [] between `real` and `generated` [B, ...]: Gulrajani et al. 2017, equation 3, algorithm 1.

    `weight` [B] in [0, 1] is the share of the real example, one for each pair.
    """
    weight = weight.reshape(-1, *[1] * (real.ndim - 1))
    squares = input_gradients(critic, weight * real + (1.0 - weight) * generated)
    positive = squares > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)  # the root has no slope at zero
    return jnp.square(norm - 1.0).mean()


def real_penalty(critic: Callable[[Array], Array], real: Array) -> Array:
    """E |gradient|^2 / 2 [] at `real` [B * P, ...]: R1 of Mescheder et al. 2018, arXiv:1801.04406, equation 9."""
    return 0.5 * input_gradients(critic, real).mean()


def start_power_iterations(key: Array, params: Any) -> tuple[Array, ...]:
    """A random unit vector [outputs] for each matrix or kernel of `params`."""
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    keys = random.split(key, len(kernels))
    return tuple(_unit(random.normal(key, leaf.shape[-1:])) for key, leaf in zip(keys, kernels, strict=True))


def spectrally_normalized(params: Any, vectors: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
    """`params` with each matrix divided by its largest singular value, and the vectors one power iteration further.

    Miyato et al. 2018, algorithm 1; a kernel is the matrix of its outputs against all else. The vectors are constants
    to the gradient. A matrix of zeros stays as it is, and so does its vector.
    """
    remaining, found = iter(vectors), []

    def normalized(leaf: Array) -> Array:
        if leaf.ndim < 2:
            return leaf
        matrix = leaf.reshape(-1, leaf.shape[-1])
        constant, vector = lax.stop_gradient(matrix), next(remaining)
        left = _unit(constant @ vector)
        right = _unit(left @ constant)
        value = left @ matrix @ right
        positive = value > 0
        found.append(jnp.where(positive, right, vector))
        return leaf / jnp.where(positive, value, 1.0)

    return jax.tree.map(normalized, params), tuple(found)


def _unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


def moving_average(average: Any, params: Any, decay: Any) -> Any:
    """Leaf by leaf, decay * average + (1 - decay) * params (Yazici et al. 2019, arXiv:1806.04498)."""
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, average, params)


def start_average(player: Player) -> Average:
    """The average of a generator before its first update."""
    return Average(player.fit.params, player.stats, jnp.int32(0))


def follow(average: Average, player: Player, decay: Any) -> Average:
    """`average` after one more update of `player`.

    At first the decay is less, (1 + t) / (10 + t) after t updates: else samples would long come from near where
    training began.
    """
    decay = jnp.minimum(decay, (1.0 + average.updates) / (10.0 + average.updates))
    params, stats = moving_average((average.params, average.stats), (player.fit.params, player.stats), decay)
    return Average(params, stats, average.updates + 1)


def pack(x: Array, count: int) -> Array:
    """`count` = P examples side by side along the last axis, [B * P, ..., C] -> [B, ..., P * C].

    What a discriminator against mode collapse judges: Lin et al. 2018, arXiv:1712.04086.
    """
    x = x.reshape(-1, count, *x.shape[1:])
    x = jnp.moveaxis(x, 1, -2)
    return x.reshape(*x.shape[:-2], -1)


def with_label(x: Array, label: Array | None, num_classes: int) -> Array:
    """`x` [B, ..., C] with its `label` [B] as constant one-hot channels behind, [B, ..., C + num_classes]."""
    if label is None:
        return x
    one_hot = data.one_hot(label, num_classes)
    planes = jnp.broadcast_to(one_hot.reshape(-1, *[1] * (x.ndim - 2), one_hot.shape[-1]), (*x.shape[:-1], num_classes))
    return jnp.concatenate([x, planes], -1)


def normalize(spec: data.Spec, x: Array) -> Array:
    """Examples `x` [...] of a data set with its lowest value at -1 and its highest at 1."""
    return 2.0 * (data.scale(x, spec.levels) - spec.low) / (spec.high - spec.low) - 1.0


def denormalize(spec: data.Spec, x: Array) -> Array:
    """The inverse of `normalize`, to values as `data.scale` gives them."""
    return spec.low + 0.5 * (x + 1.0) * (spec.high - spec.low)
