"""Programs of a sweep compiled for as many lanes as fit in memory, which is known before anything runs."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import registry
from experiments.study import Plan
from jaxrl.core import devices, loop, memory, population


class Launch(NamedTuple):
    """The programs of a group, compiled for a number of lanes."""

    size: int  # lanes, all devices of this process together
    start: Any  # (keys, hparams, source) -> runs
    advance: Any  # (runs, hparams, source) -> (runs, metrics)
    bytes_needed: int  # on each device


def functions(plan: Plan, number: int) -> tuple[Any, Any]:
    """How the lanes of a group start and advance: of (keys or what was carried so far, hparams, source)."""
    group, program = plan.lanes.groups[number], plan.programs[number]
    learner, spend = program.learner, plan.study.spend
    if isinstance(spend, population.Population):
        score = registry.get(plan.study.experiment.algorithm)
        begin = population.start(learner, program.num_updates, plan.searched, group.axes)
        then = population.chunk(
            learner, program.eval_every, spend, plan.searched, group.axes, score.score, score.higher_is_better
        )
        return tuple(population.over_seeds(function, group.axes, plan.unit) for function in (begin, then))
    start = partial(loop.start, learner, num_updates=program.num_updates)
    return group.map(start), group.map(partial(loop.chunk, learner, program.eval_every))


def shapes(plan: Plan, number: int, lanes: Iterable[int]) -> tuple[Any, Any]:
    """Shapes of the arguments of group `number`'s programs for `lanes`, and of what they carry."""
    arguments = jax.eval_shape(lambda: plan.lanes.groups[number].arguments(lanes))
    return arguments, jax.eval_shape(functions(plan, number)[0], *arguments)


def compile(plan: Plan, number: int, size: int, mesh: Any) -> Launch:
    """The programs of group `number` for `size` lanes, an equal number of whole units on each device of `mesh`."""
    group = plan.lanes.groups[number]
    blocks = plan.blocks(number, np.ones(plan.lanes.num_points, bool))
    (keys, hparams, source), carried = shapes(plan, number, np.resize(np.concatenate(blocks), size))
    where = devices.shardings(mesh, group.axes)

    def over(function: Any, **options: Any) -> Any:
        mapped = devices.lanes_over(mesh, function, group.axes, plan.unit)
        return jax.jit(mapped, in_shardings=where, out_shardings=where[0], **options)

    start, advance = functions(plan, number)
    first = over(start).lower(keys, hparams, source).compile()
    then = over(advance, donate_argnums=0).lower(carried, hparams, source).compile()
    return Launch(size, first, then, max(memory.needed(first), memory.needed(then)))


def fit(plan: Plan, number: int, most: int, mesh: Any) -> tuple[Launch, str]:
    """Group `number` compiled for all its lanes, or for as many as fit; and how that was found, for the eye.

    Args:
        plan: whose group it is.
        number: of the group.
        most: no more lanes than this.
        mesh: the devices to run on.

    Raises:
        ValueError: not even one lane fits on each device.
    """
    group, step = plan.lanes.groups[number], plan.unit * mesh.size
    size = multiple(min(most, len(group.lanes)), step)
    launch = compile(plan, number, size, mesh)
    limit = memory.available(mesh.devices.flat[0])
    each = " on each device" if mesh.size > 1 else ""
    found = f"{size} {'lane needs' if size == 1 else 'lanes need'} {text(launch.bytes_needed)} of {text(limit)}{each}"
    if launch.bytes_needed <= limit:
        return launch, found
    one, two = (memory.size(shapes(plan, number, group.lanes[[0] * count])[0]) for count in (1, 2))
    shared = 2 * one - two  # what has no lane axis
    fitting = memory.fitting(size // mesh.size, launch.bytes_needed, shared, limit) // plan.unit * step
    if fitting == 0:
        least = f"{plan.unit} lanes" if plan.unit > 1 else "one lane"
        raise ValueError(f"{found}, and not even {least} would fit: use smaller sizes.")
    waves = -(-size // fitting)
    size = multiple(-(-size // waves), step)
    return compile(plan, number, size, mesh), f"{found}, {fitting} fit: {waves} waves of {size}"


def multiple(number: int, of: int) -> int:
    """The least multiple of `of` that is no less than `number`."""
    return -(-number // of) * of


def text(number: float) -> str:
    """Bytes for the eye."""
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
