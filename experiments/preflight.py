"""Know before you go: compile a whole training program for a TPU that is not there, and see whether it fits.

The compiler of TPUs, libtpu, compiles for any of them on any Linux machine (extra `tpu`). No array is made on a device.
"""

import dataclasses
import math
import os
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments import counting
from experiments.experiment import Experiment, build, over_seeds
from jaxrl.core import checks, loop, memory

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@dataclass(frozen=True)
class Topology:
    """TPU chips as Colab and Google Cloud offer them."""

    layout: str  # as libtpu names it
    gigabytes: float  # of memory per device, in units of 2**30 bytes
    options: tuple[tuple[str, Any], ...] = ()  # of libtpu

    def devices(self) -> Any:
        """Descriptions of the devices.

        Raises:
            ValueError: libtpu is missing.
        """
        from jax.experimental import topologies

        # It would look for a TPU in the network, complain that this machine has none, and refuse a second process.
        quietly = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        for name, value in quietly.items():
            os.environ.setdefault(name, value)
        try:
            found = topologies.get_topology_desc(self.layout, "tpu", **dict(self.options))
        except Exception as error:
            if "TPU support not installed" not in str(error):
                raise
            raise ValueError(
                "Preflight needs libtpu, the compiler of TPUs: pip install 'jaxrl-generative[tpu]'."
            ) from error
        return np.array(found.devices)


ONE_CHIP = (("chips_per_host_bounds", (1, 1, 1)),)
TOPOLOGIES = {
    "v5e-1": Topology("v5e:1x1", 16, ONE_CHIP),
    "v5e-4": Topology("v5e:2x2", 16),
    "v5e-8": Topology("v5e:2x4", 16),
    "v6e-1": Topology("v6e:1x1", 32, ONE_CHIP),
    "v6e-4": Topology("v6e:2x2", 32),
    "v6e-8": Topology("v6e:2x4", 32),
    "v4-8": Topology("v4:2x2x1", 16),  # 4 chips of 2 devices that share 32 GiB
    "v5p-8": Topology("v5p:2x2x1", 95),  # 4 chips, each one device
}


def topology(name: str) -> Topology:
    """The topology called `name`.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in TOPOLOGIES:
        raise ValueError(checks.unknown("topology", name, TOPOLOGIES))
    return TOPOLOGIES[name]


class Plan(NamedTuple):
    """What the compiler says of a training program on TPUs."""

    devices: int
    lanes: int  # seeds, all devices together
    bytes_per_device: int  # program, arguments, results and temporaries; from smaller sizes if far too many
    device_bytes: int  # that it has
    most_lanes: int  # that would fit, all devices together; from two compiled sizes
    tile_bytes: int  # of the state per device beyond its numbers: padding to the tiles of a TPU
    operations: float  # multiplications and additions in matrix products from one evaluation to the next, all lanes
    collectives: dict[str, int]  # operations between devices, by kind; a sweep needs none
    compile_seconds: float  # here, of the size asked for or a smaller one that compiles

    @property
    def fits(self) -> bool:
        return self.bytes_per_device <= self.device_bytes


class Compiled(NamedTuple):
    """One size, compiled."""

    bytes_per_device: int
    argument_bytes: int  # per device, padding included
    collectives: dict[str, int]
    seconds: float


def check(experiment: Experiment, name: str) -> Plan:
    """Compile `experiment`, its seeds spread over the devices of topology `name`, from one evaluation to the next.

    Raises:
        ValueError: unknown topology, seeds that the devices do not divide, libtpu missing, or a program that does not
            compile, with what the compiler says of it.
    """
    chosen = topology(name)
    devices = chosen.devices()
    count = len(devices)
    if experiment.seeds % count:
        raise ValueError(
            f"{experiment.seeds} seeds do not spread evenly over the {count} devices of {name}: "
            f"use --seeds {math.ceil(experiment.seeds / count) * count}."
        )
    asked = experiment.seeds // count  # lanes on each device
    fewer, small, more, large = _two_sizes(experiment, devices, asked)

    def line(small_bytes: int, large_bytes: int) -> int:
        """Bytes for the lanes asked for."""
        return small_bytes + (large_bytes - small_bytes) * (asked - fewer) // (more - fewer)

    bytes_per_device = line(small.bytes_per_device, large.bytes_per_device)
    per_lane = max(1.0, (large.bytes_per_device - small.bytes_per_device) / (more - fewer))
    device_bytes = int(chosen.gigabytes * 2**30)
    most = max(0, asked + math.floor((device_bytes - bytes_per_device) / per_lane))
    most = most // 8 * 8 if most > 8 else most  # a tile holds 8, and 9 may need as much as 16
    most = max(most, asked) if bytes_per_device <= device_bytes else most
    plain = argument_bytes(_shapes(experiment)[1], count)
    return Plan(
        devices=count,
        lanes=experiment.seeds,
        bytes_per_device=bytes_per_device,
        device_bytes=device_bytes,
        most_lanes=most * count,
        tile_bytes=line(small.argument_bytes, large.argument_bytes) - plain,
        operations=operations(experiment),
        collectives=small.collectives,
        compile_seconds=small.seconds,
    )


def _two_sizes(experiment: Experiment, devices: np.ndarray, asked: int) -> tuple[int, Compiled, int, Compiled]:
    """Two numbers of lanes on each device and their programs: those asked for and twice as many, or what compiles.

    One lane more may cost nothing, since the tiles of a TPU hold several.

    Raises:
        ValueError: there is no room for even one.
    """
    fewer, more = asked, 2 * asked
    small = _compile(experiment, devices, fewer)
    large = _compile(experiment, devices, more) if small else None
    while small is None or large is None:
        if fewer > 1:
            fewer, more = fewer // 2, fewer
            small, large = _compile(experiment, devices, fewer), small
        elif small is None:
            raise ValueError(f"{experiment} does not fit, not even with one lane on each device: use smaller sizes.")
        else:  # the second lane is taken to need as much as the first
            large = small._replace(bytes_per_device=2 * small.bytes_per_device, argument_bytes=2 * small.argument_bytes)
    return fewer, small, more, large


def _shapes(experiment: Experiment) -> tuple[Any, tuple[Any, Any, Any]]:
    """The program of one chunk over lanes, and the shapes of what it is called with."""
    program = build(experiment)
    chunk = over_seeds(partial(loop.chunk, program.learner, program.eval_every), experiment.seeds)
    return chunk, jax.eval_shape(lambda *args: args, program.runs_shape(), program.hparams, program.source)


def _compile(experiment: Experiment, devices: np.ndarray, lanes: int) -> Compiled | None:
    """`experiment` with `lanes` on each device; None where the compiler finds no room for so many."""
    try:
        return compile(*_shapes(dataclasses.replace(experiment, seeds=lanes * len(devices))), devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise ValueError(f"{experiment} does not compile for this TPU: {str(error)[:1000]}") from error


def compile(chunk: Any, shapes: tuple[Any, Any, Any], devices: np.ndarray) -> Compiled:
    """Compile `chunk`, of (runs, hparams, source) with these shapes, its lanes spread over `devices`."""
    runs, hparams, source = shapes
    mesh = Mesh(devices.ravel(), ("lanes",))
    over, everywhere = P("lanes"), P()
    # Every device runs its own lanes and waits for no other, also where lanes end their episodes at different times.
    spread = jax.shard_map(chunk, mesh=mesh, in_specs=(over, everywhere, everywhere), out_specs=over, check_vma=False)
    placed = [
        jax.tree.map(lambda leaf, spec=spec: _placed(leaf, NamedSharding(mesh, spec)), tree)
        for tree, spec in ((runs, over), (hparams, everywhere), (source, everywhere))
    ]
    begin = time.perf_counter()
    program = jax.jit(spread, donate_argnums=0).trace(*placed).lower(lowering_platforms=("tpu",)).compile()
    seconds = time.perf_counter() - begin
    needed: Any = program.memory_analysis()
    total = (
        needed.argument_size_in_bytes
        + needed.output_size_in_bytes
        + needed.temp_size_in_bytes
        + needed.generated_code_size_in_bytes
        - needed.alias_size_in_bytes
    )
    text = program.as_text() or ""
    found = {kind: len(re.findall(rf"\b{kind}(?:-start)?\(", text)) for kind in COLLECTIVES}
    return Compiled(total, needed.argument_size_in_bytes, {k: n for k, n in found.items() if n}, seconds)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def argument_bytes(shapes: tuple[Any, Any, Any], count: int) -> int:
    """Of runs, hparams and source on each of `count` devices, without padding."""
    runs, hparams, source = map(memory.size, shapes)
    return runs // count + hparams + source


def operations(experiment: Experiment) -> float:
    """Multiplications and additions in the matrix products of one chunk of all lanes."""
    chunk, shapes = _shapes(experiment)
    return counting.products(jax.make_jaxpr(chunk)(*shapes).jaxpr)


def text(experiment: Experiment, name: str, plan: Plan) -> str:
    """The plan for the eye."""
    collectives = ", ".join(f"{number} {kind}" for kind, number in plan.collectives.items()) or "none"
    verdict = "fits" if plan.fits else "does not fit"
    return "\n".join(
        [
            f"{experiment} compiles for {name}, {plan.lanes} seeds on {plan.devices} devices, in "
            f"{plan.compile_seconds:.1f} s here.",
            f"memory       {size(plan.bytes_per_device)} per device of {size(plan.device_bytes)}: {verdict}",
            f"lanes        about {plan.most_lanes:,} fit",
            f"padding      {size(plan.tile_bytes)} per device, of the state's tiles",
            f"products     {plan.operations:.3g} floating-point operations from one evaluation to the next",
            f"collectives  {collectives}",
        ]
    )


def size(number: float) -> str:
    """Bytes for the eye."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(number) < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"
