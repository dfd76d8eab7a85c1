"""Pictures of runs. Pyplot is imported nowhere, so no window and no backend is touched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import random
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments import folder, registry, sampling, sources, summary
from experiments.evaluation import Restored
from experiments.experiment import Experiment
from experiments.variance import Measured
from jaxrl import envs_tabular
from jaxrl.core import stats

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, seen by all eyes
GREY = "#444444"
LABEL = {"boxstyle": "round", "facecolor": GREY, "linewidth": 0}


def curves(paths: Sequence[Path], target: Path) -> None:
    """Score against steps of one or more runs: interquartile mean over seeds, its 95 % interval, and each seed thin.

    Raises:
        ValueError: a run has no metrics yet, or the runs have different scores.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    scores, seeds = set(), set()
    for path, color in zip(paths, COLORS * len(paths), strict=False):
        _, _, experiment = folder.open_run(path)
        learner = registry.get(experiment.algorithm)
        scores.add(learner.score)
        seeds.add(experiment.seeds)
        rows = folder.read_metrics(path)
        if not rows:
            raise ValueError(f"{path} has no metrics yet.")
        steps = np.array(sorted({row["step"] for row in rows}))
        values = folder.column(rows, learner.score)
        label = f"{experiment}" if len(paths) == 1 else f"{experiment} ({path.name})"
        counted = stats.worst_for_nan(values, learner.higher_is_better)
        axes.plot(steps, _finite(stats.interquartile_mean(counted)), label=label, **line(color, steps))
        if experiment.seeds > 1:
            low, high = stats.bootstrap_interval(counted)
            axes.fill_between(steps, _finite(low), _finite(high), color=color, alpha=0.25, linewidth=0)
            if len(paths) == 1:
                axes.plot(steps, values, color=color, linewidth=0.5, alpha=0.3)
    if len(scores) > 1:
        raise ValueError(f"Runs with different scores, {', '.join(sorted(scores))}, do not share one picture.")
    unit = f" ({learner.unit})" if learner.unit else " per episode" if learner.score == "eval/return" else ""
    axes.set_ylabel(f"{summary.plain(learner.score)}{unit}", color=GREY)
    axes.set_xlabel(f"{experiment.source.unit} per seed", color=GREY)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    counts = " or ".join(map(str, sorted(seeds)))
    title = "1 seed" if seeds == {1} else f"Interquartile mean of {counts} seeds, 95 % interval"
    axes.set_title(title, color=GREY)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(paths) == 1:
        axes.legend(frameon=False, loc="best", fontsize=9)
    else:  # beside the curves, which leave no room for as many lines of text
        figure.legend(frameon=False, loc="outside lower center", fontsize=9)
    figure.savefig(target)


def line(color: str, steps: Any) -> dict[str, Any]:
    """The look of a curve over `steps` [E]; one of a single evaluation would else not be seen."""
    return {"color": color, "linewidth": 2, "marker": "o" if len(steps) == 1 else None}


def predictions(path: Path) -> list[Path]:
    """What an agent expected at the start of an episode against what it then obtained, values.png: medians over seeds.

    Both are discounted and greedy. An agent that expects more than it obtains overestimates.
    """
    rows = folder.read_metrics(path)
    if not rows or "eval/predicted_return" not in rows[0]:
        return []
    names = {"eval/predicted_return": "expected", "eval/discounted_return": "obtained"}
    return [_medians(path, rows, names, "discounted return per episode", path / "values.png")]


def players(path: Path) -> list[Path]:
    """What both players of an adversarial model minimised, players.png: medians over seeds."""
    rows = folder.read_metrics(path)
    both = [name for name in ("generator", "discriminator", "critic") if rows and f"{name}_loss" in rows[0]]
    if len(both) < 2:
        return []
    labels = {f"{name}_loss": name for name in both}
    return [_medians(path, rows, labels, "loss", path / "players.png")]


def _medians(path: Path, rows: list[dict[str, Any]], labels: dict[str, str], ylabel: str, target: Path) -> Path:
    """Medians and quartiles over the seeds of the metrics that `labels` names."""
    _, _, experiment = folder.open_run(path)
    steps = np.array(sorted({row["step"] for row in rows}))
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for (metric, label), color in zip(labels.items(), COLORS, strict=False):
        values = folder.column(rows, metric)
        axes.plot(steps, np.median(values, -1), color=color, linewidth=2, label=label)
        if experiment.seeds > 1:
            axes.fill_between(steps, *np.quantile(values, (0.25, 0.75), -1), color=color, alpha=0.25, linewidth=0)
    axes.set_ylabel(ylabel, color=GREY)
    axes.set_xlabel(f"{experiment.source.unit} per seed", color=GREY)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    several = f"median and quartiles of {experiment.seeds} seeds" if experiment.seeds > 1 else "1 seed"
    axes.set_title(f"{experiment}: {several}", color=GREY)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best", fontsize=9)
    figure.savefig(target)
    return target


def bounds(metrics: dict[str, np.ndarray], target: Path) -> None:
    """Importance-weighted bounds of every seed against how many weights are behind each, as `evaluate` gives them."""
    counts = [int(name.removeprefix("eval/bound_")) for name in metrics if name.startswith("eval/bound_")]
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(counts, [metrics[f"eval/bound_{count}"] for count in counts], color=COLORS[0], marker="o")
    axes.set_xscale("log")
    axes.set_xlabel("importance weights, K", color=GREY)
    axes.set_ylabel("bound in nats per example", color=GREY)
    axes.set_title("Bounds on the log-likelihood, a line for each seed", color=GREY)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target)


def variances(measured: Measured, target: Path) -> None:
    """Variance of REINFORCE's gradient with each baseline, and beside it what each of them learns."""
    experiment = measured.experiment
    figure = Figure(figsize=(9.6, 4.0), dpi=150, layout="constrained")
    noise, score = figure.subplots(1, 2)
    for name, color in zip(measured.variances, COLORS, strict=False):
        found, scores = measured.variances[name], stats.worst_for_nan(measured.returns[name])
        noise.plot(measured.steps, np.median(found, -1), color=color, linewidth=2, label=f"baseline: {name}")
        score.plot(measured.steps, _finite(stats.interquartile_mean(scores)), color=color, linewidth=2)
        if experiment.seeds > 1:
            noise.fill_between(measured.steps, *np.quantile(found, (0.25, 0.75), -1), color=color, alpha=0.25, lw=0)
            interval = map(_finite, stats.bootstrap_interval(scores))
            score.fill_between(measured.steps, *interval, color=color, alpha=0.25, linewidth=0)
    noise.set_yscale("log")
    noise.set_ylabel("variance of one episode's gradient", color=GREY)
    score.set_ylabel("return per episode", color=GREY)
    noise.set_title("At the policies learned with a value: median, quartiles", color=GREY, fontsize=10)
    score.set_title("Trained with each: interquartile mean, 95 % interval", color=GREY, fontsize=10)
    for axes in (noise, score):
        axes.set_xlabel(f"{experiment.source.unit} per seed", color=GREY)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    noise.legend(frameon=False, fontsize=9)
    figure.suptitle(f"{experiment}, seeds: {experiment.seeds}", color=GREY)
    figure.savefig(target)


def _finite(values: np.ndarray) -> np.ndarray:
    """`values` with gaps where they are infinite."""
    return np.where(np.isfinite(values), values, np.nan)


def examples(restored: Restored) -> list[Path]:
    """What the first seed's model makes: samples.png, and reconstructions.png or translations.png if it has them.

    Of adversarial models also the losses of both players, players.png.
    """
    path, _, program, runs = restored
    shape: tuple[int, ...] = getattr(program.given, "shape", ())
    if getattr(program.learner, "translate", None) is not None:
        return [_translations(restored), *players(path)]
    if shape == (2,) and getattr(program.learner, "sample", None) is not None:
        return [_scatter(restored), *players(path)]
    if len(shape) == 1 and getattr(program.learner, "complete", None) is not None:
        return _sounds(restored)
    if not hasattr(program.learner, "sample") or len(shape) != 3 or shape[-1] not in (1, 3):
        return []
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    sample_key, reconstruct_key = random.split(random.key(0))
    pictures = []
    if program.learner.sample is not None:
        drawn = jax.jit(program.learner.sample, static_argnums=2)(sample_key, state, 64)
        _image(_tiles(drawn, 8), path / "samples.png", "Samples")
        pictures.append(path / "samples.png")
    if getattr(program.learner, "reconstruct", None) is None:
        return [path / "samples.png", *_latents(restored), *_sequential(restored), *players(path)]
    from generative import data

    x, labels = sampling.examples(restored, 32)
    made = jax.jit(program.learner.reconstruct)(reconstruct_key, state, x, *labels)
    pairs = np.stack([data.scale(x, program.given.levels), made], 1)
    title = "Test images, each with its reconstruction on the right"
    _image(_tiles(pairs.reshape(-1, *shape), 8), path / "reconstructions.png", title)
    return [*pictures, path / "reconstructions.png", *_latents(restored)]


def samples(drawn: np.ndarray, target: Path) -> None:
    """Samples [N, H, W, C] as one picture, or [N, 2] as points.

    Raises:
        ValueError: they are neither.
    """
    if drawn.shape[1:] == (2,):
        figure = Figure(figsize=(4, 4.3), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.scatter(drawn[:, 0], drawn[:, 1], s=2, color=COLORS[0], linewidth=0)
        axes.set_aspect("equal")
        axes.set_title("Samples", color=GREY, fontsize=9)
        figure.savefig(target)
    elif drawn.ndim == 4 and drawn.shape[-1] in (1, 3):
        blank = np.ones((-len(drawn) % 8, *drawn.shape[1:]))
        _image(_tiles(np.concatenate([drawn, blank]), 8), target, "Samples")
    else:
        raise ValueError(f"Samples of shape {drawn.shape[1:]} are no picture: write numbers with --out samples.npy.")


def _latents(restored: Restored) -> list[Path]:
    """What the latents of the first seed's model hold: interpolations.png, and traversals.png if images have codes."""
    learner = restored.program.learner
    if getattr(learner, "decode", None) is None:
        return []
    ends = "samples" if learner.encode is None else "test images"
    shown = {"interpolations": (sampling.interpolations, f"Between {ends}: a row straight, one on an arc")}
    if learner.encode is not None:
        shown["traversals"] = (sampling.traversals, "In each row one latent changes, and no other")
    for name, (make, title) in shown.items():
        rows = make(restored)
        _image(_tiles(rows.reshape(-1, *rows.shape[2:]), sampling.NUM_STEPS), restored.path / f"{name}.png", title)
    return [restored.path / f"{name}.png" for name in shown]


def _sequential(restored: Restored) -> list[Path]:
    """How the first seed's model draws value after value: completions.png, nats.png and receptive.png."""
    path, _, program, runs = restored
    model, spec = program.learner, program.given
    if getattr(model, "complete", None) is None:
        return []
    from generative import data

    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    height, width, _ = spec.shape
    x, labels = sampling.examples(restored, 16)
    scaled = np.asarray(data.scale(x, spec.levels))
    upper = sampling.first_half(spec.shape)
    rows = [jax.jit(model.complete)(key, state, x, upper, *labels) for key in random.split(random.key(0), 2)]
    shown = np.stack([np.where(upper, scaled, 0.5), *rows, scaled], 1)
    title = "Upper half given, completed twice, and the test image"
    _image(_tiles(shown.reshape(-1, *spec.shape), 8), path / "completions.png", title)

    params, middle = state.fit.params, (height // 2, width // 2)
    nats = sampling.mean_nats(restored, 500).sum(-1)
    _heat(nats, path / "nats.png", "Nats that each test pixel costs, given those before it")

    def seen(image: jax.Array) -> jax.Array:
        return (model.outputs(params, image, *labels)[:, middle[0], middle[1]] ** 2).sum()

    strength = jax.jit(jax.grad(seen))(scaled)
    _heat(
        np.abs(strength).sum((0, -1)), path / "receptive.png", "Where the prediction of the middle pixel looks", middle
    )
    return [path / f"{name}.png" for name in ("completions", "nats", "receptive")]


def _sounds(restored: Restored) -> list[Path]:
    """How the first seed's model draws sounds: samples.png and .wav, completions.png, nats.png and receptive.png."""
    from generative import data, waves

    path, _, program, runs = restored
    model, spec = program.learner, program.given
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    pressure = lambda x: waves.decode(np.asarray(x) * (spec.levels - 1), spec.levels)  # noqa: E731
    drawn = sampling.draw(restored, 8)
    sampling.write_sounds(restored, drawn, path / "samples.wav")
    _lines([[(wave, COLORS[0])] for wave in pressure(drawn)], path / "samples.png", "Samples")

    x, labels = sampling.examples(restored, 4)
    scaled, half = data.scale(x, spec.levels), sampling.first_half(spec.shape)
    complete = jax.jit(model.complete)
    rest = [complete(key, state, x, half, *labels) for key in random.split(random.key(0), 2)]
    rows = [list(zip(pressure(waves), (*COLORS[:2], GREY), strict=True)) for waves in np.stack([*rest, scaled], 1)]
    title = "Test sounds in grey, the second half of each completed twice"
    _lines(rows, path / "completions.png", title, half.sum())

    title = "Nats that each step of test sounds costs, given those before it"
    _lines([[(sampling.mean_nats(restored, 100), COLORS[0])]], path / "nats.png", title)

    def seen(x: jax.Array) -> jax.Array:
        return (model.outputs(state.fit.params, x, *labels)[:, -1] ** 2).sum()

    strength = np.abs(jax.jit(jax.grad(seen))(scaled)).sum(0)
    _strip(strength, path / "receptive.png", "How strongly the prediction of the last step looks at each step")
    return [path / name for name in ("samples.png", "completions.png", "nats.png", "receptive.png", "samples.wav")]


def _lines(rows: list[list[tuple[np.ndarray, str]]], target: Path, title: str, place: int | None = None) -> None:
    """In each row the curves [T] over steps that it holds, each in its colour, with a line at `place`."""
    figure = Figure(figsize=(6.4, 0.8 + 0.9 * len(rows)), dpi=150, layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), squeeze=False, sharex=True)[:, 0], rows, strict=True):
        for values, color in row:
            axes.plot(values, color=color, linewidth=0.8)
        if place is not None:
            axes.axvline(place, color=GREY, linewidth=0.8, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("step", color=GREY)
    figure.suptitle(title, color=GREY, fontsize=9)
    figure.savefig(target)


def _strip(values: np.ndarray, target: Path, title: str) -> None:
    """A row [T] of numbers from 0 as colours, on a logarithmic scale, nothing white."""
    figure = Figure(figsize=(6.4, 1.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = np.ma.masked_equal(values[None], 0)
    image = axes.imshow(shown, cmap="viridis", norm="log", aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes)
    axes.set_yticks([])
    axes.set_xlabel("step", color=GREY)
    axes.set_title(title, color=GREY, fontsize=9)
    figure.savefig(target)


def _heat(values: np.ndarray, target: Path, title: str, place: tuple[int, int] | None = None) -> None:
    """A map [H, W] of numbers as colours, with a cross at `place`."""
    figure = Figure(figsize=(4.6, 4.3), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(values, cmap="viridis", interpolation="nearest"), ax=axes, shrink=0.8)
    if place is not None:
        axes.plot(place[1], place[0], marker="x", color="white", markeredgewidth=2)
    axes.set_title(title, color=GREY, fontsize=9)
    axes.set_axis_off()
    figure.savefig(target)


def _scatter(restored: Restored) -> Path:
    """2500 samples of the first seed's model in the plane, over as many test points."""
    path, experiment, program, runs = restored
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    drawn = np.asarray(jax.jit(program.learner.sample, static_argnums=2)(random.key(0), state, 2500))
    figure = Figure(figsize=(4, 4.3), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for points, color, label in ((program.source.test.x[:2500], COLORS[4], "data"), (drawn, COLORS[0], "samples")):
        axes.scatter(points[:, 0], points[:, 1], s=2, color=color, label=label, linewidth=0)
    axes.set_aspect("equal")
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9, markerscale=4)
    axes.set_title(f"{experiment}", color=GREY, fontsize=9)
    figure.savefig(path / "samples.png")
    return path / "samples.png"


def _translations(restored: Restored) -> Path:
    """Triplets of the first seed's model: a test image, its translation, and what that should be."""
    from generative import data

    path, _, program, runs = restored
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    x, _ = sampling.examples(restored, 24)
    made = jax.jit(program.learner.translate)(random.key(0), state, x[:, 0])
    given, real = (data.scale(x[:, i], program.given.levels) for i in range(2))
    triplets = np.stack([given, made, real], 1)
    _image(_tiles(triplets.reshape(-1, *given.shape[1:]), 9), path / "translations.png", "Given, made, true")
    return path / "translations.png"


def grid_world(restored: Restored) -> list[Path]:
    """What the first seed's table knows of a grid world, grid.png: values as colours, the best actions as arrows."""
    path, experiment, _, runs = restored
    layout = layout_of(experiment)
    table = getattr(getattr(runs.state, "fit", None), "params", None)
    if layout is None or not isinstance(table, jax.Array):
        return []
    cells = np.array([[*row] for row in layout])
    table = np.asarray(table[0])
    table = table.mean(0) if table.ndim == 3 else table  # two tables of double Q-learning
    if len(table) != cells.size:
        return []
    acts = table.ndim == 2
    values = table.max(-1) if acts else table
    ends = np.isin(cells, ["H", "G"])
    shown = np.ma.masked_where((cells == "#") | (cells == "C"), np.where(ends, 0.0, values.reshape(cells.shape)))

    height, width = cells.shape
    figure = Figure(figsize=(max(5.0, 1.5 + 0.6 * width), 1.0 + 0.6 * height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(GREY)
    figure.colorbar(axes.imshow(shown, cmap="viridis"), ax=axes, label="value")
    for state, cell in enumerate(cells.ravel()):
        row, column = divmod(state, width)
        if cell in "HGC":
            axes.text(column, row, cell, color="white", ha="center", va="center", fontweight="bold", bbox=LABEL)
        elif cell != "#" and acts:
            for action in np.flatnonzero(table[state] == table[state].max()):
                down, right = envs_tabular.MOVES[action]
                axes.arrow(column, row, 0.25 * right, 0.25 * down, width=0.03, color="white", ec="black", lw=0.4)
    axes.set_title(f"{experiment}: {'best action values' if acts else 'values'}", color=GREY, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.savefig(path / "grid.png")
    return [path / "grid.png"]


def layout_of(experiment: Experiment) -> Sequence[str] | None:
    """The map of the grid world that an experiment is on, None if it is on another environment."""
    if not isinstance(experiment.source, sources.Environment):
        return None
    name, kwargs = experiment.source.env, experiment.source.kwargs()
    if name == "FrozenLake-misc":
        name = "tabular/FrozenLake8x8" if kwargs.get("map_name") == "8x8" else "tabular/FrozenLake"
    if not name.startswith("tabular/"):
        return None
    return kwargs.get("layout", envs_tabular.get(name.removeprefix("tabular/")).layout)


def _tiles(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [N, H, W, C] as one, `columns` in a row, a pixel of white between them."""
    padded = np.pad(np.asarray(images), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    rows = padded.reshape(-1, columns, *padded.shape[1:])
    return rows.transpose(0, 2, 1, 3, 4).reshape(rows.shape[0] * rows.shape[2], -1, rows.shape[-1])


def _image(pixels: np.ndarray, target: Path, title: str) -> None:
    figure = Figure(figsize=(4, 4.3), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(np.clip(pixels, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, color=GREY, fontsize=9)
    axes.set_axis_off()
    figure.savefig(target)
