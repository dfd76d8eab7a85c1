"""Memory that a compiled program needs, before it runs, and what a device has."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

SPARE = 0.1  # of a device's memory, left for what no program asks for


def needed(compiled: Any) -> int:
    """Bytes on each device while a compiled program runs: arguments, results and what it holds in between."""
    found = compiled.memory_analysis()
    arrays = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return arrays + found.temp_size_in_bytes + found.generated_code_size_in_bytes


def available(device: Any) -> int:
    """Bytes on `device` for programs. The devices that are cores of one CPU share its free memory evenly."""
    stats = device.memory_stats()
    if stats is not None and "bytes_limit" in stats:
        whole = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        whole = _free_on_host() // len(jax.local_devices(backend=device.platform))
    return int((1 - SPARE) * whole)


def _free_on_host() -> int:
    """Bytes that can still be had, of the machine or of the container, whichever has less."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    free = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except OSError:  # not in a container
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def size(tree: Any) -> int:
    """Bytes of all leaves, arrays or their shapes."""
    return sum(int(np.prod(leaf.shape)) * _item_size(leaf.dtype) for leaf in jax.tree.leaves(tree))


def _item_size(dtype: Any) -> int:
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return 8  # two words, of the default generator
    return np.dtype(dtype).itemsize


def fitting(lanes: int, bytes_needed: int, bytes_shared: int, bytes_available: int) -> int:
    """How many lanes fit, judged by the bytes that `lanes` of them need and those of them that all lanes share."""
    return max(0, int((bytes_available - bytes_shared) * lanes // max(1, bytes_needed - bytes_shared)))
