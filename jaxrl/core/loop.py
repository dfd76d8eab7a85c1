"""One training loop for every learner, as one `lax.scan`.

A learner is three pure functions on explicit pytrees. What fixes shapes is closed over (its `Config`); what is
a number is an argument (`hparams`), and so is what it learns from (`source`: environment parameters or data
arrays), so that any leaf of either may carry a `vmap` axis. Nothing here is jitted: jit and vmap outside.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import keys, schedule

Metrics = dict[str, Array]


class Learner(NamedTuple):
    """Three pure functions. `hparams` reaches them with every schedule already turned into a number."""

    init: Callable[..., Any]  # (key, hparams, source) -> state
    update: Callable[..., Any]  # (key, state, hparams, source) -> (state, metrics)
    evaluate: Callable[..., Any]  # (key, state, hparams, source) -> metrics


class Trainable(Protocol):
    """Whatever has a learner's three functions, such as an agent that can also act."""

    @property
    def init(self) -> Callable[..., Any]: ...
    @property
    def update(self) -> Callable[..., Any]: ...
    @property
    def evaluate(self) -> Callable[..., Any]: ...


class Run(NamedTuple):
    """Everything needed to continue a run, bit for bit. Arrays only: it can be vmapped, donated, saved."""

    key: Array  # root key, never consumed: the keys of each update are folded from it
    step: Array  # [] int32, updates done
    num_updates: Array  # [] int32, updates planned: schedules are measured against it
    state: Any  # the learner's own state


def strong(leaf: Any) -> Array:
    """`leaf` with its dtype fixed: a weakly typed leaf would retrace when a saved run is resumed."""
    leaf = jnp.asarray(leaf)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else lax.convert_element_type(leaf, leaf.dtype)


def start(learner: Trainable, key: Array, hparams: Any, source: Any, num_updates: int) -> Run:
    """A run of `num_updates` updates before its first."""
    init_key, _, _ = random.split(keys.unrolled(key), 3)
    hparams = schedule.at(hparams, jnp.float32(0))
    state = learner.init(init_key, hparams, source)
    return jax.tree.map(strong, Run(key, jnp.int32(0), jnp.int32(num_updates), state))


def chunk(learner: Trainable, length: int, run: Run, hparams: Any, source: Any) -> tuple[Run, Metrics]:
    """Advance `run` by `length` updates, then evaluate once.

    Returns the run and its metrics: training metrics averaged over the chunk, the learner's evaluation, and
    `diverged`, 1.0 once any number in the state is NaN. Every leaf is [].
    """
    _, update_key, eval_key = random.split(keys.unrolled(run.key), 3)

    def now(run: Run) -> Any:
        return schedule.at(hparams, run.step / run.num_updates)

    def advance(carry: tuple[Run, Metrics], _: None) -> tuple[tuple[Run, Metrics], None]:
        run, total = carry
        key = random.fold_in(update_key, run.step)
        state, metrics = learner.update(key, run.state, now(run), source)
        total = jax.tree.map(jnp.add, total, metrics)
        return (run._replace(step=run.step + 1, state=state), total), None

    _, shapes = jax.eval_shape(learner.update, update_key, run.state, now(run), source)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)
    (run, total), _ = lax.scan(advance, (run, zeros), length=length)
    averages = jax.tree.map(lambda leaf: leaf / length, total)
    scores = learner.evaluate(random.fold_in(eval_key, run.step), run.state, now(run), source)
    return run, {**averages, **scores, "diverged": any_nan(run.state)}


def any_nan(tree: Any) -> Array:
    """[] float32: 1 if any floating-point leaf holds a NaN, else 0."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.array([jnp.isnan(leaf).any() for leaf in floats], bool).any().astype(jnp.float32)


def train(
    learner: Trainable, key: Array, hparams: Any, source: Any, *, num_updates: int, eval_every: int
) -> tuple[Run, Metrics]:
    """A whole run in one program.

    Returns the final run and its metrics, leaves [num_updates // eval_every]. The run is that of a host loop over
    `chunk`, but these are two programs, whose last bits a compiler may round differently, the more so if they close
    over numbers that could be arguments. Chunks by one program have the same bits however often a run is resumed.

    Raises:
        ValueError: `num_updates` is not a positive multiple of `eval_every`.
    """
    check_lengths(num_updates, eval_every)
    run = start(learner, key, hparams, source, num_updates)

    def advance(run: Run, _: None) -> tuple[Run, Metrics]:
        return chunk(learner, eval_every, run, hparams, source)

    return lax.scan(advance, run, length=num_updates // eval_every)


def check_lengths(num_updates: int, eval_every: int) -> None:
    """Refuse lengths that do not make a whole number of chunks.

    Raises:
        ValueError: with both numbers and the nearest multiple.
    """
    if num_updates < 1 or eval_every < 1:
        raise ValueError(f"num_updates={num_updates} and eval_every={eval_every} must both be at least 1.")
    if num_updates % eval_every:
        nearest = max(1, round(num_updates / eval_every)) * eval_every
        raise ValueError(
            f"num_updates={num_updates} is not a multiple of eval_every={eval_every}: use num_updates={nearest}."
        )
