"""Whether a trained autoregressive model is exact: the public checks on a run's network."""

import math
from typing import Any

import jax
from jax import Array, random
from jax import numpy as jnp

from experiments import registry
from experiments.evaluation import Restored, state_of
from generative import checks

COUNT = 8  # samples that every method draws
NUM_INPUTS = 2  # at which derivatives are taken


def reports(restored: Restored, seed: int = 0, lane: int = 0) -> dict[str, Any]:
    """Reports of `generative.checks` on the `lane`-th seed's model by what they check.

    A network may see less than everything before a variable, but nothing else. Of an ensemble, order and sight are
    those of its first member; of a conditional model, all but samples are given the first class. Probabilities are
    summed where inputs are few enough to enumerate.

    Raises:
        ValueError: the model draws in no order, or that seed was not trained.
    """
    _, experiment, program, _ = restored
    model, spec = program.learner, program.given
    if getattr(model, "complete", None) is None:
        raise ValueError(f"{experiment} draws all values at once: check an autoregressive model.")
    state = state_of(restored, lane)
    input_key, sample_key = random.split(random.key(seed))
    conditional = getattr(experiment.config, "conditional", False)

    def label(x: Array) -> tuple[Any, ...]:
        return (jnp.zeros(len(x), jnp.int32),) if conditional else ()

    def outputs(x: Array) -> Array:
        return model.outputs(state.fit.params, x, *label(x))

    def sampler(method: str) -> Any:
        return jax.jit(lambda key: model.sample(key, state, COUNT, method=method))

    methods = registry.get(experiment.algorithm).load().METHODS
    found: dict[str, Any] = {
        "causal": checks.check_causal(outputs, spec.shape, input_key, model.order, NUM_INPUTS),
        "sampler": checks.check_sampler({name: sampler(name) for name in methods}, sample_key, spec.levels),
    }
    sight = checks.check_receptive(outputs, spec.shape, input_key, model.order, num_inputs=NUM_INPUTS)
    size = math.prod(spec.shape)
    pairs = size * (size - 1) // 2
    message = f"sees {pairs - len(sight.missing)} of {pairs} pairs of a variable and one before it"
    found["receptive"] = sight._replace(passed=not len(sight.unexpected), message=message)
    if spec.levels**size <= checks.MOST:
        log_prob = jax.jit(lambda x: model.log_prob(state.fit.params, x, *label(x)))
        found["normalised"] = checks.check_normalised(log_prob, spec.shape, spec.levels)
    return found


def text(reports: dict[str, Any]) -> str:
    """A line for each report."""
    return "\n".join(
        f"{name:12}{'passed' if report.passed else 'FAILED'}  {report.message}" for name, report in reports.items()
    )
