"""Planners against each other, against linear equations in float64, and where they are to stop."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, mdp, planning

DISCOUNT = 0.9
NAMES = ["tabular/FrozenLake", "tabular/FrozenLake8x8", "tabular/CliffWalking", "tabular/Garnet"]


def exact(made, policy, discount):
    """Values of a policy, in float64 and by numpy alone."""
    transition, reward, terminal, policy = (np.asarray(x, np.float64) for x in (*made[:3], policy))
    chain = np.einsum("sa,ast->st", policy, transition) * (1 - terminal) * (1 - terminal[:, None])
    return np.linalg.solve(np.eye(len(terminal)) - discount * chain, (1 - terminal) * (policy * reward).sum(1))


def greedy_exact(made, discount):
    """The best values, by policy iteration in float64."""
    action = np.zeros(len(made.terminal), int)
    for _ in range(100):
        value = exact(made, np.eye(made.reward.shape[1])[action], discount)
        ahead = np.einsum("ast,t->sa", np.asarray(made.transition, np.float64), value * ~np.asarray(made.terminal))
        table = np.asarray(made.reward, np.float64) + discount * ahead
        better = table.max(1) > table[np.arange(len(action)), action] + 1e-12
        if not better.any():
            return value
        action = np.where(better, table.argmax(1), action)
    raise AssertionError("no stable policy")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_planners_agree(name):
    _, made = envs.make(name)
    best = greedy_exact(made, DISCOUNT)
    found = {
        "value iteration": planning.value_iteration(made, DISCOUNT),
        "sweeps": planning.sweep_values(made, DISCOUNT, 300),
        "policy iteration": planning.policy_iteration(made, DISCOUNT),
    }
    for what, solution in found.items():
        np.testing.assert_allclose(solution.value, best, atol=1e-5, err_msg=what)
        np.testing.assert_allclose(solution.action_value.max(-1), best, atol=1e-5, err_msg=what)
    policy = planning.greedy(found["sweeps"].action_value)
    np.testing.assert_allclose(planning.solve_policy(made, policy, DISCOUNT), best, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_agrees_with_linear_equations(name):
    _, made = envs.make(name)
    chances = random.dirichlet(random.key(0), jnp.ones(made.reward.shape[1]), made.terminal.shape)
    for policy in (planning.uniform(made), chances):
        expected = exact(made, policy, DISCOUNT)
        scale = max(1, np.abs(expected).max())
        found = planning.evaluate_policy(made, policy, DISCOUNT).value
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
        np.testing.assert_allclose(planning.solve_policy(made, policy, DISCOUNT) / scale, expected / scale, atol=1e-5)


@pytest.mark.learning
def test_ten_thousand_random_mdps_in_one_call():
    keys = random.split(random.key(0), 10_000)
    made = jax.jit(jax.vmap(lambda key: mdp.garnet(key, 8, 3, 3, 1)))(keys)
    iterate = partial(planning.value_iteration, discount=DISCOUNT, max_sweeps=1000)
    values = jax.jit(jax.vmap(iterate))(made)
    swept = jax.jit(jax.vmap(lambda one: planning.sweep_values(one, DISCOUNT, 150)))(made)
    improved = jax.jit(jax.vmap(lambda one: planning.policy_iteration(one, DISCOUNT)))(made)
    assert (values.error <= 1e-5).all() and (values.value[:, -1] == 0).all()
    np.testing.assert_allclose(values.value, swept.value, atol=1e-5)
    np.testing.assert_allclose(values.value, improved.value, atol=1e-5)
    made = jax.device_get(made)
    for lane in range(0, 10_000, 500):
        one = mdp.MDP(*(leaf[lane] for leaf in made))
        np.testing.assert_allclose(values.value[lane], greedy_exact(one, DISCOUNT), atol=1e-5)
    assert values.num_sweeps.min() < values.num_sweeps.max()  # each stops when it is done


@pytest.mark.slow
def test_the_contraction_bound_holds_and_is_not_idle():
    made = jax.jit(jax.vmap(lambda key: mdp.garnet(key, 12, 3, 3)))(random.split(random.key(1), 50))
    true = jax.jit(jax.vmap(lambda one: planning.sweep_values(one, DISCOUNT, 300).value))(made)

    @jax.jit
    def iterate(tolerance, max_sweeps):
        solve = partial(planning.value_iteration, discount=DISCOUNT, tolerance=tolerance)
        return jax.vmap(lambda one, limit: solve(one, max_sweeps=limit))(made, max_sweeps)

    for tolerance in (1.0, 0.1, 0.01):
        found = iterate(tolerance, jnp.full(50, 1000))
        distance = jnp.abs(found.value - true).max(-1)
        assert (distance <= found.error + 1e-5).all() and (found.error <= tolerance).all()
        assert (iterate(0.0, found.num_sweeps - 1).error > tolerance).all()  # one sweep less would not have done


def test_undiscounted_tasks_are_solved_exactly():
    _, made = envs.make("tabular/CliffWalking")
    found = jax.jit(lambda one: planning.value_iteration(one, 1.0))(made)
    assert found.value[36] == -13 and found.error == 0 and found.num_sweeps < 20
    _, walk = envs.make("tabular/RandomWalk")
    np.testing.assert_allclose(
        planning.evaluate_policy(walk, planning.uniform(walk), 1.0).value[1:6], np.arange(1, 6) / 6, atol=1e-5
    )
    np.testing.assert_allclose(
        planning.solve_policy(walk, planning.uniform(walk), 1.0)[1:6], np.arange(1, 6) / 6, atol=1e-5
    )
    assert jnp.isinf(planning.sweep_values(made, 1.0, 3).error)  # no bound, and it says so


def test_terminal_states_are_worth_nothing_whatever_their_rows_say():
    _, made = envs.make("tabular/Garnet")
    spoilt = made._replace(
        transition=jnp.where(made.terminal[:, None], 1 / 20, made.transition),
        reward=jnp.where(made.terminal[:, None], 7.0, made.reward),
    )
    policy = planning.uniform(made)
    for solve in (
        lambda one: planning.value_iteration(one, DISCOUNT).value,
        lambda one: planning.policy_iteration(one, DISCOUNT).value,
        lambda one: planning.solve_policy(one, policy, DISCOUNT),
        lambda one: planning.evaluate_policy(one, policy, DISCOUNT).value,
    ):
        np.testing.assert_allclose(solve(spoilt), solve(made), atol=1e-6)
        assert solve(spoilt)[-1] == 0
