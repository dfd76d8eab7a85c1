"""What every learner promises, whatever it learns: see `learners.py` for the list."""

import math
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import lax, random
from jax import numpy as jnp
from jax.experimental.key_reuse import _core as key_reuse
from jaxprs import conditions, select_shapes
from learners import LEARNERS, QUICK

from jaxrl.core import fit, keys, loop, schedule
from jaxrl.core.schedule import Linear

NUM_UPDATES, CHUNK = 4, 2


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def through_numpy(tree):
    """As a checkpoint does it: every leaf copied off the device and back, keys as their raw data."""

    def copy(leaf):
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.array(np.array(leaf))
        return random.wrap_key_data(jnp.array(np.array(random.key_data(leaf))), impl=random.key_impl(leaf))

    return jax.tree.map(copy, tree)


def raw(tree):
    """In numpy, which compares and indexes without compiling; keys as their data."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(random.key_data(leaf) if is_key(leaf) else leaf), tree)


def assert_same_bits(one, two):
    jax.tree.map(np.testing.assert_array_equal, raw(one), raw(two))


def different(one, two):
    pairs = zip(jax.tree.leaves(raw(one)), jax.tree.leaves(raw(two)), strict=True)
    return any((a != b).any() for a, b in pairs)


def learned(state):
    """Parameters that an optimiser moves: of one network, or of each of several."""
    is_fit = lambda leaf: isinstance(leaf, fit.Fit)  # noqa: E731
    return [leaf.params for leaf in jax.tree.leaves(state, is_leaf=is_fit) if is_fit(leaf)]


def perturbed(value, factor=0.5):
    """Another value of a hyperparameter or of a schedule."""
    if isinstance(value, Linear):
        return value._replace(initial=perturbed(value.initial, factor))
    # A whole number stays one: of another type, it would be another program.
    return 0.01 if math.isinf(value) else type(value)(value * factor)


class Programs:
    """A learner's compiled programs and its runs, each traced, compiled and made once: here the time goes."""

    def __init__(self, learner, hparams, source, unused=()):
        self.hparams, self.source, self.unused = hparams, source, unused
        self.arguments = schedule.at(self.hparams, jnp.float32(0)), self.source  # as the learner's functions get them
        self.updates_traced = 0

        def update(*args):
            self.updates_traced += 1
            return learner.update(*args)

        self.learner = loop.Learner(learner.init, update, learner.evaluate)

    def start_run(self, key, hparams, source):
        return loop.start(self.learner, key, hparams, source, NUM_UPDATES)

    def chunk_run(self, run, hparams, source):
        return loop.chunk(self.learner, CHUNK, run, hparams, source)

    def train_run(self, key, hparams, source):
        return loop.train(self.learner, key, hparams, source, num_updates=NUM_UPDATES, eval_every=CHUNK)

    @cached_property
    def start(self):
        return jax.jit(self.start_run)

    @cached_property
    def chunk(self):
        return jax.jit(self.chunk_run)

    @cached_property
    def start_lanes(self):
        return jax.jit(jax.vmap(self.start_run, (0, 0, None)))

    @cached_property
    def chunk_lanes(self):
        return jax.jit(jax.vmap(self.chunk_run, (0, 0, None)))

    @cached_property
    def initial(self):
        return self.start(random.key(0), self.hparams, self.source)

    @cached_property
    def halfway(self):
        return self.chunk(self.initial, self.hparams, self.source)

    @cached_property
    def final(self):
        return self.chunk(self.halfway[0], self.hparams, self.source)

    def alone(self, key, hparams):
        """The state at the end of a run."""
        run = self.start(key, hparams, self.source)
        for _ in range(NUM_UPDATES // CHUNK):
            run, _ = self.chunk(run, hparams, self.source)
        return run.state

    @cached_property
    def hparams_of_lanes(self):
        """One lane for each hyperparameter, another value of it; one as it is; one whose learning rate is NaN."""
        hparams = [
            self.hparams._replace(**{name: perturbed(getattr(self.hparams, name))}) for name in self.hparams._fields
        ]
        rate = perturbed(self.hparams.learning_rate, math.nan)
        return [*hparams, self.hparams, self.hparams._replace(learning_rate=rate)]

    @cached_property
    def arguments_of_lanes(self):
        """Each with a seed of its own."""
        lane_keys = random.split(random.key(7), len(self.hparams_of_lanes))
        return lane_keys, stack(self.hparams_of_lanes), self.source

    @cached_property
    def lanes(self):
        """Their keys, and what a chunk gives, with a leading axis of lanes."""
        lane_keys, *rest = self.arguments_of_lanes
        return lane_keys, *self.chunk_lanes(self.start_lanes(lane_keys, *rest), *rest)


# One of each algorithm at every change; its other forms in the longer run.
FORMS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LEARNERS]


@pytest.fixture(scope="module", params=FORMS)
def programs(request):
    return Programs(*LEARNERS[request.param]())


# State


def test_the_state_is_arrays_of_fixed_strong_types(programs):
    before = programs.start.eval_shape(random.key(0), programs.hparams, programs.source)
    after, _ = programs.chunk.eval_shape(before, programs.hparams, programs.source)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (one.shape, one.dtype, one.weak_type) == (two.shape, two.dtype, False)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(programs.initial))


def test_the_learner_alone_keeps_its_dtypes(programs):
    """The loop strips weak types at the start only: what `update` gives back must keep to them."""
    state = programs.initial.state
    after, metrics = jax.eval_shape(programs.learner.update, random.key(0), state, *programs.arguments)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(metrics))


def test_everything_is_finite(programs):
    run, metrics = programs.final
    for leaf in jax.tree.leaves(raw((run, metrics))):
        assert np.isfinite(leaf).all()
    assert metrics["diverged"] == 0
    assert any(name.startswith("eval/") for name in metrics)
    assert all(leaf.shape == () and leaf.dtype == jnp.float32 for leaf in metrics.values())
    assert different(learned(run.state), learned(programs.initial.state))


# One program


def test_one_trace_serves_every_chunk_and_a_resumed_run(programs):
    programs.halfway, programs.final  # noqa: B018
    traced = programs.updates_traced
    resumed = through_numpy(programs.halfway[0])
    programs.chunk(resumed, programs.hparams, programs.source)
    programs.alone(random.key(3), programs.hparams)
    assert programs.updates_traced == traced
    assert programs.chunk._cache_size() == programs.start._cache_size() == 1


def test_a_resumed_run_is_the_same_bit_for_bit(programs):
    resumed = through_numpy(programs.halfway[0])
    assert_same_bits(programs.chunk(resumed, programs.hparams, programs.source), programs.final)


@pytest.mark.parametrize("programs", sorted(QUICK), indirect=True)  # the loop is the same for all forms
def test_chunks_are_one_scan(programs):
    """But for last bits: these are two programs, which a compiler may round differently."""
    whole = jax.jit(programs.train_run)(random.key(0), programs.hparams, programs.source)
    run, metrics = programs.final
    assert run.step == NUM_UPDATES
    chunks = run, stack([programs.halfway[1], metrics])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), raw(whole), raw(chunks))


# Lanes


def test_a_lane_is_close_to_the_same_run_alone(programs):
    """Over seeds, and over every hyperparameter, each lane with another one changed; for a chunk, as rounding grows."""
    lane_keys, *lanes = programs.lanes
    lanes = raw(lanes)
    for lane, hparams in enumerate(programs.hparams_of_lanes[:-1]):
        start = programs.start(lane_keys[lane], hparams, programs.source)
        alone = raw([*programs.chunk(start, hparams, programs.source)])
        ours = jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), ours, alone)


def test_every_hyperparameter_makes_a_difference(programs):
    base = programs.alone(random.key(1), programs.hparams)
    for name in programs.hparams._fields:
        changed = programs.hparams._replace(**{name: perturbed(getattr(programs.hparams, name))})
        other = programs.alone(random.key(1), changed)
        assert different(learned(base), learned(other)) == (name not in programs.unused), name


def test_seeds_make_a_difference(programs):
    one = programs.alone(random.key(1), programs.hparams)
    two = programs.alone(random.key(2), programs.hparams)
    assert different(learned(one), learned(two))


def test_a_diverged_lane_is_marked_and_harms_no_other(programs):
    _, run, metrics = programs.lanes
    np.testing.assert_array_equal(metrics["diverged"][:-1], 0)
    np.testing.assert_array_equal(metrics["diverged"][-1], 1)
    assert all(np.isfinite(leaf[:-1]).all() for leaf in jax.tree.leaves(raw(run)))


def condition_faults(programs):
    """What in the programs of a run is, or was before vmap, a `cond`: empty where there is none.

    Counted in a single run, and in a vmapped resumed one, whose counters carry a batch axis.
    """
    runs = programs.start_lanes.eval_shape(*programs.arguments_of_lanes)
    large = [getattr(runs.state, name, None) for name in ("target_params", "buffer")]
    shapes = {leaf.shape for leaf in jax.tree.leaves((learned(runs.state), large))}
    rank = min(3, max(map(len, shapes)))  # of a whole matrix [lanes, rows, columns]; vectors if there are no matrices
    whole = {shape for shape in shapes if len(shape) >= rank}
    jaxprs = {
        "single": programs.chunk.trace(programs.initial, programs.hparams, programs.source).jaxpr,
        "resumed": programs.chunk_lanes.trace(runs, *programs.arguments_of_lanes[1:]).jaxpr,
    }
    faults = {}
    for name, jaxpr in jaxprs.items():
        faults[f"{name}: cond"] = conditions(jaxpr)
        faults[f"{name}: select"] = sum(shape in whole for shape in select_shapes(jaxpr))
    return {name: count for name, count in faults.items() if count}


def test_no_program_holds_a_cond_or_what_vmap_makes_of_one(programs):
    assert not condition_faults(programs)


# Keys


def test_no_key_is_used_twice(programs):
    key, state = keys.unrolled(random.key(0)), programs.initial.state
    key_reuse.check_key_reuse(programs.learner.init, key, *programs.arguments)
    key_reuse.check_key_reuse(programs.learner.update, key, state, *programs.arguments)
    key_reuse.check_key_reuse(programs.learner.evaluate, key, state, *programs.arguments)


# The checks above can fail


class Faulty(NamedTuple):
    fit: Any
    count: Any


class FaultyHyperparams(NamedTuple):
    learning_rate: Any = 0.1


def faulty(update):
    """A learner with `update(key, state) -> state`."""

    def init(key, hparams, source):
        return Faulty(fit.Fit({"w": jnp.ones((5, 4))}, ()), jnp.int32(0))

    return loop.Learner(init, lambda key, state, *_: (update(key, state), {}), lambda *_: {"eval/x": jnp.float32(0)})


def test_a_cond_on_a_counter_is_found():
    """In a single run as itself; in a resumed vmapped one, whose counter is batched, as a select of whole states."""

    def update(key, state):
        step = lambda fit: jax.tree.map(lambda w: 2 * w, fit)  # noqa: E731
        fitted = lax.cond(state.count % 2 == 0, step, lambda fit: fit, state.fit)
        return Faulty(fitted, state.count + 1)

    faults = condition_faults(Programs(faulty(update), FaultyHyperparams(), None))
    assert faults["single: cond"] == 1 and faults["resumed: select"] >= 1


def test_a_key_used_twice_is_found():
    def update(key, state):
        return state._replace(count=state.count + random.randint(key, (), 0, 2) + random.randint(key, (), 0, 2))

    learner = faulty(update)
    state = learner.init(random.key(0), None, None)
    for key in (random.key(0), keys.unrolled(random.key(0))):
        with pytest.raises(jax.errors.KeyReuseError):
            key_reuse.check_key_reuse(learner.update, key, state, None, None)
