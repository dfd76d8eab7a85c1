"""What an update of each learner is made of: its operations, where their time goes, the least its products need.

Each learner is a process of its own on one core, so that shares add up. They are of XLA's profile (`jax.profiler`),
which adds up to a microsecond to each operation: small ones, where there are many, count for too much.
"""

import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import counting, presets, registry, sources
from experiments.benchmarks import ceilings, steady
from experiments.experiment import Experiment, build, default, over_seeds
from jaxrl.core import loop

PRODUCTS = {"dot", "convolution"}
MOVES = {"copy", "transpose", "gather", "scatter", "slice", "dynamic-slice", "dynamic-update-slice", "concatenate"}
MOVES |= {"pad", "reverse", "sort"}
NEITHER = {"parameter", "constant", "bitcast", "reshape", "broadcast", "tuple", "get-tuple-element", "iota"}
PARTS = "products", "moves", "arithmetic"
PROFILED = 10  # updates; a profile holds a million events, and the smallest updates are thousands of operations
CONTROL = {"while", "conditional", "call"}  # contain other operations


class Row(NamedTuple):
    """An update of one learner on one core."""

    learner: str
    preset: str  # whose sizes it has; the learner's defaults if empty
    steps: int  # environment steps or examples in an update
    milliseconds: float  # that an update takes, no profile taken
    floor: float  # milliseconds that its products would take at the speed of a large one
    operations: int  # that the processor is given one by one
    products: float  # share of matrix products and convolutions, with what is fused to them
    moves: float  # share of copies, gathers, slices and writes into arrays
    arithmetic: float  # share of all else: elementwise, reductions, random bits


def subject(learner: str) -> tuple[str, Experiment]:
    """The first preset of `learner` whose data need not be downloaded, and its experiment; or its defaults."""
    for name, preset in presets.PRESETS.items():
        downloaded = isinstance(preset.source, sources.Data) and "mnist" in preset.source.data
        if preset.algorithm == learner and not downloaded:
            return name, preset.experiment()
    return "", default(learner)


def kinds(text: str) -> dict[str, str]:
    """Kind of each operation of a compiled program, by its name in a profile; those that contain others are left out.

    A fusion is a product if one is in it, and a move if all it does is to move.
    """
    bodies: dict[str, set[str]] = {}
    found, inside = [], ""
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            inside = head[1]
        elif operation := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (?:\([^=]*\)|\S+) ([\w\-]+)\(", line):
            name, code = operation.groups()
            bodies.setdefault(inside, set()).add(code)
            called = re.search(r"calls=%?([\w.\-]+)", line)
            found.append((name, code, called[1] if called else None))

    def kind(code: str, called: str | None) -> str:
        codes = bodies.get(called, set()) if called and code == "fusion" else {code}
        if codes & PRODUCTS:
            return "products"
        return "moves" if codes - NEITHER and not codes - NEITHER - MOVES else "arithmetic"

    return {plain(name): kind(code, called) for name, code, called in found if code not in CONTROL}


def plain(name: str) -> str:
    """The name of an operation as that of a GPU's kernel is written."""
    return re.sub(r"[.\-]", "_", name)


class Event(NamedTuple):
    """An operation as it ran."""

    operation: str
    begin: float  # milliseconds
    milliseconds: float


def profile(call: Callable[[], Any]) -> list[Event]:
    """What ran during one call of a compiled program."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    # On a GPU `hlo_op` may be a graph of many kernels; an event's own name is that of the kernel.
    ran = [event for event in events if "hlo_op" in event.get("args", {})]
    return [Event(plain(event["name"]), event["ts"] / 1e3, event["dur"] / 1e3) for event in ran]


def shares(events: Sequence[Event], kind_of: dict[str, str]) -> dict[str, float]:
    """Of the time of `events`, each kind's share; libraries' kernels, which no program names, count by theirs."""
    spent = dict.fromkeys(PARTS, 0.0)
    for event in events:
        foreign = "products" if "gemm" in event.operation else "moves" if "Mem" in event.operation else None
        if kind := kind_of.get(event.operation, foreign):
            spent[kind] += event.milliseconds
    return {kind: each / sum(spent.values()) for kind, each in spent.items()}


def of_learner(learner: str, rounds: int, longest: float = 0.1) -> Row:
    """Measure one: its speed over so many updates as take `longest` seconds, or one; its profile over a few."""
    name, experiment = subject(learner)
    program = build(dataclasses.replace(experiment, seeds=1))
    training = program.learner._replace(evaluate=lambda *_: {})
    given = program.hparams, program.source
    runs = program.start(program.keys, *given)

    def chunk(count: int) -> Any:
        return over_seeds(partial(loop.chunk, training, count), 1)

    few = steady.compiled(chunk(PROFILED), PROFILED, runs, *given)
    many = max(1, int(longest * steady.speed(few)))
    whole = steady.compiled(chunk(many), many, runs, *given)
    kind_of = kinds(few.text() or "")
    events = [event for event in profile(few.call) if event.operation in kind_of]
    floating = counting.products(jax.make_jaxpr(chunk(1))(runs, *given).jaxpr)
    return Row(
        learner=learner,
        preset=name,
        steps=program.steps_per_update,
        milliseconds=1e3 / steady.medians({"whole": whole}, rounds)["whole"],
        floor=floating / ceilings.product(2048, 64, 64, rounds, 200).product_gflops / 1e6,
        operations=round(len(events) / PROFILED),
        **shares(events, kind_of),
    )


def run(rounds: int, learners: Sequence[str] = ()) -> Iterator[Row]:
    """All learners, or those named, one after the other."""
    for learner in learners or registry.LEARNERS:
        command = [sys.executable, "-m", "experiments.benchmarks.anatomy", learner, str(rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        yield Row(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_enable_compilation_cache", False)
    print(json.dumps(of_learner(sys.argv[1], int(sys.argv[2]))._asdict()))
