"""A finished or stopped run looked at again: its last state evaluated, and what its model makes of data."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import random

from experiments import folder, registry
from experiments.experiment import Experiment, Program, build
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
        ValueError: not a run folder, or no checkpoint in it yet.
    """
    path, _, experiment = folder.open_run(path)
    experiment = dataclasses.replace(experiment, config=dataclasses.replace(experiment.config, **eval_config))
    program = build(experiment)
    try:
        runs = checkpoint.load(path / folder.CHECKPOINTS, program.runs_shape()).tree
    except FileNotFoundError:
        raise ValueError(
            f"{path} has no checkpoint yet: continue it with `python -m experiments resume {path}`."
        ) from None
    return Restored(path, experiment, program, runs)


def evaluate(restored: Restored, seed: int = 0) -> dict[str, np.ndarray]:
    """The learner's evaluation of every seed, leaves [S], with keys that training never used."""
    program, runs = restored.program, restored.runs

    def one(key: Any, run: Any) -> Any:
        hparams = schedule.at(program.hparams, run.step / run.num_updates)
        return program.learner.evaluate(key, run.state, hparams, program.source)

    keys = random.split(random.fold_in(random.key(seed), 2**31 - 1), len(program.keys))
    return jax.device_get(jax.jit(jax.vmap(one))(keys, runs))


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
