"""The results table: every preset trained over its seeds by the shipped defaults, one line for each."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import folder, presets, registry, summary, training
from jaxrl.core import checks, stats

NOTE = (
    "Score of the last evaluation: interquartile mean over seeds, its 95 % bootstrap interval, and the worst seed. "
    "Seconds are of training and evaluation, all seeds together, without compilation."
)


class Row(NamedTuple):
    """What a preset came to."""

    preset: str
    learner: str
    source: str
    steps: int  # per seed
    seeds: int
    metric: str
    score: float  # interquartile mean
    low: float  # of its interval
    high: float
    worst: float
    seconds: float
    published: str  # the figure of a paper or of another library, empty if there is none

    @property
    def command(self) -> str:
        """That trains it again."""
        return f"python -m experiments train --preset {self.preset} --seeds {self.seeds}"


def train(name: str, root: Path) -> Row | None:
    """The row of preset `name`, trained in a folder of its own under `root`, or continued, or only read if it is done.

    None if it was stopped.
    """
    preset = presets.PRESETS[name]
    path = root / name
    if not path.exists():
        experiment = dataclasses.replace(presets.get(name), seeds=preset.seeds)
        if training.train(experiment, run_dir=str(path)).signal:
            return None
    elif not (path / folder.SUMMARY).exists() and training.resume(path).signal:
        return None
    return row(name, path)


def row(name: str, path: Path) -> Row:
    """The row of preset `name`, read from its finished run."""
    _, _, experiment = folder.open_run(path)
    learner = registry.get(experiment.algorithm)
    report = json.loads((path / folder.SUMMARY).read_text())
    rows = folder.read_metrics(path)
    last = folder.column([each for each in rows if each["update"] == rows[-1]["update"]], learner.score)[0]
    last = stats.worst_for_nan(last, learner.higher_is_better)
    return Row(
        preset=name,
        learner=experiment.algorithm,
        source=str(experiment.source),
        steps=report["steps"],
        seeds=report["seeds"],
        metric=summary.plain(learner.score),
        score=report["interquartile_mean"],
        low=report["interval"][0],
        high=report["interval"][1],
        worst=float(last.min() if learner.higher_is_better else last.max()),
        seconds=report["steps"] * report["seeds"] / report["steps_per_second"],
        published=presets.PRESETS[name].published,
    )


def markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table and what it was measured on."""
    lines = [
        f"{NOTE} On {machine['processor']}, {machine['cores']} cores, {', '.join(machine['devices'])}, "
        f"revision {str(machine['git_revision'])[:10]}.",
        "",
        "| learner | on | steps per seed | seeds | score | interval | worst | seconds | published | command |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        cells = (
            each.learner,
            each.source,
            f"{each.steps:,}",
            f"{each.seeds}",
            f"{each.metric} {each.score:.4g}",
            f"{each.low:.4g} to {each.high:.4g}",
            f"{each.worst:.4g}",
            f"{each.seconds:,.0f}",
            each.published,
            f"`{each.command}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(names: Sequence[str], root: Path, target: Path, machine: dict[str, Any]) -> int:
    """Train the presets `names`, all if there are none, and write their table to `target` after each.

    What is finished under `root` is not trained again, what was stopped goes on. Returns the number of rows.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    for name in names:
        if name not in presets.PRESETS:
            raise ValueError(checks.unknown("preset", name, presets.PRESETS))
    rows: list[Row] = []
    for name in names or presets.PRESETS:
        found = train(name, root)
        if found is None:
            break
        rows.append(found)
        target.write_text(markdown(rows, machine))
    return len(rows)
