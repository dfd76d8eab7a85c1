import jax
import numpy as np
import pytest
from jax import lax, random
from jax import numpy as jnp

from jaxrl import normalize

RNG = np.random.default_rng(0)


def fed(batches, shape):
    statistics = normalize.init(shape)
    for batch in batches:
        statistics = normalize.update(statistics, jnp.asarray(batch))
    return statistics


@pytest.mark.parametrize("sizes", [(64,), (1, 1, 1, 1), (3, 1, 50, 7), (1000, 1000, 2)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_merged_batches_equal_numpy_on_all_samples(sizes, shape):
    # Far from zero, where squares minus squared means would cancel.
    batches = [RNG.normal(300.0, RNG.uniform(0.5, 2.0, shape), (size, *shape)).astype(np.float32) for size in sizes]
    statistics, samples = fed(batches, shape), np.concatenate(batches).astype(float)
    np.testing.assert_allclose(statistics.mean, samples.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.var, samples.var(0), rtol=1e-3, atol=1e-6)
    assert statistics.num_samples == sum(sizes)


def test_leading_axes_and_dtypes():
    paths = RNG.integers(0, 255, (5, 6, 3), dtype=np.uint8)
    statistics = fed([paths], (3,))
    np.testing.assert_allclose(statistics.mean, paths.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(statistics.var, paths.var((0, 1)), rtol=1e-5)
    normalized = normalize.normalize(statistics, jnp.asarray(paths))
    assert normalized.dtype == jnp.float32
    np.testing.assert_allclose(normalized, (paths - paths.mean((0, 1))) / paths.std((0, 1)), rtol=1e-5, atol=1e-5)


def test_nothing_seen_changes_nothing_but_clips():
    obs = jnp.array([-20.0, -1.0, 0.0, 3.0, 20.0])
    np.testing.assert_allclose(normalize.normalize(normalize.init(()), obs, clip=5.0), [-5, -1, 0, 3, 5])


def test_constant_data_and_single_samples_stay_finite():
    statistics = fed([np.full((8, 2), 7.0)] * 3, (2,))
    np.testing.assert_array_equal(normalize.normalize(statistics, jnp.full((2, 2), 7.0)), 0.0)
    np.testing.assert_array_equal(normalize.normalize(statistics, jnp.full((2,), 8.0)), 10.0)
    one = fed([np.array([[3.0, -3.0]])], (2,))
    np.testing.assert_array_equal(one.var, 0.0)
    assert np.isfinite(normalize.normalize(one, jnp.zeros(2))).all()


def test_a_billion_samples_neither_freeze_nor_drift():
    """Where float32 can no longer count: 1 + 2**24 is 2**24."""
    start = normalize.Statistics(jnp.float32(5.0), jnp.float32(4.0), jnp.float32(1e9))
    noise = 5.0 + 2.0 * random.normal(random.key(0), (2000, 64))

    @jax.jit
    def feed(statistics, batches):
        return lax.scan(lambda statistics, batch: (normalize.update(statistics, batch), None), statistics, batches)[0]

    same = feed(start, noise)
    np.testing.assert_allclose([same.mean, same.var], [5.0, 4.0], rtol=1e-2)
    assert same.num_samples == normalize.MAX_COUNT

    # A changed world is followed, by a moving average over MAX_COUNT samples; the formula in float64.
    batches, size = 20_000, 2048
    changed = feed(same, jnp.full((batches, size), 6.0))
    share = size / (normalize.MAX_COUNT + size)
    left = (1 - share) ** batches
    np.testing.assert_allclose(6.0 - changed.mean, left, rtol=0.01)
    second_moment = left * (4.0 + 25.0) + (1 - left) * 36.0
    np.testing.assert_allclose(changed.var, second_moment - changed.mean**2, rtol=0.02)


def test_single_samples_still_move_the_mean_at_the_largest_count():
    full = normalize.Statistics(jnp.float32(0.0), jnp.float32(1.0), jnp.float32(normalize.MAX_COUNT))
    moved = normalize.update(full, jnp.array([1.0]))
    np.testing.assert_allclose(moved.mean, 2.0**-24, rtol=1e-3)


def test_seeds_side_by_side():
    data = RNG.normal(size=(5, 30, 2)).astype(np.float32)
    together = jax.vmap(lambda batch: normalize.update(normalize.init((2,)), batch))(jnp.asarray(data))
    np.testing.assert_allclose(together.mean, data.mean(1), atol=1e-6)
    np.testing.assert_allclose(together.var, data.var(1), rtol=1e-5)


def running_returns(reward, done, discount):
    """Return so far at every step, one environment after the other."""
    out = np.zeros_like(reward, dtype=float)
    for env in range(reward.shape[1]):
        so_far = 0.0
        for time in range(reward.shape[0]):
            so_far = discount * so_far + reward[time, env]
            out[time, env] = so_far
            so_far = 0.0 if done[time, env] else so_far
    return out


def test_returns_over_many_paths_equal_one_long_loop():
    reward = RNG.normal(2.0, 3.0, (40, 3)).astype(np.float32)
    done = RNG.random((40, 3)) < 0.2
    done[9, 0] = True  # at the end of a path
    returns = normalize.init_returns(3)
    for path in (slice(0, 10), slice(10, 11), slice(11, 40)):
        returns = normalize.update_returns(returns, jnp.asarray(reward[path]), jnp.asarray(done[path]), 0.9)
    expected = running_returns(reward, done, 0.9)
    np.testing.assert_allclose(returns.statistics.var, expected.var(), rtol=1e-4)
    np.testing.assert_allclose(returns.running, np.where(done[-1], 0.0, expected[-1]), rtol=1e-4, atol=1e-5)
    scaled = normalize.scale_rewards(returns, jnp.asarray(reward))
    np.testing.assert_allclose(scaled, reward / expected.std(), rtol=1e-4)
    assert np.abs(normalize.scale_rewards(returns, jnp.asarray(reward), clip=0.1)).max() == np.float32(0.1)


def test_returns_that_never_vary():
    returns = normalize.update_returns(normalize.init_returns(2), jnp.zeros((4, 2)), jnp.zeros((4, 2), bool), 0.99)
    np.testing.assert_array_equal(normalize.scale_rewards(returns, jnp.zeros(3)), 0.0)
    ones = normalize.update_returns(normalize.init_returns(2), jnp.ones((4, 2)), jnp.ones((4, 2), bool), 0.99)
    np.testing.assert_array_equal(normalize.scale_rewards(ones, jnp.ones(3)), 10.0)
