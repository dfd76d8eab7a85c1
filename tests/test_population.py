"""Population-based training: who copies whom, what becomes of hyperparameters, and the lineage that is recorded."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from experiments import sweep_plots
from jaxrl.core import loop, population, results, sweep
from jaxrl.core.population import Members, Population, Searched

MEMBERS, CHUNKS, LENGTH = 8, 6, 2


class Hyperparams(NamedTuple):
    rate: Any = 0.1
    every: Any = 3
    other: Any = 1.0


def init(key, hparams, source):
    return {"sum": jnp.zeros(()), "noise": random.normal(key), "nothing": jnp.zeros((0, 3))}


def update(key, state, hparams, source):
    return {**state, "sum": state["sum"] + hparams.rate}, {"every": hparams.every}


def evaluate(key, state, hparams, source):
    score = -jnp.abs(jnp.log10(hparams.rate) + 2) - jnp.abs(hparams.every - 5)
    return {"eval/return": jnp.where(source & (hparams.rate > 0.1), jnp.nan, score)}


TOY = loop.Learner(init, update, evaluate)
PLAN = sweep.sample(
    Hyperparams(),
    None,
    jnp.bool_(True),
    points=MEMBERS,
    seeds=2,
    rate=sweep.LogUniform(1e-4, 1.0),
    every=sweep.Uniform(1, 9),
)
SEARCHED = tuple(map(Searched, PLAN.swept, (sweep.LogUniform(1e-4, 1.0), sweep.Uniform(1, 9))))
LANES = [point * 2 + seed for seed in range(2) for point in range(MEMBERS)]  # populations side by side


def run(lanes, seeds: int):
    """Metrics [L, E] of `seeds` populations, and what is carried in the end."""
    group = PLAN.groups[0]
    arguments = group.arguments(lanes)
    begin = population.start(TOY, CHUNKS * LENGTH, SEARCHED, group.axes)
    step = population.chunk(TOY, LENGTH, Population(), SEARCHED, group.axes, "eval/return")
    begin, step = (population.over_seeds(function, group.axes, MEMBERS) for function in (begin, step))
    carried, metrics = jax.jit(begin)(*arguments), []
    step = jax.jit(step)
    for _ in range(CHUNKS):
        carried, found = step(carried, *arguments[1:])
        metrics.append(found)
    assert carried.quantiles.shape == (seeds * MEMBERS, 2)
    return jax.tree.map(lambda *leaves: np.stack(leaves, -1), *metrics), carried


@pytest.fixture(scope="module")
def both():
    return run(LANES, 2)


@pytest.fixture(scope="module")
def found(both):
    steps = np.arange(1, CHUNKS + 1) * LENGTH
    return results.dataset(PLAN, [(LANES, steps, both[0])], score="eval/return", populations=True)


def members(score, quantiles=None):
    quantiles = jnp.full((len(score), 2), 0.5) if quantiles is None else quantiles
    return Members(None, None, quantiles, jnp.array(score, jnp.float32))


@pytest.mark.slow
def test_the_worst_copy_the_best_and_nobody_else_changes():
    chosen = Population(fraction=0.25, step=0.2, fresh=0.0)
    before = members([5, 1, 7, 3, 8, 2, 6, 4])
    parents, quantiles = jax.vmap(population.exchange, (0, None, None))(random.split(random.key(0), 50), before, chosen)
    for worst in (1, 5):
        assert set(np.unique(parents[:, worst])) == {2, 4}
        np.testing.assert_allclose(np.unique(np.round(quantiles[:, worst], 3)), [0.3, 0.7])
    others = [0, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(parents[:, others], np.tile(others, (50, 1)))
    np.testing.assert_array_equal(quantiles[:, others], 0.5)


def test_members_are_runs_of_their_own():
    """Also where their hyperparameters are the same; those of another seed are others again."""
    group = PLAN.groups[0]
    keys, hparams, source = group.arguments(LANES[:MEMBERS])
    begin = population.start(TOY, CHUNKS * LENGTH, SEARCHED, group.axes)
    others = jax.vmap(random.key)(jnp.ones(MEMBERS, jnp.uint32))
    noise = [begin(each, hparams, source).runs.state["noise"] for each in (keys, others)]
    assert len(np.unique(np.concatenate(noise))) == 2 * MEMBERS


@pytest.mark.slow
def test_changes_start_from_the_parent_and_stay_in_range():
    before = members([1, 2, 3, 4], jnp.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.95, 0.1]]))
    keys = random.split(random.key(0), 400)
    _, moved = jax.vmap(population.exchange, (0, None, None))(keys, before, Population(0.25, 0.2, 0.0))
    np.testing.assert_allclose(np.unique(np.round(moved[:, 0], 3), axis=0), [[0.75, 0], [0.75, 0.3], [1, 0], [1, 0.3]])
    _, drawn = jax.vmap(population.exchange, (0, None, None))(keys, before, Population(0.25, 0.2, 1.0))
    np.testing.assert_allclose(drawn[:, 0].mean(0), 0.5, atol=0.05)
    assert 0 <= drawn.min() < 0.02 and 0.98 < drawn.max() <= 1


def test_the_lineage_is_what_the_state_remembers(both, found):
    sums = np.asarray(both[1].runs.state["sum"]).reshape(2, MEMBERS)
    for seed in range(2):
        for point in range(MEMBERS):
            line = results.lineage(found, seed, point)
            assert line[-1] == point
            rates = found["rate"].sel(seed=seed).transpose("step", "point").values[np.arange(CHUNKS), line]
            np.testing.assert_allclose(sums[seed, point], LENGTH * rates.sum(), rtol=1e-5)
    assert any(len(set(results.lineage(found, 0, point))) > 1 for point in range(MEMBERS))


def test_the_lineage_ends_where_an_unfinished_population_does(found):
    going_on = found.where(found["step"] <= LENGTH * 3)
    assert len(results.lineage(going_on, 0, 2)) == 3 and not len(results.lineage(found * np.nan, 0, 2))
    sweep_plots.schedules(going_on.assign_attrs(found.attrs))


def test_before_the_first_chunk_nobody_copies(found):
    first = found.isel(step=0)
    np.testing.assert_array_equal(first["parent"].transpose("seed", "point"), np.tile(np.arange(MEMBERS), (2, 1)))
    np.testing.assert_allclose(first["rate"].sel(seed=1), found["hparams.rate"], rtol=1e-4)
    np.testing.assert_array_equal(first["every"].sel(seed=1), found["hparams.every"])
    assert (found["parent"].isel(step=1) != found["point"]).any()


def test_a_population_is_the_same_alone(both):
    alone, _ = run(LANES[MEMBERS:], 1)
    for name, values in alone.items():
        np.testing.assert_allclose(both[0][name][MEMBERS:], values, rtol=1e-5)


def test_scores_that_are_no_number_are_the_worst_and_are_left_behind(found):
    scores = found["eval/return"].transpose("seed", "step", "point").values
    assert np.isnan(scores[:, 0]).any()  # rates above 0.1 are there at first
    assert np.nanmax(scores[:, -1], -1).min() > np.nanmax(scores[:, 0], -1).min()
    lost = np.isnan(scores[0, 0])
    assert (found["parent"].sel(seed=0).isel(step=1).values[lost] != np.flatnonzero(lost)).any()


def test_the_table_is_of_the_best_member_of_each_seed(found):
    lines = results.table(found).splitlines()
    assert lines[0].split() == ["seed", "member", "rate", "every", "return"] and len(lines) == 3
    scores = found["eval/return"].sel(seed=1).isel(step=-1)
    assert int(lines[2].split()[1]) == np.argmax(scores.fillna(-np.inf).values)


@pytest.mark.parametrize(("members", "fraction"), [(3, 0.25), (4, 0.75), (1, 0.5)])
def test_a_population_in_which_nobody_can_copy_is_refused(members, fraction):
    with pytest.raises(ValueError, match="at least one must copy"):
        Population(fraction).copying(members)
