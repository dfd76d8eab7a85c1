"""A schedule is the number it should be at every update, whatever the shape of the run."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl.core import loop, schedule
from jaxrl.core.schedule import Linear


class Hyperparams(NamedTuple):
    rate: Any = 1.0
    other: Any = 2.0


@pytest.mark.parametrize(
    ("line", "progress", "expected"),
    [
        (Linear(2.0), 0.0, 2.0),
        (Linear(2.0), 0.25, 1.5),
        (Linear(2.0), 1.0, 0.0),
        (Linear(1.0, 3.0), 0.5, 2.0),
        (Linear(1.0, 3.0), 1.0, 3.0),
        (Linear(1.0, 3.0, until=0.5), 0.25, 2.0),
        (Linear(1.0, 3.0, until=0.5), 0.5, 3.0),
        (Linear(1.0, 3.0, until=0.5), 0.9, 3.0),
        (Linear(jnp.inf, jnp.inf), 0.5, jnp.inf),  # no bound, beside one that changes
        (Linear(1.0, 3.0), 1.5, 3.0),  # a run continued beyond its plan
    ],
)
def test_line(line, progress, expected):
    resolved = schedule.at(Hyperparams(rate=line), jnp.float32(progress))
    np.testing.assert_allclose(resolved.rate, expected, rtol=1e-6, atol=0)
    assert resolved.other == 2.0


def test_numbers_pass_through_untouched():
    hparams = Hyperparams(rate=jnp.arange(3), other=(1, {"inner": 2}))
    assert schedule.at(hparams, jnp.float32(0.3)) is not None
    assert schedule.at(hparams, jnp.float32(0.3)).rate is hparams.rate
    assert schedule.at(hparams, jnp.float32(0.3)).other == hparams.other


def test_both_ends_can_be_swept():
    lines = Linear(jnp.array([1.0, 2.0, 4.0]), jnp.array([0.0, 1.0, 8.0]), jnp.array([1.0, 0.5, 0.25]))
    values = jax.jit(jax.vmap(lambda line: schedule.at(Hyperparams(line), jnp.float32(0.5)).rate))(lines)
    np.testing.assert_allclose(values, [0.5, 1.0, 8.0], rtol=1e-6)


def recorder(num_updates):
    """Its state is the rates that its updates saw, in their order."""

    def init(key, hparams, source):
        return {"count": jnp.int32(0), "seen": jnp.full(num_updates, jnp.nan), "at_init": hparams.rate}

    def update(key, state, hparams, source):
        seen = state["seen"].at[state["count"]].set(hparams.rate)
        return {**state, "count": state["count"] + 1, "seen": seen}, {"rate": hparams.rate}

    def evaluate(key, state, hparams, source):
        return {"eval/rate": hparams.rate}

    return loop.Learner(init, update, evaluate)


@pytest.mark.parametrize(("num_updates", "eval_every"), [(4, 2), (6, 6), (5, 1)])
@pytest.mark.parametrize("line", [Linear(0.5), Linear(1.0, 0.25), Linear(1.0, 0.5, 0.5)])
def test_update_sees_the_rate_of_its_moment(num_updates, eval_every, line):
    def train(line):
        hparams = Hyperparams(rate=line)
        return loop.train(
            recorder(num_updates), random.key(0), hparams, None, num_updates=num_updates, eval_every=eval_every
        )

    run, metrics = jax.jit(train)(line)
    fraction = np.minimum(np.arange(num_updates + 1) / num_updates / line.until, 1.0)
    expected = line.initial + fraction * (line.final - line.initial)
    np.testing.assert_allclose(run.state["seen"], expected[:-1], rtol=1e-6)
    np.testing.assert_allclose(run.state["at_init"], line.initial, rtol=1e-6)
    # What an evaluation sees is what the next update would: at the end of the run the line's end.
    np.testing.assert_allclose(metrics["eval/rate"], expected[eval_every::eval_every], rtol=1e-6, atol=0)
    assert metrics["eval/rate"][-1] == line.final
    np.testing.assert_allclose(metrics["rate"], expected[:-1].reshape(-1, eval_every).mean(1), rtol=1e-6)


def test_a_resumed_run_goes_on_along_the_same_line():
    learner, hparams = recorder(6), Hyperparams(rate=Linear(1.0, 0.4))
    run = loop.start(learner, random.key(0), hparams, None, 6)
    chunk = jax.jit(lambda run: loop.chunk(learner, 3, run, hparams, None))
    run, _ = chunk(run)
    copy = jax.tree.map(np.asarray, run._replace(key=random.key_data(run.key)))
    run, _ = chunk(jax.tree.map(jnp.asarray, copy._replace(key=random.wrap_key_data(copy.key))))
    np.testing.assert_allclose(run.state["seen"], 1.0 - 0.1 * np.arange(6), rtol=1e-6)
