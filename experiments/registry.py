"""Every learner by name. A new algorithm or model is one line here."""

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import sources


@dataclass(frozen=True)
class Learner:
    """Where a learner lives, what it learns from and which of its metrics is its score."""

    module: str
    source: type[sources.Environment] | type[sources.Data]
    score: str
    unit: str = ""  # of the score
    higher_is_better: bool = True

    def load(self) -> ModuleType:
        """Its module, with `Config`, `Hyperparams` and `make`."""
        return importlib.import_module(self.module)

    def summary(self) -> str:
        """The first line of its module's docstring, read without importing it."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None and spec.origin is not None
        return (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").split("\n")[0]


def agent(name: str) -> Learner:
    """An algorithm of `jaxrl.algorithms`, scored by its return."""
    return Learner(f"jaxrl.algorithms.{name}", sources.Environment, "eval/return")


def model(name: str, score: str = "eval/elbo", **kwargs: Any) -> Learner:
    """A model of `generative.models`, scored by its bound or likelihood."""
    return Learner(f"generative.models.{name}", sources.Data, score, "nats per example", **kwargs)


LEARNERS = {
    "ppo": agent("ppo"),
    "vae": model("vae"),
}


def get(name: str) -> Learner:
    """The learner called `name`.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in LEARNERS:
        raise ValueError(unknown("algorithm", name, LEARNERS))
    return LEARNERS[name]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a `name` that is not among the `known` ones."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
    hint = " or ".join(by_lower[match] for match in near) or f"one of {', '.join(by_lower.values())}"
    return f"Unknown {what} {name!r}: did you mean {hint}?"
