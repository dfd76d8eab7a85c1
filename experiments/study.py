"""A sweep on this floor: an experiment, what varies in it and how lanes are spent, and the programs of it."""

import ast
import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments import sources
from experiments.experiment import Experiment, Program, build
from jaxrl.core import search, sweep
from jaxrl.core.population import Population, Searched
from jaxrl.core.schedule import Linear


@dataclass(frozen=True)
class Study:
    """Everything that decides the numbers of a sweep."""

    experiment: Experiment  # of every lane, but for what is swept; each point is run with all its seeds
    names: tuple[str, ...]  # of the fields swept
    values: tuple[tuple[Any, ...], ...]  # of each field: in a grid those that are combined, else one for each point
    combined: bool  # a grid
    spend: search.Everything | search.Halving | Population = search.Everything()
    ranges: tuple[Any, ...] = ()  # that the points were drawn from, one for each field

    def __str__(self) -> str:
        return f"{self.experiment} over {', '.join(self.names) or 'seeds'}"


class Plan(NamedTuple):
    """A study ready to be compiled: its lanes, and for each group of them a program."""

    study: Study
    lanes: sweep.Sweep
    programs: list[Program]  # one for each group

    @property
    def searched(self) -> tuple[Searched, ...]:
        """What a population looks for."""
        return tuple(map(Searched, self.lanes.swept, self.study.ranges))

    @property
    def unit(self) -> int:
        """Lanes that must run together: the members of a population."""
        return self.lanes.num_points if isinstance(self.study.spend, Population) else 1

    def blocks(self, group: int, running: np.ndarray) -> list[tuple[int, ...]]:
        """The lanes of a group that belong to `running` points, bool [P], those together that must be."""
        seeds = self.lanes.num_seeds
        lanes = [int(lane) for lane in self.lanes.groups[group].lanes if running[lane // seeds]]
        if self.unit == 1:
            return [(lane,) for lane in lanes]
        return [tuple(lane for lane in lanes if lane % seeds == seed) for seed in range(seeds)]

    def stops(self, group: int) -> list[int]:
        """Evaluations of a group's lanes at the end of each stage."""
        return self.study.spend.stops(self.programs[group].num_chunks)

    def steps(self, group: int) -> int:
        """Of a lane from one evaluation to the next."""
        program = self.programs[group]
        return program.eval_every * program.steps_per_update

    def place(self, point: dict[str, int]) -> int:
        """The number of a point that is given by its index along each dimension."""
        return int(np.ravel_multi_index(tuple(point.values()), self.lanes.shape)) if point else 0

    def total_steps(self) -> int:
        """Of all lanes together, about: how many lanes of each group go on is seen only then."""
        stops, running, part = self.stops(0), self.lanes.num_points, 0.0
        for before, stop in itertools.pairwise([0, *stops]):
            part += (stop - before) / stops[-1] * running / self.lanes.num_points
            running = self.study.spend.kept(running)
        groups = enumerate(self.lanes.groups)
        return round(part * sum(len(group.lanes) * self.steps(n) * self.stops(n)[-1] for n, group in groups))

    def __str__(self) -> str:
        """What is about to be done, in a line."""
        experiment, lanes = self.study.experiment, self.lanes
        lengths = sorted({program.num_updates * program.steps_per_update for program in self.programs})
        steps = f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,}"
        return (
            f"{self.study}: {_count(lanes.num_points, 'point')} x {_count(lanes.num_seeds, 'seed')} = "
            f"{_count(lanes.num_lanes, 'lane')} in {_count(len(self.programs), 'program')}, "
            f"{steps} {experiment.source.unit} each"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def describe(experiment: Experiment, values: dict[str, Any], points: int | None, draw: int, spend: Any) -> Plan:
    """The plan of `experiment` over `values`: every combination, or so many `points` drawn from them.

    Raises:
        ValueError: what cannot be swept, with the nearest names, or cannot work.
    """
    loaded = experiment.source.load()
    _check_limit(experiment, values)
    parts = experiment.hparams, experiment.config, loaded[1]
    first, count = experiment.seed, experiment.seeds
    if points is None:
        for name, given in values.items():
            if isinstance(given, sweep.Range):
                raise ValueError(f"{name} is to be drawn from a range: say how many points, or give its values.")
        found = sweep.grid(parts[0], parts[1], parts[2], seeds=count, first_seed=first, **values)
    else:
        ranges = {"points": points, "draw": draw, **values}
        found = sweep.sample(parts[0], parts[1], parts[2], seeds=count, first_seed=first, **ranges)
    if isinstance(spend, Population):
        _check_population(found, values, points, spend)
    names = tuple(field.name for field in found.swept)
    drawn = tuple(field.values for field in found.swept)
    study = Study(experiment, names, drawn, points is None, spend, tuple(values.values()) if points else ())
    return _programs(study, found, loaded)


def plan(study: Study) -> Plan:
    """The plan of a study read from a folder."""
    experiment, loaded = study.experiment, study.experiment.source.load()
    make = sweep.grid if study.combined else sweep.zipped
    values = dict(zip(study.names, study.values, strict=True))
    parts = experiment.hparams, experiment.config, loaded[1]
    found = make(parts[0], parts[1], parts[2], seeds=experiment.seeds, first_seed=experiment.seed, **values)
    return _programs(study, found, loaded)


def _programs(study: Study, found: sweep.Sweep, loaded: tuple[Any, Any]) -> Plan:
    alone = dataclasses.replace(study.experiment, seeds=1)
    programs = [build(dataclasses.replace(alone, config=group.config), loaded) for group in found.groups]
    made = Plan(study, found, programs)
    for group in range(len(programs)):
        made.stops(group)  # refuses what cannot be divided
    return made


def _check_population(found: sweep.Sweep, values: dict[str, Any], points: int | None, spend: Population) -> None:
    for field in found.swept:
        if field.part != "hparams" or not isinstance(values[field.name], sweep.Uniform | sweep.LogUniform):
            raise ValueError(
                f"{field.name}: a population changes hyperparameters within ranges, {field.name}=log:LOW:HIGH or "
                f"{field.name}=uniform:LOW:HIGH."
            )
    if points is None:
        raise ValueError("How many members has the population? Say how many points.")
    spend.copying(points)


def _check_limit(experiment: Experiment, values: dict[str, Any]) -> None:
    name = "max_steps_in_episode"
    if isinstance(experiment.source, sources.Environment) and {name, f"source.{name}"} & values.keys():
        raise ValueError(
            f"{name} is part of the environment's description, which programs are made from: set it for all lanes, "
            f"--env-kwargs {name}=1000 say."
        )


def over(words: Sequence[str]) -> dict[str, Any]:
    """What words such as `learning_rate=1e-4,1e-3` or `discount=uniform:0.9:1` say is swept.

    NAME=VALUE,VALUE are values, also of schedules, `learning_rate=1e-3:0,1e-4:0`; NAME=log:LOW:HIGH and
    NAME=uniform:LOW:HIGH ranges to draw from, and with :COUNT behind them as many values, evenly spaced.

    Raises:
        ValueError: a word of another form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, written = word.partition("=")
        if not (name and equals and written):
            raise ValueError(f"{word!r} is not of the form NAME=VALUE,VALUE or NAME=log:LOW:HIGH.")
        if name in found:
            raise ValueError(f"{name} is swept twice.")
        kind, *bounds = written.split(":")
        found[name] = _spread(word, kind, bounds) if kind in ("log", "uniform") else _values(written)
    return found


def _spread(word: str, kind: str, bounds: list[str]) -> Any:
    try:
        low, high, *count = [float(bound) for bound in bounds]
        if len(count) > 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"{word!r} is not of the form NAME={kind}:LOW:HIGH or NAME={kind}:LOW:HIGH:COUNT.") from None
    spread = sweep.LogUniform(low, high) if kind == "log" else sweep.Uniform(low, high)
    if not count:
        return spread
    sweep.check_bounds(word, spread)
    # Numbers as short as they are meant: 0.001 for 0.0010000000000000002.
    return [float(f"{spread.at(quantile):.6g}") for quantile in np.linspace(0, 1, int(count[0]))]


def _values(written: str) -> list[Any]:
    words = re.split(r",(?![^(\[]*[)\]])", written)  # not at commas in brackets
    return [_value(word) for word in words if word]


def _value(word: str) -> Any:
    parts = word.split(":")
    if 2 <= len(parts) <= 3:
        try:
            return Linear(*(float(part) for part in parts))
        except ValueError:
            return word
    try:
        return float(word) if word in ("inf", "nan", "-inf") else ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
