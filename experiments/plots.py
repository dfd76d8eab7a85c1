"""Pictures of runs. Matplotlib is imported here alone, and pyplot nowhere, so no window and no backend is touched."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments import folder, registry, stats, summary

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, seen by all eyes
STYLE = {"color": "#444444", "fontsize": 10}


def curves(paths: Sequence[Path], target: Path) -> None:
    """Score against steps of one or more runs: interquartile mean over seeds, its 95 % interval, and each seed thin.

    Raises:
        ValueError: a run has no metrics yet, or the runs have different scores.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    scores = set()
    for path, color in zip(paths, COLORS * len(paths), strict=False):
        _, _, experiment = folder.open_run(path)
        learner = registry.get(experiment.algorithm)
        scores.add(learner.score)
        rows = folder.read_metrics(path)
        if not rows:
            raise ValueError(f"{path} has no metrics yet.")
        steps = np.array(sorted({row["step"] for row in rows}))
        values = folder.column(rows, learner.score)
        label = f"{experiment}" if len(paths) == 1 else f"{experiment} ({path.name})"
        counted = stats.worst_for_nan(values, learner.higher_is_better)
        axes.plot(steps, _finite(stats.interquartile_mean(counted)), color=color, linewidth=2, label=label)
        if experiment.seeds > 1:
            low, high = stats.bootstrap_interval(counted)
            axes.fill_between(steps, _finite(low), _finite(high), color=color, alpha=0.25, linewidth=0)
            if len(paths) == 1:
                axes.plot(steps, values, color=color, linewidth=0.5, alpha=0.3)
    if len(scores) > 1:
        raise ValueError(f"Runs with different scores, {', '.join(sorted(scores))}, do not share one picture.")
    unit = f" ({learner.unit})" if learner.unit else " per episode" if learner.score == "eval/return" else ""
    axes.set_ylabel(f"{summary.plain(learner.score)}{unit}", **STYLE)
    axes.set_xlabel(f"{experiment.source.unit} per seed", **STYLE)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    several = experiment.seeds > 1
    axes.set_title(f"Interquartile mean of {experiment.seeds} seeds, 95 % interval" if several else "1 seed", **STYLE)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best", fontsize=9)
    figure.savefig(target)


def _finite(values: np.ndarray) -> np.ndarray:
    """`values` with gaps where they are infinite."""
    return np.where(np.isfinite(values), values, np.nan)
