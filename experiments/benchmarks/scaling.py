"""How speed, memory and compilation go with size: environments, lanes, replay's capacity, planned updates."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
from jax import random

from experiments.benchmarks import ours, steady, tasks
from jaxrl.core import loop

ENVIRONMENTS = (1, 4, 16, 64, 256, 1024, 4096)
LANES = (1, 4, 16, 64, 256)
CAPACITIES = (1000, 10_000, 100_000, 1_000_000)
UPDATES = (10, 100, 1000, 10_000)
STEPS = 2**17  # of all lanes together per round, about


class Point(NamedTuple):
    """One size on one axis."""

    axis: str
    size: int
    steps_per_second: float  # of all lanes together, median of the rounds
    compile_seconds: float
    megabytes: float  # of the whole program, as the compiler plans them


def training(task: tasks.OnPolicy | tasks.OffPolicy, num_updates: int, calls: int) -> steady.Program:
    """The chunk of `calls` updates of a run planned for `num_updates`, over the lanes of the task."""
    learner, hparams, env_params, _ = ours.agent(task)
    learner = learner._replace(evaluate=lambda *_: {})

    def start(key):
        return loop.start(learner, key, hparams, env_params, num_updates)

    runs = jax.jit(jax.vmap(start))(random.split(random.key(0), task.seeds))
    chunk = jax.vmap(partial(loop.chunk, learner, calls), (0, None, None))
    per_update = task.steps // ours.agent(task)[3]
    return steady.compiled(chunk, calls * per_update * task.seeds, runs, hparams, env_params)


def point(axis: str, size: int, task: tasks.OnPolicy | tasks.OffPolicy, rounds: int, num_updates: int = 0) -> Point:
    """`task` measured as `size` on `axis`."""
    per_update = task.steps // ours.agent(task)[3]
    calls = num_updates or max(1, STEPS // (per_update * task.seeds))
    program = training(task, calls, calls)
    # Long chunks are there for their compilation alone.
    found = [steady.speed(program) for _ in range(1 if num_updates else rounds)]
    return Point(axis, size, statistics.median(found), program.compile_seconds, program.bytes_needed / 1e6)


def over(axis: str, rounds: int, sizes: Iterable[int] | None = None) -> Iterator[Point]:
    """Points along `axis`: environments, lanes, capacity or updates."""
    ppo, dqn = tasks.get("ppo-cartpole-64x1"), tasks.get("dqn-cartpole-10x1")
    assert isinstance(ppo, tasks.OnPolicy) and isinstance(dqn, tasks.OffPolicy)
    few = dataclasses.replace(ppo, num_envs=4)
    match axis:
        case "environments":
            for size in sizes or ENVIRONMENTS:
                yield point(axis, size, dataclasses.replace(ppo, num_envs=size, steps=size * 128), rounds)
        case "lanes":
            for size in sizes or LANES:
                yield point(axis, size, dataclasses.replace(few, seeds=size), rounds)
        case "capacity":
            for size in sizes or CAPACITIES:
                yield point(axis, size, dataclasses.replace(dqn, capacity=size), rounds)
        case "updates":
            for size in sizes or UPDATES:
                yield point(axis, size, few, rounds, size)
        case _:
            raise ValueError(f"Unknown axis {axis!r}: use environments, lanes, capacity or updates.")
