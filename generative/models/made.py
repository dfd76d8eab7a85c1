"""Masked autoencoder for distribution estimation, MADE (Germain, Gregor, Murray and Larochelle 2015, arXiv:1502.03509).

A dense network whose output d sees only the variables before d (equations 9 to 13), with one mask or several. Several
are an ensemble: each batch trains one of them, and probabilities are averaged over all (sections 4.2 and 4.3).
Axes: B batch, D variables, F units of a layer, M masks, P outputs per variable.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import autoregressive, data, masks
from generative.autoregressive import State, Wish
from generative.model import Model
from jaxrl.core import checks, fit
from jaxrl.core.loop import Metrics

METHODS = ("incremental", "naive")


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    hidden: tuple[int, ...] = (500,)  # width of each hidden layer
    direct: bool = True  # connect inputs to outputs too
    num_masks: int = 1  # of the ensemble that is evaluated and drawn from, M
    resample: bool = False  # train a new mask in every update, not one of the ensemble's
    order: Literal["raster", "random"] = "random"  # of the variables in each mask
    mask_seed: int = 0  # of the ensemble's masks, which are the same for every seed of a run
    batch_size: int = 100  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser


class Params(NamedTuple):
    """Parameters."""

    kernels: tuple[Array, ...]  # [F, F'] into each hidden layer
    biases: tuple[Array, ...]  # [F'] of each hidden layer
    output: Array  # [F, D, P]
    direct: Any  # [D, D, P], or None
    offset: Array  # [D, P]


def outputs(params: Params, degrees: masks.Degrees, x: Array) -> Array:
    """Outputs [B, D, P] given `x` [B, D] in [0, 1]: those of a variable see only the variables before it."""
    h, below, last = x, degrees.variables, degrees.variables
    for kernel, bias, above in zip(params.kernels, params.biases, degrees.hidden, strict=True):
        h = nn.relu(h @ (kernel * (above >= below[:, None])) + bias)
        below = above
    # A hidden unit of degree m has seen variable m, a variable of place m has not seen itself.
    y = _product(h, params.output * (last > below[:, None])[..., None]) + params.offset
    if params.direct is not None:
        y += _product(x, params.direct * (last > last[:, None])[..., None])
    return y


def _product(h: Array, kernel: Array) -> Array:
    """[B, F] times [F, D, P]."""
    return (h @ kernel.reshape(kernel.shape[0], -1)).reshape(len(h), *kernel.shape[1:])


def loss(
    params: Params, degrees: masks.Degrees, conditional: autoregressive.Conditional, x: Array, levels: int
) -> tuple[Array, dict[str, Array]]:
    """Minus the log-likelihood of `x` [B, D] int under one mask, mean over the batch. Returns (scalar, metrics)."""
    nll = -conditional.log_prob(outputs(params, degrees, data.scale(x, levels)), x).sum(-1).mean()
    return nll, {"loss": nll}


def draw_incrementally(
    conditional: autoregressive.Conditional,
    noise: Array,
    params: Params,
    degrees: masks.Degrees,
    wish: Wish,
    levels: int,
) -> Array:
    """Examples [B, D] int32 from `noise` [D, B], under one mask, at the cost of about one pass through the network.

    Each hidden unit is computed once, as soon as the last variable that it sees is drawn.
    """
    batch_size, num_variables = wish.x.shape
    order = masks.orders(degrees.variables)
    kernels = [kernel.T for kernel in params.kernels]  # rows are quicker to gather
    output = params.output.transpose(1, 0, 2)
    direct = None if params.direct is None else params.direct.transpose(1, 0, 2)
    ripe = [_by_degree(each, num_variables) for each in degrees.hidden]

    def step(carry: Any, moment: Any) -> Any:
        x, layers = carry  # what is not known yet is zero, and so needs no mask
        noise, variable, units_of_layers = moment
        y = (layers[-1] if layers else x) @ output[variable] + params.offset[variable]
        y = y if direct is None else y + x @ direct[variable]
        value = autoregressive.choose(conditional, noise, y, wish, variable)
        x = x.at[:, variable].set(data.scale(value, levels))
        below, filled = x, []
        for kernel, bias, units, layer in zip(kernels, params.biases, units_of_layers, layers, strict=True):
            new = nn.relu(below @ kernel[units].T + bias[units])
            below = layer.at[:, units].set(new, mode="drop")
            filled.append(below)
        return (x, filled), value

    layers = [jnp.zeros((batch_size, len(bias))) for bias in params.biases]
    _, values = lax.scan(step, (jnp.zeros(wish.x.shape), layers), (noise, order, ripe))
    return jnp.zeros_like(wish.x).at[:, order].set(values.T)


def _by_degree(degrees: Array, num_variables: int) -> Array:
    """The units of each degree [D, most], filled up with a number that is no unit's."""
    size = len(degrees)
    sorted_degrees = masks.spread(size, num_variables)  # what `degrees` are when sorted
    starts = np.searchsorted(sorted_degrees, np.arange(num_variables + 1))
    most = int(np.diff(starts).max())
    places = starts[:-1, None] + np.arange(most)
    places = np.where(places < starts[1:, None], places, size)
    return jnp.append(jnp.argsort(degrees), size)[places]


def make(spec: data.Spec, config: Config) -> Model:
    """A MADE of any data of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not integers; a split without examples.
    """
    checks.choices(config)
    levels = autoregressive.check(spec, config.eval_split)
    checks.at_least_one(num_masks=config.num_masks, batch_size=config.batch_size)
    checks.at_least_one(**{f"hidden[{layer}]": size for layer, size in enumerate(config.hidden)})
    size = math.prod(spec.shape)
    conditional = autoregressive.categorical(levels)

    def new_mask(key: Array) -> masks.Degrees:
        return masks.degrees(key, size, config.hidden, config.order)

    ensemble = jax.vmap(new_mask)(random.split(random.key(config.mask_seed), config.num_masks))

    def member(number: Any) -> masks.Degrees:
        return jax.tree.map(lambda leaf: leaf[number], ensemble)

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        params_key, cursor_key = random.split(key)
        sizes = (size, *config.hidden)
        hidden_keys = random.split(params_key, len(config.hidden))
        kernel_init = nn.initializers.he_uniform()
        params = Params(
            kernels=tuple(map(kernel_init, hidden_keys, itertools.pairwise(sizes))),
            biases=tuple(map(jnp.zeros, config.hidden)),
            output=jnp.zeros((sizes[-1], size, conditional.size)),
            direct=jnp.zeros((size, size, conditional.size)) if config.direct else None,
            offset=autoregressive.marginal_outputs(source.train, conditional, levels),
        )
        return State(fit.start(config.optimizer, params), data.start(cursor_key))

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        degrees = new_mask(key) if config.resample else member(random.randint(key, (), 0, config.num_masks))
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        optimizer = config.optimizer(hparams.learning_rate)
        args = (degrees, conditional, batch.x.reshape(-1, size), levels)
        fitted, metrics = fit.step(optimizer, loss, state.fit, *args)
        return State(fitted, cursor), metrics

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        return autoregressive.evaluate(log_prob, state.fit.params, getattr(source, config.eval_split).x)

    def log_prob(params: Params, x: Array, label: None = None) -> Array:
        data.check_label(None, label, len(x))
        totals = lax.map(lambda degrees: -nats_under(degrees, params, x).sum(range(1, x.ndim)), ensemble)
        return nn.logsumexp(totals, 0) - math.log(config.num_masks)

    def nats_under(degrees: masks.Degrees, params: Params, x: Array) -> Array:
        return autoregressive.nats(spec, conditional, lambda x: outputs_under(degrees, params, x), x)

    def outputs_under(degrees: masks.Degrees, params: Params, x: Array) -> Array:
        return outputs(params, degrees, x.reshape(len(x), -1)).reshape(*x.shape, -1)

    def first_nats(params: Params, x: Array, label: None = None) -> Array:
        data.check_label(None, label, len(x))
        return nats_under(member(0), params, x)

    def first_outputs(params: Params, x: Array, label: None = None) -> Array:
        data.check_label(None, label, len(x))
        return outputs_under(member(0), params, x)

    def draw(key: Array, params: Params, wish: Wish, label: None, method: str) -> Array:
        noise_key, member_key = random.split(key)
        noise = autoregressive.uniform(noise_key, wish)

        def draw_under(degrees: masks.Degrees) -> Array:
            if method == "incremental":
                return draw_incrementally(conditional, noise, params, degrees, wish, levels)
            predict = lambda x: outputs(params, degrees, data.scale(x, levels))  # noqa: E731
            return autoregressive.draw_naively(conditional, noise, predict, wish, masks.orders(degrees.variables))

        def nats(degrees: masks.Degrees, x: Array) -> Array:
            return -conditional.log_prob(outputs(params, degrees, data.scale(x, levels)), x)

        return autoregressive.draw_of_ensemble(member_key, draw_under, nats, ensemble, wish)

    sample, complete = autoregressive.samplers(spec, METHODS, draw)
    return Model(
        init,
        update,
        evaluate,
        sample,
        complete=complete,
        log_prob=log_prob,
        nats=first_nats,
        outputs=first_outputs,
        order=masks.orders(member(0).variables),
    )
