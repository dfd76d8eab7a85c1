"""Samples of a trained model, and what its latents hold: pictures as arrays. Axes: N images, H, W, C."""

import wave
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array, lax, random
from jax import numpy as jnp

from experiments.evaluation import Restored, state_of
from generative import waves
from jaxrl.core import checks

NUM_LATENTS = 10  # that are shown at most
NUM_STEPS = 9  # from one end of a traversal or interpolation to the other
SOUND_RATE = 16_000  # samples a second of sounds that are written, of a model of sounds that have no rate
BATCH = 10  # test examples whose nats are computed at once: large networks hold many features of each
NUM_PAIRS = 5  # of images that are interpolated


def draw(
    restored: Restored,
    count: int,
    label: int | None = None,
    seed: int = 0,
    lane: int = 0,
    method: str | None = None,
    complete: bool = False,
) -> np.ndarray:
    """`count` samples [count, *shape] of the `lane`-th seed's model, of class `label` if the model reads one.

    A model without a distribution is asked what it makes of as many test examples: translations or reconstructions.
    An autoregressive one also draws by one of its methods of sampling, or `complete`s as many test examples, of which
    the first half is kept.

    Raises:
        ValueError: what was trained makes nothing, draws in one way alone, knows no such class, or has fewer test
            examples.
    """
    checks.at_least_one(count=count)
    _, experiment, program, _ = restored
    names = ("sample", "translate", "reconstruct")
    ways = [name for name in names if getattr(program.learner, name, None) is not None]
    if not ways:
        raise ValueError(f"{experiment} makes no data: sample a VAE, a GAN or the like.")
    if (method is not None or complete) and getattr(program.learner, "complete", None) is None:
        raise ValueError(f"{experiment} draws all values at once: leave out --method and --complete.")
    state = state_of(restored, lane)
    arguments: tuple[Any, ...] = ()
    if label is not None:
        classes = (program.given.num_classes or 0) if getattr(experiment.config, "conditional", False) else 0
        if not 0 <= label < classes:
            known = f"classes 0 to {classes - 1}" if classes else "none: train it with --conditional"
            raise ValueError(f"Label {label} means nothing to this model, which knows {known}.")
        arguments = (jnp.full(count, label),)
    options = {} if method is None else {"method": method}
    if ways[0] == "sample" and not complete:
        sample = jax.jit(partial(program.learner.sample, **options), static_argnums=2)
        return np.asarray(sample(random.key(seed), state, count, *arguments))
    x, labels = examples(restored, count)
    if len(x) < count:
        raise ValueError(f"{program.given.name} has {len(x)} test examples to make something of: use --count {len(x)}.")
    if complete:
        rest = jax.jit(partial(program.learner.complete, **options))
        return np.asarray(rest(random.key(seed), state, x, first_half(x.shape[1:]), *(arguments or labels)))
    make = jax.jit(getattr(program.learner, ways[0]))
    return np.asarray(make(random.key(seed), state, x[:, 0] if ways[0] == "translate" else x))


def first_half(shape: tuple[int, ...]) -> np.ndarray:
    """Bool [*shape]: the upper rows of an image, or the first steps of a sound."""
    given = np.zeros(shape, bool)
    given[: shape[0] // 2] = True
    return given


def mean_nats(restored: Restored, count: int) -> np.ndarray:
    """Nats [*shape] that each value of `count` test examples costs the first seed's model, on average."""
    model = restored.program.learner

    def mean(params: Any, examples: Any) -> Array:
        def one(example: Any) -> Array:
            return model.nats(params, *jax.tree.map(lambda leaf: leaf[None], example))[0]

        return lax.map(one, examples, batch_size=BATCH).mean(0)

    x, labels = examples(restored, count)
    params = jax.tree.map(lambda leaf: leaf[0], restored.runs.state.fit.params)
    return np.asarray(jax.jit(mean)(params, (x, *labels)))


def write_sounds(restored: Restored, drawn: np.ndarray, target: Path) -> None:
    """Samples [count, T] of a model of sounds one after another, as a WAV file of 16 bits.

    Raises:
        ValueError: they are no sounds in mu-law levels.
    """
    spec = restored.program.given
    if drawn.ndim != 2 or spec.levels is None:
        raise ValueError(f"Samples of {spec.name}, of shape {drawn.shape[1:]}, are no sounds: write --out samples.npy.")
    write_wav(target, waves.decode(drawn.reshape(-1) * (spec.levels - 1), spec.levels), spec.rate or SOUND_RATE)


def write_wav(target: Path, x: np.ndarray, rate: int = SOUND_RATE) -> None:
    """Write sound pressure `x` [T] in [-1, 1], of `rate` samples a second."""
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, rate, len(x), "NONE", "not compressed"))
        file.writeframes(np.rint(np.clip(x, -1, 1) * (2**15 - 1)).astype("<i2").tobytes())


def examples(restored: Restored, count: int) -> tuple[Array, tuple[Any, ...]]:
    """`count` test examples from the first to the last, since a file may be sorted by class; all if there are fewer.

    Also their classes as an argument, if the model reads them, else none.
    """
    test = restored.program.source.test
    place = np.linspace(0, len(test.x) - 1, min(count, len(test.x))).astype(int)
    conditional = getattr(restored.experiment.config, "conditional", False)
    return test.x[place], (test.label[place],) if conditional else ()


def traversals(restored: Restored) -> np.ndarray:
    """Images [rows, NUM_STEPS, H, W, C]: in each row one latent of the first test image is changed and no other.

    It goes through what it holds over test images, but for the outermost 1 %. Those that vary most come first.
    """
    _, _, program, runs = restored

    def images(state: Any, x: Array, *label: Array) -> Array:
        codes = program.learner.encode(random.key(0), state, x, *label)
        latents = jnp.argsort(-codes.var(0))[:NUM_LATENTS]
        low, high = jnp.quantile(codes, jnp.array([0.01, 0.99]), axis=0)
        values = jnp.linspace(low, high, NUM_STEPS)  # [steps, Z]
        chosen = jnp.arange(codes.shape[1]) == latents[:, None, None]
        varied = jnp.where(chosen, values, codes[0]).reshape(-1, codes.shape[1])
        shown = program.learner.decode(state, varied, *(jnp.repeat(part[:1], len(varied)) for part in label))
        return shown.reshape(len(latents), NUM_STEPS, *shown.shape[1:])

    x, labels = examples(restored, 1000)
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    return np.asarray(jax.jit(images)(state, x, *labels))


def interpolations(restored: Restored) -> np.ndarray:
    """Images [2 * NUM_PAIRS, NUM_STEPS, H, W, C] from test image to test image: a row straight, the next along an arc.

    A model that reads labels is told that of the first image of each pair. Models that give images no codes go from
    sample to sample.
    """
    _, experiment, program, runs = restored

    def images(state: Any, x: Array, *label: Array) -> Array:
        if program.learner.encode is None:
            codes = random.normal(random.key(0), (len(x), experiment.config.latent_size))
        else:
            codes = program.learner.encode(random.key(0), state, x, *label)
        start, end = codes[0::2, None], codes[1::2, None]
        place = jnp.linspace(0.0, 1.0, NUM_STEPS)[:, None]
        between = jnp.stack([(1.0 - place) * start + place * end, spherical(start, end, place)], 1)
        told = (jnp.repeat(part[0::2], 2 * NUM_STEPS) for part in label)
        shown = program.learner.decode(state, between.reshape(-1, codes.shape[1]), *told)
        return shown.reshape(2 * NUM_PAIRS, NUM_STEPS, *shown.shape[1:])

    x, labels = examples(restored, 2 * NUM_PAIRS)
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    return np.asarray(jax.jit(images)(state, x, *labels))


def spherical(start: Array, end: Array, place: Array) -> Array:
    """The point [..., Z] at `place` in [0, 1] on the arc from `start` to `end` [..., Z] (White 2016, arXiv:1609.04468).

    Between vectors of one length all have that length, as almost all samples of a normal distribution do. Between
    parallel ones, where no arc is the one to take, it is the point on the line.
    """
    norms = jnp.linalg.norm(start, axis=-1, keepdims=True) * jnp.linalg.norm(end, axis=-1, keepdims=True)
    cosine = (start * end).sum(-1, keepdims=True) / jnp.maximum(norms, 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    curved = jnp.sin(angle) > 1e-3  # below it, rounding of the cosine decides
    arc = (jnp.sin((1.0 - place) * angle) * start + jnp.sin(place * angle) * end) / jnp.where(curved, jnp.sin(angle), 1)
    return jnp.where(curved, arc, (1.0 - place) * start + place * end)
