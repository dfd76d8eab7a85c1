"""Fields of nested dataclasses, NamedTuples and dicts by dotted names, and which values they can hold in a sweep."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxrl.core import checks
from jaxrl.core.schedule import Linear

PARTS = ("hparams", "config", "source")  # where a field may lie; config alone is static
PLAIN = (bool, int, float, str, tuple)


class Field(NamedTuple):
    """What is swept, and over which values."""

    name: str  # as it was called
    part: str  # one of PARTS
    path: tuple[str, ...]  # to it, in that part
    values: tuple[Any, ...]  # in a grid those that are combined, else one for each point


def names_in(tree: Any) -> list[str]:
    """Names of the fields of a dataclass, NamedTuple or dict; nothing of anything else."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return list(tree._fields)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [field.name for field in dataclasses.fields(tree)]
    return list(tree) if isinstance(tree, dict) else []


def at(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies at `path`."""
    for name in path:
        tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    return tree


def replaced(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    """`tree` with `value` at `path`."""
    if not path:
        return value
    change = {path[0]: replaced(at(tree, path[:1]), path[1:], value)}
    if isinstance(tree, dict):
        return {**tree, **change}
    return tree._replace(**change) if hasattr(tree, "_replace") else dataclasses.replace(tree, **change)


def present(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies at `path`; a whole number as a float where its class has one by default, for 1 may be meant as 1.0."""
    owner, value = at(tree, path[:-1]), at(tree, path)
    defaults = getattr(owner, "_field_defaults", {})
    if dataclasses.is_dataclass(owner):
        defaults = {field.name: field.default for field in dataclasses.fields(owner)}
    is_float = isinstance(owner, Linear) or isinstance(defaults.get(path[-1]), float)
    return float(value) if is_float and type(value) is int else value


def find(parts: dict[str, Any], name: str) -> tuple[str, tuple[str, ...]]:
    """Which of `parts`, by PARTS, has a field called `name`, and its path there.

    Raises:
        ValueError: none has, with the nearest names, or more than one.
    """
    path = tuple(name.split("."))
    if path[0] in PARTS and len(path) > 1:
        owners, path = [path[0]], path[1:]
    else:
        owners = [part for part in PARTS if path[0] in names_in(parts[part])]
    if len(owners) > 1:
        choices = " or ".join(f"{owner}.{name}" for owner in owners)
        raise ValueError(f"{name} is a field of {' and '.join(owners)}: say {choices}.")
    if not owners:
        known = [each for part in PARTS for each in names_in(parts[part])]
        raise ValueError(checks.unknown("field", path[0], known))
    here = parts[owners[0]]
    for depth, step in enumerate(path):
        known, before = names_in(here), ".".join(path[:depth]) or owners[0]
        if not known:
            raise ValueError(f"{name}: {before} is {here!r}, which has no fields.")
        if step not in known:
            raise ValueError(checks.unknown(f"field of {before}", step, known))
        here = at(here, (step,))
    return owners[0], path


def make(parts: dict[str, Any], name: str, values: Any) -> Field:
    """The field called `name`, with `values` as it can hold them.

    Raises:
        ValueError: as `find`; no values; one that cannot be traced, or that Config cannot hold.
    """
    part, path = find(parts, name)
    base = present(parts[part], path)
    values = tuple(values)
    if not values:
        raise ValueError(f"{name} has no values to sweep over.")
    if part == "config":
        return Field(name, part, path, tuple(_static(name, value, base) for value in values))
    mark = object()
    if not any(leaf is mark for leaf in jax.tree.leaves(replaced(parts[part], path, mark))):
        raise ValueError(f"{name} cannot be swept: it is static in {type(parts[part]).__name__}.")
    if part == "hparams" and any(isinstance(value, Linear) for value in values):
        lines = (value if isinstance(value, Linear) else Linear(value, value) for value in values)
        values = tuple(Linear(*(_traced(name, number, 0.0) for number in line)) for line in lines)
    else:
        now = 0.0 if isinstance(base, Linear) else base
        values = tuple(_traced(name, value, now, fixed=part == "source") for value in values)
    return Field(name, part, path, values)


def label(value: Any) -> Any:
    """`value` as a coordinate: numbers as they are, schedules as "initial:final:until", all else in words."""
    if isinstance(value, Linear):
        return ":".join(f"{number:g}" for number in value)
    if isinstance(value, bool | int | float | str):
        return value
    return value.item() if isinstance(value, Array | np.ndarray | np.generic) and value.ndim == 0 else str(value)


def _traced(name: str, value: Any, base: Any, *, fixed: bool = False) -> Any:
    """`value` as it can stand where `base` is in a traced program; if `fixed` only with the same dtype."""
    array = np.asarray(value) if jax.tree_util.all_leaves([value]) else np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}={value!r} cannot be traced: give numbers, or arrays of them.")
    if base is None:
        return array if array.shape else array.item()
    now = np.asarray(base)
    if array.shape != now.shape:
        raise ValueError(f"{name}={value!r} has shape {array.shape}, where the present value has {now.shape}.")
    if fixed and array.dtype.kind == "f" and now.dtype.kind != "f" and (array % 1).any():
        raise ValueError(f"{name}={value!r} must be a whole number, as the present value {base} is.")
    if fixed:
        array = array.astype(now.dtype)
    if array.shape:
        return array
    return float(array) if now.dtype.kind == "f" else array.item()


def _static(name: str, value: Any, base: Any) -> Any:
    """`value` if it is of the kind that Config holds there, hashable."""
    value = value.item() if isinstance(value, np.generic) else tuple(value) if isinstance(value, list) else value
    if isinstance(value, int) and isinstance(base, float) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and type(base) is int and value.is_integer():
        value = int(value)  # values that are evenly spaced come as floats
    if dataclasses.is_dataclass(base) and isinstance(value, PLAIN):
        inner = " or ".join(f"{name}.{field.name}" for field in dataclasses.fields(base))
        raise ValueError(f"{name}={value!r} stands for a whole {type(base).__name__}: sweep {inner}.")
    if isinstance(base, PLAIN) and isinstance(value, PLAIN) and type(value) is not type(base):
        kinds = f"a {type(value).__name__}, where Config has a {type(base).__name__}"
        raise ValueError(f"{name}={value!r} is {kinds}.")
    try:
        hash(value)
    except TypeError:
        raise ValueError(f"{name}={value!r} cannot be static: use a tuple or a frozen dataclass.") from None
    return value
