"""What a traced program is made of."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, those of inner jaxprs (scans, loops, calls) included."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in jax.tree.leaves(parameter, is_leaf=_is_jaxpr):
                if _is_jaxpr(inner):
                    yield from equations(inner)


def primitives(jaxpr: Any) -> list[str]:
    return [equation.primitive.name for equation in equations(jaxpr)]


def conditions(jaxpr: Any) -> int:
    """How many `cond`s are decided as the program runs; what `platform_dependent` makes is decided when it compiles."""
    conds = [equation for equation in equations(jaxpr) if equation.primitive.name == "cond"]
    return sum(equation.params.get("branches_platforms") is None for equation in conds)


def select_shapes(jaxpr: Any) -> list[tuple[int, ...]]:
    """Shapes of what selects choose between: a `cond` whose predicate carries a vmap axis becomes a select."""
    chosen = [equation for equation in equations(jaxpr) if equation.primitive.name == "select_n"]
    return [equation.outvars[0].aval.shape for equation in chosen]


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)
