"""The commands of `python -m experiments` that are about sweeps. On a CPU each core is a device to them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments import disentangling, folder, lanes, options, study, sweeping
from experiments.experiment import FLAT, Experiment
from jaxrl.core import devices, results, search
from jaxrl.core.population import Population


@dataclass(frozen=True)
class Processes:
    """Several processes that share a sweep."""

    coordinator: str | None = None  # host:port of process 0, if there are several; all write to one folder
    num_processes: int = 1  # how many there are
    process: int = 0  # which of them this is

    def join(self) -> None:
        """Before JAX looks for devices."""
        if not 0 <= self.process < self.num_processes:
            raise ValueError(f"--process {self.process} is none of --num-processes {self.num_processes}, from 0 on.")
        if (self.num_processes > 1) != (self.coordinator is not None):
            raise ValueError("Several processes need both --num-processes and --coordinator, HOST:PORT of process 0.")
        devices.use_cores()
        if self.coordinator is not None:
            devices.join(self.coordinator, self.num_processes, self.process)


@dataclass(frozen=True)
class Sweep:
    """Options of `sweep`."""

    experiment: Experiment = field(metadata=FLAT)
    processes: Processes = field(default=Processes(), metadata=FLAT)
    preset: str | None = None  # take the values of a preset as defaults; `python -m experiments list` shows all
    over: tuple[str, ...] = ()  # NAME=VALUE,VALUE or NAME=log:LOW:HIGH:COUNT or NAME=uniform:LOW:HIGH:COUNT each
    points: int | None = None  # draw so many from ranges NAME=log:LOW:HIGH; every combination of values if not given
    draw: int = 0  # seed of the drawing
    spend: Literal["everything", "halving", "population"] = "everything"  # who is run for how long
    factor: int = 3  # of halving: one point in so many goes on from each stage
    stages: int = 3  # of halving
    at_once: int | None = None  # lanes of a program that run together; as many as fit in memory if not given
    run_dir: str | None = None  # folder of the sweep; a dated one under runs/ if not given
    checkpoint_every: float = 30.0  # least seconds between checkpoints; the last state is always saved


@dataclass(frozen=True)
class Resume:
    """Options of `resume` for a sweep."""

    processes: Processes = field(default=Processes(), metadata=FLAT)
    checkpoint_every: float = 30.0  # least seconds between checkpoints; the last state is always saved


@dataclass(frozen=True)
class Extract:
    """Options of `extract`."""

    point: int | None = None  # number of the point, as the table of the sweep shows it; the best if not given
    seed: int | None = None  # the first if not given
    steps: int | None = None  # make the run so much longer; its schedules are stretched over the new length
    run_dir: str | None = None  # folder of the run; a dated one under runs/ if not given


@dataclass(frozen=True)
class Compare:
    """Options of `compare`."""

    out: str | None = None  # picture to write; compare.png here if not given


def sweep(words: list[str], base: Experiment, preset: str | None) -> int:
    """Train lanes."""
    # The last would count, and a field of the sweep be lost.
    if sum(word.partition("=")[0] == "--over" for word in words) > 1:
        raise ValueError("--over is given twice: write all fields behind one, --over learning_rate=... discount=...")
    program = f"python -m experiments sweep {base.algorithm}"
    asked: Any = options.parse(words, Sweep(base, preset=preset), program, "Train many settings in few programs.")
    asked.processes.join()
    ways: dict[str, Any] = {
        "everything": search.Everything(),
        "halving": search.Halving(asked.factor, asked.stages),
        "population": Population(),
    }
    result = sweeping.sweep(
        asked.experiment,
        points=asked.points,
        draw=asked.draw,
        spend=ways[asked.spend],
        at_once=asked.at_once,
        run_dir=asked.run_dir,
        checkpoint_every=asked.checkpoint_every,
        **study.over(asked.over),
    )
    return 128 + result.signal if result.signal else 0


def resume(path: str, words: list[str]) -> int:
    """Continue a sweep."""
    asked = options.parse(words, Resume(), f"python -m experiments resume {path}", "Continue a sweep.")
    asked.processes.join()
    result = sweeping.resume(path, checkpoint_every=asked.checkpoint_every)
    return 128 + result.signal if result.signal else 0


def evaluate(path: str, seed: int, disentanglement: bool, config: dict[str, Any]) -> int:
    """Print a table over points, and one for each score of their latents."""
    devices.use_cores()
    found = lanes.evaluate(path, seed, disentanglement, **config)
    print(results.table(found))
    for name in disentangling.SCORES if disentanglement else ():
        print(f"\n{results.table(found.assign_attrs(score=name, higher_is_better=1))}")
    return 0


def extract(path: str, words: list[str]) -> int:
    """Make a run of a lane."""
    summary = "Take one lane of a sweep out, as a run of its own: to evaluate, to plot, to continue."
    asked = options.parse(words, Extract(), f"python -m experiments extract {path}", summary)
    found = lanes.extract(path, asked.point, asked.seed, run_dir=asked.run_dir, steps=asked.steps)
    print(f"{found}\nnext      {folder.command('evaluate', found)}")
    return 0


def plot(path: str, heat: tuple[str, ...]) -> int:
    """Write the pictures of a sweep and print where they are."""
    from experiments import sweep_plots  # slow to import: matplotlib

    if len(heat) not in (0, 2):
        raise ValueError(f"A heat map is over two fields, --heat NAME NAME, got {len(heat)}.")
    for picture in sweep_plots.draw(sweeping.read(path), Path(path), (heat[0], heat[1]) if heat else None):
        print(picture)
    return 0


def compare(paths: list[str], out: str | None) -> int:
    """Print a table of runs and write their curves."""
    from experiments import compare as comparison  # slow to import: matplotlib

    found = comparison.compare(paths)
    target = Path(out or "compare.png")
    comparison.picture(found, target)
    print(f"{comparison.table(found)}\n{target}")
    return 0
