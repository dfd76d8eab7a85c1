"""A compiled program and its time in steady state, in this process."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Program(NamedTuple):
    """A compiled program with its arguments, and the work of one call."""

    call: Callable[[], Any]
    work: float  # per call: steps, floating-point operations, bytes
    compile_seconds: float
    bytes_needed: int  # arguments, results and temporaries on the device, as the compiler plans them
    text: Callable[[], str | None]  # the compiled program, written out


def compiled(function: Callable[..., Any], work: float, *args: Any) -> Program:
    """`function` compiled for `args` and called once, so that later calls are steady."""
    begin = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - begin
    jax.block_until_ready(program(*args))
    plan: Any = program.memory_analysis()
    needed = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    needed -= plan.alias_size_in_bytes
    return Program(lambda: jax.block_until_ready(program(*args)), work, seconds, needed, program.as_text)


def in_place(function: Callable[[Any], Any], work: float, value: Any) -> Program:
    """`function` of what it returned the last time, first of `value`, which it overwrites: nothing is allocated."""
    begin = time.perf_counter()
    program = jax.jit(function, donate_argnums=0).lower(value).compile()
    seconds = time.perf_counter() - begin
    plan: Any = program.memory_analysis()
    held = [program(value)]

    def call() -> Any:
        held[0] = jax.block_until_ready(program(held[0]))

    call()
    return Program(call, work, seconds, plan.argument_size_in_bytes + plan.temp_size_in_bytes, program.as_text)


def speed(program: Program) -> float:
    """Work per second of one call."""
    begin = time.perf_counter()
    program.call()
    return program.work / (time.perf_counter() - begin)


def speeds(programs: dict[str, Program], rounds: int) -> dict[str, list[float]]:
    """Work per second of all programs in alternation, `rounds` times."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            found[name].append(speed(program))
    return found


def medians(programs: dict[str, Program], rounds: int) -> dict[str, float]:
    """Median of `speeds` by name."""
    return {name: statistics.median(each) for name, each in speeds(programs, rounds).items()}
