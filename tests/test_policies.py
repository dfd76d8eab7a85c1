"""Distributions over actions against numerical integrals, samples and closed forms."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from scipy import stats

from jaxrl import normalize, policies
from jaxrl.core import networks
from jaxrl.envs import Box, Discrete, Spec

LOW, HIGH = -1.0, 5.0  # not symmetric about 0
BOX = Box((1,), (LOW,), (HIGH,))
BOX_2D = Box((2,), (LOW, -0.5), (HIGH, 0.1))
MEANS, LOG_STDS = (0.0, 0.7, -2.0), (0.0, -1.5, 0.8)


def distribution(name, mean, log_std, box=BOX):
    shape = box.shape
    return policies.head(box, name).distribution(
        jnp.broadcast_to(jnp.float32(mean), shape), jnp.broadcast_to(jnp.float32(log_std), shape)
    )


@pytest.mark.parametrize("log_std", LOG_STDS)
@pytest.mark.parametrize("mean", MEANS)
def test_gaussian_density_integrates_to_1(mean, log_std):
    policy = distribution("gaussian", mean, log_std)
    action = np.linspace(-60, 60, 20001, dtype=np.float32)  # in units of 3
    density = np.exp(jax.vmap(policy.log_prob)(action[:, None]))
    np.testing.assert_allclose(np.trapezoid(density, action), 1, atol=1e-4)


@pytest.mark.parametrize("log_std", LOG_STDS)
@pytest.mark.parametrize("mean", MEANS)
def test_squashed_density_integrates_to_1(mean, log_std):
    """To the mass of latents within +-6: beyond, float32 has few numbers left before the bounds."""
    policy = distribution("squashed_gaussian", mean, log_std)
    action = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * np.tanh(np.linspace(-6, 6, 20001))
    density = np.exp(jax.vmap(policy.log_prob)(jnp.float32(action)[:, None]))
    mass = np.diff(stats.norm.cdf([-6, 6], mean, math.exp(log_std)))[0]
    np.testing.assert_allclose(np.trapezoid(density, action), mass, atol=1e-3)


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7, 0.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_squashed_density_and_its_gradient_are_finite_up_to_the_bounds(sign, distance):
    """Also for a symmetric unit box, where float32 can express 1 - 1e-7."""
    for low, high in [(LOW, HIGH), (-1.0, 1.0)]:
        action = (low + high) / 2 + sign * (high - low) / 2 * jnp.float32(1 - distance)

        def log_prob(mean, log_std, low=low, high=high, action=action):
            policy = distribution("squashed_gaussian", mean, log_std, Box((1,), (low,), (high,)))
            return policy.log_prob(action[None])

        value, slopes = jax.value_and_grad(log_prob, (0, 1))(0.3, -1.0)
        assert np.isfinite([value, *slopes]).all()


def test_squashed_density_near_a_bound_is_right():
    """Against the definition in float64, at places that float32 still tells from the bound."""
    latent = np.array([-4.0, -1.0, 0.0, 2.5, 4.5])
    unit = np.tanh(latent).astype(np.float32).astype(float)
    latent = np.arctanh(unit)
    mean, std, center, half_width = 0.4, 0.5, 2.0, 3.0
    expected = -0.5 * ((latent - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    expected -= np.log1p(-(unit**2)) + math.log(half_width)
    policy = distribution("squashed_gaussian", mean, math.log(std))
    ours = jax.vmap(policy.log_prob)(jnp.float32(center + half_width * unit)[:, None])
    np.testing.assert_allclose(ours, expected, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "squashed_gaussian"])
def test_samples_entropy_and_divergence_agree_with_the_density(name):
    policy = distribution(name, [0.5, -0.3], [-0.7, 0.2], BOX_2D)
    other = distribution(name, [0.1, 0.2], [-0.3, 0.0], BOX_2D)
    count = 200_000

    @jax.jit
    def estimate(key):
        sample = policy.sample(seed=key, sample_shape=(count,))
        log_prob = policy.log_prob(sample)
        return sample, log_prob, log_prob - other.log_prob(sample)

    sample, log_prob, log_ratio = estimate(random.key(0))
    error = 5 / math.sqrt(count)
    np.testing.assert_allclose(policy.entropy(), -log_prob.mean(), atol=error * log_prob.std())
    np.testing.assert_allclose(policy.kl_divergence(other), log_ratio.mean(), atol=error * log_ratio.std())
    assert policy.kl_divergence(policy) == 0
    # Chi-square of the first coordinate's histogram against the density of that coordinate alone.
    alone = distribution(name, 0.5, -0.7, Box((1,), BOX_2D.low[:1], BOX_2D.high[:1]))
    edges = np.quantile(sample[:, 0], np.linspace(0, 1, 21))
    grid = np.linspace(edges[:-1], edges[1:], 201).astype(np.float32)  # [201, 20]
    density = np.exp(jax.vmap(jax.vmap(alone.log_prob))(grid[..., None]))
    np.testing.assert_allclose(np.trapezoid(density, grid, axis=0)[1:-1], 1 / 20, rtol=0.05)


def test_squashed_samples_keep_within_the_bounds_and_gaussian_ones_are_clipped():
    for name in ("gaussian", "squashed_gaussian"):
        head = policies.head(BOX_2D, name)
        policy = head.distribution(jnp.array([3.0, -3.0]), jnp.array([1.0, 1.0]))
        sample = policy.sample(seed=random.key(0), sample_shape=(1000,))
        action = head.to_env(sample)
        low, high = np.float32(BOX_2D.low), np.float32(BOX_2D.high)
        assert ((action >= low) & (action <= high)).all()
        outside = ((sample < low) | (sample > high)).any()
        assert outside if name == "gaussian" else not outside
        np.testing.assert_array_equal(action, np.clip(sample, low, high))
        assert np.isfinite(jax.vmap(policy.log_prob)(sample)).all()


def test_mode():
    np.testing.assert_allclose(distribution("gaussian", 0.5, 1.0).mode(), [3.5], rtol=1e-6)
    mode = distribution("squashed_gaussian", 0.5, 1.0).mode()
    np.testing.assert_allclose(mode, [2 + 3 * math.tanh(0.5)], rtol=1e-6)
    assert policies.head(Discrete(3), "gaussian").distribution(jnp.array([1.0, 3.0, 2.0]), jnp.zeros(0)).mode() == 1


def test_infinite_bounds():
    """The unit is 1 where a bound is infinite, half the width where not."""
    box = Box((3,), (-math.inf, 0.0, -1.0), (math.inf, math.inf, 3.0))
    head = policies.head(box, "gaussian")
    policy = head.distribution(jnp.zeros(3), jnp.zeros(3))
    np.testing.assert_allclose(policy.mean(), [0, 0, 1])
    np.testing.assert_allclose(policy.stddev(), [1, 1, 2])
    np.testing.assert_array_equal(head.to_env(jnp.array([-1e9, -5.0, 7.0])), [-1e9, 0.0, 3.0])
    assert np.isfinite(policy.entropy())
    with pytest.raises(ValueError, match=r"-inf.*inf.*distribution='gaussian'"):
        policies.head(box, "squashed_gaussian")
    largest = float(np.finfo(np.float32).max)  # stands for infinity in many an environment
    policy = policies.head(Box((1,), (-largest,), (largest,)), "gaussian").distribution(jnp.zeros(1), jnp.zeros(1))
    assert policy.stddev() == 1


def test_an_entry_without_choice_is_refused():
    with pytest.raises(ValueError, match="leave some entry no choice"):
        policies.head(Box((2,), (-1.0, 0.5), (1.0, 0.5)), "gaussian")


def test_categorical_in_closed_form():
    head = policies.head(Discrete(3), "gaussian")
    assert (head.num_outputs, head.num_free) == (3, 0)
    p = np.array([0.2, 0.5, 0.3])
    policy = head.distribution(jnp.log(p) + 4.0, jnp.zeros(0))
    np.testing.assert_allclose(jax.vmap(policy.log_prob)(jnp.arange(3)), np.log(p), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), -(p * np.log(p)).sum(), rtol=1e-5)
    q = np.array([0.1, 0.1, 0.8])
    other = head.distribution(jnp.log(q), jnp.zeros(0))
    np.testing.assert_allclose(policy.kl_divergence(other), (p * np.log(p / q)).sum(), rtol=1e-5)
    sample = policy.sample(seed=random.key(0), sample_shape=(100_000,))
    np.testing.assert_allclose(np.bincount(sample) / 100_000, p, atol=0.01)
    assert jnp.issubdtype(sample.dtype, jnp.integer)


def spec(obs_shape, action, num_obs=None):
    dtype = "float32" if num_obs is None else "int32"
    return Spec(name="test", obs_shape=obs_shape, obs_dtype=dtype, num_obs=num_obs, action=action, max_steps=10)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("obs_shape", "description"),
    [
        ((3,), networks.MLP((5,))),
        ((3,), networks.MLP(())),
        ((6, 5, 2), networks.CNN((3,), hidden=(7,))),
        ((6, 5, 2), networks.CNN((3,), hidden=())),
    ],
)
def test_actor_critic_shapes_and_near_uniform_start(obs_shape, description, shared):
    box = Box((2, 2), (-1.0,) * 4, (1.0,) * 4)
    head = policies.head(box, "gaussian")
    network = policies.actor_critic(spec(obs_shape, box), head, description, shared=shared)
    params = network.init(random.key(0))
    assert bool(jax.tree.leaves(params["torso"])) == (shared and description != networks.MLP(()))
    obs = random.normal(random.key(1), (3, 2, *obs_shape))
    (outputs, free), value = network.apply(params, obs)
    assert outputs.shape == (3, 2, 4) and free.shape == (4,) and value.shape == (3, 2)
    assert jnp.abs(outputs).max() < 0.1 and value.std() > 0.05
    policy = head.distribution(outputs, free)
    sample = policy.sample(seed=random.key(2))
    assert policy.log_prob(sample).shape == policy.entropy().shape == (3, 2)
    assert head.to_env(sample).shape == (3, 2, 2, 2)


def test_pixels_are_scaled_once():
    encode, _ = policies.encoder(replace(spec((6, 5, 2), Discrete(2)), obs_dtype="uint8"))
    pixels = random.randint(random.key(0), (50, 6, 5, 2), 0, 256).astype(jnp.uint8)
    np.testing.assert_allclose(encode(pixels), pixels / 255, rtol=1e-6)
    normalizer = normalize.start((6, 5, 2), 50, observations=True, rewards=False)
    normalizer = normalizer._replace(observations=normalize.update(normalizer.observations, pixels))
    np.testing.assert_allclose(encode(normalize.see(normalizer, pixels)).std(), 1.0, rtol=0.01)


def test_discrete_observations_become_one_hot():
    head = policies.head(Discrete(2), "gaussian")
    network = policies.actor_critic(spec((), Discrete(2), num_obs=4), head, networks.MLP(()))
    params = network.init(random.key(0))
    _, value = network.apply(params, jnp.arange(4))
    np.testing.assert_allclose(value, params["critic"]["Dense_0"]["kernel"][:, 0], rtol=1e-6)
