"""The host loop: compile once, then update, record and save until done.

A run is the one of `jaxrl.core.loop.train`, which is another program, but for rounding; stopped and resumed it is the
same bit for bit.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments import folder, registry, summary
from experiments.drawing import Drawing
from experiments.evaluation import Restored
from experiments.experiment import Experiment, Program, build, difference, encode, facts, flatten
from experiments.interrupt import Background, Interrupt
from experiments.progress import Bar
from jaxrl.core import checkpoint, devices


class Result(NamedTuple):
    """How a call of `train` or `resume` ended."""

    folder: Path
    summary: dict[str, Any] | None  # as in summary.json; None if the run was stopped before its end
    signal: int | None  # that stopped it


def train(
    experiment: Experiment,
    *,
    run_dir: str | None = None,
    checkpoint_every: float = 30.0,
    tensorboard: bool = False,
    split: bool = False,
) -> Result:
    """Train all seeds of `experiment` in one program, with progress, metrics and checkpoints in a new run folder.

    Args:
        experiment: what to run.
        run_dir: the run folder; a dated one under `runs` if None.
        checkpoint_every: least seconds between two checkpoints; the last state is always saved.
        tensorboard: write TensorBoard event files too.
        split: split every run over all devices, environments and batches, instead of using one device.

    Raises:
        ValueError: the experiment cannot work or the folder is taken. Nothing has been written then.
    """
    folder.check_free(run_dir)
    encode(experiment)
    program = over_devices(build(experiment)) if split else build(experiment)
    writer = _tensorboard() if tensorboard else None
    print(_plan(experiment, program), flush=True)
    begin = time.perf_counter()
    start = _compile(program.start, program.keys, program)
    advance = _compile(program.advance, program.runs_shape(), program)
    compile_seconds = time.perf_counter() - begin
    content = {"num_updates": program.num_updates, "eval_every": program.eval_every, "split": split}
    path = folder.create(run_dir, experiment, content)
    print(f"Compiled in {compile_seconds:.1f} s. Run folder: {path}", flush=True)
    runs = start(program.keys, program.hparams, program.source)
    with folder.MetricsFile(path) as metrics_file:
        return _loop(
            path, experiment, program, runs, 0, advance, compile_seconds, checkpoint_every, writer, metrics_file
        )


def resume(
    path: str | Path,
    experiment: Experiment | None = None,
    *,
    checkpoint_every: float = 30.0,
    tensorboard: bool = False,
    split: bool | None = None,
) -> Result:
    """Continue the run in folder `path` from its last whole checkpoint; what follows is as if it had never stopped.

    `experiment`, if given, must be the run's own up to where its data lies. `split`, if not given, is as it was; on
    another number of devices the rest may differ in the last bits.

    Raises:
        ValueError: no run there, another process is at it, or anything that decides its numbers has changed.
    """
    path, config, stored = folder.open_run(path)
    experiment = experiment or stored
    refuse_changes(path, flatten(encode(stored)), flatten(encode(experiment)))
    program = build(experiment)
    if was_split(config) if split is None else split:
        program = over_devices(program)
    writer = _tensorboard() if tensorboard else None
    here = facts(experiment, program)
    saved = checkpoint.newest(path / folder.CHECKPOINTS)
    before = saved[1] if saved else here
    # What an older version of this library had no field for is at its default here, as `stored` is.
    refuse_changes(path, before, {name: here.get(name) for name in before})
    note_versions(config)
    with folder.MetricsFile(path) as metrics_file:  # from before its checkpoint is read
        try:
            last = checkpoint.load(path / folder.CHECKPOINTS, program.runs_shape())
            runs, done = last.tree, last.step // program.eval_every
        except FileNotFoundError:  # stopped before its first checkpoint
            runs, done = program.start(program.keys, program.hparams, program.source), 0
        print(f"{_plan(experiment, program)}\nContinuing {path} at update {done * program.eval_every}.", flush=True)
        begin = time.perf_counter()
        advance = _compile(program.advance, program.runs_shape(), program) if done < program.num_chunks else None
        compile_seconds = time.perf_counter() - begin
        return _loop(
            path, experiment, program, runs, done, advance, compile_seconds, checkpoint_every, writer, metrics_file
        )


def over_devices(program: Program) -> Program:
    """`program` with every run split over all devices of this process while it advances.

    From one evaluation to the next a run lies whole on each of them, and so it can be saved and resumed on any number.
    """
    mesh = devices.mesh(devices.BATCH)
    whole = NamedSharding(mesh, PartitionSpec())

    def over(function: Any, **options: Any) -> Any:
        def within(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return function(*arguments)

        return jax.jit(within, in_shardings=whole, out_shardings=whole, **options)

    return program._replace(start=over(program.start), advance=over(program.advance, donate_argnums=0))


def was_split(config: dict[str, Any]) -> bool:
    """Whether the run with this config.json was begun split over devices."""
    return config.get("split", False)


def _compile(function: Any, first: Any, program: Program) -> Any:
    return function.lower(first, program.hparams, program.source).compile()


def _loop(
    path: Path,
    experiment: Experiment,
    program: Program,
    runs: Any,
    done: int,
    advance: Any,
    compile_seconds: float,
    checkpoint_every: float,
    writer: Any,
    metrics_file: folder.MetricsFile,
) -> Result:
    learner = registry.get(experiment.algorithm)
    total = program.num_updates * program.steps_per_update * experiment.seeds
    steps_per_chunk = total // program.num_chunks
    metadata = facts(experiment, program)
    lanes = [{"seed": experiment.seed + lane} for lane in range(experiment.seeds)]
    first, seconds = done, 0.0
    metrics_file.cut(done * experiment.seeds)
    bar = Bar(total, done * steps_per_chunk, str(experiment), experiment.source.unit)
    write = writer and writer(path, experiment, done * program.eval_every * program.steps_per_update)

    def record(done: int, metrics: dict[str, np.ndarray]) -> None:
        update = done * program.eval_every
        rows = folder.rows(metrics, update, update * program.steps_per_update, lanes)
        metrics_file.append(rows)
        if write:
            write(rows)
        bar.advance(steps_per_chunk, summary.short_score(learner, metrics))

    def save(done: int, runs: Any) -> None:
        metrics_file.sync()
        checkpoint.save(path / folder.CHECKPOINTS, runs, done * program.eval_every, metadata=metadata)

    try:
        drawing = Drawing(Restored(path, experiment, program, None))
        with drawing, Interrupt() as interrupt, Background() as background:

            def step(runs: Any) -> Any:
                drawing.show(runs)
                return background(_run, advance, runs, program)

            runs, done, seconds = drive(step, runs, done, program.num_chunks, record, save, interrupt, checkpoint_every)
    finally:
        bar.close()
    if done < program.num_chunks:
        at = f"update {done * program.eval_every} of {program.num_updates}"
        print(f"Stopped and saved at {at}. Continue with: {folder.command('resume', path)}", flush=True)
        return Result(path, None, interrupt.number)
    speed = (done - first) * steps_per_chunk / seconds if seconds else None
    timing = {"steps_per_second": speed, "compile_seconds": compile_seconds}
    report = summary.finish(Restored(path, experiment, program, runs), timing)
    return Result(path, report, None)


def drive(
    step: Callable[[Any], tuple[Any, dict[str, np.ndarray]]],
    runs: Any,
    done: int,
    until: int,
    record: Callable[[int, dict[str, np.ndarray]], None],
    save: Callable[[int, Any], None],
    interrupt: Interrupt,
    checkpoint_every: float,
) -> tuple[Any, int, float]:
    """Take evaluations `done` + 1 to `until`, or fewer if interrupted. Returns runs, evaluations done and seconds.

    Each is recorded, and some are saved, the last one always: `checkpoint_every` seconds apart at the least.
    """
    seconds, saved_at = 0.0, time.monotonic()
    stopping = done == until
    while not stopping:
        begin = time.perf_counter()
        runs, metrics = step(runs)
        seconds += time.perf_counter() - begin
        done += 1
        record(done, metrics)
        stopping = done == until or interrupt.number is not None
        if stopping or time.monotonic() - saved_at >= checkpoint_every:
            save(done, runs)
            saved_at = time.monotonic()
    return runs, done, seconds


def _run(advance: Any, runs: Any, program: Program) -> tuple[Any, dict[str, np.ndarray]]:
    runs, metrics = advance(runs, program.hparams, program.source)
    return jax.block_until_ready(runs), jax.device_get(metrics)


def plural(count: int, noun: str) -> str:
    """`count` and what is counted."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _plan(experiment: Experiment, program: Program) -> str:
    seeds = "1 seed" if experiment.seeds == 1 else f"{experiment.seeds} seeds in one program"
    steps = program.num_updates * program.steps_per_update
    return (
        f"{experiment}: {seeds}, {steps:,} {experiment.source.unit} each ({plural(program.num_updates, 'update')} of "
        f"{program.steps_per_update:,}), {plural(program.num_chunks, 'evaluation')}, on {jax.default_backend()}."
    )


def note_versions(config: dict[str, Any]) -> None:
    """Say which packages have changed since `config`, a run's config.json, was written."""
    for name, version in folder.versions().items():
        was = config["versions"].get(name)
        if was not in (None, version):
            print(
                f"note: {name} was {was} and is now {version}: the rest may differ in the last bits.", file=sys.stderr
            )


def refuse_changes(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to go on if facts differ.

    Raises:
        ValueError: with the first few of them.
    """
    if changes := difference(old, new):
        raise ValueError(
            f"{path} cannot be resumed as another experiment: {changes}. "
            "Leave it as it was, or start a new run with `train`."
        )


def _tensorboard() -> Any:
    from experiments import tensorboard

    return tensorboard.Writer
