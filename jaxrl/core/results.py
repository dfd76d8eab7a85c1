"""What a sweep gave: metrics under the names of what was swept, as an xarray Dataset.

Dimensions of every variable: of a grid each swept field, else "point" with the fields as coordinates along it; then
"seed" and "step". A lane that was not evaluated at a step, because its program evaluates at others or because it was
dropped before, is NaN there. The score is named by the attributes "score" and "higher_is_better".
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.core import fields, stats
from jaxrl.core.sweep import Sweep

Part = tuple[Iterable[int], Iterable[int], dict[str, np.ndarray]]


def dataset(
    sweep: Sweep,
    parts: Iterable[Part],
    *,
    score: str,
    higher_is_better: bool = True,
    rungs: np.ndarray | None = None,
    populations: bool = False,
) -> Any:
    """An xarray Dataset of lanes, steps and metrics.

    Args:
        sweep: whose lanes they are.
        parts: any number of (lanes [L], steps [E], metrics with leaves [L, E]).
        score: the metric that points are compared by.
        higher_is_better: whether points with more of it are the better ones.
        rungs: [P] how far each point came before it was dropped (`search.Halving`); variable "rung" of the result.
        populations: the points are members of a population for each seed (`population`), whose hyperparameters change:
            they are variables, and the coordinates are those they began with.
    """
    import xarray  # slow to import

    pieces = [(np.asarray(lanes), np.asarray(steps), metrics) for lanes, steps, metrics in parts]
    steps = np.unique(np.concatenate([each for _, each, _ in pieces]))
    names = list(dict.fromkeys(name for _, _, metrics in pieces for name in metrics))
    tables = {name: np.full((sweep.num_lanes, len(steps)), np.nan, np.float32) for name in names}
    for lanes, some, metrics in pieces:
        for name, values in metrics.items():
            tables[name][np.ix_(lanes, np.searchsorted(steps, some))] = values

    titles = [field.name if field.name not in names else f"{field.part}.{field.name}" for field in sweep.swept]
    labels = [_coordinate([fields.label(value) for value in field.values]) for field in sweep.swept]
    dimensions = titles if sweep.combined else ["point"]
    coordinates: dict[str, Any] = {} if sweep.combined else {"point": np.arange(sweep.num_points)}
    for title, values in zip(titles, labels, strict=True):
        coordinates[title] = (title if sweep.combined else "point", values)
    shape = (*sweep.shape, sweep.num_seeds, len(steps))
    variables = {name: ((*dimensions, "seed", "step"), table.reshape(shape)) for name, table in tables.items()}
    if rungs is not None:
        variables["rung"] = (tuple(dimensions), rungs.reshape(sweep.shape))
    return xarray.Dataset(
        variables,
        {**coordinates, "seed": list(sweep.seeds), "step": steps},
        {"score": score, "higher_is_better": int(higher_is_better), "swept": " ".join(titles)}
        | ({"populations": 1} if populations else {}),
    )


def _coordinate(labels: list[Any]) -> np.ndarray:
    """Labels of one kind: numbers if all are, else words."""
    numbers = all(isinstance(label, bool | int | float) for label in labels)
    return np.array(labels if numbers else [str(label) for label in labels])


def names(results: Any) -> list[str]:
    """What was swept, in order."""
    return results.attrs["swept"].split()


def points(results: Any) -> tuple[str, ...]:
    """The dimensions that points lie along: all but seed and step."""
    return tuple(name for name in results[results.attrs["score"]].dims if name not in ("seed", "step"))


def last(results: Any, metric: str | None = None) -> Any:
    """`metric`, the score if None, of every lane at its last evaluation: a DataArray without the dimension step."""
    evaluated = results["diverged"].notnull()  # what else is NaN may be a score
    place = evaluated.shape[-1] - 1 - evaluated[..., ::-1].argmax("step")
    return results[metric or results.attrs["score"]].isel(step=place)


def over_seeds(results: Any, metric: str | None = None, *, final: bool = False) -> Any:
    """Interquartile mean of `metric`, the score if None, and its 95 % bootstrap interval: a Dataset without seed.

    Variables "mean", "low" and "high". A score that is not a number counts as the worst possible, an infinity, where
    its lane was evaluated; where some seed was not, all three are NaN.

    Args:
        results: as `dataset` gives them.
        metric: its name.
        final: of each lane's last evaluation, instead of every step.
    """
    metric = metric or results.attrs["score"]
    values = last(results, metric) if final else results[metric]
    seen = results["diverged"].notnull()
    missing = ~(seen.any("step") if final else seen).all("seed")
    if metric == results.attrs["score"]:
        higher = bool(results.attrs["higher_is_better"])
        values = values.copy(data=stats.worst_for_nan(values.values, higher))
    values = values.drop_vars("step", errors="ignore") if final else values
    moved = values.transpose(..., "seed")
    mean = moved.isel(seed=0, drop=True).copy(data=stats.interquartile_mean(moved.values)).where(~missing)
    low, high = (mean.copy(data=bound).where(~missing) for bound in stats.bootstrap_interval(moved.values))
    return mean.to_dataset(name="mean").assign(low=low, high=high)


def ranking(results: Any) -> list[dict[str, int]]:
    """Points from the best to the worst by the interquartile mean of the score, as indices for `results.isel`.

    Those that were dropped on the way come last, the first to go at the very end.
    """
    dimensions = points(results)
    means = over_seeds(results, final=True)["mean"].transpose(*dimensions).values
    worse = -means if results.attrs["higher_is_better"] else means
    rungs = results["rung"].transpose(*dimensions).values if "rung" in results else np.zeros(means.shape)
    order = np.lexsort((np.where(np.isnan(worse), np.inf, worse).ravel(), -rungs.ravel()))
    return [dict(zip(dimensions, map(int, np.unravel_index(place, means.shape)), strict=True)) for place in order]


def best(results: Any) -> Any:
    """The Dataset of the best point: dimensions seed and step, the values of what was swept as coordinates."""
    return results.isel(ranking(results)[0])


def best_members(results: Any) -> Any:
    """Of populations the best member of each seed: a Dataset with dimensions seed and step."""
    sign = 1 if results.attrs["higher_is_better"] else -1
    return results.isel(point=(sign * last(results)).fillna(-np.inf).argmax("point"))


def lineage(results: Any, seed: int, point: int) -> np.ndarray:
    """Which member's state it was [E], at each step, that has become the one of member `point` of a population.

    Of a population still in training, at the steps it has come to.
    """
    parents = results["parent"].sel(seed=seed).transpose("step", "point").values
    parents = parents[~np.isnan(parents).any(1)]
    found = [point] if len(parents) else []
    for row in parents[:0:-1]:
        found.append(int(row[found[-1]]))
    return np.array(found[::-1])


def diverged(results: Any) -> Any:
    """Whether each lane has diverged."""
    return last(results, "diverged") > 0


def table(results: Any, rows: int = 20) -> str:
    """Points from the best down, with score, interval and diverged lanes, for the terminal.

    Of populations the best member of each seed, with what its hyperparameters have come to.
    """
    if "populations" in results.attrs:
        return _table_of_members(best_members(results), results.attrs["score"])
    ends, lost, score = over_seeds(results, final=True), diverged(results), results.attrs["score"]
    steps = results["step"].where(results["diverged"].notnull().any("seed")).max("step")
    dropped = "rung" in results
    seeds = results.sizes["seed"]
    shape = tuple(results.sizes[name] for name in points(results))
    numbered = ["point"] if shape else []
    lines = [[*numbered, *names(results), score.removeprefix("eval/"), *(["95 % interval"] if seeds > 1 else [])]]
    lines[0] += [*(["steps"] if dropped else []), *(["diverged"] if bool(lost.any()) else [])]
    order = ranking(results)
    for point in order[:rows]:
        end = ends.isel(point)
        line = [str(np.ravel_multi_index(tuple(point.values()), shape))] if shape else []
        line += [*(_short(results.isel(point)[name].item()) for name in names(results)), _short(end["mean"].item())]
        line += [f"{_short(end['low'].item())} to {_short(end['high'].item())}"] if seeds > 1 else []
        line += [f"{int(steps.isel(point)):,}"] if dropped else []
        line += [f"{int(lost.isel(point).sum())} of {seeds}"] if bool(lost.any()) else []
        lines.append(line)
    left = len(order) - rows
    return "\n".join([_aligned(lines), *([f"and {left} points more"] if left > 0 else [])])


def _table_of_members(found: Any, score: str) -> str:
    now = [name.removeprefix("hparams.") for name in names(found)]
    lines = [["seed", "member", *now, score.removeprefix("eval/")]]
    for seed in found["seed"].values:
        member = found.sel(seed=seed).isel(step=-1)
        lines.append([str(seed), str(int(member["point"])), *(_short(member[name].item()) for name in (*now, score))])
    return _aligned(lines)


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(results: Any, path: Path | str) -> None:
    """Write a whole netCDF file or none, which `load` reads, and `xarray.open_dataset` too but for slashes in names."""
    stored = results.rename({name: _stored(name) for name in [*results.data_vars, *results.coords] if "/" in name})
    if math.prod(stored["step"].shape) and int(stored["step"].max()) >= 2**31:  # more than the format's whole numbers
        stored = stored.assign_coords(step=stored["step"].astype(float))
    temporary = Path(path).with_name(f".{Path(path).name}.part")
    stored.to_netcdf(temporary, engine="scipy")
    os.replace(temporary, path)


def load(path: Path | str) -> Any:
    """The Dataset that `save` wrote.

    Raises:
        FileNotFoundError: no such file.
    """
    import xarray

    with xarray.open_dataset(path, engine="scipy") as stored:
        stored = stored.load()
    return stored.rename({name: _original(name) for name in stored.variables if SLASH in str(name)})


SLASH = "__"  # netCDF has no names with slashes


def _stored(name: str) -> str:
    return name.replace("/", SLASH)


def _original(name: Any) -> str:
    return str(name).replace(SLASH, "/")
