"""What spreading lanes over the cores of a CPU gains: layouts in turn, each a process of its own.

Lanes are PPO on CartPole-v1 over learning rates. One core: a process that may use no other. Plain: one device, which
may use all cores. Spread: a device for each core.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from experiments.benchmarks import protocol


@dataclass(frozen=True)
class Layout:
    """Lanes and where they run."""

    devices: int
    one_core: bool  # the process may use
    lanes: int = 32
    updates: int = 10  # of 16 x 128 steps in each lane, per round


class Row(NamedTuple):
    """A layout against the others: medians over rounds."""

    layout: str
    devices: int
    lanes: int
    steps_per_second: float  # of all lanes together
    slowest: float  # of the rounds
    fastest: float
    over_one_core: float
    over_plain: float
    compile_seconds: float


def start(task: dict[str, Any]) -> protocol.Ready:
    """Compile and take the first round, so that later ones are steady."""
    layout = Layout(**task)
    if layout.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_num_cpu_devices", layout.devices)
    from jaxrl import envs
    from jaxrl.algorithms import ppo
    from jaxrl.core import devices, loop, sweep

    env, env_params = envs.make("CartPole-v1")
    config = ppo.Config(num_envs=16, num_steps=128, num_minibatches=8)
    learner = ppo.make(env, config)._replace(evaluate=lambda *_: {})
    rates = jnp.geomspace(1e-4, 1e-2, layout.lanes).tolist()
    (group,) = sweep.grid(ppo.Hyperparams(), source=env_params, learning_rate=rates).groups
    mesh = devices.mesh()
    where = devices.shardings(mesh, group.axes)
    keys, hparams, source = jax.device_put(group.arguments(), where)

    def over(function: Any, *arguments: Any) -> Any:
        mapped = devices.lanes_over(mesh, group.map(function), group.axes)
        return jax.jit(mapped, in_shardings=where, out_shardings=where[0]).lower(*arguments, hparams, source).compile()

    runs = over(partial(loop.start, learner, num_updates=1000), keys)(keys, hparams, source)
    begin = time.perf_counter()
    advance = over(partial(loop.chunk, learner, layout.updates), runs)
    compile_seconds = time.perf_counter() - begin
    jax.block_until_ready(advance(runs, hparams, source))

    def play(_: int) -> protocol.Round:
        begin = time.perf_counter()
        jax.block_until_ready(advance(runs, hparams, source))
        steps = layout.lanes * layout.updates * config.steps_per_update
        return protocol.Round(steps, time.perf_counter() - begin, None)

    return protocol.Ready(play, compile_seconds, jax.devices()[0].device_kind, ("jax",))


def run(rounds: int, **sizes: Any) -> Iterator[Row]:
    """All layouts, `rounds` rounds each, in alternation."""
    import sys

    from experiments.benchmarks import contest

    cores = len(os.sched_getaffinity(0))
    layouts = {"one core": Layout(1, True), "plain": Layout(1, False), "spread": Layout(cores, False)}
    layouts = {name: replace(layout, **sizes) for name, layout in layouts.items()}
    command = [sys.executable, "-m", "experiments.benchmarks.cores"]
    with ExitStack() as stack:
        everyone = {
            name: stack.enter_context(contest.started(contest.OURS, command, layout))
            for name, layout in layouts.items()
        }
        for number in range(rounds):
            for one in everyone.values():
                one.play(number)
        speeds = {name: one.speeds() for name, one in everyone.items()}
        for name, layout in layouts.items():
            mine = speeds[name]

            def over(other: str, mine: list[float] = mine) -> float:
                return statistics.median(a / b for a, b in zip(mine, speeds[other], strict=True))

            yield Row(
                name,
                layout.devices,
                layout.lanes,
                statistics.median(mine),
                min(mine),
                max(mine),
                over("one core"),
                over("plain"),
                everyone[name].about["compile_seconds"],
            )


if __name__ == "__main__":
    protocol.serve(start)
