"""What a finished run came to: a few lines for the eye, summary.json and the learning curve."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import drawing, folder, registry
from experiments.evaluation import Restored
from experiments.experiment import Experiment
from jaxrl.core import stats


def score_of(learner: registry.Learner, scores: np.ndarray) -> tuple[float, float, float]:
    """Interquartile mean of `scores` [S] and its 95 % interval; a score that is not a number counts as the worst."""
    scores = stats.worst_for_nan(scores, learner.higher_is_better)
    low, high = stats.bootstrap_interval(scores)
    return float(stats.interquartile_mean(scores)), float(low), float(high)


def short_score(learner: registry.Learner, metrics: dict[str, np.ndarray]) -> str:
    """The score of the moment, as in "return 123.4"."""
    scores = stats.worst_for_nan(metrics[learner.score], learner.higher_is_better)
    return f"{plain(learner.score)} {stats.interquartile_mean(scores):.4g}"


def plain(name: str) -> str:
    """A metric's name without the front that says it was evaluated."""
    return name.removeprefix("eval/")


def all_steps(experiment: Experiment, step: int) -> int:
    """`step` of the metrics and those before the first update, at random, that fill a replay buffer."""
    return step + getattr(experiment.config, "warmup", 0)


def finish(restored: Restored, timing: dict[str, Any]) -> dict[str, Any]:
    """Write the pictures and summary.json of a finished run, print what matters, return the summary."""
    path, experiment, _, _ = restored
    learner = registry.get(experiment.algorithm)
    rows = folder.read_metrics(path)
    last = [row for row in rows if row["update"] == rows[-1]["update"]]
    mean, low, high = score_of(learner, folder.column(last, learner.score)[0])
    diverged = [row["seed"] for row in last if row["diverged"]]
    report = {
        "experiment": str(experiment),
        "metric": learner.score,
        "interquartile_mean": mean,
        "interval": [low, high],
        "seeds": len(last),
        "diverged_seeds": diverged,
        "steps": all_steps(experiment, last[0]["step"]),
        **timing,
    }
    pictures = drawing.draw(restored)
    folder.write_json(path / folder.SUMMARY, report | measured(path, timing))  # last: where it is, all is
    print(text(report, experiment, path, pictures), flush=True)
    return report


def measured(path: Path, timing: dict[str, Any]) -> dict[str, Any]:
    """`timing`, or what the summary in `path` has of it if nothing was left to do."""
    if timing["steps_per_second"] is not None or not (path / folder.SUMMARY).exists():
        return timing
    before = json.loads((path / folder.SUMMARY).read_text())
    return {name: before.get(name) for name in timing}


def text(report: dict[str, Any], experiment: Experiment, path: Path, pictures: list[Path]) -> str:
    """The summary for the eye."""
    learner = registry.get(experiment.algorithm)
    seeds, diverged = report["seeds"], report["diverged_seeds"]
    low, high = report["interval"]
    over = f"interquartile mean of {seeds} seeds, 95 % interval {low:.4g} to {high:.4g}" if seeds > 1 else "1 seed"
    unit = f" {learner.unit}" if learner.unit else ""
    speed = report["steps_per_second"]
    lines = [
        f"score     {plain(learner.score)} {report['interquartile_mean']:.4g}{unit} ({over}), "
        f"{report['steps']:,} {experiment.source.unit} each",
        f"speed     {speed:,.0f} {experiment.source.unit} per second, all seeds together"
        if speed
        else "speed     nothing was left to do",
        f"compile   {report['compile_seconds']:.1f} s",
    ]
    if diverged:
        names = ", ".join(map(str, diverged))
        lines.append(
            f"warning   {len(diverged)} of {seeds} seeds diverged (seed {names}), counted in the score as measured, "
            "and as the worst possible where that is no number"
        )
    lines += [
        f"folder    {path}",
        f"pictures  {', '.join(picture.name for picture in pictures)}",
        f"next      {folder.command('evaluate', path)}",
    ]
    return "\n".join(lines)
