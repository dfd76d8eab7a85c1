"""Sweeps on a toy learner: names, values, lanes against single runs, labels against values, statistics."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import struct
from jax import numpy as jnp
from jax import random

from jaxrl.core import loop, results, stats, sweep
from jaxrl.core.schedule import Linear

NUM_UPDATES, CHUNK = 6, 2
STEPS = np.arange(1, 4) * CHUNK


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (2, 3)
    kind: str = "plain"


@dataclass(frozen=True)
class Config:
    width: int = 3
    scale: float = 1.0
    inner: Inner = Inner()


class Hyperparams(NamedTuple):
    rate: Any = 0.5
    noise: Any = Linear(0.1, 0.0)
    every: Any = 2  # a whole number
    bound: Any = None
    pull: Any = 0.0  # in the source too


@struct.dataclass
class Source:
    target: Any = 1.0
    offsets: Any = struct.field(default_factory=lambda: np.float32([1.0, 2.0]))
    limit: int = 4
    pull: Any = 0.0
    name: str = struct.field(pytree_node=False, default="here")


PARTS = (Hyperparams(), Config(), Source())


def make(config):
    """A walk from a random place towards the source's target; NaN if the rate is."""

    def init(key, hparams, source):
        return random.normal(key, (config.width,))

    def update(key, state, hparams, source):
        state = state + hparams.rate * (source.target - state) + hparams.noise
        return state, {"size": jnp.abs(state).mean()}

    def evaluate(key, state, hparams, source):
        return {"eval/return": -config.scale * jnp.square(state - source.target).sum()}

    return loop.Learner(init, update, evaluate)


def train(config):
    return partial(loop.train, make(config), num_updates=NUM_UPDATES, eval_every=CHUNK)


def run(plan) -> Any:
    """Every group of `plan` trained, and its metrics labelled."""
    parts = []
    for group in plan.groups:
        _, metrics = jax.jit(group.map(train(group.config)))(*group.arguments())
        parts.append((group.lanes, STEPS, jax.device_get(metrics)))
    return results.dataset(plan, parts, score="eval/return")


def alone(**changes) -> np.ndarray:
    """Scores [E] of the single run of seed 1 in which `changes` are made by hand."""
    hparams, config, source = Hyperparams(), Config(), Source()
    hparams = hparams._replace(**{name: changes.pop(name) for name in Hyperparams._fields if name in changes})
    config = Config(**{name: changes.pop(name) for name in ("width", "scale") if name in changes})
    source = source.replace(**changes)
    return jax.jit(train(config))(random.key(1), hparams, source)[1]["eval/return"]


@pytest.fixture(scope="module")
def swept():
    """Traced and static fields, and one of the source, in one grid."""
    return run(sweep.grid(*PARTS, seeds=2, width=[3, 4], rate=[0.1, 0.2, np.nan], target=[1.0, 2.0]))


# Labels against values


def test_a_lane_is_the_single_run_of_its_labels(swept):
    assert swept["eval/return"].dims == ("width", "rate", "target", "seed", "step")
    assert dict(swept.sizes) == {"width": 2, "rate": 3, "target": 2, "seed": 2, "step": 3}
    np.testing.assert_array_equal(swept["step"], STEPS)
    for width, rate, target in [(3, 0.1, 1.0), (4, 0.2, 1.0), (3, 0.2, 2.0), (4, 0.1, 2.0)]:
        lane = swept["eval/return"].sel(width=width, rate=rate, target=target, seed=1)
        np.testing.assert_allclose(lane, alone(width=width, rate=rate, target=target), rtol=1e-5)


def test_alone_gives_the_same_single_run():
    plan = sweep.grid(*PARTS, seeds=2, first_seed=5, width=[3, 4], rate=[0.1, 0.2], target=[1.0, 2.0])
    _, metrics = jax.jit(plan.groups[1].map(train(plan.groups[1].config)))(*plan.groups[1].arguments([9, 14]))
    for place, lane in enumerate([9, 14]):
        key, hparams, config, source = plan.alone(lane)
        assert plan.lane(lane) == (
            5 + lane % 2,
            {"width": config.width, "rate": hparams.rate, "target": source.target},
        )
        _, single = jax.jit(train(config))(key, hparams, source)
        np.testing.assert_allclose(metrics["eval/return"][place], single["eval/return"], rtol=1e-5)


def test_a_diverged_lane_is_marked_and_harms_no_other(swept):
    lost = results.diverged(swept)
    np.testing.assert_array_equal(lost.sel(rate=np.nan), True)
    np.testing.assert_array_equal(lost.sel(rate=[0.1, 0.2]), False)
    assert np.isfinite(swept["eval/return"].sel(rate=[0.1, 0.2])).all()
    assert "2 of 2" in results.table(swept).splitlines()[-1]


def test_static_fields_make_groups_and_traced_ones_do_not():
    plan = sweep.grid(*PARTS, seeds=3, width=[3, 4], rate=[0.1, 0.2], scale=[1.0, 2.0])
    assert [(group.config.width, group.config.scale) for group in plan.groups] == [(3, 1), (3, 2), (4, 1), (4, 2)]
    assert [len(group.lanes) for group in plan.groups] == [6] * 4
    assert sorted(np.concatenate([group.lanes for group in plan.groups])) == list(range(plan.num_lanes))
    assert len(sweep.grid(*PARTS, seeds=3, rate=[0.1, 0.2]).groups) == 1


def test_only_what_is_swept_has_a_lane_axis():
    group = sweep.grid(*PARTS, seeds=2, rate=[0.1, 0.2], target=[1.0, 2.0]).groups[0]
    _, hparams, source = group.arguments()
    assert hparams.rate.shape == source.target.shape == (8,)
    assert hparams.every.shape == source.limit.shape == () and source.offsets.shape == (2,)
    assert (hparams.rate.dtype, hparams.every.dtype, source.limit.dtype) == (jnp.float32, jnp.int32, jnp.int32)
    assert not hparams.rate.weak_type and not hparams.every.weak_type
    assert group.axes[1].rate == group.axes[2].target == 0 and group.axes[1].every is None
    assert sweep.grid(*PARTS, seeds=2).groups[0].axes == (0, None, None)


def test_seeds_alone_are_a_sweep():
    found = run(sweep.grid(*PARTS, seeds=3))
    assert found["eval/return"].dims == ("seed", "step")
    np.testing.assert_allclose(found["eval/return"].sel(seed=1), alone(), rtol=1e-5)
    assert len(results.table(found).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "values", "place", "changes"),
    [
        ("noise", [0.0, 0.2], 1, {"noise": 0.2}),  # a number for a schedule: constant
        ("noise", [0.3, Linear(0.2, 0.1)], 1, {"noise": Linear(0.2, 0.1)}),
        ("noise", [0.3, Linear(0.2, 0.1)], 0, {"noise": 0.3}),
        ("noise.initial", [0.0, 0.4], 1, {"noise": Linear(0.4, 0.0)}),
        ("hparams.noise.until", [1.0, 0.5], 1, {"noise": Linear(0.1, 0.0, 0.5)}),
        ("rate", [Linear(0.5, 0.0), Linear(0.2)], 1, {"rate": Linear(0.2)}),
        ("source.target", [0, 3], 1, {"target": 3.0}),
    ],
)
def test_schedules_and_paths(name, values, place, changes):
    found = run(sweep.grid(*PARTS, seeds=2, **{name: values}))
    lane = found["eval/return"].isel({name: place}).sel(seed=1)
    np.testing.assert_allclose(lane, alone(**changes), rtol=1e-5)


def test_arrays_and_dicts_can_be_swept():
    group = sweep.grid(*PARTS, offsets=[np.array([1, 2]), np.array([3, 4])]).groups[0]
    np.testing.assert_array_equal(group.arguments()[2].offsets, np.float32([[1, 2], [3, 4]]))
    group = sweep.grid({"rate": 0.1}, None, {"inner": {"x": 1.0}}, **{"inner.x": [2.0, 3.0]}).groups[0]
    np.testing.assert_array_equal(group.arguments()[2]["inner"]["x"], [2.0, 3.0])


# Refusals


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": [0.1]}, "Unknown field 'rat': did you mean rate?"),
        ({"widht": [3]}, "did you mean width?"),
        ({"targe": [1.0]}, "did you mean target?"),
        ({"noise.inital": [0.1]}, "Unknown field of noise 'inital': did you mean initial?"),
        ({"config.rate": [0.1]}, "Unknown field of config 'rate'"),
        ({"rate.initial": [0.1]}, "rate is 0.5, which has no fields"),
        ({"pull": [0.1]}, "say hparams.pull or source.pull"),
        ({"rate": []}, "no values"),
        ({"rate": [0.1, 0.1]}, "a value twice"),
        ({"rate": ["fast"]}, "rate='fast' cannot be traced"),
        ({"rate": [None]}, "cannot be traced"),
        ({"rate": [[0.1, 0.2]]}, "cannot be traced"),
        ({"rate": [np.ones(2)]}, r"has shape \(2,\)"),
        ({"target": [Linear(0.1)]}, "cannot be traced"),
        ({"limit": [3.5]}, "must be a whole number"),
        ({"name": ["there"]}, "name cannot be swept: it is static in Source"),
        ({"width": [2.5]}, "width=2.5 is a float, where Config has a int"),
        ({"width": ["wide"]}, "width='wide' is a str, where Config has a int"),
        ({"inner": [{}]}, "cannot be static"),
        ({"noise": [0.1], "noise.initial": [0.2]}, "noise and noise.initial overlap"),
    ],
)
def test_what_cannot_be_swept_is_refused_at_once(values, message):
    with pytest.raises(ValueError, match=message):
        sweep.grid(*PARTS, **values)


def test_whole_numbers_may_come_as_floats():
    plan = sweep.grid(*PARTS, width=[2.0, 3.0], limit=[4.0, 5.0])
    assert [type(group.config.width) for group in plan.groups] == [int, int]
    assert plan.groups[0].arguments()[2].limit.dtype == np.int32


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "Nothing to draw"),
        ({"rat": sweep.Uniform(0, 1)}, "did you mean rate?"),
        ({"rate": sweep.Uniform(1, 0)}, "low < high"),
        ({"rate": sweep.LogUniform(0, 1)}, "0 < low < high"),
        ({"rate": sweep.Choice(())}, "no values"),
        ({"rate": ["fast"]}, "cannot be traced"),
        ({"every": sweep.Uniform(1.5, 4)}, "every holds whole numbers: 1.5 and 4"),
        ({"width": sweep.LogUniform(0.5, 4)}, "width holds whole numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(ranges, message):
    with pytest.raises(ValueError, match=message):
        sweep.sample(*PARTS, points=4, **ranges)


def test_numbers_of_seeds_that_cannot_be():
    with pytest.raises(ValueError, match="seeds=0"):
        sweep.grid(*PARTS, seeds=0)
    with pytest.raises(ValueError, match="first_seed"):
        sweep.grid(*PARTS, seeds=2, first_seed=2**31 - 1)


def test_points_one_by_one_need_as_many_values():
    with pytest.raises(ValueError, match="rate has 2, target has 1"):
        sweep.zipped(*PARTS, rate=[0.1, 0.2], target=[1.0])


# Drawing


def test_points_fill_their_ranges():
    ranges = {
        "rate": sweep.LogUniform(1e-4, 1e-2),
        "target": sweep.Uniform(-1.0, 3.0),
        "every": sweep.Uniform(1, 4),
        "width": sweep.Choice((3, 4)),
        "inner.kind": ["plain", "fancy"],
    }
    plan = sweep.sample(*PARTS, points=64, **ranges)
    columns = dict(zip(ranges, zip(*plan.points, strict=True), strict=True))
    exponents, targets = np.log10(columns["rate"]), np.array(columns["target"])
    # Of 64 Sobol points each of 8 equal parts of a range has 8.
    np.testing.assert_array_equal(np.histogram(exponents, 8, (-4, -2))[0], 8)
    np.testing.assert_array_equal(np.histogram(targets, 8, (-1, 3))[0], 8)
    np.testing.assert_array_equal(np.bincount(columns["every"]), [0, 16, 16, 16, 16])
    assert columns["width"].count(3) == columns["inner.kind"].count("fancy") == 32
    assert len(plan.groups) == 4
    assert plan.points == sweep.sample(*PARTS, points=64, **ranges).points
    assert plan.points != sweep.sample(*PARTS, points=64, draw=1, **ranges).points


@pytest.mark.parametrize("field", ["rate", "scale", "target", "noise.initial"])
def test_a_whole_number_now_does_not_make_all_that_are_drawn_whole(field):
    given = Hyperparams(rate=1, noise=Linear(1, 0)), Config(scale=1), Source(target=1)
    plan = sweep.sample(*given, points=8, **{field: sweep.Uniform(0.9, 0.99)})
    assert all(0.9 <= value <= 0.99 for (value,) in plan.points)


def test_drawn_lanes_are_labelled_along_point():
    plan = sweep.sample(*PARTS, points=5, seeds=2, rate=sweep.Uniform(0.1, 0.9), width=[3, 4])
    found = run(plan)
    assert found["eval/return"].dims == ("point", "seed", "step") and results.names(found) == ["rate", "width"]
    point = found.isel(point=3)
    expected = alone(rate=point["rate"].item(), width=point["width"].item())
    np.testing.assert_allclose(point["eval/return"].sel(seed=1), expected, rtol=1e-5)
    again = run(sweep.sample(*PARTS, points=5, seeds=2, rate=sweep.Uniform(0.1, 0.9), width=[3, 4]))
    assert found.identical(again)


# Results


def made(scores, steps=(1,), **values):
    """A Dataset with the given scores [P, S, E] of a grid over `values`, NaN where a lane was not evaluated."""
    scores = np.asarray(scores, np.float32)
    plan = sweep.grid(*PARTS, seeds=scores.shape[1], **values)
    parts = []
    for lane, row in enumerate(scores.reshape(-1, len(steps))):
        kept = ~np.isnan(row)
        metrics = {"eval/return": row[None, kept], "diverged": np.zeros((1, kept.sum()))}
        parts.append(([lane], np.array(steps)[kept], metrics))
    rungs = np.isfinite(scores).sum(-1).max(-1) if len(steps) > 1 else None
    return results.dataset(plan, parts, score="eval/return", rungs=rungs)


def test_best_is_by_the_interquartile_mean():
    scores = np.array([[1, 1, 1, 9], [2, 2, 2, 2], [0, 3, 3, 0]])[..., None]
    found = made(scores, rate=[0.1, 0.2, 0.3])
    assert results.best(found)["rate"] == 0.2
    assert [point["rate"] for point in results.ranking(found)] == [1, 2, 0]
    found.attrs["higher_is_better"] = 0
    assert results.best(found)["rate"] == 0.1
    ends = results.over_seeds(found, final=True)
    np.testing.assert_array_equal(ends["mean"], stats.interquartile_mean(scores[..., 0]))
    np.testing.assert_array_equal(ends["low"], stats.bootstrap_interval(scores[..., 0].astype(np.float32))[0])


def test_dropped_points_keep_what_they_had_and_rank_behind():
    nan = np.nan
    found = made([[[9, nan]], [[1, 2]], [[1, 1]]], steps=(4, 8), rate=[0.1, 0.2, 0.3])
    np.testing.assert_array_equal(results.last(found).squeeze(), [9, 2, 1])
    assert [point["rate"] for point in results.ranking(found)] == [1, 2, 0]
    lines = results.table(found).splitlines()
    assert [line.split() for line in lines[::3]] == [["point", "rate", "return", "steps"], ["0", "0.1", "9", "4"]]
    curve = results.over_seeds(found)["mean"]
    np.testing.assert_array_equal(curve.sel(rate=0.1), [9, nan])


def test_a_score_that_is_no_number_counts_as_the_worst():
    plan = sweep.grid(*PARTS, seeds=4, rate=[0.1, 0.2])
    scores = np.float32([[np.nan, 1, 2, 3], [np.nan, np.nan, 3, 3]]).reshape(8, 1)
    metrics = {"eval/return": scores, "diverged": np.isnan(scores)}
    found = results.dataset(plan, [(range(8), [1], metrics)], score="eval/return")
    np.testing.assert_array_equal(results.over_seeds(found, final=True)["mean"], [1.5, -np.inf])
    assert results.best(found)["rate"] == 0.1


def test_a_point_counts_once_all_its_seeds_were_evaluated():
    nan = np.nan
    scores = np.array([[[1, 1], [2, 2]], [[9, 9], [nan, nan]], [[0, 0], [0, nan]]])
    found = made(scores, (4, 8), rate=[0.1, 0.2, 0.3]).drop_vars("rung")
    np.testing.assert_array_equal(results.over_seeds(found, final=True)["mean"], [1.5, nan, 0.0])
    np.testing.assert_array_equal(results.over_seeds(found)["mean"], [[1.5, 1.5], [nan, nan], [0.0, nan]])
    assert [point["rate"] for point in results.ranking(found)] == [0, 2, 1]


def test_programs_that_are_evaluated_at_other_steps_share_a_dataset():
    plan = sweep.grid(*PARTS, seeds=1, width=[3, 4])
    metrics = {"eval/return": np.float32([[1, 2]]), "diverged": np.zeros((1, 2))}
    found = results.dataset(plan, [([0], [10, 20], metrics), ([1], [15, 20], metrics)], score="eval/return")
    np.testing.assert_array_equal(found["step"], [10, 15, 20])
    np.testing.assert_array_equal(found["eval/return"].squeeze(), [[1, np.nan, 2], [np.nan, 1, 2]])


def test_saved_and_loaded(tmp_path, swept):
    drawn = run(sweep.sample(*PARTS, points=2, rate=[0.1, 0.2], noise=[0.1, Linear(0.2, 0.1)]))
    huge = drawn.assign_coords(step=np.array([1, 2, 2**40]))
    for number, found in enumerate([swept, drawn, huge]):
        results.save(found, tmp_path / f"{number}.nc")
        loaded = results.load(tmp_path / f"{number}.nc")
        assert loaded.equals(found)
        assert results.table(loaded) == results.table(found) and results.names(loaded) == results.names(found)


def test_a_metric_with_the_name_of_a_field():
    plan = sweep.grid(*PARTS, noise=[0.1, 0.2])
    metrics = {"noise": np.ones((2, 1)), "eval/return": np.ones((2, 1)), "diverged": np.zeros((2, 1))}
    found = results.dataset(plan, [([0, 1], [1], metrics)], score="eval/return")
    assert found["noise"].dims == ("hparams.noise", "seed", "step")
