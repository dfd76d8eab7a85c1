"""What was measured as one picture, a panel for each kind of figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from experiments.benchmarks import contest, sampling
from experiments.plots import COLORS, GREY

COLUMNS = 3  # of panels
Rows = Sequence[dict[str, Any]]


def draw(rows: Rows, target: Path) -> None:
    """The panels that `rows`, of `report.run`, hold figures for; no picture if there are none."""
    contests = [row for row in rows if "contestant" in row]
    sizes = {row["axis"]: [each for each in rows if each.get("axis") == row["axis"]] for row in rows if "axis" in row}
    images = [row for row in rows if row["benchmark"] == "sampling"]
    panels: list[Any] = [(beside_others, contests)] if contests else []
    panels += [(speed_over_sizes, points) for axis, points in sizes.items() if axis != "updates"]
    panels += [(compilation_over_sizes, sizes[axis]) for axis in ("lanes", "updates") if axis in sizes]
    panels += [(sampling.panel, images)] if images else []
    if not panels:
        return
    columns = min(len(panels), COLUMNS)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(6.4 * columns, 4.0 * lines), dpi=150, layout="constrained")
    places = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (panel, shown) in zip(places, panels, strict=False):
        panel(shown, axes)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(target)


def beside_others(rows: Rows, axes: Axes) -> None:
    """The speed of each contestant at each task, and above it how many times faster ours is."""
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for name, color in zip(names, COLORS, strict=False):
        mine = [row for row in rows if row["contestant"] == name]
        places = [tasks.index(row["task"]) for row in mine]
        axes.plot([row["steps_per_second"] for row in mine], places, "o", color=color, label=name)
        for row, place in zip(mine, places, strict=True):
            ratio = "" if name == contest.OURS else f"ours \N{MULTIPLICATION SIGN}{row['ours_over_theirs']:.3g}"
            axes.text(row["steps_per_second"], place - 0.22, ratio, fontsize=6.5, color=GREY, ha="center")
    axes.set_yticks(range(len(tasks)), tasks, fontsize=8)
    axes.set_ylim(len(tasks) - 0.5, -0.7)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("steps, or images, per second", color=GREY)
    axes.legend(frameon=False, fontsize=8, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def speed_over_sizes(rows: Rows, axes: Axes) -> None:
    """Speed of all lanes together against one size."""
    over_sizes(rows, axes, "steps_per_second")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel("images per second" if rows[0]["axis"] == "side" else "steps per second", color=GREY)


def compilation_over_sizes(rows: Rows, axes: Axes) -> None:
    """Time to compile against one size."""
    over_sizes(rows, axes, "compile_seconds")
    axes.set_ylabel("seconds to compile", color=GREY)


def over_sizes(rows: Rows, axes: Axes, field: str) -> None:
    """A field of the rows against their size."""
    found = [row[field] for row in rows]
    axes.plot([row["size"] for row in rows], found, "o-", color=COLORS[0])
    axes.set_xscale("log")
    axes.set_xticks([row["size"] for row in rows])
    axes.xaxis.set_major_formatter(lambda size, _: f"{size:.0f}" if size < 10_000 else EngFormatter(sep="")(size))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.1 * max(found))
    axes.set_xlabel(rows[0]["axis"], color=GREY)
