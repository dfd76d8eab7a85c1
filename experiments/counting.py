"""Operations of a traced program, loops counted as often as they run: the compiler counts the body of each once."""

import math
from typing import Any

from jax.extend import core as jax_core
from jax.interpreters import partial_eval


def products(jaxpr: Any) -> float:
    """Multiplications and additions in the matrix products and convolutions of `jaxpr`; a while's body counts once."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            numbers = equation.params["dimension_numbers"].rhs_spec
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / kernel[numbers[0]]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        inside = [products(each) for value in equation.params.values() for each in _jaxprs(value)]
        # Of the branches of a `cond`, one is taken.
        total += times * (max(inside, default=0.0) if equation.primitive.name == "cond" else sum(inside))
    return total


def live(jaxpr: Any) -> Any:
    """`jaxpr` less what none of its results needs: gradients to inputs, say, which a compiler leaves out as well."""
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def _jaxprs(value: Any) -> list[Any]:
    """The programs within a parameter of an equation."""
    if isinstance(value, jax_core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jax_core.Jaxpr):
        return [value]
    return [each for item in value for each in _jaxprs(item)] if isinstance(value, tuple | list) else []
