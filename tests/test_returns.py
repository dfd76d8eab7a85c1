"""Advantages and returns against a plain loop over each episode, and against rlax. Axes: T steps, N environments."""

import jax
import numpy as np
import pytest
import rlax
from jax import numpy as jnp
from jax import random

from jaxrl import returns

T, N = 23, 7
DISCOUNT, LAMBDA = 0.9, 0.7


@pytest.fixture(scope="module")
def path():
    """Random rewards, values and flags; both flags are up together on some steps, at the last step too."""
    generator = np.random.default_rng(0)
    reward, value, next_value = generator.normal(size=(3, T, N))
    terminated, truncated = generator.random((2, T, N)) < 0.25
    terminated[3] = truncated[3] = True
    terminated[-1], truncated[-1] = [1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 1, 0, 0, 0]
    kinds = {(int(a), int(b)) for a, b in zip(terminated.ravel(), truncated.ravel(), strict=True)}
    assert kinds == {(0, 0), (0, 1), (1, 0), (1, 1)}
    return reward, value, next_value, terminated, truncated


def advantage(path, discount=DISCOUNT, gae_lambda=LAMBDA):
    return returns.generalized_advantage(*jax.tree.map(jnp.asarray, path), discount, gae_lambda)


def loop_over_episodes(path, discount, gae_lambda):
    """Cut each environment's path into episodes, then sum each episode's discounted errors by their definition."""
    result = np.zeros((T, N))
    for n in range(N):
        reward, value, next_value, terminated, truncated = (leaf[:, n] for leaf in path)
        start = 0
        for t in range(T):
            if not (terminated[t] or truncated[t] or t == T - 1):
                continue
            for first in range(start, t + 1):
                for step in range(first, t + 1):
                    bootstrap = 0.0 if terminated[step] else discount * next_value[step]
                    error = reward[step] + bootstrap - value[step]
                    result[first, n] += (discount * gae_lambda) ** (step - first) * error
            start = t + 1
    return result


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.9, 0.7), (1.0, 1.0), (0.99, 0.0), (0.0, 0.5)])
def test_against_a_loop_over_episodes(path, discount, gae_lambda):
    expected = loop_over_episodes(path, discount, gae_lambda)
    np.testing.assert_allclose(advantage(path, discount, gae_lambda), expected, rtol=1e-4, atol=1e-5)


def test_against_rlax(path):
    """Rlax knows no time limits: a path whose episodes all end by themselves."""
    reward, value, _, terminated, _ = path
    values = np.concatenate([value, value[:1]]).astype(np.float32)
    ours = advantage((reward, values[:-1], values[1:], terminated, np.zeros_like(terminated)))
    discounts = (DISCOUNT * (1.0 - terminated)).astype(np.float32)
    theirs = jax.vmap(rlax.truncated_generalized_advantage_estimation, (1, 1, None, 1), 1)(
        reward.astype(np.float32), discounts, LAMBDA, values
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_lambda_0_is_the_one_step_error(path):
    reward, value, next_value, terminated, _ = path
    expected = reward + DISCOUNT * next_value * ~terminated - value
    np.testing.assert_allclose(advantage(path, gae_lambda=0.0), expected, rtol=1e-5, atol=1e-6)


def test_lambda_1_is_the_return_less_the_value():
    """Where each step's `next_value` is the next step's `value`, all values but the ends' cancel."""
    generator = np.random.default_rng(1)
    reward, value = generator.normal(size=(2, 4, 1))
    next_value = np.concatenate([value[1:], [[5.0]]])
    no = np.zeros((4, 1), bool)
    end = np.arange(4)[:, None] == 3
    discounts = DISCOUNT ** np.arange(5)
    for terminated, truncated, bootstrap in [(no, no, 5.0), (no, end, 5.0), (end, no, 0.0), (end, end, 0.0)]:
        result = advantage((reward, value, next_value, terminated, truncated), gae_lambda=1.0)
        expected = discounts[:4] @ reward[:, 0] + discounts[4] * bootstrap - value[0, 0]
        np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5)


def test_a_time_limit_is_bootstrapped_and_nothing_leaks_over_it():
    """Two steps of reward 1 of a task without end, cut after each second: the values 1/(1 - discount) have no error."""
    value = np.full((6, 1), 1 / (1 - DISCOUNT))
    truncated = (np.arange(6) % 2 == 1)[:, None]
    arguments = (np.ones((6, 1)), value, value, np.zeros((6, 1), bool), truncated)
    np.testing.assert_allclose(advantage(arguments), 0.0, atol=1e-5)
    as_termination = advantage((*arguments[:3], truncated, truncated))
    np.testing.assert_allclose(as_termination[1::2], 1 - value[1::2], rtol=1e-5)
    # A reward in the next episode changes nothing in this one.
    later = np.where(np.arange(6)[:, None] >= 2, 100.0, arguments[0])
    np.testing.assert_array_equal(advantage((later, *arguments[1:]))[:2], advantage(arguments)[:2])


@pytest.mark.slow
def test_any_batch_axes_and_traced_numbers(path):
    single = jnp.stack([advantage(path, discount) for discount in (0.5, 0.99)])
    swept = jax.jit(jax.vmap(lambda discount: advantage(path, discount)))(jnp.array([0.5, 0.99]))
    np.testing.assert_allclose(swept, single, rtol=1e-5, atol=1e-6)
    vector = advantage(tuple(leaf[:, 0] for leaf in path))
    np.testing.assert_allclose(vector, advantage(path)[:, 0], rtol=1e-5, atol=1e-6)


def lambda_returns(path, discount=DISCOUNT, lambda_=LAMBDA):
    reward, _, next_value, terminated, truncated = jax.tree.map(jnp.asarray, path)
    return returns.lambda_returns(reward, next_value, terminated, truncated, discount, lambda_)


def average_of_n_step_returns(path, discount, lambda_):
    """The definition (Sutton and Barto 2018, equation 12.3): from each step to its episode's or the path's end."""
    result = np.zeros((T, N))
    for n in range(N):
        reward, _, next_value, terminated, truncated = (leaf[:, n] for leaf in path)
        for first in range(T):
            ends = [t for t in range(first, T) if terminated[t] or truncated[t] or t == T - 1]
            horizon = ends[0] - first + 1
            for steps in range(1, horizon + 1):
                last = first + steps - 1
                rewards = sum(discount**k * reward[first + k] for k in range(steps))
                n_step = rewards + discount**steps * (0.0 if terminated[last] else next_value[last])
                weight = lambda_ ** (steps - 1) * (1.0 if steps == horizon else 1 - lambda_)
                result[first, n] += weight * n_step
    return result


@pytest.mark.parametrize(("discount", "lambda_"), [(0.9, 0.7), (1.0, 1.0), (0.99, 0.0), (0.0, 0.5)])
def test_lambda_returns_against_their_definition(path, discount, lambda_):
    expected = average_of_n_step_returns(path, discount, lambda_)
    np.testing.assert_allclose(lambda_returns(path, discount, lambda_), expected, rtol=1e-4, atol=1e-5)


def test_lambda_returns_against_rlax(path):
    """Rlax knows no time limits; its values are those of the successors."""
    reward, _, next_value, terminated, truncated = path
    ours = lambda_returns((reward, None, next_value, terminated, np.zeros_like(truncated)))
    discounts = (DISCOUNT * (1.0 - terminated)).astype(np.float32)
    theirs = jax.vmap(rlax.lambda_returns, (1, 1, 1, None), 1)(
        reward.astype(np.float32), discounts, next_value.astype(np.float32), LAMBDA
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_lambda_returns_at_0_are_the_one_step_targets(path):
    reward, _, next_value, terminated, _ = path
    expected = reward + DISCOUNT * next_value * ~terminated
    np.testing.assert_allclose(lambda_returns(path, lambda_=0.0), expected, rtol=1e-5, atol=1e-6)


def test_lambda_returns_of_consistent_values_are_advantages_plus_values(path):
    """Where the value of a successor is that of the next step, both recursions are one."""
    reward, value, next_value, terminated, truncated = path
    cut = (terminated | truncated)[:-1]
    next_value = np.concatenate([np.where(cut, next_value[:-1], value[1:]), next_value[-1:]])
    path = reward, value, next_value, terminated, truncated
    np.testing.assert_allclose(lambda_returns(path), advantage(path) + value, rtol=1e-4, atol=1e-5)


def test_lambda_returns_do_not_look_beyond_an_episode():
    """Nor does what follows a time limit: a path of two steps of reward 1, cut, then anything at all."""
    truncated = (np.arange(4) == 1)[:, None]
    reward, next_value = np.ones((4, 1)), np.full((4, 1), 10.0)
    path = reward, None, next_value, np.zeros((4, 1), bool), truncated
    other = np.where(np.arange(4)[:, None] > 1, 100.0, 1.0) * reward, None, next_value, path[3], truncated
    np.testing.assert_array_equal(lambda_returns(path)[:2], lambda_returns(other)[:2])
    np.testing.assert_allclose(lambda_returns(path, 0.9, 0.7)[1], 10.0)  # 1 / (1 - 0.9) is consistent
    np.testing.assert_allclose(lambda_returns(path, 0.9, 0.7)[0], 10.0)


def test_explained_variance():
    target = random.normal(random.key(0), (1000,))
    noise = random.normal(random.key(1), (1000,))
    assert returns.explained_variance(target, target) == 1
    np.testing.assert_allclose(returns.explained_variance(jnp.full(1000, 3.0), target), 0, atol=1e-6)
    np.testing.assert_allclose(returns.explained_variance(target + 0.5 * noise, target), 0.75, atol=0.05)
    assert jnp.isfinite(returns.explained_variance(target, jnp.ones(1000)))
