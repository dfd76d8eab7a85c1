"""A sweep: many runs described once, and run as the lanes of as few programs as possible.

`grid` takes every combination of the values given, `zipped` takes points one by one, `sample` draws them. A field is
called by its name: one of Hyperparams, of Config or of the learner's source (environment parameters, data), and what
lies deeper with dots, `learning_rate.initial` of a schedule or `network.hidden`. Fields of Hyperparams and source are
traced: their values become arrays with a leading lane axis, and share a program. Fields of Config are static: each
combination of them is a `Group` with a program of its own. Every point is run with every seed.
Axes: P points, L lanes, in the order of points, the seeds of each point side by side.
"""

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import Array, random
from jax import numpy as jnp

from jaxrl.core import checks, fields, loop


@dataclass(frozen=True)
class Uniform:
    """Numbers between two bounds; of a field of whole numbers the whole ones, bounds included."""

    low: float
    high: float

    def at(self, quantile: Any) -> Any:
        """The number below which the fraction `quantile` lies."""
        return self.low + quantile * (self.high - self.low)

    def quantile(self, value: Any) -> Any:
        """The fraction that lies below `value`."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class LogUniform:
    """Positive numbers between two bounds, every order of magnitude as likely as any other."""

    low: float
    high: float

    def at(self, quantile: Any) -> Any:
        """The number below which the fraction `quantile` lies."""
        return self.low * (self.high / self.low) ** quantile

    def quantile(self, value: Any) -> Any:
        """The fraction that lies below `value`."""
        return jnp.log(value / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class Choice:
    """One of a few values, each as likely."""

    values: tuple[Any, ...]


Range = Uniform | LogUniform | Choice


@dataclass(frozen=True, eq=False)
class Sweep:
    """All points and seeds. Made by `grid`, `zipped` or `sample`."""

    hparams: Any
    config: Any
    source: Any
    swept: tuple[fields.Field, ...]
    combined: bool  # a grid: every combination of the fields' values is a point
    first_seed: int
    num_seeds: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each field of a grid, or number of points drawn."""
        sizes = tuple(len(field.values) for field in self.swept)
        return sizes if self.combined else sizes[:1]

    @property
    def num_points(self) -> int:
        return math.prod(self.shape)

    @property
    def num_lanes(self) -> int:
        return self.num_points * self.num_seeds

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.num_seeds)

    @cached_property
    def points(self) -> list[tuple[Any, ...]]:
        """The value of every field at each point; in a grid those of the last field change fastest."""
        values = [field.values for field in self.swept]
        return list(itertools.product(*values) if self.combined else zip(*values, strict=True))

    def lane(self, number: int) -> tuple[int, dict[str, Any]]:
        """Seed of a lane, and the values of what is swept there."""
        point, place = divmod(number, self.num_seeds)
        return self.seeds[place], dict(zip((field.name for field in self.swept), self.points[point], strict=True))

    def alone(self, number: int) -> tuple[Array, Any, Any, Any]:
        """Root key, hparams, config and source of a lane, for a single run of the same numbers."""
        seed, values = self.lane(number)
        parts = {"hparams": self.hparams, "config": self.config, "source": self.source}
        for field in self.swept:
            parts[field.part] = fields.replaced(parts[field.part], field.path, values[field.name])
        return random.key(seed), parts["hparams"], parts["config"], parts["source"]

    @cached_property
    def groups(self) -> list["Group"]:
        """One for each program, in the order of their first lanes."""
        lanes: dict[Any, list[int]] = {}
        for point, values in enumerate(self.points):
            config = self.config
            for field, value in zip(self.swept, values, strict=True):
                if field.part == "config":
                    config = fields.replaced(config, field.path, value)
            first = point * self.num_seeds
            lanes.setdefault(config, []).extend(range(first, first + self.num_seeds))
        return [Group(self, config, np.array(numbers)) for config, numbers in lanes.items()]


@dataclass(frozen=True, eq=False)
class Group:
    """The lanes that share a program."""

    sweep: Sweep
    config: Any  # for the learner's `make`
    lanes: np.ndarray  # [L] their numbers in the sweep

    @property
    def axes(self) -> tuple[Any, Any, Any]:
        """For `jax.vmap`: 0 where (keys or runs, hparams, source) have a lane axis, None where they have not."""
        return 0, self._axes_of("hparams"), self._axes_of("source")

    def map(self, function: Any) -> Any:
        """`function`, of (key or run, hparams, source), over lanes."""
        return jax.vmap(function, self.axes)

    def arguments(self, lanes: Iterable[int] | None = None) -> tuple[Array, Any, Any]:
        """Root keys [L], hparams and source of `lanes`, all of the group's if None, with a lane axis where swept."""
        numbers = np.asarray(self.lanes if lanes is None else lanes)
        seeds = self.sweep.first_seed + numbers % self.sweep.num_seeds
        keys = jax.vmap(random.key)(jnp.asarray(seeds))
        return keys, self._values("hparams", numbers), self._values("source", numbers)

    def _swept(self, part: str) -> list[tuple[int, fields.Field]]:
        return [(place, field) for place, field in enumerate(self.sweep.swept) if field.part == part]

    def _values(self, part: str, lanes: np.ndarray) -> Any:
        tree = jax.tree.map(loop.strong, getattr(self.sweep, part))
        for place, field in self._swept(part):
            values = [self.sweep.points[lane // self.sweep.num_seeds][place] for lane in lanes]
            dtype = fields.at(tree, field.path).dtype if part == "source" else None
            stacked = jax.tree.map(lambda *leaves: loop.strong(np.stack(leaves)), *values)
            tree = fields.replaced(tree, field.path, stacked.astype(dtype) if dtype else stacked)
        return tree

    def _axes_of(self, part: str) -> Any:
        tree = jax.tree.map(lambda _: None, getattr(self.sweep, part))
        for _, field in self._swept(part):
            tree = fields.replaced(tree, field.path, jax.tree.map(lambda _: 0, field.values[0]))
        return tree if self._swept(part) else None


def grid(
    hparams: Any,
    config: Any = None,
    source: Any = None,
    *,
    seeds: int = 1,
    first_seed: int = 0,
    **values: Sequence[Any],
) -> Sweep:
    """Every combination of `values`, each with `seeds` consecutive seeds.

    Args:
        hparams: of every lane, but for what is swept.
        config: the learner's, if fields of it are swept.
        source: what it learns from; a lane axis is added to what is swept alone.
        seeds: how many. A lane of seed s is the run of `jax.random.key(s)` with that lane's values.
        first_seed: the first of them.
        values: of each field. A number in the place of a schedule is constant over the run.

    Raises:
        ValueError: an unknown or ambiguous name, no values, the same twice, or one that its field cannot hold.
    """
    parts = {"hparams": hparams, "config": config, "source": source}
    swept = tuple(fields.make(parts, name, given) for name, given in values.items())
    for field in swept:
        labels = [fields.label(value) for value in field.values]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{field.name} has a value twice: {', '.join(map(str, labels))}.")
    return _checked(Sweep(hparams, config, source, swept, True, first_seed, seeds))


def zipped(
    hparams: Any,
    config: Any = None,
    source: Any = None,
    *,
    seeds: int = 1,
    first_seed: int = 0,
    **values: Sequence[Any],
) -> Sweep:
    """Points given one by one: the i-th has the i-th of each field's `values`. Otherwise as `grid`.

    Raises:
        ValueError: as in `grid`, but a value may occur twice; no field, or other numbers of values.
    """
    parts = {"hparams": hparams, "config": config, "source": source}
    swept = tuple(fields.make(parts, name, given) for name, given in values.items())
    counts = {field.name: len(field.values) for field in swept}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name} has {count}" for name, count in counts.items()) or "there is no field"
        raise ValueError(f"Every field needs as many values as there are points: {found}.")
    return _checked(Sweep(hparams, config, source, swept, False, first_seed, seeds))


def sample(
    hparams: Any,
    config: Any = None,
    source: Any = None,
    *,
    points: int,
    seeds: int = 1,
    first_seed: int = 0,
    draw: int = 0,
    **ranges: Range | Sequence[Any],
) -> Sweep:
    """`points` points, drawn so that they fill the space evenly, each with `seeds` consecutive seeds.

    Args:
        hparams: as in `grid`.
        config: as in `grid`.
        source: as in `grid`.
        points: how many; powers of 2 are the most even.
        seeds: as in `grid`.
        first_seed: as in `grid`.
        draw: seed of the drawing.
        ranges: what each field is drawn from; a sequence is a choice.

    Raises:
        ValueError: as in `grid`, and bounds that are not in order.
    """
    checks.at_least_one(points=points)
    if not ranges:
        raise ValueError("Nothing to draw: name a field at least, learning_rate=sweep.LogUniform(1e-4, 1e-2) say.")
    parts = {"hparams": hparams, "config": config, "source": source}
    values = {}
    for (name, given), quantiles in zip(ranges.items(), sobol(len(ranges), points, draw).T, strict=True):
        part, path = fields.find(parts, name)
        spread = given if isinstance(given, Range) else Choice(tuple(given))
        values[name] = _drawn(name, spread, fields.present(parts[part], path), quantiles)
    return zipped(hparams, config, source, seeds=seeds, first_seed=first_seed, **values)


def sobol(dimensions: int, points: int, draw: int) -> np.ndarray:
    """A scrambled Sobol sequence: [points, dimensions], evenly spread in the unit cube."""
    from scipy.stats import qmc  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numbers that are no power of 2 are a little less even
        return qmc.Sobol(dimensions, rng=draw).random(points)


def _drawn(name: str, spread: Range, base: Any, quantiles: np.ndarray) -> list[Any]:
    if isinstance(spread, Choice):
        return [spread.values[int(quantile * len(spread.values))] for quantile in quantiles if spread.values]
    check_bounds(name, spread)
    if np.asarray(base).dtype.kind not in "iu":
        return [float(spread.at(quantile)) for quantile in quantiles]
    if not (float(spread.low).is_integer() and float(spread.high).is_integer()):
        raise ValueError(f"{name} holds whole numbers: {spread.low} and {spread.high} must be whole, too.")
    if isinstance(spread, Uniform):
        return [math.floor(Uniform(spread.low, spread.high + 1).at(quantile)) for quantile in quantiles]
    return [round(spread.at(quantile)) for quantile in quantiles]


def check_bounds(name: str, spread: Uniform | LogUniform) -> None:
    """Refuse bounds that are not in order.

    Raises:
        ValueError: with both.
    """
    lowest = 0.0 if isinstance(spread, LogUniform) else -math.inf
    if not lowest < spread.low < spread.high < math.inf:
        rule = "0 < low < high" if lowest == 0 else "low < high"
        raise ValueError(f"{name}: {spread.low} and {spread.high} must be numbers with {rule}.")


def _checked(sweep: Sweep) -> Sweep:
    checks.at_least_one(seeds=sweep.num_seeds)
    if not 0 <= sweep.first_seed < 2**31 - sweep.num_seeds:
        raise ValueError(f"first_seed={sweep.first_seed} must be at least 0 and below 2**31 - seeds.")
    for one, other in itertools.permutations(sweep.swept, 2):
        if one.part == other.part and other.path[: len(one.path)] == one.path:
            raise ValueError(f"{one.name} and {other.name} overlap: sweep one of them.")
    return sweep
