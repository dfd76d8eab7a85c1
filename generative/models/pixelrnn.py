"""PixelRNN (van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759, sections 3.1 to 3.4, equation 3).

Residual layers of LSTMs run over the whole image at once: the Row LSTM down its rows, where each state sees its three
neighbours above, hence a cone of pixels; the Diagonal BiLSTM along its diagonals, from both sides, where each state
sees those beside and above it, hence all pixels before. A convolution that does not see the pixel itself (mask A)
comes first; all later ones see it (mask B), and of several colours those before.

Features of a row never see its last pixel, so LSTMs from the right that read features alone, as in the paper, would
leave that pixel unseen from the row below it. Here they read the image itself too.
Axes: B batch, H height, W width, C colours, F features, T lines of N places each, S states seen, P outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import autoregressive, data, layers, masks
from generative.autoregressive import Wish
from generative.layers import Conv, ConvParams
from generative.model import Model
from jaxrl.core import checks, fit

METHODS = autoregressive.METHODS
EVAL_BATCH = 50  # examples evaluated at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    recurrence: Literal["row", "diagonal"] = "row"  # Row LSTM or Diagonal BiLSTM
    features: int = 16  # of each LSTM; there are twice as many between the layers, F
    num_layers: int = 7  # residual layers
    first_kernel: int = 7  # side of the first kernel, odd
    kernel: int = 3  # width of the Row LSTM's kernels, odd; the Diagonal BiLSTM has no use for it
    head: int = 32  # features of the last hidden layer
    batch_size: int = 16  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser
    max_grad_norm: Any = 1.0  # bound on the global norm of the gradient, per variable of an example


class LSTM(NamedTuple):
    """A recurrence: what its four gates get from the input and from earlier states. Convolutions, or parameters."""

    input: Any
    state: Any  # of parameters the kernel alone, [S, F, 4 F]


class Layer(NamedTuple):
    """A residual layer. Convolutions, or their parameters."""

    forward: LSTM  # down the rows, or along the diagonals from the left
    backward: LSTM | None  # along the diagonals from the right
    expand: Any


class Layers(NamedTuple):
    """The whole network. Convolutions, or their parameters."""

    first: Any
    stack: tuple[Layer, ...]
    hidden: Any
    output: Any


State = autoregressive.State


def build(config: Config, channels: int, num_outputs: int) -> Layers:
    """The convolutions of images of `channels` colours. States seen are of whole pixels: they need no colours."""
    wide, narrow = 2 * config.features, config.features
    if config.recurrence == "row":
        row = Conv(tuple(masks.horizontal_offsets(config.kernel, center=True)), wide, 4 * narrow, channels)
        above = tuple((-1, column) for column in range(-(config.kernel // 2), config.kernel // 2 + 1))
        forward, backward = LSTM(row, Conv(above, narrow, 4 * narrow)), None
    else:
        state = Conv(((0, -1), (-1, 0)), narrow, 4 * narrow)
        # From the right only rows above are seen: all their colours are drawn, and the image itself may be read.
        forward = LSTM(layers.dense(wide, 4 * narrow, channels), state)
        backward = LSTM(layers.dense(wide + channels, 4 * narrow), state)
    return Layers(
        layers.first(masks.raster_offsets(config.first_kernel, center=False), channels, wide),
        (Layer(forward, backward, layers.dense(narrow, wide, channels)),) * config.num_layers,
        layers.dense(wide, config.head, channels),
        layers.dense(config.head, channels * num_outputs, channels),
    )


def init_params(net: Layers, key: Array) -> Layers:
    """Parameters, such that features keep their size through the layers and outputs start small."""
    convs, structure = jax.tree.flatten(net, is_leaf=lambda leaf: isinstance(leaf, Conv))
    keys = random.split(key, len(convs))
    params: Layers = jax.tree.unflatten(
        structure, [layers.init(conv, key, 1.0) for conv, key in zip(convs, keys, strict=True)]
    )
    bare = lambda lstm: lstm._replace(state=lstm.state.kernel)  # noqa: E731
    stack = tuple(
        Layer(bare(layer.forward), layer.backward and bare(layer.backward), layer.expand) for layer in params.stack
    )
    return params._replace(stack=stack, output=ConvParams(params.output.kernel * 0.1, params.output.bias))


def step(gates: Array, cell: Array, channels: int) -> tuple[Array, Array]:
    """Equation 3: state and cell [..., F] of `gates` [..., 4 F], in each colour's part o, f, i, g; and the last `cell`.

    The forgetting gate starts near 0.73, so that what is far above is not forgotten from the start.
    """
    o, f, i, g = jnp.split(gates.reshape(*gates.shape[:-1], channels, -1), 4, axis=-1)
    cell = nn.sigmoid(f + 1.0) * cell.reshape(f.shape) + nn.sigmoid(i) * jnp.tanh(g)
    state = nn.sigmoid(o) * jnp.tanh(cell)
    shape = *gates.shape[:-1], -1
    return state.reshape(shape), cell.reshape(shape)


def recur(gates: Array, kernel: Array, seen: tuple[int, ...], inside: Array, channels: int) -> Array:
    """States [T, B, N, F] line by line; each sees those of the line before at its own place plus each of `seen` [S].

    Of the gates, `gates` [T, B, N, 4 F] are the input's part. States are zero but where `inside` [T, N].
    """
    size = gates.shape[-1] // 4
    reach, places = max(map(abs, seen)), gates.shape[2]

    def line(last: tuple[Array, Array], moment: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (state, cell), (gates, inside) = last, moment
        padded = jnp.pad(state, ((0, 0), (reach, reach), (0, 0)))
        near = jnp.concatenate([padded[:, reach + place : reach + place + places] for place in seen], axis=-1)
        state, cell = step(gates + near @ kernel.reshape(-1, 4 * size), cell, channels)
        state, cell = state * inside[:, None], cell * inside[:, None]
        return (state, cell), state

    start = jnp.zeros((*gates.shape[1:3], size))
    return lax.scan(line, (start, start), (gates, inside))[1]


def rows(gates: Array, kernel: Array, channels: int) -> Array:
    """States [B, H, W, F] of a Row LSTM, given the input's part of the gates [B, H, W, 4 F]."""
    reach = len(kernel) // 2
    inside = jnp.ones(gates.shape[1:3])
    states = recur(gates.swapaxes(0, 1), kernel, tuple(range(-reach, reach + 1)), inside, channels)
    return states.swapaxes(0, 1)


def diagonals(gates: Array, kernel: Array, channels: int) -> Array:
    """States [B, H, W, F] of an LSTM that sees the pixel to the left and the one above, diagonal by diagonal."""
    height, width = gates.shape[1:3]
    inside = skew(jnp.ones((1, height, width, 1)))[0, ..., 0].T
    states = recur(skew(gates).transpose(2, 0, 1, 3), kernel, (0, -1), inside, channels)
    return unskew(states.transpose(1, 2, 0, 3), width)


def skew(x: Array) -> Array:
    """[B, H, W + H - 1, F] of `x` [B, H, W, F]: each row begins one to the right of that above."""
    batch_size, height, width, size = x.shape
    flat = jnp.pad(x, ((0, 0), (0, 0), (0, height), (0, 0))).reshape(batch_size, -1, size)
    return flat[:, :-height].reshape(batch_size, height, width + height - 1, size)


def unskew(x: Array, width: int) -> Array:
    """The inverse of `skew`, [B, H, W, F]."""
    batch_size, height, _, size = x.shape
    flat = jnp.pad(x.reshape(batch_size, -1, size), ((0, 0), (0, height), (0, 0)))
    return flat.reshape(batch_size, height, width + height, size)[:, :, :width]


def lowered(x: Array) -> Array:
    """`x` [B, H, W, F] one row further down: what comes from the right has seen pixels of its row drawn later."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def network(net: Layers, params: Layers, first: Array, recurrence: Callable[[int, Array], Array]) -> Array:
    """Outputs [..., C * P]; `first` is the first convolution's, `recurrence(n, h)` gives the states of layer n."""
    h = first
    for number, (layer, weights) in enumerate(zip(net.stack, params.stack, strict=True)):
        h += layers.apply_here(layer.expand, weights.expand, recurrence(number, h))
    h = layers.apply_here(net.hidden, params.hidden, nn.relu(h))
    return layers.apply_here(net.output, params.output, nn.relu(h))


def outputs(net: Layers, params: Layers, x: Array) -> Array:
    """Outputs [B, H, W, C, P] given images `x` [B, H, W, C] in [0, 1]."""
    channels = net.output.channels

    def recurrence(number: int, h: Array) -> Array:
        layer, weights = net.stack[number], params.stack[number]
        gates = layers.apply(layer.forward.input, weights.forward.input, h)
        if layer.backward is None or weights.backward is None:
            return rows(gates, weights.forward.state, channels)
        read = jnp.concatenate([h, x], axis=-1)[:, :, ::-1]
        backward = layers.apply_here(layer.backward.input, weights.backward.input, read)
        right = diagonals(backward, weights.backward.state, channels)[:, :, ::-1]
        return diagonals(gates, weights.forward.state, channels) + lowered(right)

    y = network(net, params, layers.apply(net.first, params.first, x), recurrence)
    return y.reshape(*x.shape, -1)


loss = autoregressive.loss


class Above(NamedTuple):
    """What one layer hands from a row to the next one."""

    state: Array  # [W, B, F]
    cell: Array  # [W, B, F]
    right: Array  # [W, B, F], the states from the right; zero without


def draw_cached(
    conditional: autoregressive.Conditional,
    noise: Array,
    net: Layers,
    params: Layers,
    wish: Wish,
    shape: tuple[int, int, int],
    levels: int,
) -> Array:
    """Examples [B, D] int32 from `noise` [D, B]: at each variable the network is computed for one pixel alone.

    The states of the row above are kept, and of the row being drawn states and inputs; the LSTMs from the right run
    over a row once it is drawn.
    """
    height, width, channels = shape
    batch_size = len(wish.x)
    numbers = range(len(net.stack))
    size = net.stack[0].expand.in_size

    def draw_row(carry: tuple[list[Above], list[Array]], moment: tuple[Array, Array]) -> Any:
        above, caches = carry
        noise, row = moment
        links = [link(params.stack[number], above[number]) for number in numbers]  # each [W, B, 4 F]

        def draw_value(carry: Any, moment: tuple[Array, Array]) -> tuple[Any, Array]:
            noise, place = moment
            column, color = place // channels, place % channels
            caches, here = list(carry[0]), list(carry[1])

            def recurrence(number: int, h: Array) -> Array:
                layer, weights = net.stack[number].forward, params.stack[number].forward
                caches[1 + number] = layers.write(layer.input, caches[1 + number], row, column, h[None])
                gates = layers.apply_to_pixel(layer.input, weights.input, caches[1 + number], row, column)
                gates += links[number][column]
                states, cells = here[number]  # [1 + W, B, F], zero to the left of the row
                if net.stack[number].backward is None:
                    cell = above[number].cell[column]
                else:
                    cell = cells[column]
                    gates += states[column] @ weights.state[0]
                state, cell = step(gates, cell, channels)
                here[number] = states.at[1 + column].set(state), cells.at[1 + column].set(cell)
                return state + above[number].right[column]

            first = layers.apply_to_pixel(net.first, params.first, caches[0], row, column)
            y = network(net, params, first, recurrence).reshape(batch_size, channels, -1)
            value = autoregressive.choose(conditional, noise, y[:, color], wish, row * width * channels + place)
            seen = data.scale(value, levels)[None, :, None]
            caches[0] = layers.write(net.first, caches[0], row, column, seen, color)
            return (caches, here), value

        empty = jnp.zeros((1 + width, batch_size, size))
        blank = caches, [(empty, empty) for _ in numbers]
        (caches, here), values = lax.scan(draw_value, blank, (noise, jnp.arange(width * channels)))
        reach = net.first.reach
        image = caches[0][row % net.first.rows, reach : reach + width]
        above = [
            Above(states[1:], cells[1:], from_right(number, above[number].right, caches[1 + number][0], image))
            for number, (states, cells) in zip(numbers, here, strict=True)
        ]
        return (above, caches), values

    def link(weights: Layer, above: Above) -> Array:
        """What the gates of a row get from the row above."""
        kernel = weights.forward.state
        if weights.backward is not None:
            return above.state @ kernel[1]
        reach = len(kernel) // 2
        padded = jnp.pad(above.state, ((reach, reach), (0, 0), (0, 0)))
        near = jnp.concatenate([padded[place : place + width] for place in range(len(kernel))], axis=-1)
        return near @ kernel.reshape(-1, 4 * size)

    def from_right(number: int, above: Array, h: Array, image: Array) -> Array:
        """The states from the right of a row, given those of the row above it, its features `h` and its pixels."""
        layer, weights = net.stack[number].backward, params.stack[number].backward
        if layer is None or weights is None:
            return above
        gates = layers.apply_here(layer.input, weights.input, jnp.concatenate([h, image], axis=-1))
        gates += above @ weights.state[1]

        def pixel(last: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            state, cell = step(gates + last[0] @ weights.state[0], last[1], channels)
            return (state, cell), state

        empty = jnp.zeros((batch_size, size))
        return lax.scan(pixel, (empty, empty), gates, reverse=True)[1]

    inputs = [net.first, *(layer.forward.input for layer in net.stack)]
    caches = [layers.cache(conv, width, batch_size) for conv in inputs]
    empty = jnp.zeros((width, batch_size, size))
    moments = noise.reshape(height, width * channels, batch_size), jnp.arange(height)
    _, values = lax.scan(draw_row, ([Above(empty, empty, empty) for _ in numbers], caches), moments)
    return values.reshape(-1, batch_size).T


def make(spec: data.Spec, config: Config) -> Model:
    """A PixelRNN of images of integers.

    Raises:
        ValueError: sizes that cannot work; data that are not images of integers; a split without examples.
    """
    levels = autoregressive.check(spec, config.eval_split, images=True)
    height, width, channels = spec.shape
    _check(config, channels)
    conditional = autoregressive.categorical(levels)
    net = build(config, channels, conditional.size)

    def read(params: Layers, x: Array, label: None) -> Array:
        return outputs(net, params, x)

    def draw(noise: Array, params: Layers, wish: Wish, label: None) -> Array:
        return draw_cached(conditional, noise, net, params, wish, (height, width, channels), levels)

    return autoregressive.model(spec, config, conditional, partial(init_params, net), read, draw, EVAL_BATCH)


def _check(config: Config, channels: int) -> None:
    checks.choices(config)
    checks.at_least_one(
        features=config.features, num_layers=config.num_layers, head=config.head, batch_size=config.batch_size
    )
    layers.check(channels, {"features": config.features, "head": config.head}, config.first_kernel, config.kernel)
