"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499, equation 2, sections 2.1 to 2.5).

A network of sequences: convolutions that see the past alone, with gaps that double from layer to layer; gated units,
residual and skip connections; a distribution over mu-law levels. Drawn with the caches of Le Paine et al. 2016,
arXiv:1611.09482: each layer remembers as many steps as its gap, so that a step costs the number of layers.
Axes: B batch, T steps, F features, S skip features, P outputs per step, K classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import autoregressive, data
from generative.autoregressive import Wish
from generative.model import Model
from jaxrl.core import checks, fit

METHODS = autoregressive.METHODS
EVAL_BATCH = 10  # examples evaluated at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    features: int = 32  # of the residual stream, F
    skip: int = 64  # of the skip connections and the last hidden layer, S
    num_layers: int = 8  # in a cycle; the gaps are 1, 2, 4, ...
    num_cycles: int = 1  # how often the gaps start anew
    conditional: bool = False  # on the class of the example
    batch_size: int = 8  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size

    @property
    def dilations(self) -> tuple[int, ...]:
        """How many steps each layer looks back."""
        return tuple(2**layer for layer in range(self.num_layers)) * self.num_cycles


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser
    max_grad_norm: Any = 1.0  # bound on the global norm of the gradient, per step of an example


class Dense(NamedTuple):
    """Parameters of an affine map."""

    kernel: Array  # [F, F']
    bias: Array  # [F']


class Layer(NamedTuple):
    """Parameters of a gated layer."""

    past: Array  # [F, 2 F] of the step that it looks back to
    present: Dense  # [F, 2 F] of the step itself
    residual: Any  # [F, F], or None in the last layer, after which nothing reads it
    skip: Dense  # [F, S]
    label: Any  # [K, 2 F], or None


class Params(NamedTuple):
    """Parameters."""

    first: Dense  # [1, F] of the value before
    layers: tuple[Layer, ...]
    hidden: Dense  # [S, S]
    output: Dense  # [S, P]


State = autoregressive.State


def init_params(key: Array, config: Config, num_outputs: int, num_classes: int | None) -> Params:
    """Parameters, such that outputs start small and all classes alike."""
    size, skip = config.features, config.skip

    def dense(key: Array, in_size: int, out_size: int, gain: float = 1.0) -> Dense:
        kernel = random.normal(key, (in_size, out_size)) * math.sqrt(gain / in_size)
        return Dense(kernel, jnp.zeros(out_size))

    def layer(key: Array, last: bool) -> Layer:
        past_key, present_key, residual_key, skip_key = random.split(key, 4)
        past, present = (dense(key, size, 2 * size, 0.5) for key in (past_key, present_key))
        label = None if num_classes is None else jnp.zeros((num_classes, 2 * size))
        residual = None if last else dense(residual_key, size, size)
        return Layer(past.kernel, present, residual, dense(skip_key, size, skip), label)

    first_key, hidden_key, output_key, *layer_keys = random.split(key, 3 + len(config.dilations))
    return Params(
        dense(first_key, 1, size),
        tuple(layer(key, number == len(layer_keys)) for number, key in enumerate(layer_keys, 1)),
        dense(hidden_key, skip, skip),
        dense(output_key, skip, num_outputs, 0.01),
    )


def affine(params: Dense, x: Array) -> Array:
    """[..., F'] of `x` [..., F]."""
    return x @ params.kernel + params.bias


def network(params: Params, before: Array, label: Array | None, look_back: Callable[[int, Array], Array]) -> Array:
    """Outputs [..., P] of a step, given the value `before` it [...] in [0, 1] and, from `look_back(n, h)`, what the
    input `h` [..., F] of layer n was as many steps ago as its gap is.
    """
    h = affine(params.first, 2 * before[..., None] - 1)
    skips = jnp.zeros(())
    for number, layer in enumerate(params.layers):
        a = look_back(number, h) @ layer.past + affine(layer.present, h)
        if label is not None:
            term = jnp.take(layer.label, label, axis=0)  # not a number for a class unknown
            a += term.reshape(-1, *[1] * (a.ndim - 2), term.shape[-1])
        content, opening = jnp.split(a, 2, axis=-1)
        g = jnp.tanh(content) * nn.sigmoid(opening)
        h = h if layer.residual is None else h + affine(layer.residual, g)
        skips += affine(layer.skip, g)
    return affine(params.output, nn.relu(affine(params.hidden, nn.relu(skips))))


def outputs(params: Params, dilations: tuple[int, ...], x: Array, label: Array | None = None) -> Array:
    """Outputs [B, T, P] given sequences `x` [B, T] in [0, 1]; before their start everything is zero."""

    def look_back(number: int, h: Array) -> Array:
        gap = min(dilations[number], h.shape[1])
        return jnp.pad(h, ((0, 0), (gap, 0), (0, 0)))[:, : h.shape[1]]

    return network(params, jnp.pad(x, ((0, 0), (1, 0)), constant_values=0.5)[:, :-1], label, look_back)


loss = autoregressive.loss


def draw_cached(
    conditional: autoregressive.Conditional,
    noise: Array,
    params: Params,
    dilations: tuple[int, ...],
    wish: Wish,
    label: Array | None,
    levels: int,
) -> Array:
    """Sequences [B, T] int32 from `noise` [T, B]. Layer n's inputs are kept in a ring of as many steps as its gap."""
    batch_size, length = wish.x.shape
    features = params.first.bias.shape[-1]

    def step(carry: tuple[Array, list[Array]], moment: tuple[Array, Array]) -> Any:
        before, rings = carry
        noise, time = moment
        rings = list(rings)

        def look_back(number: int, h: Array) -> Array:
            place = time % len(rings[number])
            past = lax.dynamic_index_in_dim(rings[number], place, 0, False)
            rings[number] = lax.dynamic_update_index_in_dim(rings[number], h, place, 0)
            return past

        y = network(params, before, label, look_back)
        value = autoregressive.choose(conditional, noise, y, wish, time)
        return (data.scale(value, levels), rings), value

    rings = [jnp.zeros((min(gap, length), batch_size, features)) for gap in dilations]
    _, values = lax.scan(step, (jnp.full(batch_size, 0.5), rings), (noise, jnp.arange(length)))
    return values.T


def make(spec: data.Spec, config: Config) -> Model:
    """A WaveNet of sequences of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not sequences of integers; a split without examples; classes
            asked for and none in the data.
    """
    levels = autoregressive.check(spec, config.eval_split)
    _check(spec, config)
    conditional = autoregressive.categorical(levels)
    dilations = config.dilations
    num_classes = autoregressive.classes(spec, config.conditional)

    def start(key: Array) -> Params:
        return init_params(key, config, conditional.size, num_classes)

    def read(params: Params, x: Array, label: Array | None) -> Array:
        return outputs(params, dilations, x, label)

    def draw(noise: Array, params: Params, wish: Wish, label: Array | None) -> Array:
        return draw_cached(conditional, noise, params, dilations, wish, label, levels)

    return autoregressive.model(spec, config, conditional, start, read, draw, EVAL_BATCH, num_classes)


def _check(spec: data.Spec, config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(
        features=config.features,
        skip=config.skip,
        num_layers=config.num_layers,
        num_cycles=config.num_cycles,
        batch_size=config.batch_size,
    )
    if len(spec.shape) != 1:
        raise ValueError(
            f"{spec.name} holds examples of shape {spec.shape}, not sequences [steps]: reshape them, or use a model of "
            "images."
        )
