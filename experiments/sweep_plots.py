"""Pictures of sweeps. Scores are interquartile means over seeds, those of the last evaluations unless over steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.plots import COLORS, GREY, line
from jaxrl.core import checks, results

COLOR_MAP = colormaps["viridis"]
WIDE = 30.0  # a range whose high end is so many times the low one is drawn in logarithms
LEAST_GAP = 0.09  # between ticks, of an axis: closer ones would be written over each other
PLATE = {"boxstyle": "round", "facecolor": "white", "alpha": 0.7, "linewidth": 0}


def draw(found: Any, folder: Path, over: tuple[str, str] | None = None) -> list[Path]:
    """Every picture that a sweep's Dataset has something for, into `folder`; the heat map is `over` two fields.

    Raises:
        ValueError: a field that was not swept.
    """
    fields = results.names(found)
    for name in over or ():
        if name not in fields:
            raise ValueError(checks.unknown("field of the sweep", name, fields))
    if "populations" in found.attrs:
        pictures = {"curves.png": members, "schedules.png": schedules}
    else:
        pictures = {"curves.png": curves}
        pictures |= {"sensitivity.png": sensitivity} if fields else {}
        pictures |= {"heat.png": heat, "parallel.png": parallel} if len(fields) > 1 else {}
    for name, picture in pictures.items():
        (heat(found, over) if name == "heat.png" else picture(found)).savefig(folder / name)
    return [folder / name for name in pictures]


def curves(found: Any) -> Figure:
    """Score against steps: the best points with their 95 % intervals over seeds, the others thin."""
    figure, axes = _over_steps(found)
    over_steps, order = results.over_seeds(found), results.ranking(found)
    for place, point in enumerate(order):
        curve = over_steps.isel(point).dropna("step", subset=["mean"])
        if place >= len(COLORS):
            axes.plot(curve["step"], _finite(curve["mean"]), color="#bbbbbb", linewidth=0.5, zorder=1)
            continue
        values = found.isel(point)
        label = ", ".join(f"{name} {_short(values[name].item())}" for name in results.names(found))
        above = {"zorder": 3 + len(order) - place}
        axes.plot(curve["step"], _finite(curve["mean"]), label=label, **line(COLORS[place], curve["step"]), **above)
        if found.sizes["seed"] > 1:
            low, high = _finite(curve["low"]), _finite(curve["high"])
            axes.fill_between(curve["step"], low, high, color=COLORS[place], alpha=0.2, linewidth=0, **above)
    if results.names(found):
        axes.legend(fontsize=7, framealpha=0.7)
    return figure


def members(found: Any) -> Figure:
    """Of populations: the best score of any member, for each seed, against steps."""
    figure, axes = _over_steps(found)
    score = found[found.attrs["score"]]
    best = score.max("point") if found.attrs["higher_is_better"] else score.min("point")
    for seed, color in zip(found["seed"].values, COLORS * found.sizes["seed"], strict=False):
        axes.plot(found["step"], _finite(best.sel(seed=seed)), color=color, label=f"seed {seed}")
    axes.set_title("Best member of each population", color=GREY, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return figure


def schedules(found: Any) -> Figure:
    """Of populations: what the hyperparameters were on the way to the best member of each seed."""
    names = [name.removeprefix("hparams.") for name in results.names(found)]
    figure = Figure(figsize=(4.2 * len(names), 3.6), dpi=150, layout="constrained")
    best = results.best_members(found)["point"]
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for seed, color in zip(found["seed"].values, COLORS * found.sizes["seed"], strict=False):
            line = results.lineage(found, seed, int(best.sel(seed=seed)))
            values = found[name].sel(seed=seed).transpose("step", "point").values
            steps = found["step"][: len(line)]
            axes.step(steps, values[np.arange(len(line)), line], color=color, label=f"seed {seed}")
        if _is_wide(found[name].values):
            axes.set_yscale("log")
        axes.set_xlabel("steps per lane", color=GREY)
        axes.set_title(name, color=GREY, fontsize=9)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(frameon=False, fontsize=8)
    return figure


def heat(found: Any, fields: tuple[str, str] | None = None) -> Figure:
    """Score over two fields, the first two if None: of a grid the best over the others, else every point."""
    across, up = fields or tuple(results.names(found)[:2])
    mean = results.over_seeds(found, final=True)["mean"]
    figure = Figure(figsize=(6.4, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if across in mean.dims:
        others = [name for name in mean.dims if name not in (across, up)]
        table = (mean.max(others) if found.attrs["higher_is_better"] else mean.min(others)).transpose(up, across)
        shown: Any = axes.imshow(_finite(table), cmap=COLOR_MAP, aspect="auto", origin="lower")
        for row, column in np.ndindex(table.shape):
            text = _short(table.values[row, column].item())
            axes.text(column, row, text, ha="center", va="center", fontsize=8, bbox=PLATE)
        axes.set_xticks(range(found.sizes[across]), map(_short, found[across].values.tolist()))
        axes.set_yticks(range(found.sizes[up]), map(_short, found[up].values.tolist()))
        axes.set_title(f"Best over {', '.join(map(str, others))}" if others else "", color=GREY, fontsize=9)
    else:
        (x, x_ticks), (y, y_ticks) = (_scaled(found[name].values) for name in (across, up))
        order = _worst_first(found, mean.values)
        shown = axes.scatter(x[order], y[order], c=_finite(mean)[order], cmap=COLOR_MAP, plotnonfinite=True)
        axes.set_xticks(list(x_ticks), x_ticks.values())
        axes.set_yticks(list(y_ticks), y_ticks.values())
    figure.colorbar(shown, ax=axes, label=_score(found))
    axes.set_xlabel(across, color=GREY)
    axes.set_ylabel(up, color=GREY)
    return figure


def sensitivity(found: Any) -> Figure:
    """Score against each field by itself: every point with its 95 % interval, and the best at each value of a grid."""
    table = _table(found)
    names = results.names(found)
    figure = Figure(figsize=(3.6 * len(names), 3.6), dpi=150, layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        x, ticks = _scaled(table[name])
        mean, low, high = (_finite(table[bound]) for bound in ("mean", "low", "high"))
        axes.vlines(x, low, high, color=COLORS[0], linewidth=0.8, alpha=0.5)
        axes.scatter(x, mean, color=COLORS[0], s=14)
        if found.sizes.get(name, len(x)) < len(x) or len(names) == 1:
            best = (np.fmax if found.attrs["higher_is_better"] else np.fmin).reduce  # NaN where nothing else is
            axes.plot(np.unique(x), [best([*mean[x == each], np.nan]) for each in np.unique(x)], color=COLORS[1])
        axes.set_xticks(list(ticks), ticks.values())
        axes.set_xlabel(name, color=GREY)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(_score(found), color=GREY)
    return figure


def parallel(found: Any) -> Figure:
    """A line for each point, through its value of every field to its score; the best on top."""
    table, names = _table(found), [*results.names(found), "mean"]
    figure = Figure(figsize=(1.5 + 1.5 * len(names), 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    heights = []
    for place, name in enumerate(names):
        height, ticks = _scaled(_finite(table[name]) if name == "mean" else table[name])
        heights.append(height)
        axes.axvline(place, color=GREY, linewidth=0.8)
        for where, text in ticks.items():
            axes.text(place + 0.03, where, text, fontsize=7, color=GREY, va="center", bbox=PLATE, zorder=5)
    lines, norm = np.array(heights), Normalize(0, 1)
    for point in _worst_first(found, table["mean"]):
        color = COLOR_MAP(norm(lines[-1, point])) if np.isfinite(lines[-1, point]) else "#bbbbbb"
        axes.plot(lines[:, point], color=color, linewidth=1.2, alpha=0.8)
    axes.set_xticks(range(len(names)), [*names[:-1], _score(found)], color=GREY)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def _over_steps(found: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("steps per lane", color=GREY)
    axes.set_ylabel(_score(found), color=GREY)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _score(found: Any) -> str:
    seeds = found.sizes["seed"]
    name = found.attrs["score"].removeprefix("eval/")
    return name if seeds == 1 or "populations" in found.attrs else f"{name}, middle of {seeds} seeds"


def _table(found: Any) -> dict[str, np.ndarray]:
    """Of every point its fields and mean, low and high score, arrays [P]."""
    ends = results.over_seeds(found, final=True)
    points = results.points(found)
    wide = {name: found[name].broadcast_like(ends["mean"]) for name in results.names(found)}
    columns = {**wide, **{name: ends[name] for name in ("mean", "low", "high")}}
    return {name: values.transpose(*points).values.ravel() for name, values in columns.items()}


def _scaled(values: np.ndarray) -> tuple[np.ndarray, dict[float, str]]:
    """Places [P] in 0 to 1 of values, numbers or words, and what is written where."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        words = sorted(set(values.tolist()))
        return np.array([words.index(value) for value in values.tolist()]) / max(1, len(words) - 1), {
            place / max(1, len(words) - 1): str(word) for place, word in enumerate(words)
        }
    numbers = values.astype(float)
    scale = np.log if _is_wide(numbers) else np.asarray
    low, high = scale(np.nanmin(numbers)), scale(np.nanmax(numbers))
    span = float(high - low) or 1.0
    few = np.unique(numbers[np.isfinite(numbers)])
    shown = few if len(few) <= 6 else np.quantile(few, [0, 0.25, 0.5, 0.75, 1], method="closest_observation")
    ticks: dict[float, str] = {}
    for each in shown:
        place = float((scale(each) - low) / span)
        if all(abs(place - other) >= LEAST_GAP for other in ticks):
            ticks[place] = _short(float(each))
    return (scale(numbers) - low) / span, ticks


def _is_wide(values: np.ndarray) -> bool:
    numbers = np.asarray(values, float)
    return bool(np.nanmin(numbers) > 0 and np.nanmax(numbers) / np.nanmin(numbers) >= WIDE)


def _worst_first(found: Any, scores: Sequence[float] | np.ndarray) -> np.ndarray:
    signed = np.asarray(scores, float) * (1 if found.attrs["higher_is_better"] else -1)
    return np.argsort(np.where(np.isnan(signed), -np.inf, signed))


def _finite(values: Any) -> np.ndarray:
    numbers = np.asarray(values, float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
