"""Dataclasses and NamedTuples as command-line options. The only file that knows tyro."""

import contextlib
import dataclasses
import functools
import inspect
import io
import operator
import re
import sys
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, Union

import tyro
from tyro import constructors

from jaxrl.core.schedule import Linear

T = TypeVar("T")
BOX = "╭─╮│╰╯•"


def parse(words: Sequence[str], default: T, prog: str, description: str) -> T:
    """`default`, a dataclass instance, changed as `words` say.

    Its fields are the options. Those of a nested dataclass are written with dots, `--network.hidden 64 64`, or without
    if its field is marked `FLAT`. A field's comment is its help.

    Raises:
        ValueError: what the words ask for is unknown or of the wrong kind, in one line.
        SystemExit: help was asked for and given.
    """
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(
                type(default),
                args=list(words),
                default=default,
                prog=prog,
                description=description,
                config=(tyro.conf.CascadeSubcommandArgs,),
                registry=_registry(),
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(_one_line(heard.getvalue())) from None
        raise
    finally:
        if "usage:" in heard.getvalue():
            sys.stderr.write(heard.getvalue())


def _one_line(box: str) -> str:
    """What tyro's boxed message says."""
    lines = [line.strip(BOX + " ") for line in box.splitlines() if line.strip(BOX + "- ")]
    text = " ".join(lines[1:])  # without its title
    if not text.startswith("Unrecognized"):
        return re.sub(r"\s+(Argument helptext|For full helptext|Full helptext).*", "", text)
    said, _, suggested = text.partition("Perhaps you meant:")
    words = re.split(r"[\s,=]+", said.partition("options: ")[2])
    unknown = next((word for word in words if word.startswith("--") and word != "--help"), words[0])
    near = [word for word in dict.fromkeys(re.findall(r"--[\w.-]+", suggested)) if word != "--help"]
    if unknown in near:
        behind = " or ".join(dict.fromkeys(re.findall(r"(\S+:\S+) --help", suggested)))
        return f"{unknown} is an option of {behind}: write {behind} before it."
    kind = "option" if unknown.startswith("--") else "argument"
    return f"Unknown {kind} {unknown}: " + (f"did you mean {' or '.join(near)}?" if near else "--help shows them all.")


def _registry() -> constructors.ConstructorRegistry:
    registry = constructors.ConstructorRegistry()

    @registry.struct_rule
    def fields(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
        """The fields of a default instance, each typed as the command line can fill it."""
        default = info.default
        kind = type(default)
        if info.type is not kind:
            return None
        if dataclasses.is_dataclass(default):
            metadata: dict[str, Any] = {field.name: field.metadata for field in dataclasses.fields(default)}
        elif isinstance(default, tuple) and hasattr(default, "_fields"):
            metadata = {name: {} for name in default._fields}
        else:
            return None
        hints, helps = typing.get_type_hints(kind), comments(kind)
        specs = []
        for name, notes in metadata.items():
            value = getattr(default, name)
            hint: Any = _number(value) if isinstance(default, tuple) else _hint(hints[name], value)
            if notes.get("flat"):
                kept: Any = type(value)
                hint = Annotated[kept, tyro.conf.arg(name="")]
            if notes.get("hidden"):
                hint = Annotated[hint, tyro.conf.Suppress]
            specs.append(constructors.StructFieldSpec(name, hint, value, notes.get("help", helps.get(name))))
        return constructors.StructConstructorSpec(kind, tuple(specs))

    return registry


def _hint(hint: Any, value: Any) -> Any:
    """`hint` without what no command line can give: of dataclasses and functions, the dataclasses."""
    if not dataclasses.is_dataclass(value):
        return hint
    union = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else ()
    kinds = [kind for kind in union if dataclasses.is_dataclass(kind)]
    choice: Any = functools.reduce(operator.or_, kinds) if type(value) in kinds else type(value)
    return choice


def _number(value: Any) -> Any:
    """The type of a hyperparameter: a number, or a `Linear` schedule written initial:final or initial:final:until."""

    def read(words: list[str]) -> Any:
        parts = words[0].split(":")
        if len(parts) == 1 and isinstance(value, int):
            return int(parts[0])
        numbers = [float(part) for part in parts]
        if len(numbers) > 3 or (len(numbers) == 3 and not 0 < numbers[2] <= 1):
            raise ValueError(f"{words[0]} is not a number, initial:final or initial:final:until with until in (0, 1]")
        return numbers[0] if len(numbers) == 1 else Linear(*numbers)

    def write(number: Any) -> list[str]:
        shown = number[:2] if isinstance(number, Linear) and number.until == 1.0 else number
        return [":".join(map(str, shown)) if isinstance(number, Linear) else str(number)]

    spec = constructors.PrimitiveConstructorSpec(1, "NUMBER[:FINAL[:UNTIL]]", read, lambda _: True, write)
    return Annotated[Any, spec]


def comments(kind: type) -> dict[str, str]:
    """The comment behind each field of a class, where its source can be read."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        with contextlib.suppress(OSError, TypeError):
            found |= dict(re.findall(r"^    (\w+):[^#\n]*#\s*(.*)$", inspect.getsource(owner), re.MULTILINE))
    return found
