"""Checks where a user's mistake enters: each message names the values and the mend."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable
from typing import Any, Literal


def choices(config: Any) -> None:
    """Refuse a word in a dataclass, or in one within it, that is none of those its field is declared to choose from.

    Raises:
        ValueError: with the word and all there are.
    """
    declared = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), declared[field.name]
        if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
            *others, last = map(str, typing.get_args(kind))
            raise ValueError(f"Unknown {field.name} {value!r}: use {', '.join(others)} or {last}.")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            choices(value)


def at_least_one(**sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: with the name and value of the first.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1.")


def divides(parts: int, whole: int, parts_name: str, whole_name: str) -> None:
    """Refuse a `whole` that does not split into `parts` equal parts.

    Raises:
        ValueError: with both and the nearest numbers of parts that divide.
    """
    if whole % parts:
        below = next(n for n in range(min(parts, whole), 0, -1) if whole % n == 0)
        above = next((n for n in range(parts + 1, whole + 1) if whole % n == 0), below)
        nearest = f"{below}" if above == below else f"{below} or {above}"
        raise ValueError(
            f"{parts_name}={parts} does not divide {whole_name}={whole} into equal parts: use {parts_name}={nearest}."
        )


def can_standardize(count: int, what: str, mend: str) -> None:
    """Refuse to move a single advantage to mean 0: nothing would be left to learn from.

    Raises:
        ValueError: with the place and the mend.
    """
    if count < 2:
        raise ValueError(f"Normalised, the one advantage of each {what} is 0, and no policy learns from it: {mend}.")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a `name` that is not among the `known` ones: the nearest of them, or all."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
    hint = " or ".join(by_lower[match] for match in near) or f"one of {', '.join(by_lower.values())}"
    return f"Unknown {what} {name!r}: did you mean {hint}?"
