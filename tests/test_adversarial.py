"""What adversarial models share, against closed forms."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from generative import adversarial, data, datasets
from generative.adversarial import LOSSES
from jaxrl.core import fit


def test_the_best_discriminator_measures_the_jensen_shannon_divergence():
    """On p = (2, 1, 1) / 4 and q = (1, 1, 2) / 4 the best logits are log(p / q), and the loss log 4 - 2 JS(p, q)."""
    p, q = np.array([2, 1, 1]) / 4, np.array([1, 1, 2]) / 4
    real, generated = jnp.array([0, 0, 1, 2]), jnp.array([0, 1, 2, 2])

    def loss(logits):
        return adversarial.logistic_discriminator(logits[real], logits[generated])

    best = jnp.log(p / q)
    middle = (p + q) / 2
    divergence = 0.5 * (p @ np.log(p / middle) + q @ np.log(q / middle))
    assert loss(best) == pytest.approx(math.log(4) - 2 * divergence, abs=1e-6)
    np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=1e-7)


@pytest.mark.parametrize(("name", "logit", "slope"), [("minimax", -30, 0), ("non_saturating", -30, -1)])
def test_what_the_generator_learns_from_a_sure_discriminator(name, logit, slope):
    value, gradient = jax.value_and_grad(LOSSES[name].generator)(jnp.float32([logit]))
    assert np.isfinite(value)
    assert gradient[0] == pytest.approx(slope, abs=1e-9)


def test_other_losses_by_hand():
    real, generated = jnp.array([2.0, 0.5]), jnp.array([-3.0, 1.0])
    expected = {"hinge": (1.25, 1.0), "wasserstein": (-2.25, 1.0), "least_squares": (2.8125, 8.0)}
    for name, (discriminator, generator) in expected.items():
        assert LOSSES[name].discriminator(real, generated) == pytest.approx(discriminator)
        assert LOSSES[name].generator(generated) == pytest.approx(generator)


def test_penalties_of_a_linear_critic():
    slope, (real, generated) = jnp.array([[2.0], [-1.0], [2.0]]), random.normal(random.key(0), (2, 5, 3, 1))

    def critic(x):
        return (x * slope).sum((1, 2))

    weight = random.uniform(random.key(1), (5,))
    assert adversarial.gradient_penalty(critic, real, generated, weight) == pytest.approx((3 - 1) ** 2, rel=1e-6)
    assert adversarial.real_penalty(critic, real) == pytest.approx(9 / 2, rel=1e-6)


def test_a_pack_is_penalised_as_a_whole():
    slope = jnp.array([1.0, 2.0, 2.0, 4.0])
    penalty = adversarial.real_penalty(lambda x: adversarial.pack(x, 2) @ slope, random.normal(random.key(0), (6, 2)))
    assert penalty == pytest.approx(25 / 2, rel=1e-6)


def test_each_example_has_its_own_place_on_the_line():
    """The critic |x|^2 / 2 has the gradient x, so that the penalty shows where it was taken."""
    real, generated = random.normal(random.key(0), (2, 4, 3))
    weight = jnp.array([0.0, 1.0, 0.25, 0.5])
    place = weight[:, None] * real + (1 - weight[:, None]) * generated
    expected = np.square(np.linalg.norm(place, axis=1) - 1).mean()
    found = adversarial.gradient_penalty(lambda x: jnp.square(x).sum(-1) / 2, real, generated, weight)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_a_critic_without_slope_has_a_finite_penalty():
    x = jnp.ones((3, 2))

    def penalty(slope):
        return adversarial.gradient_penalty(lambda x: x @ slope, x, x, jnp.zeros(3))

    value, gradient = jax.value_and_grad(penalty)(jnp.zeros(2))
    assert value == 1
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_spectral_normalisation_against_singular_values():
    params = {"a": {"kernel": random.normal(random.key(0), (7, 4)), "bias": 3 * jnp.ones(4)}}
    params["b"] = {"kernel": random.normal(random.key(1), (3, 3, 2, 5))}
    vectors = adversarial.start_power_iterations(random.key(2), params)
    assert [vector.shape for vector in vectors] == [(4,), (5,)]
    for _ in range(100):
        normalized, vectors = adversarial.spectrally_normalized(params, vectors)
    for name, rows in (("a", 7), ("b", 18)):
        matrix = np.asarray(params[name]["kernel"]).reshape(rows, -1)
        largest = np.linalg.svd(matrix, compute_uv=False)[0]
        np.testing.assert_allclose(normalized[name]["kernel"].reshape(rows, -1), matrix / largest, rtol=1e-4)
    np.testing.assert_array_equal(normalized["a"]["bias"], 3)

    def own_norm(params):  # 1 whatever the parameters, if the gradient goes through the division too
        return adversarial.spectrally_normalized(params, vectors)[0]["a"]["kernel"] @ vectors[0] @ left

    left = np.linalg.svd(params["a"]["kernel"])[0][:, 0]
    np.testing.assert_allclose(jax.grad(own_norm)(params)["a"]["kernel"], 0, atol=1e-4)


def test_a_kernel_of_zeros_stays_and_can_leave():
    params = {"kernel": jnp.zeros((3, 2))}
    vectors = adversarial.start_power_iterations(random.key(0), params)

    def loss(params):
        normalized, after = adversarial.spectrally_normalized(params, vectors)
        return normalized["kernel"].sum(), (normalized, after)

    gradient, (normalized, after) = jax.grad(loss, has_aux=True)(params)
    np.testing.assert_array_equal(normalized["kernel"], 0)
    np.testing.assert_array_equal(gradient["kernel"], 1)
    np.testing.assert_array_equal(after[0], vectors[0])


def test_packing_keeps_examples_whole():
    x = jnp.arange(4 * 2 * 3 * 2).reshape(4, 2, 3, 2)
    packed = adversarial.pack(x, 2)
    assert packed.shape == (2, 2, 3, 4)
    np.testing.assert_array_equal(packed[1], np.concatenate([x[2], x[3]], -1))
    np.testing.assert_array_equal(adversarial.pack(x, 1), x)
    np.testing.assert_array_equal(adversarial.pack(jnp.arange(6).reshape(3, 2), 3), [[0, 1, 2, 3, 4, 5]])


def test_labels_become_channels():
    label = jnp.array([2, 0])
    np.testing.assert_array_equal(adversarial.with_label(jnp.full((2, 1), 7.0), label, 3), [[7, 0, 0, 1], [7, 1, 0, 0]])
    image = adversarial.with_label(jnp.zeros((2, 4, 5, 1)), label, 3)
    assert image.shape == (2, 4, 5, 4)
    np.testing.assert_array_equal(image[0, 3, 2], [0, 0, 0, 1])


def test_moving_average_by_hand():
    average = {"w": jnp.array([0.0])}
    for value in (1.0, 2.0, 4.0):
        average = adversarial.moving_average(average, {"w": jnp.array([value])}, jnp.float32(0.9))
    np.testing.assert_allclose(average["w"], [0.81 * 0.1 + 0.9 * 0.2 + 0.4], rtol=1e-6)


def test_the_average_of_a_generator_leaves_its_start_at_once():
    """Parameters and statistics, with the decay asked for once (1 + t) / (10 + t) has passed it."""
    average = adversarial.start_average(adversarial.Player(fit.Fit(jnp.float32(0), ()), jnp.float32(8)))
    player = adversarial.Player(fit.Fit(jnp.float32(10), ()), jnp.float32(2))
    average = adversarial.follow(average, player, 0.9)
    assert (average.params, average.stats, average.updates) == pytest.approx((9, 2.6, 1), rel=1e-6)
    late = adversarial.follow(average._replace(updates=jnp.int32(1000)), player, 0.9)
    assert (late.params, late.stats) == pytest.approx((9.1, 2.54), rel=1e-6)


def test_values_are_mapped_to_where_networks_want_them_and_back():
    for name in ("digits", "grid"):
        spec, source = datasets.load(name)
        x = adversarial.normalize(spec, source.train.x)
        assert (x.min() >= -1) and (x.max() <= 1) and x.max() - x.min() > 1.99
        np.testing.assert_allclose(adversarial.denormalize(spec, x), data.scale(source.train.x, spec.levels), atol=1e-5)
