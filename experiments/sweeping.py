"""The host loop of sweeps: stages of waves, each wave a folder with metrics and checkpoints as a run has it.

A sweep's folder holds config.json, waves/STAGE-NUMBER/ and, at the end, results.nc, summary.json and pictures. Each
wave is advanced, recorded, saved and resumed as a single run is, bit for bit; what is done is not done again. Of
several processes each takes its share of the waves and writes those alone. They wait for each other only when the
folder is made and at the end of a stage, so a sweep that lost a process is resumed like any other, by any number.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import folder, launching, registry, study, summary, training, waves
from experiments.experiment import Experiment, decode, encode, facts
from experiments.interrupt import Background, Interrupt
from experiments.progress import Bar
from experiments.study import Plan, Study
from jaxrl.core import checks, devices, results, search
from jaxrl.core.population import Population

RESULTS = "results.nc"


class Result(NamedTuple):
    """How a call of `sweep` or `resume` ended."""

    folder: Path
    results: Any  # the Dataset; None if the sweep was stopped before its end, and in all processes but the first
    signal: int | None  # that stopped it


class Job(NamedTuple):
    """A sweep at work."""

    path: Path
    plan: Plan
    sizes: list[int]  # of each group, lanes that fit
    processes: int  # that the sweep was begun with
    mesh: Any
    launches: dict[tuple[int, int], launching.Launch]  # compiled so far, by group and number of lanes
    checkpoint_every: float


def sweep(
    experiment: Experiment,
    *,
    points: int | None = None,
    draw: int = 0,
    spend: search.Everything | search.Halving | Population | None = None,
    at_once: int | None = None,
    run_dir: str | None = None,
    checkpoint_every: float = 30.0,
    **values: Any,
) -> Result:
    """Train `experiment` over `values` in as few programs as possible, with all its seeds at each point.

    Args:
        experiment: what all lanes have in common.
        points: draw so many, from ranges (`jaxrl.core.sweep`) and sequences. None: every combination of values.
        draw: seed of the drawing.
        spend: how steps are spent: `search.Halving()`, or `Population()` whose members are the points. None: every
            lane runs to the end.
        at_once: lanes of a program that run together, rounded up to a multiple of the devices; None: all that fit.
        run_dir: the sweep's folder; a dated one under `runs` if None.
        checkpoint_every: least seconds between two checkpoints of a wave; its last state is always saved.
        values: of each field, called as in `jaxrl.core.sweep`.

    Raises:
        ValueError: the sweep cannot work or the folder is taken. Nothing has been written then.
    """
    first, processes = jax.process_index() == 0, jax.process_count()
    devices.gather(b"")  # all at once: the first exchange waits half a minute, later ones for as long as it takes
    if at_once is not None:
        checks.at_least_one(at_once=at_once)
    if run_dir is None and processes > 1:
        raise ValueError("Several processes share one folder: name it with --run-dir.")
    if first:
        folder.check_free(run_dir)
    plan = study.describe(experiment, values, points, draw, spend or search.Everything())
    described = encode(plan.study)
    mesh, begin = _mesh(plan), time.perf_counter()
    _say(_announcement(plan, mesh))
    sizes, launches = [], {}
    for number, group in enumerate(plan.lanes.groups):
        share = -(-len(group.lanes) // processes)
        launch, found = launching.fit(plan, number, min(share, at_once or share), mesh)
        sizes.append(launch.size)
        launches[number, launch.size] = launch
        _say(f"program {number + 1} of {len(plan.programs)}: {found}")
    seconds = time.perf_counter() - begin
    content = {"study": described, "sizes": sizes, "processes": processes, "devices": mesh.size, "facts": _facts(plan)}
    path = folder.create(run_dir, experiment, content) if first else Path(run_dir or "")
    devices.gather(b"")  # nobody goes on before the folder is there
    _say(f"Compiled in {seconds:.1f} s. Sweep folder: {path}")
    return _run(Job(path, plan, sizes, processes, mesh, launches, checkpoint_every), seconds)


def resume(path: str | Path, *, checkpoint_every: float = 30.0) -> Result:
    """Continue the sweep in folder `path`; what follows is as if it had never stopped.

    Raises:
        ValueError: no sweep there, another process is at it, or what it learns from has changed.
    """
    path, config, described = open_sweep(path)
    devices.gather(b"")  # all at once, as in `sweep`
    plan = study.plan(described)
    training.refuse_changes(path, config["facts"], _facts(plan))
    training.note_versions(config)
    mesh = _mesh(plan)
    if mesh.size != config["devices"]:
        were = f"note: there were {config['devices']} devices and now there are {mesh.size}"
        print(f"{were}: the rest may differ in the last bits.", file=sys.stderr)
    _say(f"{_announcement(plan, mesh)}\nContinuing {path}.")
    return _run(Job(path, plan, config["sizes"], config["processes"], mesh, {}, checkpoint_every), 0.0)


def open_sweep(path: str | Path) -> tuple[Path, dict[str, Any], Study]:
    """An existing sweep's folder, its config.json, and the study described there.

    Raises:
        ValueError: not the folder of a sweep.
    """
    found, config, _ = folder.open_run(path)
    if "study" not in config:
        raise ValueError(f"{path} holds a single run, no sweep.")
    return found, config, decode(config["study"])


def is_sweep(path: str | Path) -> bool:
    """Whether there is a sweep in folder `path`.

    Raises:
        ValueError: there is not even a run.
    """
    return "study" in folder.open_run(path)[1]


def read(path: str | Path) -> Any:
    """The Dataset of the sweep in folder `path`, of what has been done so far if it is not finished.

    Raises:
        ValueError: no sweep there, or nothing done yet.
    """
    path, _, described = open_sweep(path)
    if (path / RESULTS).exists():
        return results.load(path / RESULTS)
    begun = [wave for wave in waves.found(path) if (wave.path / folder.METRICS).exists()]
    parts = [waves.part(wave, (wave.path / folder.METRICS).read_text()) for wave in begun]
    if not any(steps for _, steps, _ in parts):
        raise ValueError(f"{path} has no metrics yet.")
    return dataset(study.plan(described), parts)


def _run(job: Job, compile_seconds: float) -> Result:
    plan, unit = job.plan, job.plan.study.experiment.source.unit
    rungs = np.zeros(plan.lanes.num_points, int)  # stages that each point has come through
    before: list[waves.Wave] = []
    parts: list[Any] = []
    bar, seconds, worked = Bar(plan.total_steps(), 0, str(plan.study), unit), 0.0, 0
    try:
        with Interrupt() as interrupt, Background() as background:
            for stage in range(len(plan.stops(0))):
                todo = waves.partition(job.path, plan, stage, rungs == stage, job.sizes, job.processes)
                for wave in todo[jax.process_index() :: jax.process_count()]:
                    steps, took = _advance(job, wave, before, interrupt, background, bar)
                    worked, seconds = worked + steps, seconds + took
                    if interrupt.number is not None:
                        at = f"{bar.done:,} of {plan.total_steps():,} {unit}"
                        print(f"Stopped and saved at {at}. Continue with: {folder.command('resume', job.path)}")
                        return Result(job.path, None, interrupt.number)
                before = [*todo, *before]
                parts += _gathered(todo)
                if stage + 1 < len(plan.stops(0)):
                    order = results.ranking(dataset(plan, parts, rungs))
                    for point in order[: plan.study.spend.kept(int((rungs == stage).sum()))]:
                        rungs[plan.place(point)] += 1
    finally:
        bar.close()
    if jax.process_index() > 0:
        return Result(job.path, None, None)
    speed = worked / seconds if seconds else None
    found = dataset(plan, parts, rungs)
    _finish(job.path, plan, found, {"steps_per_second": speed, "compile_seconds": compile_seconds})
    return Result(job.path, found, None)


def _advance(
    job: Job,
    wave: waves.Wave,
    before: list[waves.Wave],
    interrupt: Interrupt,
    background: Background,
    bar: Bar,
) -> tuple[int, float]:
    """Run a wave to its end. Returns steps, of all its lanes, and seconds."""
    steps, done = len(wave.lanes) * job.plan.steps(wave.group), wave.done(job.plan)
    bar.skip(steps * (done - wave.first))
    if done == wave.until:
        return 0, 0.0
    size = launching.multiple(len(wave.lanes), job.plan.unit * job.mesh.size)
    if (wave.group, size) not in job.launches:
        job.launches[wave.group, size] = launching.compile(job.plan, wave.group, size, job.mesh)
    launch = job.launches[wave.group, size]
    after, seconds = waves.advance(
        wave, before, job.plan, launch, job.mesh, interrupt, background, bar, job.checkpoint_every
    )
    return steps * (after - done), seconds


def _gathered(todo: list[waves.Wave]) -> list[Any]:
    """Lanes, steps and metrics of finished waves, from the process that each was run by."""
    mine = todo[jax.process_index() :: jax.process_count()]
    texts = {wave.path.name: (wave.path / folder.METRICS).read_text() for wave in mine}
    together: dict[str, str] = {}
    for content in devices.gather(json.dumps(texts).encode()):
        together |= json.loads(content)
    return [waves.part(wave, together[wave.path.name]) for wave in todo]


def dataset(plan: Plan, parts: list[Any], rungs: np.ndarray | None = None) -> Any:
    """The Dataset of (lanes, steps, metrics); `rungs` are of halving."""
    learner = registry.get(plan.study.experiment.algorithm)
    halving = isinstance(plan.study.spend, search.Halving)
    return results.dataset(
        plan.lanes,
        parts,
        score=learner.score,
        higher_is_better=learner.higher_is_better,
        rungs=rungs if halving else None,
        populations=plan.unit > 1,
    )


def _mesh(plan: Plan) -> Any:
    """The devices of this process; no more than there are populations, each of which stays on one."""
    most = plan.lanes.num_lanes // plan.unit
    return devices.mesh(devices=jax.local_devices()[:most])


def _announcement(plan: Plan, mesh: Any) -> str:
    kind = f"{mesh.size} {jax.default_backend()} device{'s' if mesh.size > 1 else ''}"
    words = f"{plan}, on {kind}{f' of each of {jax.process_count()} processes' if jax.process_count() > 1 else ''}."
    tested = getattr(plan.study.experiment.config, "eval_split", None) == "test" and plan.programs[0].given.num_valid
    if tested and plan.lanes.num_points > 1:
        words += "\nPoints are compared by test examples: --eval-split valid keeps these for the one that is chosen."
    return words


def _say(words: str) -> None:
    if jax.process_index() == 0:
        print(words, flush=True)


def _facts(plan: Plan) -> dict[str, Any]:
    return facts(plan.study.experiment, plan.programs[0])


def _finish(path: Path, plan: Plan, found: Any, timing: dict[str, Any]) -> None:
    """Write results.nc, summary.json and the pictures, print what matters."""
    from experiments import sweep_plots  # slow to import: matplotlib

    results.save(found, path / RESULTS)
    best = results.best_members(found) if plan.unit > 1 else results.best(found)
    now = {name: name.removeprefix("hparams.") if plan.unit > 1 else name for name in results.names(found)}
    end = results.over_seeds(best, final=True)
    lost = results.diverged(found)
    report = {
        "sweep": str(plan),
        "metric": found.attrs["score"],
        "best": {name: best[name].isel(step=-1, missing_dims="ignore").values.tolist() for name in now.values()},
        "interquartile_mean": float(end["mean"]),
        "interval": [float(end["low"]), float(end["high"])],
        "points": plan.lanes.num_points,
        "seeds": plan.lanes.num_seeds,
        "diverged_lanes": np.flatnonzero(lost.values.ravel()).tolist(),
        **timing,
    }
    speed, unit = timing["steps_per_second"], plan.study.experiment.source.unit
    pictures = sweep_plots.draw(found, path)
    report |= summary.measured(path, timing)
    folder.write_json(path / folder.SUMMARY, report)  # last: where it is, all is
    lines = [
        results.table(found),
        f"speed     {speed:,.0f} {unit} per second, all lanes together"
        if speed
        else "speed     nothing was left to do",
        f"folder    {path}",
        f"pictures  {', '.join(picture.name for picture in pictures)}",
        f"next      {folder.command('extract', path)}",
    ]
    print("\n".join(lines), flush=True)
