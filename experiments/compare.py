"""Several runs side by side: a table and curves of their scores. Of a sweep it is the best point that counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments import folder, registry, summary, sweeping
from experiments.plots import COLORS, GREY, line
from jaxrl.core import results, stats


class Series(NamedTuple):
    """The scores of a run."""

    name: str
    what: str  # was run
    steps: np.ndarray  # [E] per seed
    scores: np.ndarray  # [E, S]
    diverged: int  # seeds
    learner: registry.Learner
    unit: str  # of the steps

    def middle(self) -> np.ndarray:
        """Interquartile mean over seeds and its 95 % interval: [3, E]. A score that is no number is the worst."""
        counted = stats.worst_for_nan(self.scores, self.learner.higher_is_better)
        return np.stack([stats.interquartile_mean(counted), *stats.bootstrap_interval(counted)])


def series(path: str | Path) -> Series:
    """Of the run or sweep in folder `path`, as far as it has come.

    Raises:
        ValueError: no run there, or nothing measured yet, of a sweep with all seeds of some point.
    """
    found, _, experiment = folder.open_run(path)
    learner, unit = registry.get(experiment.algorithm), experiment.source.unit
    if sweeping.is_sweep(path):
        return _of_sweep(sweeping.read(path), found, str(experiment), learner, unit)
    rows = folder.read_metrics(found)
    if not rows:
        raise ValueError(f"{path} has no metrics yet.")
    scores, lost = folder.column(rows, learner.score), folder.column(rows, "diverged")
    steps = np.array(sorted({row["step"] for row in rows}))
    return Series(found.name, str(experiment), steps, scores, int(np.nansum(lost[-1])), learner, unit)


def _of_sweep(found: Any, path: Path, what: str, learner: registry.Learner, unit: str) -> Series:
    if "populations" in found.attrs:
        best, what = results.best_members(found), f"{what}, best members"
    else:
        best = results.best(found)
        values = (f"{name} {best[name].item():.4g}" for name in results.names(found) if best[name].dtype.kind == "f")
        words = (f"{name} {best[name].item()}" for name in results.names(found) if best[name].dtype.kind != "f")
        what = ", ".join([what, *values, *words])
    best = best.isel(step=np.flatnonzero(best["diverged"].notnull().all("seed").values))
    if not best.sizes["step"]:
        raise ValueError(f"{path} has metrics of some seeds only: wait for the others, or `resume` it.")
    scores = best[learner.score].transpose("step", "seed").values.astype(float)
    lost = int(best["diverged"].isel(step=-1).sum())
    return Series(path.name, what, best["step"].values, scores, lost, learner, unit)


def compare(paths: Sequence[str | Path]) -> list[Series]:
    """The runs in `paths`, the best first.

    Raises:
        ValueError: their scores are not of one kind.
    """
    found = [series(path) for path in paths]
    scores = sorted({each.learner.score for each in found})
    if len(scores) > 1:
        raise ValueError(f"Runs with different scores, {', '.join(scores)}, cannot be compared.")
    sign = -1.0 if found[0].learner.higher_is_better else 1.0
    return sorted(found, key=lambda each: sign * each.middle()[0, -1])


def table(found: Sequence[Series]) -> str:
    """One line for each run: score at the last evaluation, interval, seeds, steps."""
    lines = [["run", summary.plain(found[0].learner.score), "95 % interval", "seeds", "diverged", "steps", ""]]
    for each in found:
        mean, low, high = each.middle()[:, -1]
        seeds = each.scores.shape[1]
        interval = f"{low:.4g} to {high:.4g}" if seeds > 1 else "-"
        steps = f"{each.steps[-1]:,}"
        lines.append([each.name, f"{mean:.4g}", interval, str(seeds), str(each.diverged), steps, each.what])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def aligned(line: list[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)]
        return "  ".join([line[0].ljust(widths[0]), *cells[1:], line[-1]]).rstrip()

    return "\n".join(map(aligned, lines))


def picture(found: Sequence[Series], target: Path) -> None:
    """Interquartile means over seeds and their 95 % intervals against steps."""
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for each, color in zip(found, COLORS * len(found), strict=False):
        mean, low, high = np.where(np.isfinite(each.middle()), each.middle(), np.nan)
        axes.plot(each.steps, mean, label=f"{each.name}: {each.what}", **line(color, each.steps))
        if each.scores.shape[1] > 1:
            axes.fill_between(each.steps, low, high, color=color, alpha=0.2, linewidth=0)
    units = " or ".join(dict.fromkeys(each.unit for each in found))
    axes.set_xlabel(f"{units} per seed", color=GREY)
    axes.set_ylabel(summary.plain(found[0].learner.score), color=GREY)
    axes.set_title("Interquartile means over seeds, 95 % intervals", color=GREY, fontsize=9)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, framealpha=0.7)
    figure.savefig(target)
