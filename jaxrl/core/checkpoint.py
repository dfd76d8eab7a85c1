"""Checkpoints of runs: arrays on disk, whole or not at all. The only file that knows orbax.

A folder holds one sub-folder per checkpoint, named by the order of saving and the step: `arrays/`, written by orbax,
`checkpoint.json` with the step, the metadata and the shape and dtype of every leaf, and `SHA256SUMS` over the others,
in the format that `sha256sum --check` reads. A checkpoint is written under a temporary name and flushed to the disk
before one rename makes it visible, so a process killed at any moment leaves the ones before it untouched.
"""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax import random, tree_util

ARRAYS, FACTS, SUMS = "arrays", "checkpoint.json", "SHA256SUMS"
TEMPORARY = "temporary"


class Checkpoint(NamedTuple):
    """What `load` gives."""

    tree: Any
    step: int
    metadata: dict[str, Any]


def save(folder: Path | str, tree: Any, step: int, *, metadata: dict[str, Any] | None = None, keep: int = 2) -> None:
    """Write `tree` as the newest checkpoint in `folder`; when this returns it is on the disk.

    Args:
        folder: made if missing. One process at a time may save into it.
        tree: leaves are arrays of any dtype, PRNG keys included.
        step: what to call this moment; told back by `load`.
        metadata: anything JSON can hold that belongs to the same moment.
        keep: how many checkpoints to leave there, older ones are deleted. At least 2 survive a damaged newest one.

    Raises:
        ValueError: `keep` below 1.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} would delete the checkpoint just saved: use at least 1.")
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed save left
    temporary.mkdir()

    names, leaves = _named_leaves(tree)
    facts = {
        "step": int(step),
        "metadata": metadata or {},
        "leaves": {name: _describe(leaf) for name, leaf in zip(names, leaves, strict=True)},
    }
    _write_arrays(temporary / ARRAYS, {name: _to_numpy(leaf) for name, leaf in zip(names, leaves, strict=True)})
    (temporary / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    (temporary / SUMS).write_text("".join(f"{line}\n" for line in _checksums(temporary)))
    _flush(temporary)

    existing = _checkpoints(folder)
    serial = 1 + max((_serial(path) for path in existing), default=0)
    temporary.rename(folder / f"{serial:06d}-step-{int(step)}")
    _flush_entry(folder)
    for path in existing[: max(0, len(existing) + 1 - keep)]:
        path.rename(temporary)  # a half-deleted checkpoint must not look like a damaged one
        shutil.rmtree(temporary)


def load(folder: Path | str, like: Any) -> Checkpoint:
    """The newest whole checkpoint in `folder`. A damaged one is named in a warning and the one before it is used.

    Args:
        folder: where `save` wrote.
        like: a tree with the structure, shapes and dtypes of the one saved; its leaves are arrays or
            `jax.ShapeDtypeStruct`s, `jax.eval_shape(...)` gives such a tree. Leaves with a sharding are placed by it.

    Raises:
        FileNotFoundError: `folder` holds no checkpoint.
        ValueError: every checkpoint is damaged, or what is stored differs from `like`.
    """
    damages = []
    for path in reversed(_checkpoints(Path(folder).absolute())):
        damage = _damage(path)
        if damage is None:
            return _read(path, like)
        damages.append(f"{path.name}: {damage}")
        warnings.warn(f"Damaged checkpoint passed over in {folder}: {damages[-1]}.", stacklevel=2)
    if damages:
        raise ValueError(f"No whole checkpoint in {folder}: all {len(damages)} are damaged ({'; '.join(damages)}).")
    raise FileNotFoundError(f"No checkpoint in {folder}.")


def newest(folder: Path | str) -> tuple[int, dict[str, Any]] | None:
    """Step and metadata of the newest checkpoint in `folder` that tells them; None if there is none.

    Nothing else of it is looked at: `load` finds out whether it is whole.
    """
    for path in reversed(_checkpoints(Path(folder).absolute())):
        try:
            facts = json.loads((path / FACTS).read_text())
            return facts["step"], facts["metadata"]
        except (OSError, ValueError, KeyError):
            continue
    return None


def _read(path: Path, like: Any) -> Checkpoint:
    facts = json.loads((path / FACTS).read_text())
    names, leaves = _named_leaves(like)
    expected = {name: _describe(leaf) for name, leaf in zip(names, leaves, strict=True)}
    _check_same(path, facts["leaves"], expected)
    stored = _read_arrays(path / ARRAYS)

    def restore(name: str, leaf: Any) -> Any:
        if name not in stored:  # no elements
            array = jnp.zeros(leaf.shape, leaf.dtype)
        elif jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            implementation = random.key_impl(jnp.zeros((), leaf.dtype))
            array = random.wrap_key_data(jnp.array(stored[name]), impl=implementation)
        else:
            array = jnp.array(stored[name])  # a copy: memory borrowed from numpy could not be donated
        # An array that was free to move stays so: a committed one would be another argument type to jit.
        placed = leaf.sharding is not None and getattr(leaf, "committed", True)
        return jax.device_put(array, leaf.sharding) if placed else array

    restored = [restore(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
    return Checkpoint(jax.tree.unflatten(jax.tree.structure(like), restored), facts["step"], facts["metadata"])


def _check_same(path: Path, stored: dict[str, str], expected: dict[str, str]) -> None:
    def differences() -> list[str]:
        names = [*expected, *(name for name in stored if name not in expected)]
        pairs = ((name, stored.get(name, "nothing"), expected.get(name, "nothing")) for name in names)
        return [f"{name}: stored {old}, expected {new}" for name, old, new in pairs if old != new]

    if different := differences():
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise ValueError(
            f"Checkpoint {path} differs from what is to be restored in {'; '.join(different[:3])}{more}. "
            "Was it saved with another configuration?"
        )


def _named_leaves(tree: Any) -> tuple[list[str], list[Any]]:
    """Places in the tree, "tree.state['kernel']" say, and the leaves there, arrays or their shapes."""
    paths = tree_util.tree_flatten_with_path(tree)[0]
    names = [f"tree{tree_util.keystr(path)}" for path, _ in paths]
    leaves = [leaf if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else jnp.asarray(leaf) for _, leaf in paths]
    return names, leaves


def _describe(leaf: Any) -> str:
    """Dtype and shape as in `float32[4,2]`; keys as in `key<fry>[3]`."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _to_numpy(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(random.key_data(leaf) if is_key else leaf)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    from orbax import checkpoint as orbax  # a slow import that a run without checkpoints need not pay

    with orbax.StandardCheckpointer() as checkpointer:
        # Orbax refuses arrays without elements; their shape, kept in the facts, is all there is to know of them.
        checkpointer.save(path, {name: array for name, array in arrays.items() if array.size})


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    from orbax import checkpoint as orbax

    with orbax.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path)


def _checkpoints(folder: Path) -> list[Path]:
    """From the oldest to the newest."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _serial(path)), key=_serial)


def _serial(path: Path) -> int:
    """The number at the front of a checkpoint's name, from 1 on; 0 for any other name."""
    serial, separator, _ = path.name.partition("-step-")
    return int(serial) if separator and serial.isdecimal() else 0


def _files(path: Path) -> list[Path]:
    """Every file of a checkpoint, but for hidden ones, which file managers and network drives leave anywhere."""
    files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _checksums(path: Path) -> list[str]:
    lines = []
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        if name != SUMS:
            with file.open("rb") as stream:
                lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}")
    return lines


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing."""
    try:
        recorded = (path / SUMS).read_bytes().decode("ascii", "replace")
    except OSError as error:
        return f"{SUMS} cannot be read ({error.strerror})"
    found = _checksums(path)
    if recorded == "".join(f"{line}\n" for line in found):
        return None
    recorded_files = dict(reversed(line.partition("  ")[::2]) for line in recorded.splitlines())
    found_files = dict(reversed(line.partition("  ")[::2]) for line in found)
    for name in sorted(recorded_files.keys() | found_files.keys()):
        if name not in found_files:
            return f"{name} is missing"
        if recorded_files.get(name) != found_files[name]:
            return f"{name} does not match its checksum"
    return f"{SUMS} is not as it was written"


def _flush(path: Path) -> None:
    for file in _files(path):
        _flush_entry(file)
    for folder in [path, *(entry for entry in path.rglob("*") if entry.is_dir())]:
        _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
