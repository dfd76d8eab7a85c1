"""PPO as wide as an accelerator asks for: its speed, how much of the time the device works, and at what.

Everything is one program on one device. What limits it shows in the columns: idle time between small operations, or
operations other than products, which wait for memory.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiments.benchmarks import anatomy, ceilings, steady, tasks


class Row(NamedTuple):
    """One training on one device, beside its acting."""

    task: str
    seeds: int  # trained together
    num_envs: int  # of each
    steps_per_second: float  # of all seeds together, median of the rounds
    acting: float  # steps per second of the networks in the environments alone, without learning
    megabytes: float  # of the whole program, as the compiler plans them
    products_gflops: float  # multiplications and additions in products, billions a second
    busy: float  # share of the time from the first operation to the last in which one runs, under a profile
    operations: int  # that the device is given in an update
    products: float  # share of the operations' time: matrix products, with what is fused to them
    moves: float  # copies, gathers, slices and writes into arrays
    arithmetic: float  # all else: elementwise, reductions, random bits


def sizes() -> dict[str, tasks.OnPolicy]:
    """Tasks, by name, of tens of thousands of steps or more in an update."""
    cartpole = tasks.get("ppo-cartpole-64x1")
    breakout = tasks.get("ppo-breakout-64x1")
    assert isinstance(cartpole, tasks.OnPolicy) and isinstance(breakout, tasks.OnPolicy)
    wide = dataclasses.replace(cartpole, num_envs=2048)
    update = wide.num_envs * wide.num_steps
    return {
        "ppo-cartpole-2048x1": dataclasses.replace(wide, steps=20 * update),
        "ppo-cartpole-2048x64": dataclasses.replace(wide, seeds=64, steps=2 * update),
        "ppo-breakout-1024x1": dataclasses.replace(breakout, num_envs=1024, num_steps=32, steps=30 * 1024 * 32),
    }


def run(rounds: int, chosen: dict[str, tasks.OnPolicy]) -> Iterator[Row]:
    """Every task of `chosen`, `sizes()` say."""
    for name, task in chosen.items():
        yield measured(name, task, rounds)


def measured(name: str, task: tasks.OnPolicy, rounds: int) -> Row:
    """One of them."""
    programs = ceilings.programs(task, ["training", "acting"])
    training = programs["training"]
    speed = steady.medians(programs, rounds)
    kind_of = anatomy.kinds(training.text() or "")
    events = anatomy.profile(training.call)
    num_updates = task.steps // (task.num_envs * task.num_steps)
    return Row(
        task=name,
        seeds=task.seeds,
        num_envs=task.num_envs,
        steps_per_second=speed["training"],
        acting=speed["acting"],
        megabytes=training.bytes_needed / 1e6,
        products_gflops=ceilings.in_products(task) * speed["training"] / 1e9,
        busy=busy(events),
        operations=round(len(events) / num_updates),
        **anatomy.shares(events, kind_of),
    )


def busy(events: Sequence[anatomy.Event]) -> float:
    """Of the time from the first of `events` to the end of the last, the share in which at least one runs."""
    covered, end = 0.0, -float("inf")
    for event in sorted(events, key=lambda event: event.begin):
        until = event.begin + event.milliseconds
        covered += max(0.0, until - max(end, event.begin))
        end = max(end, until)
    return covered / (end - min(event.begin for event in events))
