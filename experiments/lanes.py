"""Lanes of a sweep by themselves: evaluated once more, or taken out as runs of their own."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import disentangling, evaluation, folder, sources, study, sweeping, waves
from experiments.experiment import Experiment, build, facts
from experiments.study import Plan
from jaxrl.core import checkpoint, devices, fields, loop, population, results


def evaluate(path: str | Path, seed: int = 0, disentanglement: bool = False, **eval_config: Any) -> Any:
    """The Dataset of an evaluation of every lane's last state, with keys that training never used.

    `eval_config` are other values for the `eval_...` fields of Config. With `disentanglement` latents are scored too.

    Raises:
        ValueError: not a sweep, or nothing saved in it yet.
    """
    path, _, described = sweeping.open_sweep(path)
    experiment = described.experiment
    config = dataclasses.replace(experiment.config, **eval_config)
    plan = study.plan(dataclasses.replace(described, experiment=dataclasses.replace(experiment, config=config)))
    keys = evaluation.keys(seed, plan.lanes.num_seeds)
    parts, seen = [], set()
    for wave in reversed(waves.found(path)):
        lanes = [lane for lane in wave.lanes if lane not in seen]
        if lanes and checkpoint.newest(wave.path / folder.CHECKPOINTS) is not None:
            carried = waves.states(plan, [wave], lanes)
            lane_keys = keys[np.array(lanes) % plan.lanes.num_seeds]
            metrics = _evaluate(plan, wave.group, lanes, lane_keys, carried)
            if disentanglement:
                program, states = plan.programs[wave.group], waves.runs_of(carried).state
                conditional = getattr(plan.lanes.groups[wave.group].config, "conditional", False)
                scores = disentangling.scores(program, states, seed, conditional=conditional)
                metrics |= {name: leaf[:, None] for name, leaf in scores.items()}
            parts.append((lanes, [0], metrics))
            seen |= set(lanes)
    if not parts:
        raise ValueError(f"{path} has no checkpoint yet: continue it with `python -m experiments resume {path}`.")
    return sweeping.dataset(plan, parts)


def _evaluate(plan: Plan, number: int, lanes: list[int], keys: Any, carried: Any) -> dict[str, np.ndarray]:
    """Metrics with leaves [L, 1]."""
    group, score = plan.lanes.groups[number], evaluation.of_run(plan.programs[number].learner)

    def one(key_and_run: Any, hparams: Any, source: Any) -> Any:
        return {**score(key_and_run, hparams, source), "diverged": loop.any_nan(key_and_run[1].state)}

    mesh = devices.mesh()
    mesh = mesh if len(lanes) % mesh.size == 0 else devices.mesh(devices=jax.local_devices()[:1])
    where = devices.shardings(mesh, group.axes)
    hparams, source = waves.hparams_of(plan, number, lanes, carried), group.arguments(lanes)[2]
    arguments = jax.device_put(((keys, waves.runs_of(carried)), hparams, source), where)
    metrics = jax.jit(devices.lanes_over(mesh, group.map(one), group.axes))(*arguments)
    if isinstance(carried, population.Members):  # whose hyperparameters are no longer those they began with
        metrics |= {each.field.name: fields.at(hparams, each.field.path) for each in plan.searched}
    return {name: leaf[:, None] for name, leaf in jax.device_get(metrics).items()}


def extract(
    path: str | Path,
    point: int | None = None,
    seed: int | None = None,
    *,
    run_dir: str | None = None,
    steps: int | None = None,
) -> Path:
    """Make a run folder of one lane, as far as it has come: to evaluate, to plot and to continue like any other.

    Args:
        path: the sweep's folder.
        point: number of the point; the best if None, or of a population the best member.
        seed: of the lane; the first if None.
        run_dir: folder of the run; a dated one under `runs` if None.
        steps: a new length of the run, no shorter than it was. Schedules are stretched over it.

    Raises:
        ValueError: no such lane, nothing saved of it yet, the folder is taken, or the run would get shorter.
    """
    path, _, described = sweeping.open_sweep(path)
    plan = study.plan(described)
    sweep = plan.lanes
    seed = sweep.first_seed if seed is None else seed
    if point is None:
        point = best_point(plan, sweeping.read(path), seed)
    if not 0 <= point < sweep.num_points or seed not in sweep.seeds:
        raise ValueError(
            f"There is no point {point} with seed {seed}: points are 0 to {sweep.num_points - 1}, "
            f"seeds {sweep.seeds[0]} to {sweep.seeds[-1]}."
        )
    lane = point * sweep.num_seeds + seed - sweep.first_seed
    number = next(number for number, group in enumerate(sweep.groups) if lane in group.lanes)
    program = plan.programs[number]
    try:
        carried = waves.states(plan, reversed(waves.found(path)), [lane])
    except FileNotFoundError as error:
        raise ValueError(f"{path}: {error}") from None
    experiment = alone(described.experiment, sweep, lane)
    if plan.unit > 1:  # what the population has come to
        now = waves.hparams_of(plan, number, [lane], carried)
        for field in sweep.swept:
            hparams = fields.replaced(experiment.hparams, field.path, fields.at(now, field.path)[0].item())
            experiment = dataclasses.replace(experiment, hparams=hparams)
    if steps is not None:
        experiment = _lengthened(experiment, program.num_updates, program.eval_every, steps)
    single = build(experiment)
    runs = waves.runs_of(carried)
    runs = runs._replace(num_updates=runs.num_updates.at[:].set(single.num_updates))
    rows = [
        {name: value for name, value in row.items() if name != "lane"}
        for wave in waves.found(path)
        if lane in wave.lanes
        for row in folder.read_metrics(wave.path)
        if row["lane"] == lane and row["update"] <= int(runs.step[0])
    ]
    lengths = {"num_updates": single.num_updates, "eval_every": single.eval_every}
    target = folder.create(run_dir, experiment, {**lengths, "extracted": {"sweep": str(path), "lane": lane}})
    with folder.MetricsFile(target) as metrics:
        metrics.append(rows)
        metrics.sync()
    checkpoint.save(target / folder.CHECKPOINTS, runs, int(runs.step[0]), metadata=facts(experiment, single))
    return target


def best_point(plan: Plan, found: Any, seed: int) -> int:
    """Number of the best point of a sweep, or of the best member of the population of a seed."""
    if plan.unit == 1:
        return plan.place(results.ranking(found)[0])
    return int(results.best_members(found)["point"].sel(seed=seed))


def alone(experiment: Experiment, sweep: Any, lane: int) -> Experiment:
    """The experiment of a lane by itself."""
    seed, values = sweep.lane(lane)
    _, hparams, config, _ = sweep.alone(lane)
    source, changed = experiment.source, {}
    for field in sweep.swept:
        if field.part == "source":
            changed[field.path[-1]] = values[field.name]
    if changed:
        assert isinstance(source, sources.Environment)  # data cannot be swept from here
        kept = tuple(pair for pair in source.env_kwargs if pair.partition("=")[0] not in changed)
        source = dataclasses.replace(
            source, env_kwargs=(*kept, *(f"{name}={value!r}" for name, value in changed.items()))
        )
    return dataclasses.replace(experiment, source=source, config=config, hparams=hparams, seed=seed, seeds=1)


def _lengthened(experiment: Experiment, num_updates: int, eval_every: int, steps: int) -> Experiment:
    """`experiment` of at least so many `steps`, evaluated at the same intervals."""
    per_update = experiment.config.steps_per_update
    evaluations = -(-steps // (per_update * eval_every))
    if evaluations * eval_every < num_updates:
        raise ValueError(f"steps={steps} would cut the run, which has {num_updates * per_update}.")
    return dataclasses.replace(experiment, steps=evaluations * eval_every * per_update, evaluations=evaluations)
