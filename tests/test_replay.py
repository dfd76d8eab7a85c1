"""Replay against a deque, draws against their probabilities, memory against the buffer's size."""

import itertools
from collections import deque

import jax
import numpy as np
import pytest
import scipy.stats
from jax import lax, random
from jax import numpy as jnp

from jaxrl import replay, sum_tree
from jaxrl.envs import Box, Discrete, Spec
from jaxrl.rollout import Transition

SPEC = Spec("scripted", (), "float32", None, Discrete(3), 100)
DISCOUNT = 0.9


def script(generator, num_steps, num_envs, terminated, truncated):
    """A made-up path [T, N] in which every observation has a number of its own, and the observations after it."""
    shape = num_steps, num_envs
    ids = iter(range(1, 10 * num_steps * num_envs))
    acted_on, successor = np.zeros((num_steps + 1, num_envs)), np.zeros(shape)
    acted_on[0] = [next(ids) for _ in range(num_envs)]
    for t in range(num_steps):
        for n in range(num_envs):
            successor[t, n] = next(ids)
            acted_on[t + 1, n] = next(ids) if terminated[t, n] or truncated[t, n] else successor[t, n]
    action, reward = generator.integers(0, 3, shape), generator.normal(size=shape)
    fields = acted_on[:-1], action, reward, successor, terminated, truncated & ~terminated
    return Transition(*map(jnp.asarray, fields), None), jnp.asarray(acted_on)


def filled(path, acted_on, capacity, **options):
    """The buffer after each step of the path, leaves [T, ...]."""
    buffer = replay.init(SPEC, acted_on[0], capacity, **options)

    def one(buffer, step):
        transition, obs = step
        buffer = replay.add(buffer, transition, obs)
        return buffer, buffer

    return lax.scan(one, buffer, (path, acted_on[1:]))


def everything(buffer, n_step):
    """The windows that begin in every slot."""
    return replay.windows(buffer, jnp.arange(len(buffer.kind)), DISCOUNT, n_step)


class Model:
    """What the buffer should hold of one environment: the latest transitions, and where the time limit cut."""

    def __init__(self, capacity):
        self.entries = deque(maxlen=capacity)

    def add(self, obs, action, reward, next_obs, terminated, truncated):
        self.entries.append((obs, action, reward, next_obs, terminated))
        if truncated:
            self.entries.append(None)

    def windows(self, n_step):
        found, entries = {}, list(self.entries)
        for i, entry in enumerate(entries):
            if entry is None:
                continue
            total, power = 0.0, 1.0
            for step in entries[i : i + n_step]:
                if step is None:
                    break
                *_, reward, next_obs, terminated = step
                total, power = total + power * reward, power * DISCOUNT
                if terminated:
                    power = 0.0
                    break
            found[entry[0]] = (entry[1], total, power, None if terminated else next_obs)
        return found


def check_against_deque(path, acted_on, capacity, n_step):
    num_steps, num_envs = path.reward.shape
    _, buffers = jax.jit(filled, static_argnums=2)(path, acted_on, capacity)
    batches = jax.device_get(jax.jit(jax.vmap(everything, (0, None)), static_argnums=1)(buffers, n_step))
    models = [Model(capacity // num_envs) for _ in range(num_envs)]
    path = jax.device_get(path)
    for t in range(num_steps):
        expected = {}
        for n, model in enumerate(models):
            model.add(*(leaf[t, n] for leaf in path[:6]))
            expected |= model.windows(n_step)
        batch = jax.tree.map(lambda leaf, t=t: leaf[t], batches)
        held = np.flatnonzero(batch.weight)
        assert sorted(batch.obs[held]) == sorted(expected), t
        for slot in held:
            action, total, power, next_obs = expected[batch.obs[slot]]
            assert batch.action[slot] == action
            np.testing.assert_allclose(batch.reward[slot], total, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(batch.discount[slot], power, rtol=1e-6)
            assert next_obs is None or batch.next_obs[slot] == next_obs


@pytest.mark.parametrize(("capacity", "num_envs", "n_step"), [(7, 1, 3), (7, 3, 2), (13, 2, 5), (11, 5, 4), (30, 4, 1)])
def test_holds_what_a_deque_holds(capacity, num_envs, n_step):
    """Wrapping round several times, with ends and cuts at random, one environment for one slot each included."""
    generator = np.random.default_rng(capacity)
    shape = 4 * capacity // num_envs + 9, num_envs
    flags = generator.random((2, *shape)) < 0.25
    check_against_deque(*script(generator, *shape, *flags), capacity, n_step)


def test_a_time_limit_at_every_position():
    """Column t of as many environments is cut after its step t, and again two steps later."""
    num_envs = num_steps = 16
    cut = np.eye(num_envs, dtype=bool) | np.eye(num_envs, k=-2, dtype=bool)
    generator = np.random.default_rng(0)
    check_against_deque(*script(generator, num_steps, num_envs, np.zeros_like(cut), cut), 7 * num_envs, 3)


def test_every_step_cut_and_every_step_the_end():
    generator = np.random.default_rng(0)
    never, always = np.zeros((20, 2), bool), np.ones((20, 2), bool)
    check_against_deque(*script(generator, 20, 2, never, always), 10, 3)
    check_against_deque(*script(generator, 20, 2, always, never), 10, 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32", "int32"])
def test_observations_are_stored_once_in_their_dtype(dtype):
    obs = jnp.arange(30).reshape(3, 5, 2).astype(dtype)
    buffer = replay.init(SPEC, obs, 30)
    assert buffer.obs.dtype == dtype and buffer.obs.shape == (33, 10)
    transition = Transition(obs, jnp.zeros(3, int), jnp.ones(3), obs, *jnp.zeros((2, 3), bool), None)
    added = replay.add(buffer, transition, obs)
    assert jax.tree.map(jnp.result_type, added) == jax.tree.map(jnp.result_type, buffer)
    drawn = replay.windows(added, jnp.arange(2), 0.9).next_obs
    assert drawn.dtype == dtype and drawn.shape == (2, 5, 2)
    np.testing.assert_array_equal(drawn, obs[:2])


def test_actions_may_be_vectors():
    spec = Spec("box", (2,), "float32", None, Box((4,), (-1.0,) * 4, (1.0,) * 4), 100)
    obs, action = jnp.ones((3, 2)), jnp.arange(12.0).reshape(3, 4)
    transition = Transition(obs, action, jnp.ones(3), obs, *jnp.zeros((2, 3), bool), None)
    buffer = replay.add(replay.init(spec, obs, 30), transition, obs)
    np.testing.assert_array_equal(replay.windows(buffer, jnp.arange(3), 0.9).action, action)


def test_too_small_a_capacity_is_refused():
    with pytest.raises(ValueError, match=r"capacity=9 holds less than two transitions of each of 5 .*use at least 10"):
        replay.init(SPEC, jnp.zeros(5), 9)


# Drawing


def ragged(num_steps, capacity=60, num_envs=3, **options):
    """A buffer with ends and cuts; the first environment is cut much more often than the others."""
    generator = np.random.default_rng(0)
    cut = generator.random((num_steps, num_envs)) < np.array([0.6, 0.1, 0.1])
    ended = generator.random((num_steps, num_envs)) < 0.1
    make = jax.jit(lambda path, acted_on: filled(path, acted_on, capacity, **options)[0])
    return make(*script(generator, num_steps, num_envs, ended, cut))


def assert_drawn_as(counts, probabilities):
    """Chi-square at one in a thousand; what has no probability is never drawn."""
    counts, probabilities = np.asarray(counts), np.asarray(probabilities, float)
    assert counts[probabilities == 0].sum() == 0
    counts, probabilities = counts[probabilities > 0], probabilities[probabilities > 0]
    assert scipy.stats.chisquare(counts, counts.sum() * probabilities / probabilities.sum()).pvalue > 1e-3


@pytest.mark.parametrize("num_steps", [2, 9, 85, 100])  # nearly empty, not yet full, full and early or late in a round
def test_uniform_draws_are_uniform_over_transitions(num_steps):
    buffer = ragged(num_steps)
    batch = replay.sample(random.key(num_steps), buffer, 40_001, discount=DISCOUNT)
    held = np.asarray(buffer.kind != replay.EMPTY)
    kept = np.asarray(batch.weight) > 0
    assert (kept == held[batch.slot]).all() and kept.mean() > 0.8
    assert_drawn_as(np.bincount(np.asarray(batch.slot)[kept], minlength=len(held)), held)


def test_priorities_decide_the_draws_and_weights_undo_them():
    buffer = ragged(100, prioritized=True)
    held = np.flatnonzero(buffer.kind)
    weights = np.zeros(len(buffer.kind), np.float32)
    weights[held] = np.random.default_rng(0).gamma(0.5, size=len(held)) + 1e-3
    buffer = replay.prioritize(buffer, jnp.asarray(held), jnp.asarray(weights[held]))
    num_draws = 9_973
    sample = jax.jit(lambda key: replay.sample(key, buffer, num_draws, discount=0.9, importance_exponent=0.4))
    slots = np.concatenate([sample(key).slot for key in random.split(random.key(0), 5)])
    assert_drawn_as(np.bincount(slots, minlength=len(weights)), weights)
    batch = sample(random.key(9))
    drawn = weights[batch.slot]
    np.testing.assert_allclose(batch.weight, (drawn / drawn.min()) ** -0.4, rtol=1e-4)
    assert buffer.priorities.highest == max(weights.max(), 1)


def test_new_transitions_get_the_highest_priority_and_overwritten_ones_lose_theirs():
    generator = np.random.default_rng(0)
    flags = generator.random((2, 40, 2)) < 0.3
    path, acted_on = script(generator, 40, 2, *flags)
    buffer = replay.init(SPEC, acted_on[0], 14, prioritized=True)
    add, prioritize = jax.jit(replay.add), jax.jit(replay.prioritize)
    for t in range(40):
        buffer = add(buffer, jax.tree.map(lambda leaf, t=t: leaf[t], path), acted_on[t + 1])
        leaves = np.asarray(buffer.priorities.tree[0]).ravel()[: len(buffer.kind)]
        np.testing.assert_array_equal(leaves > 0, np.asarray(buffer.kind) != replay.EMPTY)
        newest = np.flatnonzero(np.isin(buffer.obs, path.obs[t]) & (leaves > 0))
        np.testing.assert_array_equal(leaves[newest], buffer.priorities.highest)
        slots = jnp.asarray(np.flatnonzero(leaves)[:1])
        buffer = prioritize(buffer, slots, jnp.array([0.5 + t]))


# The tree


@pytest.mark.parametrize("num_leaves", [1, 2, 15, 16, 17, 255, 257, 5000])
def test_every_entry_is_the_sum_of_its_children(num_leaves):
    generator = np.random.default_rng(num_leaves)
    tree, expected = sum_tree.init(num_leaves), np.zeros(num_leaves, np.float32)
    put = jax.jit(sum_tree.put)
    for _ in range(5):
        index = generator.integers(0, num_leaves, 7)
        expected[index] = generator.random(7) * 10.0 ** generator.integers(-6, 6, 7)
        tree = put(tree, jnp.asarray(index), jnp.asarray(expected[index]))
    np.testing.assert_array_equal(tree[0].ravel()[:num_leaves], expected)
    for below, level in itertools.pairwise(tree):
        np.testing.assert_allclose(level.ravel()[: len(below)], below.sum(-1), rtol=1e-6)
    assert len(tree[-1]) == 1
    np.testing.assert_allclose(sum_tree.total(tree), expected.sum(), rtol=1e-5)


def full_tree(weights):
    return sum_tree.put(sum_tree.init(len(weights)), jnp.arange(len(weights)), jnp.asarray(weights, jnp.float32))


def test_the_ends_of_a_tree_of_a_million_are_no_empty_leaves():
    """Fractions at the very ends and where rounding hurts, over weights of which most are zero."""
    generator = np.random.default_rng(0)
    weights = generator.random(10**6).astype(np.float32) * (generator.random(10**6) < 0.3)
    weights[:1000] = weights[-70_000:] = 0
    tree = full_tree(weights)
    edge = 1 - 2.0**-24
    fraction = np.concatenate([[0.0, 1.0, edge], np.cumsum(weights, dtype=np.float64)[::10] / weights.sum()])
    find = jax.jit(sum_tree.find)
    for remainder in (0.0, 0.5, edge, 1.0):
        at = jnp.asarray(fraction.clip(0, 1), jnp.float32)
        index, weight = find(tree, at, jnp.full(len(fraction), remainder, jnp.float32))
        assert (np.asarray(weight) > 0).all()
        np.testing.assert_array_equal(weight, weights[index])


def test_leaves_of_a_million_are_told_apart():
    """At one fraction of the total, the remainder finds each leaf around there in proportion to its weight."""
    weights = 1 + np.random.default_rng(0).random(10**6)
    grid = jnp.arange(2**18) / 2**18
    index, _ = jax.jit(sum_tree.find)(full_tree(weights), jnp.full(len(grid), 0.7), grid)
    leaves = np.arange(index[0], index[-1] + 1)
    assert len(leaves) >= 256 and (np.diff(index) >= 0).all()
    expected = weights[leaves] / weights[leaves].sum()
    np.testing.assert_allclose(np.bincount(index - index[0]) / len(grid), expected, atol=2 / len(grid))


def test_draws_among_a_million_leaves():
    """By blocks of leaves and by their last digits, which the 24 bits of one number would get wrong."""
    generator = np.random.default_rng(0)
    weights = np.where(np.arange(10**6) % 3 == 0, 0.0, 1 + generator.random(10**6))
    tree = full_tree(weights)
    draw = jax.jit(sum_tree.draw, static_argnums=2)
    index = np.concatenate([draw(key, tree, 200_003)[0] for key in random.split(random.key(0), 5)])
    assert (weights[index] > 0).all()
    for part in (lambda i: i // 10_000, lambda i: i % 96):
        expected = np.bincount(part(np.arange(10**6)), weights)
        assert_drawn_as(np.bincount(part(index), minlength=len(expected)), expected)


def test_sums_do_not_drift():
    """Ten thousand rounds of large and small weights at the same leaves leave the sums those of the last."""
    tree = full_tree(np.ones(300))

    def one(tree, key):
        index = random.randint(key, (8,), 0, 300)
        tree = sum_tree.put(tree, index, 1e6 * jnp.ones(8))
        return sum_tree.put(tree, index, jnp.ones(8)), None

    tree, _ = jax.jit(lambda tree: lax.scan(one, tree, random.split(random.key(0), 10_000)))(tree)
    assert sum_tree.total(tree) == 300


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("num_lanes", [None, 2])
def test_nothing_copies_the_buffer(prioritized, num_lanes):
    """What a program that adds and draws in a scan allocates does not grow with the buffer."""

    def allocated(capacity):
        obs = jnp.zeros((4, 5))
        transition = Transition(obs, jnp.zeros(4, int), jnp.ones(4), obs, *jnp.zeros((2, 4), bool), None)

        def one(buffer, key):
            buffer = replay.add(buffer, transition, obs)
            batch = replay.sample(key, buffer, 8, discount=0.9, n_step=2)
            if prioritized:
                buffer = replay.prioritize(buffer, batch.slot, batch.reward + batch.next_obs.sum(-1))
            return buffer, batch.weight.sum()

        def run(buffer, key):
            return lax.scan(one, buffer, random.split(key, 5))

        def start():
            return replay.init(SPEC, obs, capacity, prioritized=prioritized)

        buffer, key = jax.eval_shape(start), random.key(0)
        if num_lanes is not None:
            buffer = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_lanes, *leaf.shape), leaf.dtype), buffer)
            run = jax.vmap(run, (0, None))
        memory = jax.jit(run, donate_argnums=0).lower(buffer, key).compile().memory_analysis()
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(buffer))
        assert memory.alias_size_in_bytes >= size  # the buffer given back is the one that was handed over
        return memory.temp_size_in_bytes

    assert allocated(1_000_000) <= allocated(1000) + 64_000
