"""How speed, memory and compilation go with size: environments, lanes, replay's capacity, side of images, updates."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
from jax import random

from experiments.benchmarks import ours, steady, tasks
from experiments.experiment import over_seeds
from jaxrl.core import loop

ENVIRONMENTS = (1, 4, 16, 64, 256, 1024, 4096)
LANES = (1, 4, 16, 64, 256)
CAPACITIES = (1000, 10_000, 100_000, 1_000_000)
SIDES = (8, 16, 28, 32, 64)
UPDATES = (10, 100, 1000, 10_000)
STEPS = 2**17  # of all lanes together per round, about
IMAGES = 320  # per round


class Point(NamedTuple):
    """One size on one axis."""

    axis: str
    size: int
    steps_per_second: float  # of all lanes together, median of the rounds; images per second on the axis `side`
    compile_seconds: float
    megabytes: float  # of the whole program, as the compiler plans them
    planned_bytes_per_lane: float  # of them
    state_bytes_per_lane: float  # of a run as it goes from update to update


def training(task: tasks.Task, num_updates: int, calls: int) -> tuple[steady.Program, float]:
    """The chunk of `calls` updates of a run planned for `num_updates`, over the task's lanes; bytes of their state."""
    trained, hparams, source, _, steps_per_update = ours.subject(task)
    trained = loop.Learner(trained.init, trained.update, lambda *_: {})

    def start(key, hparams, source):
        return loop.start(trained, key, hparams, source, num_updates)

    keys = random.split(random.key(0), task.seeds)
    runs = jax.jit(over_seeds(start, task.seeds))(keys, hparams, source)
    chunk = over_seeds(partial(loop.chunk, trained, calls), task.seeds)
    program = steady.compiled(chunk, calls * steps_per_update * task.seeds, runs, hparams, source)
    return program, sum(leaf.nbytes for leaf in jax.tree.leaves(runs))


def point(axis: str, size: int, task: tasks.Task, rounds: int, num_updates: int = 0, steps: int = STEPS) -> Point:
    """`task` measured as `size` on `axis`, so many `num_updates`, or as many as make `steps`, per round."""
    calls = num_updates or max(1, steps // (ours.subject(task).steps_per_update * task.seeds))
    program, state = training(task, calls, calls)
    # Long chunks are there for their compilation alone.
    found = [steady.speed(program) for _ in range(1 if num_updates else rounds)]
    return Point(
        axis=axis,
        size=size,
        steps_per_second=statistics.median(found),
        compile_seconds=program.compile_seconds,
        megabytes=program.bytes_needed / 1e6,
        planned_bytes_per_lane=program.bytes_needed / task.seeds,
        state_bytes_per_lane=state / task.seeds,
    )


def over(axis: str, rounds: int, sizes: Iterable[int] | None = None, steps: int = STEPS) -> Iterator[Point]:
    """Points along `axis`: environments, lanes, capacity, side or updates; of `steps` per round where it has steps."""
    ppo, dqn, pixelcnn = (tasks.get(name) for name in ("ppo-cartpole-64x1", "dqn-cartpole-10x1", "pixelcnn"))
    assert isinstance(ppo, tasks.OnPolicy) and isinstance(dqn, tasks.OffPolicy)
    assert isinstance(pixelcnn, tasks.Autoregression)
    few = dataclasses.replace(ppo, num_envs=4)
    match axis:
        case "environments":
            for size in sizes or ENVIRONMENTS:
                yield point(axis, size, dataclasses.replace(ppo, num_envs=size, steps=size * 128), rounds, steps=steps)
        case "lanes":
            for size in sizes or LANES:
                yield point(axis, size, dataclasses.replace(few, seeds=size), rounds, steps=steps)
        case "capacity":
            # As long a warm-up fills the buffer, so that batches are drawn from all of it.
            for size in sizes or CAPACITIES:
                full = dataclasses.replace(dqn, capacity=size, warmup=size, steps=size + dqn.steps)
                yield point(axis, size, full, rounds, steps=steps)
        case "side":
            for size in sizes or SIDES:
                yield point(axis, size, dataclasses.replace(pixelcnn, side=size), rounds, steps=IMAGES)
        case "updates":
            for size in sizes or UPDATES:
                yield point(axis, size, few, rounds, size)
        case _:
            raise ValueError(f"Unknown axis {axis!r}: use environments, lanes, capacity, side or updates.")
