"""Cached against naive sampling of autoregressive models, which give the same examples, in one process.

The networks are those of shipped presets, with random parameters, since what they learned costs no time. A naive pass
computes the whole network and draws one variable; a pass costs the same whichever it draws. So where a whole naive run
takes too long, only the last passes are timed, given what the cached run drew before, and counted for all. Products are
computed with all 32 bits: of fewer, as GPUs take by default, the two methods differ in what they round.

Axes: B batch, D variables, N passes.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, random
from jax import numpy as jnp
from matplotlib.axes import Axes

from experiments import presets, registry
from experiments.benchmarks import steady
from experiments.plots import COLORS, GREY
from generative import autoregressive, data

IMAGES = ("pixelcnn-binarized-mnist", "gated-pixelcnn-binarized-mnist")
SOUNDS = "wavenet-sounds"
SIDES = (8, 16, 28, 32)  # pixels
BATCH, LARGE_BATCH = 16, 256
LARGE_SIDE = 28  # at the large batch, whose naive runs are timed in part
LENGTH, DILATIONS = 4096, 10  # steps of a sound, and layers whose gaps double: they look back as many steps
PASSES = 64  # timed, of a naive run that is timed in part


class Row(NamedTuple):
    """One model at one size. Both methods drew the same values wherever both drew."""

    model: str  # preset
    size: int  # side of the images, or steps of the sounds
    batch: int
    variables: int  # of an example; as many naive passes
    naive_passes: int  # timed, in one run after compilation
    cached_seconds: float  # of a whole batch, median of the rounds
    naive_seconds: float  # of a whole batch: the seconds measured times variables / naive_passes
    naive_over_cached: float


class Given(NamedTuple):
    """A model with random parameters."""

    model: Any
    state: Any
    shape: tuple[int, ...]  # of an example
    levels: int
    label: Array | None  # [B]


def run(
    rounds: int,
    sides: Sequence[int] = SIDES,
    large_side: int = LARGE_SIDE,
    length: int = LENGTH,
    passes: int = PASSES,
    batch: int = BATCH,
    large_batch: int = LARGE_BATCH,
) -> Iterator[Row]:
    """Every model at every size."""
    sizes: list[tuple[str, tuple[int, ...], int, int]]
    sizes = [(preset, (side, side, 1), batch, side**2) for preset in IMAGES for side in sides]
    sizes += [(preset, (large_side, large_side, 1), large_batch, passes) for preset in IMAGES]
    sizes += [(SOUNDS, (length,), each, passes) for each in (1, batch)]
    for size in sizes:
        with jax.default_matmul_precision("float32"):
            row = measured(*size, rounds)
        yield row


def measured(preset: str, shape: tuple[int, ...], batch: int, passes: int, rounds: int) -> Row:
    """The model of `preset` for examples of `shape`; a whole naive run if there are as many `passes` as variables.

    Raises:
        RuntimeError: the methods drew different examples.
    """
    given, size = random_model(preset, shape, batch), math.prod(shape)
    key = random.key(1)

    def cached(key: Array, state: Any) -> Array:
        return given.model.sample(key, state, batch, given.label, "cached")

    quick = steady.compiled(cached, 1, key, given.state)
    cached_seconds = statistics.median(1 / steady.speed(quick) for _ in range(rounds))
    drawn = jnp.rint(quick.call() * (given.levels - 1)).astype(jnp.int32).reshape(batch, size)

    def naive(key: Array, state: Any, drawn: Array) -> Array:
        return last_naively(given, key, state, drawn, passes)

    program = jax.jit(naive).lower(key, given.state, drawn).compile()
    begin = time.perf_counter()
    again = jax.block_until_ready(program(key, given.state, drawn))
    naive_seconds = (time.perf_counter() - begin) * size / passes
    if different := int((np.asarray(again) != np.asarray(drawn)[:, -passes:]).sum()):
        raise RuntimeError(f"{preset}, {shape}: {different} of {again.size} values are not those of cached sampling.")
    ratio = naive_seconds / cached_seconds
    return Row(preset, shape[0], batch, size, passes, cached_seconds, naive_seconds, ratio)


def random_model(preset: str, shape: tuple[int, ...], batch: int) -> Given:
    """The model of `preset` for examples of `shape`, two-level images or sounds of 256 levels and two classes."""
    chosen = presets.get(preset)
    sound = len(shape) == 1
    config = dataclasses.replace(chosen.config, num_layers=DILATIONS) if sound else chosen.config
    levels, label = (256, np.arange(2)) if sound else (2, None)
    examples = data.Examples(np.zeros((2, *shape), np.uint8), label)
    spec, source = data.from_arrays("blank", examples, examples, levels=levels)
    model = registry.get(chosen.algorithm).load().make(spec, config)
    state = model.init(random.key(0), chosen.hparams, source)
    # Outputs start so small that what is drawn would hardly depend on what was drawn before.
    params = state.fit.params
    params = params._replace(output=jax.tree.map(lambda leaf: 10 * leaf, params.output))
    state = state._replace(fit=state.fit._replace(params=params))
    return Given(model, state, shape, levels, jnp.arange(batch) % 2 if sound else None)


def last_naively(given: Given, key: Array, state: Any, drawn: Array, passes: int) -> Array:
    """The last N = `passes` variables [B, N] of naive sampling, those before them taken from `drawn` [B, D]."""
    batch, size = drawn.shape
    wish = autoregressive.Wish(jnp.zeros_like(drawn), jnp.zeros(drawn.shape, bool))
    noise = autoregressive.uniform(key, wish)
    before = jnp.arange(size) < size - passes

    def outputs(x: Array) -> Array:
        x = data.scale(jnp.where(before, drawn, x), given.levels).reshape(batch, *given.shape)
        return given.model.outputs(state.fit.params, x, given.label).reshape(batch, size, -1)

    conditional = autoregressive.categorical(given.levels)
    order = given.model.order[-passes:]
    return autoregressive.draw_naively(conditional, noise[-passes:], outputs, wish, order)[:, -passes:]


def panel(rows: Sequence[dict[str, Any]], axes: Axes) -> None:
    """How many times faster cached sampling of images is, against their side."""
    for model, color in zip(IMAGES, COLORS, strict=False):
        mine = [row for row in rows if row["model"] == model]
        for batch, style in zip(sorted({row["batch"] for row in mine}), ("o-", "s"), strict=True):
            points = [(row["size"], row["naive_over_cached"]) for row in mine if row["batch"] == batch]
            axes.plot(*zip(*points, strict=True), style, color=color, label=f"{model}, batch {batch}")
    axes.set_xlabel("side of the images, pixels", color=GREY)
    axes.set_ylabel("naive seconds / cached seconds", color=GREY)
    axes.set_xticks(sorted({row["size"] for row in rows if row["model"] in IMAGES}))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
