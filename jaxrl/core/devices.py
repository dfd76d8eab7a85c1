"""Many devices: lanes spread over them, one large run split over them, and several processes.

Lanes need nothing of each other: each device runs its own program on its own lanes, without any communication. A run
is split along the environments it acts in and the batches it learns from: `split` marks where, the compiler does the
rest and adds up the gradients. To JAX a CPU is one device however many cores it has, and small operations leave all
but one of them idle: `use_cores` makes a device of each core, before JAX looks for devices.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

LANES, BATCH = "lanes", "batch"
LANES_AT_ONCE = 4  # on a core of a CPU


def use_cores() -> None:
    """Make each core of a CPU that this process may use a device of its own.

    Nothing changes if JAX has looked for devices already, or if their number was chosen before, by the environment
    variable JAX_NUM_CPU_DEVICES or by --xla_force_host_platform_device_count in XLA_FLAGS.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.config.values["jax_num_cpu_devices"] != -1:
        return
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:  # too late
        return


def mesh(axis: str = LANES, devices: Sequence[Any] | None = None) -> Mesh:
    """`devices`, those of this process if None, in a row along `axis`."""
    found = jax.local_devices() if devices is None else devices
    return Mesh(np.array(found), (axis,), axis_types=(AxisType.Auto,))


def lanes_over(mesh: Mesh, function: Callable[..., Any], axes: Any, unit: int = 1) -> Callable[..., Any]:
    """`function` of lanes, such as `Group.map` gives, with an equal share of them on each device.

    `axes` are those of its arguments, 0 or None as for `jax.vmap`; all it returns has lanes first. Each `unit` of
    consecutive lanes stays together, as populations must. A core of a CPU takes few lanes at once, one group after the
    other: what they touch stays in its caches then, and PPO's 16 lanes of 64 environments take a quarter less time.
    """
    if mesh.devices.flat[0].platform == "cpu":
        function = _few_at_once(function, axes, unit)
    if mesh.size == 1:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=_specs(axes), out_specs=PartitionSpec(LANES), check_vma=False)


def _few_at_once(function: Callable[..., Any], axes: Any, unit: int) -> Callable[..., Any]:
    """`function` of lanes, called on at most `LANES_AT_ONCE` of them, or on one unit, at a time."""

    def is_none(axis: Any) -> bool:
        return axis is None

    def in_groups(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        each = jax.tree.map(lambda axis, part: [axis] * len(jax.tree.leaves(part)), axes, arguments, is_leaf=is_none)
        along = jax.tree.leaves(each, is_leaf=is_none)
        lanes = [leaf for leaf, axis in zip(leaves, along, strict=True) if axis == 0]
        units = lanes[0].shape[0] // unit
        count = next(count for count in range(1, units + 1) if units % count == 0 and units // count * unit <= most)
        if count == 1:
            return function(*arguments)

        def one(group: list[Any]) -> Any:
            of_group = iter(group)
            mine = [next(of_group) if axis == 0 else leaf for leaf, axis in zip(leaves, along, strict=True)]
            return function(*jax.tree.unflatten(structure, mine))

        size = units // count * unit
        found = jax.lax.map(one, [leaf.reshape(count, size, *leaf.shape[1:]) for leaf in lanes])
        return jax.tree.map(lambda leaf: leaf.reshape(count * size, *leaf.shape[2:]), found)

    most = max(LANES_AT_ONCE, unit)
    return in_groups


def shardings(mesh: Mesh, axes: Any) -> Any:
    """Where arrays with these lane axes lie, as `jax.device_put` and `jax.jit` take it."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), _specs(axes))


def _specs(axes: Any) -> Any:
    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(LANES)

    return jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None)


def split(tree: Any, axis: int = 0) -> Any:
    """`tree` with `axis` of every leaf split over the devices of a mesh along BATCH; unchanged if none is in force.

    Learners get this where environments are stepped and batches drawn. `jax.set_mesh(devices.mesh(devices.BATCH))` puts
    a mesh in force. What does not divide evenly stays whole.
    """
    parts = _num_parts()

    def one(leaf: Any) -> Any:
        if parts == 1 or leaf.ndim <= axis or leaf.shape[axis] % parts:
            return leaf
        return jax.lax.with_sharding_constraint(leaf, PartitionSpec(*[None] * axis, BATCH))

    return jax.tree.map(one, tree)


def mean_of_shares(function: Callable[..., Any], params: Any, batch: Any) -> Any:
    """`function(params, batch)`, whose results are means over the examples of `batch`, leaves [B, ...].

    Each device of a mesh along BATCH works on its share of them, and the results are averaged at the end. Without such
    a mesh, or if the examples do not divide evenly, it is the function itself.
    """
    parts = _num_parts()
    if parts == 1 or jax.tree.leaves(batch)[0].shape[0] % parts:
        return function(params, batch)

    def share(params: Any, batch: Any) -> Any:
        return jax.lax.pmean(function(params, batch), BATCH)

    specs = PartitionSpec(), PartitionSpec(BATCH)
    return jax.shard_map(share, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)(params, batch)


def _num_parts() -> int:
    """Devices along BATCH of the mesh in force, 1 without one."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(BATCH, 1)


def join(coordinator: str, num_processes: int, process: int) -> None:
    """Make this one of several processes. Before JAX looks for devices, in each of them.

    Args:
        coordinator: host:port of process 0, which the others can reach.
        num_processes: how many there are.
        process: which of them this is, from 0.
    """
    jax.distributed.initialize(coordinator, num_processes, process)


def gather(content: bytes) -> list[bytes]:
    """What each process gives, to all of them, in order. Waits for the slowest."""
    if jax.process_count() == 1:
        return [content]
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array([len(content)]))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    together = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]) for row, size in zip(together, sizes.ravel(), strict=True)]
