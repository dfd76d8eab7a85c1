"""Neural autoregressive distribution estimator, NADE (Larochelle and Murray 2011, AISTATS, equations 9 to 12).

Either for one order of the variables, or trained for all orders at once, when one network gives an ensemble: the mean
of the probabilities under several orders (Uria, Murray and Larochelle 2014, arXiv:1310.1757, equations 9 and 11).
Axes: B batch, D variables, F units of a layer, M orders, P outputs per variable.
"""

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import autoregressive, data
from generative.autoregressive import State, Wish
from generative.model import Model
from jaxrl.core import checks, fit, shuffle
from jaxrl.core.loop import Metrics

METHODS = ("incremental", "naive")


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    hidden: tuple[int, ...] = (500,)  # width of each hidden layer
    activation: Literal["sigmoid", "relu"] = "sigmoid"  # of the hidden units
    training: Literal["one_order", "all_orders"] = "one_order"  # all: a random part of the variables predicts the rest
    num_orders: int = 1  # of the ensemble that is evaluated and drawn from, M; more than one if trained for all
    order: Literal["raster", "random"] = "raster"  # of the variables; an ensemble has random ones
    order_seed: int = 0  # of random orders, which are the same for every seed of a run
    batch_size: int = 100  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser


class Rows(NamedTuple):
    """What belongs to one variable, leaves [D, ...]."""

    kernel: Array  # [D, F] by which its value enters the first hidden layer
    known: Any  # [D, F] added to the first hidden layer once it is known, or None if one order is trained
    output: Array  # [D, F, P]
    offset: Array  # [D, P]


class Params(NamedTuple):
    """Parameters."""

    rows: Rows
    bias: Array  # [F] of the first hidden layer
    deeper: tuple[tuple[Array, Array], ...]  # kernel [F, F'] and bias [F'] of each further hidden layer


def enter(row: Rows, a: Array, x: Array) -> Array:
    """First layer [B, F] before its activation, once the variable of `row` has the value `x` [B]."""
    a = a + x[:, None] * row.kernel
    return a if row.known is None else a + row.known


def predict(activation: str, row: Rows, deeper: Any, a: Array) -> Array:
    """Outputs [B, P] of the variable of `row`, given the first layer `a` [B, F] before its activation."""
    return _deep(activation, deeper, a) @ row.output + row.offset


def _deep(activation: str, deeper: Any, a: Array) -> Array:
    act = nn.sigmoid if activation == "sigmoid" else nn.relu
    h = act(a)
    for kernel, bias in deeper:
        h = act(h @ kernel + bias)
    return h


def outputs(activation: str, params: Params, order: Array, x: Array) -> Array:
    """Outputs [B, D, P] given `x` [B, D] in [0, 1]: those of a variable see only the variables before it in `order`."""
    rows = jax.tree.map(lambda leaf: leaf[order], params.rows)
    a = jnp.broadcast_to(params.bias, (len(x), len(params.bias)))
    y = _scan(activation, rows, params.deeper, a, x.T[order])
    return jnp.zeros((x.shape[1], *y.shape[1:])).at[order].set(y).transpose(1, 0, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(activation: str, rows: Rows, deeper: Any, a: Array, x: Array) -> Array:
    """Outputs [D, B, P] for `x` [D, B], in the order of its rows.

    Its gradient runs the sum `a` backwards instead of storing D of them, a fourth of the time on a CPU.
    """
    return _scan_forward(activation, rows, deeper, a, x)[0]


def _scan_forward(activation: str, rows: Rows, deeper: Any, a: Array, x: Array) -> Any:
    def step(a: Array, moment: tuple[Rows, Array]) -> tuple[Array, Array]:
        row, x = moment
        return enter(row, a, x), predict(activation, row, deeper, a)

    a, y = lax.scan(step, a, (rows, x))
    return y, (rows, deeper, a, x)


def _scan_backward(activation: str, residuals: Any, dy: Array) -> Any:
    rows, deeper, a, x = residuals

    def step(carry: Any, moment: tuple[Rows, Array, Array]) -> Any:
        a, d_a, d_deeper = carry
        row, x, dy = moment
        entered, pull_enter = jax.vjp(lambda row, x: enter(row, jnp.zeros_like(a), x), row, x)
        a = a - entered
        _, pull_predict = jax.vjp(partial(predict, activation), row, deeper, a)
        d_row_entering, d_x = pull_enter(d_a)
        d_row, d_deeper_here, d_a_here = pull_predict(dy)
        add = partial(jax.tree.map, jnp.add)
        return (a, d_a + d_a_here, add(d_deeper, d_deeper_here)), (add(d_row, d_row_entering), d_x)

    start = a, jnp.zeros_like(a), jax.tree.map(jnp.zeros_like, deeper)
    (_, d_a, d_deeper), (d_rows, d_x) = lax.scan(step, start, (rows, x, dy), reverse=True)
    return d_rows, d_deeper, d_a, d_x


_scan.defvjp(_scan_forward, _scan_backward)


def loss(
    params: Params,
    key: Array,
    config: Config,
    conditional: autoregressive.Conditional,
    order: Array,
    x: Array,
    levels: int,
) -> tuple[Array, dict[str, Array]]:
    """Minus the log-likelihood of `x` [B, D] int, mean over the batch: in `order`, or an estimate of its mean over all.

    Returns (scalar, metrics).
    """
    if config.training == "one_order":
        nll = -conditional.log_prob(outputs(config.activation, params, order, data.scale(x, levels)), x).sum(-1).mean()
        return nll, {"loss": nll}
    known = random_parts(key, *x.shape)
    rows = params.rows
    a = (known * data.scale(x, levels)) @ rows.kernel + known @ rows.known + params.bias
    h = _deep(config.activation, params.deeper, a)
    y = (h @ rows.output.transpose(1, 0, 2).reshape(h.shape[1], -1)).reshape(*x.shape, -1) + rows.offset
    nats = -(conditional.log_prob(y, x) * (1 - known)).sum(-1)
    nll = (nats * x.shape[1] / (1 - known).sum(-1)).mean()  # as if all were drawn at the cost of those that are left
    return nll, {"loss": nll}


def random_parts(key: Array, batch_size: int, num_variables: int) -> Array:
    """Which variables are known [B, D], 0 or 1: the first d of a random order, d uniform in 0 .. D - 1."""
    order_key, count_key = random.split(key)
    places = jax.vmap(shuffle.permutation, (0, None))(random.split(order_key, batch_size), num_variables)
    count = random.randint(count_key, (batch_size, 1), 0, num_variables)
    return (places < count).astype(jnp.float32)


def draw_incrementally(
    activation: str,
    conditional: autoregressive.Conditional,
    noise: Array,
    params: Params,
    order: Array,
    wish: Wish,
    levels: int,
) -> Array:
    """Examples [B, D] int32 from `noise` [D, B] in `order`, at the cost of one pass through the network."""

    def step(a: Array, moment: tuple[Rows, Array, Array]) -> tuple[Array, Array]:
        row, noise, variable = moment
        y = predict(activation, row, params.deeper, a)
        value = autoregressive.choose(conditional, noise, y, wish, variable)
        return enter(row, a, data.scale(value, levels)), value

    rows = jax.tree.map(lambda leaf: leaf[order], params.rows)
    a = jnp.broadcast_to(params.bias, (len(wish.x), len(params.bias)))
    _, values = lax.scan(step, a, (rows, noise, order))
    return jnp.zeros_like(wish.x).at[:, order].set(values.T)


def make(spec: data.Spec, config: Config) -> Model:
    """A NADE of any data of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not integers; a split without examples.
    """
    levels = autoregressive.check(spec, config.eval_split)
    _check(config)
    size = math.prod(spec.shape)
    conditional = autoregressive.categorical(levels)
    all_orders = config.training == "all_orders"
    orders = jnp.arange(size)[None]
    if config.order == "random" or config.num_orders > 1:
        order_keys = random.split(random.key(config.order_seed), config.num_orders)
        orders = jax.vmap(shuffle.permutation, (0, None))(order_keys, size)

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        params_key, known_key, cursor_key, *deeper_keys = random.split(key, 3 + len(config.hidden))
        first, last = config.hidden[0], config.hidden[-1]
        kernel_init = nn.initializers.glorot_uniform()
        rows = Rows(
            kernel_init(params_key, (size, first)),
            kernel_init(known_key, (size, first)) if all_orders else None,
            jnp.zeros((size, last, conditional.size)),
            autoregressive.marginal_outputs(source.train, conditional, levels),
        )
        deeper = tuple(
            (kernel_init(key, sizes), jnp.zeros(sizes[1]))
            for key, sizes in zip(deeper_keys, itertools.pairwise(config.hidden), strict=False)
        )
        return State(fit.start(config.optimizer, Params(rows, jnp.zeros(first), deeper)), data.start(cursor_key))

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        args = (key, config, conditional, orders[0], batch.x.reshape(-1, size), levels)
        fitted, metrics = fit.step(config.optimizer(hparams.learning_rate), loss, state.fit, *args)
        return State(fitted, cursor), metrics

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        return autoregressive.evaluate(log_prob, state.fit.params, getattr(source, config.eval_split).x)

    def log_prob(params: Params, x: Array, label: None = None) -> Array:
        data.check_label(None, label, len(x))
        totals = lax.map(lambda order: -nats_in(order, params, x).sum(range(1, x.ndim)), orders)
        return nn.logsumexp(totals, 0) - math.log(config.num_orders)

    def nats_in(order: Array, params: Params, x: Array) -> Array:
        return autoregressive.nats(spec, conditional, lambda x: outputs_in(order, params, x), x)

    def outputs_in(order: Array, params: Params, x: Array) -> Array:
        return outputs(config.activation, params, order, x.reshape(len(x), -1)).reshape(*x.shape, -1)

    def first_nats(params: Params, x: Array, label: None = None) -> Array:
        data.check_label(None, label, len(x))
        return nats_in(orders[0], params, x)

    def first_outputs(params: Params, x: Array, label: None = None) -> Array:
        data.check_label(None, label, len(x))
        return outputs_in(orders[0], params, x)

    def draw(key: Array, params: Params, wish: Wish, label: None, method: str) -> Array:
        noise_key, order_key = random.split(key)
        noise = autoregressive.uniform(noise_key, wish)

        def draw_in(order: Array) -> Array:
            if method == "incremental":
                return draw_incrementally(config.activation, conditional, noise, params, order, wish, levels)
            predict = lambda x: outputs(config.activation, params, order, data.scale(x, levels))  # noqa: E731
            return autoregressive.draw_naively(conditional, noise, predict, wish, order)

        def nats(order: Array, x: Array) -> Array:
            return -conditional.log_prob(outputs(config.activation, params, order, data.scale(x, levels)), x)

        return autoregressive.draw_of_ensemble(order_key, draw_in, nats, orders, wish)

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
        order=orders[0],
    )


def _check(config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(num_orders=config.num_orders, batch_size=config.batch_size, hidden=len(config.hidden))
    checks.at_least_one(**{f"hidden[{layer}]": size for layer, size in enumerate(config.hidden)})
    if config.num_orders > 1 and config.training == "one_order":
        raise ValueError(
            f"num_orders={config.num_orders}, but a network trained in one order knows no other: "
            "use training='all_orders', or num_orders=1."
        )
