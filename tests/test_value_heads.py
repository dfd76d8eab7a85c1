"""Targets and losses of expected returns, categorical distributions and quantiles, against rlax."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import rlax
from jax import numpy as jnp

from jaxrl import value_heads

B, A, K = 17, 3, 5
SUPPORT = np.linspace(-2.0, 3.0, K).astype(np.float32)


class Made(NamedTuple):
    """What a target and a loss are made of, at random."""

    outputs: Any  # [B, A, K]
    next_outputs: Any
    selector: Any
    action: Any
    reward: Any
    discount: Any  # a third of them 0


def made(num_outputs):
    generator = np.random.default_rng(num_outputs)
    outputs = generator.normal(size=(3, B, A, num_outputs)).astype(np.float32)
    reward = generator.normal(size=B).astype(np.float32)
    discount = np.where(generator.random(B) < 0.3, 0.0, 0.9).astype(np.float32)
    return Made(*outputs, generator.integers(0, A, B), reward, discount)


def ours(head, case, selector, delta=1.0):
    """Loss of each sample."""
    target = head.target(case.reward, case.discount, case.next_outputs, head.mean(selector))
    return head.loss(value_heads.choose(case.outputs, case.action), target, delta)


# Targets and losses


@pytest.mark.parametrize("double", [False, True])
def test_expected_target_is_that_of_rlax(double):
    case = made(1)
    q, next_q, selector = (x[..., 0] for x in case[:3])
    if double:
        error = jax.vmap(rlax.double_q_learning)(q, case.action, case.reward, case.discount, next_q, selector)
    else:
        error = jax.vmap(rlax.q_learning)(q, case.action, case.reward, case.discount, next_q)
    found, surprise = ours(value_heads.expectation(), case, case.selector if double else case.next_outputs)
    np.testing.assert_allclose(found, rlax.huber_loss(error, 1.0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(surprise, jnp.abs(error), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Rlax categorical_cross_entropy:PendingDeprecationWarning")
@pytest.mark.parametrize("double", [False, True])
def test_categorical_target_is_that_of_rlax(double):
    case = made(K)
    head = value_heads.categorical(-2.0, 3.0, K)
    selector = case.selector if double else case.next_outputs
    reference = jax.vmap(rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0))
    expected = reference(
        SUPPORT, case.outputs, case.action, case.reward, case.discount, SUPPORT, case.next_outputs, head.mean(selector)
    )
    np.testing.assert_allclose(ours(head, case, selector)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("delta", [0.3, 1.0])
def test_quantile_target_is_that_of_rlax(double, delta):
    case = made(K)
    selector = case.selector if double else case.next_outputs
    levels = (jnp.arange(K) + 0.5) / K

    def reference(outputs, action, reward, discount, selector, next_outputs):
        arguments = outputs.T, levels, action, reward, discount, selector.T, next_outputs.T
        return rlax.quantile_q_learning(*arguments, huber_param=delta)

    expected = jax.vmap(reference)(case.outputs, case.action, case.reward, case.discount, selector, case.next_outputs)
    np.testing.assert_allclose(ours(value_heads.quantile(K), case, selector, delta)[0], expected, rtol=1e-5)


def test_projection_is_that_of_rlax_and_keeps_the_mean_within_the_support():
    generator = np.random.default_rng(0)
    points = generator.uniform(-4, 5, (B, 7)).astype(np.float32)
    points[0] = SUPPORT[[0, 1, 2, 3, 4, 4, 0]]  # on the atoms themselves
    probs = generator.dirichlet(np.ones(7), B).astype(np.float32)
    found = value_heads.categorical_projection(points, probs, SUPPORT)
    expected = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(points, probs, SUPPORT)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found @ SUPPORT, (points.clip(-2, 3) * probs).sum(-1), atol=1e-5)


def test_huber_is_that_of_rlax_and_squared_with_an_infinite_bound():
    error = jnp.linspace(-3, 3, 25)
    np.testing.assert_allclose(value_heads.huber(error, 0.7), rlax.huber_loss(error, 0.7), rtol=1e-6)
    np.testing.assert_allclose(value_heads.huber(error, jnp.inf), 0.5 * error**2, rtol=1e-6)
    slope = jax.vmap(jax.grad(value_heads.huber), (0, None))
    np.testing.assert_allclose(slope(error, 0.7), jnp.clip(error, -0.7, 0.7), rtol=1e-6)
    np.testing.assert_allclose(slope(error, jnp.inf), error, rtol=1e-6)
