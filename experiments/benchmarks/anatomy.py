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
from collections import Counter, defaultdict
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
    """Kind of each operation of a compiled program, by name; those that contain others are left out.

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

    return {name: kind(code, called) for name, code, called in found if code not in CONTROL}


def profile(call: Callable[[], Any]) -> tuple[dict[str, float], dict[str, int]]:
    """Milliseconds and number of runs of each operation during one call of a compiled program, by its name."""
    milliseconds: defaultdict[str, float] = defaultdict(float)
    runs: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]:
            if name := event.get("args", {}).get("hlo_op"):
                milliseconds[name] += event["dur"] / 1e3
                runs[name] += 1
    return milliseconds, runs


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
    milliseconds, times = profile(few.call)
    found = {operation: kind for operation, kind in kinds(few.text() or "").items() if operation in times}
    spent = dict.fromkeys(PARTS, 0.0)
    for operation, kind in found.items():
        spent[kind] += milliseconds[operation]
    floating = counting.products(jax.make_jaxpr(chunk(1))(runs, *given).jaxpr)
    return Row(
        learner=learner,
        preset=name,
        steps=program.steps_per_update,
        milliseconds=1e3 / steady.medians({"whole": whole}, rounds)["whole"],
        floor=floating / ceilings.product(2048, 64, 64, rounds, 200).product_gflops / 1e6,
        operations=round(sum(times[operation] for operation in found) / PROFILED),
        **{kind: spent[kind] / sum(spent.values()) for kind in PARTS},
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
