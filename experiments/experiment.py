"""What is run: one frozen description for command line, presets, notebook and run folder, and the program of it."""

import dataclasses
import importlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax import random

from experiments import registry, sources
from jaxrl.core import devices, loop

# What a field is on the command line, beside an ordinary option.
FLAT = {"flat": True}  # its own fields are options, without a prefix
HIDDEN = {"hidden": True}  # no option


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run."""

    algorithm: str = field(metadata=HIDDEN)  # name in the registry
    source: sources.Environment | sources.Data = field(metadata=FLAT)  # what it learns from
    config: Any = field(metadata=FLAT)  # the learner's Config
    hparams: Any = field(metadata=FLAT)  # the learner's Hyperparams
    steps: int = 500_000  # environment steps or examples of each seed; rounded up to whole intervals of evaluation
    evaluations: int = 50  # during the run, evenly spaced: about as many
    seed: int = 0  # the first seed
    seeds: int = 1  # consecutive seeds, trained together in one program

    def __str__(self) -> str:
        return f"{self.algorithm} on {self.source}"


def default(algorithm: str) -> Experiment:
    """`algorithm` with the defaults of its module.

    Raises:
        ValueError: unknown algorithm.
    """
    learner = registry.get(algorithm)
    module = learner.load()
    return Experiment(algorithm, learner.source(), module.Config(), module.Hyperparams())


class Program(NamedTuple):
    """An experiment ready to be compiled. The functions take (keys or runs [S], hparams, source)."""

    given: Any  # what `make` was given: an environment or the description of data
    learner: Any  # what `make` gave
    hparams: Any  # numbers as arrays
    source: Any
    keys: Any  # [S] one root key per seed
    start: Any  # (keys, hparams, source) -> runs
    advance: Any  # (runs, hparams, source) -> (runs, metrics), one evaluation's worth; `runs` is donated
    steps_per_update: int
    eval_every: int  # updates
    num_updates: int

    @property
    def num_chunks(self) -> int:
        return self.num_updates // self.eval_every

    def runs_shape(self) -> Any:
        """Shapes and dtypes of the runs, computed without running anything."""
        return jax.eval_shape(self.start, self.keys, self.hparams, self.source)


def build(experiment: Experiment, loaded: tuple[Any, Any] | None = None) -> Program:
    """The program of an experiment. `loaded` is what its source loads, if that is at hand.

    Raises:
        ValueError: whatever cannot work, with the values and the mend.
    """
    for name in ("steps", "evaluations", "seeds"):
        if getattr(experiment, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(experiment, name)}.")
    if not 0 <= experiment.seed < 2**31 - experiment.seeds:
        raise ValueError(f"seed must be at least 0 and below 2**31, got {experiment.seed}.")
    given, source = loaded or experiment.source.load()
    check_numbers(source, str(experiment.source))
    learner = registry.get(experiment.algorithm).load().make(given, experiment.config)
    steps_per_update = experiment.config.steps_per_update
    wanted = math.ceil(experiment.steps / steps_per_update)
    # Of the two intervals between evaluations that come closest to as many as asked for, the one that adds less.
    intervals = math.ceil(wanted / experiment.evaluations), max(1, wanted // experiment.evaluations)
    num_updates, eval_every = min((every * math.ceil(wanted / every), every) for every in intervals)
    if num_updates >= 2**31:
        raise ValueError(f"{experiment.steps} steps are {num_updates} updates, more than the counter holds (2**31).")
    one = devices.mesh(devices=jax.local_devices()[:1])

    def over(function: Any) -> Any:
        return devices.lanes_over(one, over_seeds(function, experiment.seeds), (0, None, None))

    return Program(
        given=given,
        learner=learner,
        hparams=jax.tree.map(loop.strong, experiment.hparams),
        source=source,
        keys=jax.vmap(random.key)(jnp.arange(experiment.seed, experiment.seed + experiment.seeds)),
        start=jax.jit(over(partial(loop.start, learner, num_updates=num_updates))),
        advance=jax.jit(over(partial(loop.chunk, learner, eval_every)), donate_argnums=0),
        steps_per_update=steps_per_update,
        eval_every=eval_every,
        num_updates=num_updates,
    )


def over_seeds(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """`function(run, hparams, source)` of `count` runs, whose leaves, and those of what it returns, are [S, ...].

    A single run is computed without that axis: XLA makes slower code for a CPU where an axis is 1, five times for NADE.
    """
    if count > 1:
        return jax.vmap(function, (0, None, None))

    def alone(runs: Any, hparams: Any, source: Any) -> Any:
        run = jax.tree.map(lambda leaf: leaf.squeeze(0), runs)
        return jax.tree.map(lambda leaf: leaf[None], function(run, hparams, source))

    return alone


def check_numbers(source: Any, name: str) -> None:
    """Refuse what is not a number.

    Raises:
        ValueError: NaN in `source`, with the array that holds it.
    """
    for path, leaf in jax.tree.leaves_with_path(source):
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.isnan(leaf).any():
            raise ValueError(
                f"{name}: {jax.tree_util.keystr(path, simple=True)} holds NaN; mend or remove those values."
            )


def facts(experiment: Experiment, program: Program) -> dict[str, Any]:
    """What must not change when a run is resumed, by flat names: the experiment and a checksum of its source."""
    described = flatten(encode(experiment))
    described.pop("source.data_folder", None)  # where data lies decides nothing, their checksum does
    checksum = 0
    for leaf in jax.tree.leaves(program.source):
        array = np.asarray(leaf)
        checksum = zlib.crc32(f"{array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.tobytes(), checksum)
    return {**described, "source.checksum": checksum}


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first few facts that differ, in words; empty if none does."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {old.get(name)} and is now {new.get(name)}" for name in names[:3])


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = (flatten(value, f"{prefix}.{name}" if prefix else name) for name, value in tree.items())
    return {name: value for part in parts for name, value in part.items()}


def encode(value: Any) -> Any:
    """`value` as JSON: dataclasses and NamedTuples with the name of their type, functions by name.

    Raises:
        ValueError: a function that has no importable name, or another value that JSON cannot hold.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        names = list(value._fields)
    elif isinstance(value, tuple | list):
        return [encode(item) for item in value]
    elif isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    elif value is None or isinstance(value, bool | int | float | str):
        return value
    elif callable(value):
        name = f"{value.__module__}:{value.__qualname__}"
        if "<" in name:
            raise ValueError(f"{name} cannot be named in a run folder: define it at the top of a module.")
        return {"function": name}
    elif np.ndim(value) == 0:
        return encode(np.asarray(value).item())
    else:
        raise ValueError(f"A {type(value).__name__} cannot be written to a run folder.")
    kind = f"{type(value).__module__}:{type(value).__qualname__}"
    return {"__type__": kind, **{name: encode(getattr(value, name)) for name in names}}


def decode(value: Any) -> Any:
    """The inverse of `encode`, up to lists, which become tuples."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "number" in value:
        return float(value["number"])
    module, _, name = value["__type__" if "__type__" in value else "function"].partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if "function" in value:
        return found
    return found(**{name: decode(item) for name, item in value.items() if name != "__type__"})
