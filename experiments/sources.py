"""What a learner learns from, as options: an environment or a data set."""

import ast
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Environment:
    """An environment that gymnax registers."""

    env: str = "CartPole-v1"  # environment, `python -m experiments list` shows all
    env_kwargs: tuple[str, ...] = ()  # name=value pairs for it
    hide: tuple[int, ...] = ()  # entries of its observation vector not to show; 1 3 are CartPole's velocities

    unit: ClassVar[str] = "environment steps"

    def __str__(self) -> str:
        hidden = ["hiding", *map(str, self.hide)] if self.hide else []
        return " ".join([self.env, *self.env_kwargs, *hidden])

    def load(self) -> tuple[Any, Any]:
        """The environment for `make`, and its parameters.

        Raises:
            ValueError: unknown name or argument, entries to hide that are not there.
        """
        from jaxrl import envs, wrappers

        env, params = _call(envs.make, self.env, self.env_kwargs)
        return (wrappers.mask_observation(env, self.hide) if self.hide else env), params

    def kwargs(self) -> dict[str, Any]:
        """`env_kwargs` as Python has them."""
        return dict(_pair(pair) for pair in self.env_kwargs)


@dataclass(frozen=True)
class Data:
    """A data set with fixed, named splits."""

    data: str = "digits"  # data set, `python -m experiments list` shows all
    data_folder: str | None = None  # folder of its files, for data sets that are no part of a package
    data_kwargs: tuple[str, ...] = ()  # name=value pairs for it

    unit: ClassVar[str] = "examples"

    def __str__(self) -> str:
        return self.data

    def load(self) -> tuple[Any, Any]:
        """The description of the data for `make`, and its arrays.

        Raises:
            ValueError: unknown name or argument, missing or damaged file.
        """
        from generative import datasets

        return _call(datasets.load, self.data, self.data_kwargs, folder=self.data_folder)


def _call(function: Any, name: str, pairs: tuple[str, ...], **kwargs: Any) -> tuple[Any, Any]:
    given = dict(_pair(pair) for pair in pairs)
    try:
        return function(name, **kwargs, **given)
    except TypeError as error:
        if not given:
            raise
        raise ValueError(f"{name} does not take {' '.join(pairs)}: {error}") from error


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise ValueError(f"{text!r} is not of the form name=value.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
