"""What autoregressive models share: the distribution of one variable, likelihoods, the naive sampler, training.

The variables of an example are numbered along its flattened array: row by row, colour by colour within a pixel.
Axes: N examples, B batch, D variables, L levels, P numbers that give the distribution of one variable.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import data, likelihoods
from generative.model import Model
from jaxrl.core import checks, fit
from jaxrl.core.loop import Metrics

METHODS = ("cached", "naive")  # of sampling from a `model`
POSITIONS = 512  # pixels, or steps of a sequence, that a CPU trains on at once: their features stay in its caches


class Conditional(NamedTuple):
    """The distribution of one variable, an integer below L, given P outputs of a network."""

    size: int  # P
    log_prob: Callable[[Array, Array], Array]  # (outputs [..., P], x [...] int) -> [...] nats
    draw: Callable[[Array, Array], Array]  # (noise [...] uniform in [0, 1), outputs [..., P]) -> [...] int32


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: data.Cursor


class Wish(NamedTuple):
    """What to draw: everything, or the rest of examples given in part."""

    x: Array  # [B, D] int32
    given: Array  # [B, D] bool: take the value of `x`; draw the others


def categorical(levels: int) -> Conditional:
    """Any distribution over `levels` values: a logit for each, or one logit of the value 1 if there are two."""
    if levels == 2:

        def log_prob(outputs: Array, x: Array) -> Array:
            return likelihoods.bernoulli(outputs, x[..., None].astype(jnp.float32))

        def draw(noise: Array, outputs: Array) -> Array:
            return (noise < nn.sigmoid(outputs[..., 0])).astype(jnp.int32)

        return Conditional(1, log_prob, draw)

    def log_prob_of_many(outputs: Array, x: Array) -> Array:
        chosen = lax.broadcasted_iota(jnp.int32, outputs.shape, outputs.ndim - 1) == x[..., None]
        return jnp.where(chosen, outputs, 0.0).sum(-1) - nn.logsumexp(outputs, -1)  # a gather trains slowly on a CPU

    return Conditional(levels, log_prob_of_many, lambda noise, outputs: invert(noise, nn.softmax(outputs)))


def logistic_mixture(levels: int, num_logistics: int) -> Conditional:
    """`num_logistics` logistic variables rounded to `levels` values, mixed: see `likelihoods.logistic_mixture`."""

    def log_prob(outputs: Array, x: Array) -> Array:
        return likelihoods.logistic_mixture(outputs, data.scale(x, levels), levels)

    def draw(noise: Array, outputs: Array) -> Array:
        return (noise[..., None] >= likelihoods.logistic_mixture_ends(outputs, levels)).sum(-1, dtype=jnp.int32)

    return Conditional(3 * num_logistics, log_prob, draw)


def invert(noise: Array, probabilities: Array) -> Array:
    """The level [...] int32 whose share of [0, 1) holds `noise` [...], given the `probabilities` [..., L]."""
    ends = jnp.cumsum(probabilities, -1)[..., :-1]
    return (noise[..., None] >= ends).sum(-1, dtype=jnp.int32)


def choose(conditional: Conditional, noise: Array, outputs: Array, wish: Wish, variable: Any) -> Array:
    """The value [B] of one `variable`: as given, or drawn by its `noise` [B] from `outputs` [B, P]."""
    drawn = conditional.draw(noise, outputs)
    return jnp.where(wish.given[:, variable], wish.x[:, variable], drawn)


def draw_naively(
    conditional: Conditional, noise: Array, outputs: Callable[[Array], Array], wish: Wish, order: Array
) -> Array:
    """Examples [B, D] int32 by one full pass of `outputs([B, D] int32) -> [B, D, P]` for each variable in `order` [D].

    The variable drawn at time t takes `noise[t]` [B], so that every way of drawing gives the same examples.
    """

    def step(x: Array, moment: tuple[Array, Array]) -> tuple[Array, None]:
        noise, variable = moment
        value = choose(conditional, noise, outputs(x)[:, variable], wish, variable)
        return x.at[:, variable].set(value), None

    return lax.scan(step, jnp.zeros_like(wish.x), (noise, order))[0]


def samplers(
    spec: data.Spec, methods: Sequence[str], draw: Callable[..., Array], num_classes: int | None = None
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """`sample` and `complete` of a model, given `draw(key, params, wish, label, method) -> [B, D] int32`.

    The first of `methods` is used where none is asked for. If the model reads one of `num_classes`, `sample` takes them
    in turn where no label is given, and `complete` needs it. That takes the values of `x` where `given`, and draws each
    other one given those before it in the order: a sample given all of them where they come first in the order, and
    else blind to those still to come.

    All methods compute the same sums, in float32 whatever the device would rather multiply in; only their order
    differs, so that a value whose noise lies within rounding of the edge between two levels may be drawn as either.
    """

    def scaled(key: Array, state: Any, wish: Wish, label: Any, method: str | None) -> Array:
        method = methods[0] if method is None else method
        if method not in methods:
            raise ValueError(checks.unknown("method of sampling", method, methods))
        label = data.check_label(num_classes, label, len(wish.x))
        with jax.default_matmul_precision("highest"):
            x = data.scale(draw(key, state.fit.params, wish, label, method), spec.levels)
        if label is not None:  # of no class, which tracing cannot refuse, there are no examples
            x = jnp.where(label[:, None] < (num_classes or 0), x, jnp.nan)
        return x.reshape(-1, *spec.shape)

    def sample(key: Array, state: Any, count: int, label: Any = None, method: str | None = None) -> Array:
        shape = count, math.prod(spec.shape)
        if label is None and num_classes is not None:
            label = jnp.arange(count) % num_classes
        return scaled(key, state, Wish(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)), label, method)

    def complete(key: Array, state: Any, x: Any, given: Any, label: Any = None, method: str | None = None) -> Array:
        data.check_examples(spec, x)
        given = check_given(spec, given, len(x)).reshape(len(x), -1)
        return scaled(key, state, Wish(jnp.asarray(x, jnp.int32).reshape(given.shape), given), label, method)

    return sample, complete


def draw_of_ensemble(
    key: Array, draw: Callable[[Any], Array], nats: Callable[..., Array], members: Any, wish: Wish
) -> Array:
    """Examples [B, D] int32, each drawn by one of `members` [M, ...].

    A sample of the mean of distributions is a sample of one of them. Of examples given in part, a member counts by the
    probability that it gives to what is given, each value after those before it in the member's order. Where the given
    ones come first in it, that is their probability, and the completion a sample of the ensemble given them; else it
    is one of M samples that are weighted as in importance sampling, nearer to that the more members there are.

    Args:
        key: of the choice of members.
        draw: (member) -> [B, D] int32, what it would draw.
        nats: (member, x [B, D]) -> [B, D] that each value costs.
        members: of the ensemble.
        wish: what is given.
    """

    def weighed(member: Any) -> tuple[Array, Array]:
        x = draw(member)
        return x, -jnp.where(wish.given, nats(member, x), 0.0).sum(-1)

    if len(jax.tree.leaves(members)[0]) == 1:
        return draw(jax.tree.map(lambda leaf: leaf[0], members))
    drawn, weights = lax.map(weighed, members)  # [M, B, D] and [M, B]
    chosen = random.categorical(key, weights, axis=0)
    return jnp.take_along_axis(drawn, chosen[None, :, None], axis=0)[0]


def evaluate(
    log_prob: Callable[..., Array], params: Any, x: Array, label: Array | None = None, batch_size: int = 500
) -> dict[str, Array]:
    """Mean nats per example and bits per variable of `x` [N, *shape] under `log_prob(params, x, label) -> [N]`."""

    def one(example: Any) -> Array:
        return log_prob(params, *jax.tree.map(lambda leaf: leaf[None], example))[0]

    nll = -lax.map(one, (x, label), batch_size=batch_size).mean()
    return {"eval/nll": nll, "eval/bits_per_dim": bits_per_dim(nll, x.shape[1:])}


def bits_per_dim(nats: Any, shape: Sequence[int]) -> Any:
    """Bits per variable of examples of `shape` that cost `nats` each: minus their `log_prob`."""
    return nats / (math.prod(shape) * math.log(2))


def nats(spec: data.Spec, conditional: Conditional, outputs: Callable[[Array], Array], x: Array) -> Array:
    """Nats [N, *shape] that each value of `x` costs, given `outputs(x in [0, 1]) -> [N, *shape, P]`.

    A value that is no level costs NaN where it cannot be refused, while tracing.

    Raises:
        ValueError: as `data.check_examples`.
    """
    data.check_examples(spec, x)
    levels = spec.levels or 0
    found = -conditional.log_prob(outputs(data.scale(x, levels)), x)
    values = jnp.asarray(x, jnp.int32)  # 256 levels are no byte
    return jnp.where((values >= 0) & (values < levels), found, jnp.nan)


def marginal_outputs(examples: Any, conditional: Conditional, levels: int) -> Array:
    """Outputs [D, P] of `categorical(levels)` that give each variable's frequencies in `examples`.

    Probabilities are kept above 0.001, as for the VAE: a predictor that knows no more has a finite likelihood.
    """
    x = examples.take(jnp.arange(1000)).x if isinstance(examples, data.Rendered) else examples.x
    x = x.reshape(len(x), -1)
    variables = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)
    counts = jnp.zeros((x.shape[1], levels)).at[variables, x].add(1.0)
    logits = jnp.log(jnp.clip(counts / len(x), 0.001, 0.999))
    return logits if conditional.size > 1 else logits[:, 1:] - logits[:, :1]


def check(spec: data.Spec, eval_split: str, images: bool = False) -> int:
    """The number of levels of the data, or their refusal by a model of integers, of `images` if it is one.

    Raises:
        ValueError: real numbers; a shape that is none of an image; a split without examples.
    """
    if spec.levels is None or spec.levels < 2:
        raise ValueError(
            f"{spec.name} has levels={spec.levels}, but an autoregressive model needs integers of at least two levels: "
            "give integers, and data.from_arrays their number of levels."
        )
    if images and len(spec.shape) != 3:
        raise ValueError(
            f"{spec.name} holds examples of shape {spec.shape}, not images [height, width, channels]: "
            "reshape them, or use MADE or NADE, which take any shape."
        )
    data.check_split(spec, eval_split)
    return spec.levels


def classes(spec: data.Spec, conditional: bool) -> int | None:
    """The number of classes that a model reads: all, or None if it is not `conditional`.

    Raises:
        ValueError: classes asked for and none in the data.
    """
    if conditional and spec.num_classes is None:
        raise ValueError(f"{spec.name} has no labels to condition on: give some, or use conditional=False.")
    return spec.num_classes if conditional else None


def check_given(spec: data.Spec, given: Any, count: int) -> Array:
    """`given` as an array [count, *shape], from one for every example or for each.

    Raises:
        ValueError: numbers instead of truths, or a shape that fits neither.
    """
    given = jnp.asarray(given)
    if given.dtype != bool:
        raise ValueError(f"given holds {given.dtype}: give booleans, True where the value of x is to be kept.")
    if given.shape not in ((), spec.shape, (count, *spec.shape)):
        raise ValueError(
            f"given has shape {given.shape} for {count} examples of shape {spec.shape}: give one of {spec.shape} for "
            f"all of them, or {(count, *spec.shape)}."
        )
    return jnp.broadcast_to(given, (count, *spec.shape))


def uniform(key: Array, wish: Wish) -> Array:
    """Noise [D, B] in [0, 1) for every variable, in the order they are drawn."""
    return random.uniform(key, wish.x.T.shape)


def loss(
    params: Any,
    outputs: Callable[..., Array],
    conditional: Conditional,
    x: Array,
    label: Array | None,
    levels: int,
) -> tuple[Array, dict[str, Array]]:
    """Minus the log-likelihood of examples `x` [B, *shape] int, mean over the batch. Returns (scalar, metrics).

    `outputs(params, x in [0, 1], label) -> [B, *shape, P]`, those of a variable by the variables before it.
    """
    log_prob = conditional.log_prob(outputs(params, data.scale(x, levels), label), x)
    nll = -log_prob.sum(range(1, x.ndim)).mean()
    return nll, {"loss": nll}


def model(
    spec: data.Spec,
    config: Any,
    conditional: Conditional,
    init_params: Callable[[Array], Any],
    outputs: Callable[..., Array],
    draw_cached: Callable[..., Array],
    eval_batch: int,
    num_classes: int | None = None,
) -> Model:
    """A model of examples drawn in the order in which they are numbered, by one network.

    Args:
        spec: of data that `check` let pass.
        config: with `batch_size`, `optimizer` and `eval_split`.
        conditional: the distribution of a variable.
        init_params: (key) -> parameters.
        outputs: as in `loss`.
        draw_cached: (noise [D, B], params, wish, label) -> [B, D] int32, as `draw_naively` draws them.
        eval_batch: examples evaluated at once.
        num_classes: of the labels that `outputs` reads; None: it gets none.
    """
    size, levels = math.prod(spec.shape), spec.levels or 0
    at_once = max(1, POSITIONS // math.prod(spec.shape[:2]))

    def init(key: Array, hparams: Any, source: data.Source) -> State:
        params_key, cursor_key = random.split(key)
        return State(fit.start(config.optimizer, init_params(params_key)), data.start(cursor_key))

    def update(key: Array, state: State, hparams: Any, source: data.Source) -> tuple[State, Metrics]:
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        optimizer, bound = config.optimizer(hparams.learning_rate), hparams.max_grad_norm * size
        fitted, metrics = fit.step_in_parts(optimizer, mean_loss, state.fit, read(batch), at_once, bound)
        return State(fitted, cursor), metrics

    def mean_loss(params: Any, examples: tuple[Any, Any]) -> tuple[Array, Metrics]:
        return loss(params, outputs, conditional, *examples, levels)

    def read(examples: Any) -> tuple[Any, Any]:
        return examples.x, None if num_classes is None else examples.label

    def log_prob(params: Any, x: Array, label: Any = None) -> Array:
        return -nats_of(params, x, label).sum(range(1, x.ndim))

    def nats_of(params: Any, x: Array, label: Any = None) -> Array:
        return nats(spec, conditional, lambda x: outputs_of(params, x, label), x)

    def outputs_of(params: Any, x: Array, label: Any = None) -> Array:
        return outputs(params, x, data.check_label(num_classes, label, len(x)))

    def evaluate_state(key: Array, state: State, hparams: Any, source: data.Source) -> Metrics:
        return evaluate(log_prob, state.fit.params, *read(getattr(source, config.eval_split)), eval_batch)

    def draw(key: Array, params: Any, wish: Wish, label: Array | None, method: str) -> Array:
        noise = uniform(key, wish)
        if method == "cached":
            return draw_cached(noise, params, wish, label)

        def predict(x: Array) -> Array:
            examples = data.scale(x, levels).reshape(-1, *spec.shape)
            return outputs(params, examples, label).reshape(*x.shape, -1)

        return draw_naively(conditional, noise, predict, wish, order)

    order = jnp.arange(size)
    sample, complete = samplers(spec, METHODS, draw, num_classes)
    return Model(
        init,
        update,
        evaluate_state,
        sample,
        complete=complete,
        log_prob=log_prob,
        nats=nats_of,
        outputs=outputs_of,
        order=order,
    )
