"""Waves: lanes of a sweep that run together, for one stage of it, in a folder of their own."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from experiments import folder, launching, registry, summary, training
from experiments.interrupt import Background, Interrupt
from experiments.progress import Bar
from experiments.study import Plan
from jaxrl.core import checkpoint, devices, population

WAVES, WAVE = "waves", "wave.json"


class Wave(NamedTuple):
    """Where it is, what it holds and how far it goes."""

    path: Path
    group: int
    lanes: tuple[int, ...]  # their numbers in the sweep
    first: int  # evaluations before this stage
    until: int  # evaluations after it

    def done(self, plan: Plan) -> int:
        """Evaluations so far, those of earlier stages included."""
        saved = checkpoint.newest(self.path / folder.CHECKPOINTS)
        return self.first if saved is None else saved[0] // plan.programs[self.group].eval_every


def partition(path: Path, plan: Plan, stage: int, running: np.ndarray, sizes: list[int], processes: int) -> list[Wave]:
    """The waves of a stage: the lanes of the points `running` in equal parts, no larger than `sizes` of each group.

    At least as many parts as `processes`. The same whatever devices there are, so that a sweep can be resumed on
    others.
    """
    waves: list[Wave] = []
    for number in range(len(plan.lanes.groups)):
        blocks = plan.blocks(number, running)
        count = max(-(-len(blocks) // (sizes[number] // plan.unit)), min(processes, len(blocks)))
        length, stops = -(-len(blocks) // max(1, count)), [0, *plan.stops(number)]
        for part in range(count):
            lanes = tuple(itertools.chain(*blocks[part * length : (part + 1) * length]))
            if lanes:
                name = f"{stage}-{len(waves):03d}"
                waves.append(Wave(path / WAVES / name, number, lanes, stops[stage], stops[stage + 1]))
    return waves


def found(path: Path) -> list[Wave]:
    """The waves of the sweep in folder `path` that have begun, in the order of stages."""
    files = sorted((path / WAVES).glob(f"*/{WAVE}"), key=lambda file: [int(n) for n in file.parent.name.split("-")])
    facts = ((file.parent, json.loads(file.read_text())) for file in files)
    return [Wave(path, facts["group"], tuple(facts["lanes"]), facts["first"], facts["until"]) for path, facts in facts]


def advance(
    wave: Wave,
    before: Sequence[Wave],
    plan: Plan,
    launch: Any,
    mesh: Any,
    interrupt: Interrupt,
    background: Background,
    bar: Bar,
    checkpoint_every: float,
) -> tuple[int, float]:
    """Run a wave to its end, or until interrupted, from its last checkpoint or the waves `before`.

    Returns evaluations done and seconds.
    """
    group, program, count = plan.lanes.groups[wave.group], plan.programs[wave.group], len(wave.lanes)
    wave.path.mkdir(parents=True, exist_ok=True)
    folder.write_json(wave.path / WAVE, {name: value for name, value in wave._asdict().items() if name != "path"})
    lanes = np.resize(wave.lanes, launch.size)  # what is over are copies of the first, whose results are left out
    where = devices.shardings(mesh, group.axes)
    keys, hparams, source = jax.device_put(group.arguments(lanes), where)
    steps = count * plan.steps(wave.group)
    learner = registry.get(plan.study.experiment.algorithm)
    labels = [{"lane": lane, "seed": plan.lanes.lane(lane)[0]} for lane in wave.lanes]

    def step(runs: Any) -> Any:
        return background(_run, launch.advance, runs, hparams, source)

    def record(done: int, metrics: dict[str, np.ndarray]) -> None:
        metrics = {name: leaf[:count] for name, leaf in metrics.items()}
        metrics_file.append(folder.rows(metrics, done * program.eval_every, done * plan.steps(wave.group), labels))
        bar.advance(steps, summary.short_score(learner, metrics))

    def save(done: int, runs: Any) -> None:
        metrics_file.sync()
        kept = runs if count == launch.size else _of(runs, np.arange(count))
        checkpoint.save(wave.path / folder.CHECKPOINTS, kept, done * program.eval_every)

    with folder.MetricsFile(wave.path) as metrics_file:
        runs, done = _begin(wave, before, plan)
        if runs is None:
            runs = launch.start(keys, hparams, source)
        else:
            runs = jax.device_put(_of(runs, np.resize(np.arange(count), launch.size)), where[0])
        metrics_file.cut((done - wave.first) * count)
        _, done, seconds = training.drive(step, runs, done, wave.until, record, save, interrupt, checkpoint_every)
    return done, seconds


def _begin(wave: Wave, before: Sequence[Wave], plan: Plan) -> tuple[Any, int]:
    """Runs and evaluations done when a wave goes on from what is saved; None and 0 when it is to be started."""
    every = plan.programs[wave.group].eval_every
    try:
        last = checkpoint.load(wave.path / folder.CHECKPOINTS, launching.shapes(plan, wave.group, wave.lanes)[1])
        return last.tree, last.step // every
    except FileNotFoundError:
        if wave.first == 0:
            return None, 0
    runs = states(plan, before, wave.lanes)
    if (np.asarray(runs.step) != wave.first * every).any():
        raise ValueError(f"The stage before {wave.path} is damaged: delete its waves to run them again.")
    return runs, wave.first


def _run(function: Any, *arguments: Any) -> tuple[Any, dict[str, np.ndarray]]:
    runs, metrics = function(*arguments)
    return jax.block_until_ready(runs), jax.device_get(metrics)


def _of(runs: Any, places: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[places], runs)


def runs_of(carried: Any) -> Any:
    """The runs [L] within what a wave carries."""
    return carried.runs if isinstance(carried, population.Members) else carried


def hparams_of(plan: Plan, group: int, lanes: Sequence[int], carried: Any) -> Any:
    """The hyperparameters of `lanes`, with an axis L where swept: those of the moment if a population changes them."""
    hparams = plan.lanes.groups[group].arguments(lanes)[1]
    if isinstance(carried, population.Members):
        for place, searched in enumerate(plan.searched):
            hparams = searched.place(hparams, carried.quantiles[:, place])
    return hparams


def states(plan: Plan, waves: Iterable[Wave], lanes: Sequence[int]) -> Any:
    """What is carried of `lanes`, all of one group, as the first of `waves` that has them last saved it: [L, ...].

    Raises:
        FileNotFoundError: none of them has saved a lane yet.
    """
    pieces, order, missing = [], [], list(lanes)
    for wave in waves:
        here = [lane for lane in missing if lane in wave.lanes]
        if not here or checkpoint.newest(wave.path / folder.CHECKPOINTS) is None:
            continue
        like = launching.shapes(plan, wave.group, wave.lanes)[1]
        runs = checkpoint.load(wave.path / folder.CHECKPOINTS, like).tree
        pieces.append(_of(runs, np.array([wave.lanes.index(lane) for lane in here])))
        order += here
        missing = [lane for lane in missing if lane not in here]
    if missing:
        raise FileNotFoundError(f"No checkpoint of lane {missing[0]} yet.")
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)
    return _of(together, np.array([order.index(lane) for lane in lanes]))


def part(wave: Wave, text: str) -> tuple[tuple[int, ...], list[int], dict[str, np.ndarray]]:
    """Lanes, steps [E] and metrics [L, E] of what a wave's metrics.jsonl says, for `results.dataset`."""
    rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # whole ones
    count = len(wave.lanes)
    rows = rows[: len(rows) // count * count]
    names = [name for name in (rows[0] if rows else {}) if name not in ("update", "step", "lane", "seed")]

    def table(name: str) -> np.ndarray:
        values = [np.nan if row[name] is None else row[name] for row in rows]
        return np.array(values, np.float32).reshape(-1, count).T

    return wave.lanes, [row["step"] for row in rows[::count]], {name: table(name) for name in names}
