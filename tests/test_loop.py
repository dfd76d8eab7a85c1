"""The loop on a toy learner: steps, keys, averages, evaluation, divergence, refused lengths."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl.core import loop


class Hyperparams(NamedTuple):
    rate: Any = 0.5


class State(NamedTuple):
    weights: Any
    count: Any


def init(key, hparams, source):
    return State(random.normal(key, (3,)), 0)  # a Python number: weakly typed


def update(key, state, hparams, source):
    """A noisy pull towards the source, NaN if the rate is."""
    weights = state.weights + hparams.rate * (source - state.weights) + random.normal(key, (3,))
    return State(weights, state.count + 1), {"count": state.count, "draw": random.uniform(key), "flag": True}


def evaluate(key, state, hparams, source):
    return {"eval/draw": random.uniform(key), "eval/count": state.count}


TOY = loop.Learner(init, update, evaluate)
SOURCE = jnp.arange(3.0)


def train(key, hparams=Hyperparams(), source=SOURCE, learner=TOY, num_updates=6, eval_every=2):  # noqa: B008
    return loop.train(learner, key, hparams, source, num_updates=num_updates, eval_every=eval_every)


def chunk(run, length=2, learner=TOY, hparams=Hyperparams()):  # noqa: B008
    return loop.chunk(learner, length, run, hparams, SOURCE)


@pytest.fixture(scope="module")
def whole():
    return jax.jit(train)(random.key(0))


def test_a_run_counts_its_updates_and_keeps_its_root_key(whole):
    run, _ = whole
    assert (run.step, run.num_updates, run.state.count) == (6, 6, 6)
    assert run.step.dtype == run.num_updates.dtype == run.state.count.dtype == jnp.int32
    assert (random.key_data(run.key) == random.key_data(random.key(0))).all()
    assert random.key_impl(run.key) == random.key_impl(random.key(0))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(run.state))


def test_metrics_are_averaged_over_each_chunk(whole):
    _, metrics = whole
    assert set(metrics) == {"count", "draw", "flag", "eval/draw", "eval/count", "diverged"}
    assert all(
        values.shape == (3,) and values.dtype == jnp.float32 for name, values in metrics.items() if name != "eval/count"
    )
    np.testing.assert_array_equal(metrics["count"], [0.5, 2.5, 4.5])
    np.testing.assert_array_equal(metrics["eval/count"], [2, 4, 6])
    np.testing.assert_array_equal(metrics["flag"], 1)
    np.testing.assert_array_equal(metrics["diverged"], 0)


def test_every_update_and_evaluation_has_a_key_of_its_own(whole):
    each = jax.jit(train, static_argnames="eval_every")(random.key(0), eval_every=1)[1]
    draws = np.concatenate([each["draw"], each["eval/draw"]])
    assert len(set(draws.tolist())) == 12
    # The same keys whatever the chunks: an evaluation at the same step draws the same.
    np.testing.assert_array_equal(whole[1]["eval/draw"], each["eval/draw"][1::2])
    np.testing.assert_allclose(whole[1]["draw"], each["draw"].reshape(3, 2).mean(1), rtol=1e-6)
    np.testing.assert_array_equal(whole[0].state.weights, jax.jit(train)(random.key(0))[0].state.weights)
    assert (whole[0].state.weights != jax.jit(train)(random.key(1))[0].state.weights).all()


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_evaluation_alters_nothing(whole, length):
    """However often and however much is drawn and computed in it."""

    def expensive(key, state, hparams, source):
        return {"eval/x": random.normal(key, (100,)).sum() + state.weights.sum()}

    advance = jax.jit(lambda run: chunk(run, length, loop.Learner(init, update, expensive)))
    run = loop.start(TOY, random.key(0), Hyperparams(), SOURCE, 6)
    for _ in range(6 // length):
        run, _ = advance(run)
    np.testing.assert_array_equal(run.state.weights, whole[0].state.weights)


def test_chunks_resumed_from_numpy_are_the_whole_run(whole):
    advance = jax.jit(chunk)
    run = jax.jit(lambda key: loop.start(TOY, key, Hyperparams(), SOURCE, 6))(random.key(0))
    metrics = []
    for _ in range(3):
        key = random.wrap_key_data(jnp.array(np.array(random.key_data(run.key))))
        arrays = jax.tree.map(lambda leaf: jnp.array(np.array(leaf)), run._replace(key=None))
        run, scores = advance(arrays._replace(key=key))
        metrics.append(scores)
    np.testing.assert_array_equal(run.state.weights, whole[0].state.weights)
    for name, values in whole[1].items():
        np.testing.assert_array_equal(values, [scores[name] for scores in metrics])
    assert advance._cache_size() == 1


def test_a_diverged_run_says_so_from_then_on():
    def turns_nan(key, state, hparams, source):
        state, metrics = update(key, state, hparams, source)
        return state._replace(weights=jnp.where(state.count > 3, jnp.nan, state.weights)), metrics

    _, metrics = jax.jit(lambda key: train(key, learner=TOY._replace(update=turns_nan)))(random.key(0))
    np.testing.assert_array_equal(metrics["diverged"], [0, 1, 1])


def test_a_nan_harms_no_other_lane():
    keys = random.split(random.key(0), 3)
    run, metrics = jax.jit(jax.vmap(train))(keys, Hyperparams(jnp.array([0.5, jnp.nan, 0.5])))
    np.testing.assert_array_equal(metrics["diverged"], [[0] * 3, [1] * 3, [0] * 3])
    alone = jax.jit(train)(keys[2])[0]
    np.testing.assert_allclose(run.state.weights[2], alone.state.weights, rtol=1e-5)
    assert np.isnan(run.state.weights[1]).all() and np.isfinite(run.state.weights[0]).all()


def test_any_nan_looks_at_every_number():
    clean = {"a": jnp.zeros(3), "b": (jnp.int32(1), random.key(0)), "c": jnp.array([jnp.inf])}
    assert loop.any_nan(clean) == 0
    for place in ({"a": jnp.array([0, jnp.nan, 0])}, {"d": jnp.bfloat16(jnp.nan)}):
        assert loop.any_nan({**clean, **place}) == 1
    assert loop.any_nan({"only": jnp.int32(3)}) == 0


def test_the_source_may_be_swept():
    sources = jnp.stack([SOURCE, SOURCE + 100])
    run, _ = jax.jit(jax.vmap(lambda source: train(random.key(0), source=source)))(sources)
    np.testing.assert_allclose(run.state.weights[0], jax.jit(train)(random.key(0))[0].state.weights, rtol=1e-5)
    assert (run.state.weights[1] > 50).all()


@pytest.mark.parametrize(
    ("num_updates", "eval_every", "message"),
    [
        (0, 1, r"num_updates=0.*eval_every=1.*at least 1"),
        (4, 0, r"num_updates=4.*eval_every=0.*at least 1"),
        (-3, 1, r"num_updates=-3"),
        (10, 4, r"num_updates=10.*eval_every=4.*use num_updates=8"),
        (11, 4, r"use num_updates=12"),
        (1, 4, r"use num_updates=4"),
    ],
)
def test_lengths_that_cannot_work_are_refused(num_updates, eval_every, message):
    with pytest.raises(ValueError, match=message):
        train(random.key(0), num_updates=num_updates, eval_every=eval_every)
