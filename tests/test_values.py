"""Acting on action values."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, values
from jaxrl.core import networks

N = 20_000


def test_greedy_and_chosen():
    table = jnp.array([[[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]]])
    np.testing.assert_array_equal(values.greedy(table), [[1, 0]])
    np.testing.assert_array_equal(values.chosen(table, jnp.array([[2, 1]])), [[2.0, 4.0]])


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.3, 1.0])
def test_epsilon_greedy_is_uniform_but_for_the_best(epsilon):
    """By chi-square over 7 actions of which the fourth is best: [N] draws."""
    best = jnp.zeros(7).at[3].set(1.0)
    action = jax.jit(values.epsilon_greedy)(random.key(0), jnp.tile(best, (N, 1)), epsilon)
    counts = np.bincount(action, minlength=7)
    expected = N * (epsilon / 7 + (1 - epsilon) * (np.arange(7) == 3))
    assert len(counts) == 7 and (counts[expected == 0] == 0).all()
    kept = expected > 0
    assert (np.square(counts - expected)[kept] / expected[kept]).sum() < 22.5  # 0.1 % of chi-square with 6 degrees


def test_epsilon_may_be_swept():
    keys, table = random.split(random.key(1), 2), jnp.tile(jnp.array([0.0, 1.0]), (N, 1))
    actions = jax.jit(jax.vmap(values.epsilon_greedy, (0, None, 0)))(keys, table, jnp.array([0.0, 1.0]))
    assert actions[0].all() and abs(actions[1].mean() - 0.5) < 0.02


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "DiscountingChain-bsuite"])
def test_a_network_gives_one_value_for_each_action(name):
    env, env_params = envs.make(name)
    network = values.network(env.spec, networks.CNN((2,)) if "MinAtar" in name else networks.MLP((5,)))
    obs, _ = env.reset(random.key(0), env_params)
    params = network.init(random.key(1))
    assert network.apply(params, obs[None, None]).shape == (1, 1, env.spec.action.num)


def test_continuous_actions_are_refused():
    env, _ = envs.make("Pendulum-v1")
    with pytest.raises(ValueError, match=r"Pendulum-v1 has continuous actions of shape \(1,\).*ppo.*discrete"):
        values.network(env.spec, networks.MLP())
