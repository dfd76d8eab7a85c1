"""Gradient steps against optax and by hand."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl.core import fit

GRADIENTS = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}


def clipped(max_norm, gradients=GRADIENTS):
    return fit.clip_by_global_norm(gradients, max_norm)


def test_the_norm_is_of_all_leaves_together():
    result, norm = clipped(1.0)
    np.testing.assert_allclose([result["a"][0], result["b"][0, 0]], [0.6, 0.8], rtol=1e-6)
    assert norm == 5.0
    result, norm = clipped(1.0, jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(result, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("bound", [5.0, 7.0, 1e30, jnp.inf])
def test_within_the_bound_nothing_changes(bound):
    result, norm = clipped(bound)
    jax.tree.map(np.testing.assert_array_equal, result, GRADIENTS)
    assert norm == 5.0


@pytest.mark.parametrize("bound", [0.0, 1.0, jnp.inf])
def test_zero_gradients_stay_zero(bound):
    result, norm = clipped(bound, jnp.zeros(3))
    np.testing.assert_array_equal(result, jnp.zeros(3))
    assert norm == 0


def test_the_bound_may_be_swept():
    bounds = jnp.array([0.5, 1.0, 10.0, jnp.inf])
    result, _ = jax.jit(jax.vmap(clipped))(bounds)
    norms = jnp.sqrt(result["a"][:, 0] ** 2 + result["b"][:, 0, 0] ** 2)
    np.testing.assert_allclose(norms, [0.5, 1.0, 5.0, 5.0], rtol=1e-6)


def test_low_precision_keeps_its_dtype():
    result, _ = clipped(1.0, jnp.array([3.0, 4.0], jnp.bfloat16))
    assert result.dtype == jnp.bfloat16


def quadratic(params, target):
    error = sum(jnp.square(leaf - target).sum() for leaf in jax.tree.leaves(params))
    return error, {"error": error}


OPTIMIZERS = {
    "adam": (fit.Optimizer("adam", epsilon=1e-5), lambda rate: optax.adam(rate, eps=1e-5)),
    "adamw": (
        fit.Optimizer("adamw", epsilon=1e-6, weight_decay=0.1),
        lambda rate: optax.adamw(rate, eps=1e-6, weight_decay=0.1),
    ),
    "radam": (fit.Optimizer("radam", epsilon=1e-4), lambda rate: optax.radam(rate, eps=1e-4)),
    "second moment": (fit.Optimizer(momentum=0.0, square_decay=0.9), lambda rate: optax.adam(rate, 0.0, 0.9)),
    "rmsprop": (fit.Optimizer("rmsprop", epsilon=1e-3), lambda rate: optax.rmsprop(rate, decay=0.99, eps=1e-3)),
    "sgd": (fit.Optimizer("sgd", momentum=0.5), lambda rate: optax.sgd(rate, momentum=0.5)),
    "any factory": (optax.lion, optax.lion),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_optax_ones_and_their_rate_is_traced(name):
    """Against optax with the rate written in, three steps, two rates in one program."""
    factory, reference = OPTIMIZERS[name]
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    rates = jnp.array([0.1, 0.02])

    def steps(rate):
        fitted = fit.start(factory, params)
        for _ in range(3):
            fitted, metrics = fit.step(factory(rate), quadratic, fitted, 3.0)
        return fitted.params, metrics

    swept, metrics = jax.jit(jax.vmap(steps))(rates)
    assert set(metrics) == {"error"}
    for lane, rate in enumerate([0.1, 0.02]):
        optimizer, expected = reference(rate), params
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(jax.grad(lambda p: quadratic(p, 3.0)[0])(expected), state, expected)
            expected = optax.apply_updates(expected, updates)
        ours = jax.tree.map(lambda leaf, lane=lane: leaf[lane], swept)
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5), ours, expected)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"'adma'.*adam, adamw, radam, rmsprop or sgd"):
        fit.Optimizer("adma")(0.1)


def test_a_step_clips_before_it_moves():
    """Plain gradient descent from 0 towards (3/2, 4/2): gradient -(3, 4)."""
    sgd = fit.Optimizer("sgd", momentum=0.0)

    def loss(params):
        return -(params @ jnp.array([3.0, 4.0])), {}

    fitted, metrics = fit.step(sgd(0.5), loss, fit.start(sgd, jnp.zeros(2)), max_grad_norm=1.0)
    np.testing.assert_allclose(fitted.params, [0.3, 0.4], rtol=1e-6)
    assert metrics["grad_norm"] == 5.0  # before clipping
    fitted, metrics = fit.step(sgd(0.5), loss, fit.start(sgd, jnp.zeros(2)))
    np.testing.assert_allclose(fitted.params, [1.5, 2.0], rtol=1e-6)
    assert not metrics


def test_an_epoch_visits_every_element_once():
    batch = {"x": jnp.arange(12), "twice": 2 * jnp.arange(12)}

    def step(visits, minibatch):
        np.testing.assert_equal(minibatch["x"].shape, (4,))
        together = (minibatch["twice"] == 2 * minibatch["x"]).all()
        return visits.at[minibatch["x"]].add(1), {"together": together, "sum": minibatch["x"].sum()}

    for num_epochs in (1, 3):
        visits, metrics = fit.epochs(random.key(0), step, jnp.zeros(12, jnp.int32), batch, num_epochs, 3)
        np.testing.assert_array_equal(visits, num_epochs)
        assert metrics["together"] == 1
        np.testing.assert_allclose(metrics["sum"], 22.0)  # averaged over all steps: 66 / 3


def test_epochs_differ_in_their_order():
    def step(carry, minibatch):
        count, orders = carry
        return (count + 1, orders.at[count].set(minibatch)), {}

    carry = (jnp.int32(0), jnp.zeros((6, 50), jnp.int32))
    (_, orders), _ = fit.epochs(random.key(0), step, carry, jnp.arange(100), 3, 2)
    orders = np.asarray(orders).reshape(3, 100)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(100))
    assert all((orders[i] != orders[j]).mean() > 0.5 for i in range(3) for j in range(i))


def test_minibatches_must_divide_the_batch():
    with pytest.raises(ValueError, match=r"10 .* 3 "):
        fit.epochs(random.key(0), lambda carry, minibatch: (carry, {}), 0, jnp.arange(10), 1, 3)


@pytest.mark.parametrize("at_once", [1, 2, 4, 100])
def test_a_step_in_parts_is_a_step(at_once):
    """6 examples by 1, by 2, by 3 (the largest part within 4) and all at once: the same mean loss and gradient."""
    sgd = fit.Optimizer("sgd", momentum=0.0)
    batch = random.normal(random.key(0), (6, 3)), jnp.arange(6.0)

    def loss(params, batch):
        x, y = batch
        error = jnp.square(jnp.tanh(x @ params) - y)
        return error.mean(), {"loss": error.mean(), "largest": jnp.abs(y).mean()}

    fitted = fit.start(sgd, jnp.array([0.1, -0.2, 0.3]))
    whole, metrics = fit.step(sgd(0.5), loss, fitted, batch, max_grad_norm=0.7)
    parts, found = jax.jit(lambda fitted: fit.step_in_parts(sgd(0.5), loss, fitted, batch, at_once, 0.7))(fitted)
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, metrics)


def test_a_step_in_parts_takes_no_more_at_once():
    seen = []

    def loss(params, batch):
        seen.append(batch.shape[0])
        return (params * batch).mean(), {}

    sgd = fit.Optimizer("sgd")
    step = lambda fitted: fit.step_in_parts(sgd(0.1), loss, fitted, jnp.arange(12.0), 5)  # noqa: E731
    text = jax.jit(step).lower(fit.start(sgd, jnp.float32(1))).compile().as_text()
    assert set(seen) == {4, 12}  # 12 for its shapes and for other platforms
    assert " conditional(" not in text  # which platform it is, is known
