"""Every benchmark by name, printed as it comes and stored with the machine it ran on."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import folder
from experiments.benchmarks import accelerator, anatomy, ceilings, contest, cores, sampling, scaling, searching, tasks
from jaxrl.core import checks

AXES = ("environments", "lanes", "capacity", "side", "updates")


def names() -> list[str]:
    """Of all benchmarks."""
    scalings = (f"scaling-{axis}" for axis in AXES)
    return ["hardware", *tasks.TASKS, "ceilings", "anatomy", "cores", *scalings, "sampling", "searching", "accelerator"]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": folder.processor(),
        "cores": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "versions": folder.versions(),
        "git_revision": folder.git_revision(),
    }


def run(
    chosen: Sequence[str], rounds: int, peers: Path | None, out: Path | None = None, *, tiny: bool = False
) -> dict[str, Any]:
    """The benchmarks `chosen`. Returns what is stored as JSON, in the file `out` as it is measured, if one is named.

    All if there are none; on a CPU all but the accelerator's, which would take an hour there.

    `tiny` sizes only show that everything runs.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    for name in chosen:
        if name not in names():
            raise ValueError(checks.unknown("benchmark", name, names()))
    # A program from the cache would count as compiled at once.
    jax.config.update("jax_enable_compilation_cache", False)
    result: dict[str, Any] = {"machine": machine(), "rounds": rounds, "rows": []}

    def store() -> None:
        if out is not None:
            folder.write_json(out, result)

    store()  # a path that cannot be written to shows now, not hours later
    everything = [name for name in names() if name != "accelerator" or jax.default_backend() != "cpu"]
    for name in chosen or everything:
        for row in _benchmark(name, rounds, peers, tiny):
            print(_line(row), flush=True)
            result["rows"].append({"benchmark": name, **row})
            store()
    return result


def _benchmark(name: str, rounds: int, peers: Path | None, tiny: bool) -> Iterable[dict[str, Any]]:
    size: Callable[[tasks.Task], Any] = tasks.tiny if tiny else lambda task: task
    if name == "hardware":
        return (row._asdict() for row in ceilings.of_machine(rounds, repeats=2 if tiny else 2000))
    if name == "cores":
        return (row._asdict() for row in cores.run(rounds, **({"lanes": 4, "updates": 1} if tiny else {})))
    if name == "searching":
        sizes = {"repetitions": 2, "num_envs": 2, "num_steps": 8, "num_minibatches": 1, "eval_episodes": 1}
        return (row._asdict() for row in searching.run(**(sizes if tiny else {})))
    if name == "sampling":
        least: Any = {"sides": (3,), "large_side": 3, "length": 20, "passes": 5, "batch": 2, "large_batch": 3}
        return (row._asdict() for row in sampling.run(rounds, **(least if tiny else {})))
    if name == "ceilings":
        measured = ("ppo-cartpole-4x1", "dqn-cartpole-10x1", "sac-pendulum-1x1", "vae") if tiny else tasks.TASKS
        return (ceilings.of_task(task, size(tasks.get(task)), rounds)._asdict() for task in measured)
    if name == "accelerator":
        wide = accelerator.sizes()
        if tiny:
            wide = {task: dataclasses.replace(wide[task], num_envs=4, num_steps=8, steps=64, seeds=1) for task in wide}
        return (row._asdict() for row in accelerator.run(rounds, wide))
    if name == "anatomy":
        return (row._asdict() for row in anatomy.run(rounds, ("ddpg",) if tiny else ()))
    if name.startswith("scaling-"):
        axis = name.removeprefix("scaling-")
        small = {"capacity": (1000, 2000), "side": (8, 9)}.get(axis, (2, 3))
        return (point._asdict() for point in scaling.over(axis, rounds, *((small, 1) if tiny else ())))
    return [dataclasses.asdict(row) for row in contest.run(name, size(tasks.get(name)), rounds, peers)]


def _line(row: dict[str, Any]) -> str:
    shown = {name: value for name, value in row.items() if value is not None and not isinstance(value, dict)}
    return "  ".join(f"{name} {_figure(value)}" for name, value in shown.items())


def _figure(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
