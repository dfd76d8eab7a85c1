"""Programs of a sweep compiled for as many lanes as fit in memory, which is known before anything runs."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.study import Plan
from jaxrl.core import devices, loop, memory


class Launch(NamedTuple):
    """The programs of a group, compiled for a number of lanes."""

    size: int  # lanes, all devices of this process together
    start: Any  # (keys, hparams, source) -> runs
    advance: Any  # (runs, hparams, source) -> (runs, metrics)
    bytes_needed: int  # on each device


def shapes(plan: Plan, number: int, lanes: Iterable[int]) -> tuple[Any, Any]:
    """Shapes of the arguments of group `number`'s programs for `lanes`, and of their runs."""
    group, program = plan.lanes.groups[number], plan.programs[number]
    arguments = jax.eval_shape(lambda: group.arguments(lanes))
    start = partial(loop.start, program.learner, num_updates=program.num_updates)
    return arguments, jax.eval_shape(group.map(start), *arguments)


def compile(plan: Plan, number: int, size: int, mesh: Any) -> Launch:
    """The programs of group `number` for `size` lanes, a multiple of the devices in `mesh`."""
    group, program = plan.lanes.groups[number], plan.programs[number]
    (keys, hparams, source), runs = shapes(plan, number, np.resize(group.lanes, size))
    where = devices.shardings(mesh, group.axes)
    start = partial(loop.start, program.learner, num_updates=program.num_updates)
    advance = partial(loop.chunk, program.learner, program.eval_every)

    def over(function: Any, **options: Any) -> Any:
        mapped = devices.lanes_over(mesh, group.map(function), group.axes)
        return jax.jit(mapped, in_shardings=where, out_shardings=where[0], **options)

    first = over(start).lower(keys, hparams, source).compile()
    then = over(advance, donate_argnums=0).lower(runs, hparams, source).compile()
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
    group = plan.lanes.groups[number]
    size = multiple(min(most, len(group.lanes)), mesh.size)
    launch = compile(plan, number, size, mesh)
    limit = memory.available(mesh.devices.flat[0])
    each = " on each device" if mesh.size > 1 else ""
    found = f"{size} lanes need {text(launch.bytes_needed)} of {text(limit)}{each}"
    if launch.bytes_needed <= limit:
        return launch, found
    one, two = (memory.size(shapes(plan, number, group.lanes[[0] * count])[0]) for count in (1, 2))
    shared = 2 * one - two  # what has no lane axis
    fitting = memory.fitting(size // mesh.size, launch.bytes_needed, shared, limit) * mesh.size
    if fitting == 0:
        raise ValueError(f"{found}, and not one lane fits: use smaller sizes.")
    waves = -(-size // fitting)
    size = multiple(-(-size // waves), mesh.size)
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
