"""A finished or stopped run looked at again: its last state evaluated, and what its model makes of data."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import random

from experiments import folder, registry
from experiments.experiment import Experiment, Program, build, over_seeds
from jaxrl.core import checkpoint, schedule, stats


class Restored(NamedTuple):
    """The last checkpoint of a run and what is needed to use it."""

    path: Path
    experiment: Experiment
    program: Program
    runs: Any  # leaves [S, ...]


def restore(path: str | Path, **eval_config: Any) -> Restored:
    """The last checkpoint of the run in `path`, with other values for the `eval_...` fields of its Config.

    Raises:
        ValueError: not a run folder, or a sweep's, or no checkpoint in it yet.
    """
    path, stored, experiment = folder.open_run(path)
    if "study" in stored:
        raise ValueError(f"{path} is a sweep: `python -m experiments extract {path}` makes a run of one of its lanes.")
    experiment = dataclasses.replace(experiment, config=dataclasses.replace(experiment.config, **eval_config))
    program = build(experiment)
    try:
        runs = checkpoint.load(path / folder.CHECKPOINTS, program.runs_shape()).tree
    except FileNotFoundError:
        raise ValueError(
            f"{path} has no checkpoint yet: continue it with `python -m experiments resume {path}`."
        ) from None
    return Restored(path, experiment, program, runs)


def state_of(restored: Restored, lane: int) -> Any:
    """The state of the `lane`-th seed's run.

    Raises:
        ValueError: no such seed was trained.
    """
    first, seeds = restored.experiment.seed, restored.experiment.seeds
    if not 0 <= lane < seeds:
        raise ValueError(f"Seed {first + lane} was not trained, seeds {first} to {first + seeds - 1} were.")
    return jax.tree.map(lambda leaf: leaf[lane], restored.runs.state)


def evaluate(restored: Restored, seed: int = 0) -> dict[str, np.ndarray]:
    """The learner's evaluation of every seed, leaves [S], with keys that training never used."""
    program, count = restored.program, restored.experiment.seeds
    evaluated = jax.jit(over_seeds(of_run(program.learner), count))
    return jax.device_get(evaluated((keys(seed, count), restored.runs), program.hparams, program.source))


def keys(seed: int, count: int) -> Any:
    """Keys of an evaluation of `count` seeds [S], apart from those of any training."""
    return random.split(random.fold_in(random.key(seed), 2**31 - 1), count)


def of_run(learner: Any) -> Callable[..., Any]:
    """`function((key, run), hparams, source)`: the metrics of a run where it stands, schedules followed so far."""

    def one(key_and_run: Any, hparams: Any, source: Any) -> Any:
        key, run = key_and_run
        return learner.evaluate(key, run.state, schedule.at(hparams, run.step / run.num_updates), source)

    return one


def heading(restored: Restored) -> str:
    """What is evaluated."""
    _, experiment, program, runs = restored
    update = int(runs.step[0])
    steps = f"{update * program.steps_per_update:,} {experiment.source.unit}"
    return f"{experiment} at update {update:,} of {program.num_updates:,}, {steps}"


def table(restored: Restored, metrics: dict[str, np.ndarray]) -> str:
    """One line per seed, then interquartile means and their 95 % intervals."""
    learner = registry.get(restored.experiment.algorithm)
    rows = [["seed", *metrics]]
    for lane in range(restored.experiment.seeds):
        rows.append([str(restored.experiment.seed + lane), *(f"{leaf[lane]:.4g}" for leaf in metrics.values())])
    if restored.experiment.seeds > 1:
        ends = []
        for name, leaf in metrics.items():
            counted = stats.worst_for_nan(leaf, learner.higher_is_better) if name == learner.score else leaf
            ends.append((stats.interquartile_mean(counted), *stats.bootstrap_interval(counted)))
        rows.append(["interquartile mean", *(f"{mean:.4g}" for mean, _, _ in ends)])
        rows.append(["95 % interval", *(f"{low:.4g} to {high:.4g}" for _, low, high in ends)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
