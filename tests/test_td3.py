"""TD3: its target by hand, the delay of actor and targets, probes, a linear task with quadratic costs."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, policies, replay, values
from jaxrl.algorithms import td3
from jaxrl.core import loop, networks

# The target


def test_the_target_takes_the_lower_of_two_values():
    reward, discount = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.9, 0.0, 0.5])
    next_values = jnp.array([[1.0, 5.0, -2.0], [3.0, 4.0, -6.0]])
    found = td3.clipped_double_q_target(reward, discount, next_values)
    np.testing.assert_allclose(found, [1.9, 2.0, -4.0], rtol=1e-6)


def test_noise_in_targets_is_cut_and_so_is_the_action():
    """Bounds of half widths 2 and 0.25. In the middle the noise alone is cut, near a bound the action."""
    env, _ = probes.aim()
    bounds = policies.bounds(env.spec)
    disturbed = jax.jit(partial(td3.disturb, bounds=bounds))
    middle = jnp.tile(bounds.center, (50_000, 1))
    unit = (disturbed(random.key(0), middle, 0.2, 0.5) - bounds.center) / bounds.half_width
    np.testing.assert_allclose(unit.std(0), 0.2, rtol=0.02)
    np.testing.assert_allclose(jnp.abs(unit).max(0), 0.5, rtol=1e-5)
    free = (disturbed(random.key(0), middle, 0.2, jnp.inf) - bounds.center) / bounds.half_width
    np.testing.assert_allclose(jnp.clip(free, -0.5, 0.5), unit, atol=1e-6)
    edge = disturbed(random.key(0), jnp.tile(bounds.high, (1000, 1)), 0.2, 0.5)
    np.testing.assert_array_equal(edge.max(0), bounds.high)
    np.testing.assert_allclose(edge.min(0), bounds.high - 0.5 * bounds.half_width, rtol=0.1)


def test_each_critic_learns_from_its_own_error_and_the_actor_from_the_first():
    generator = np.random.default_rng(0)
    x, target, weight = generator.normal(size=(3, 7)).astype(np.float32)
    batch = replay.Batch(x, x, None, None, None, weight, None)
    critic = networks.Network(None, lambda params, obs, action: params * action)
    params = jnp.array([1.0, -2.0])
    slope = jax.grad(td3.loss, has_aux=True)(params, values.ensemble(critic, 2), batch, target)[0]
    expected = [(weight * (w * x - target) * x).mean() for w in params]
    np.testing.assert_allclose(slope, expected, rtol=1e-4)
    actor = networks.Network(None, lambda params, obs: params * obs)
    slope = jax.grad(td3.actor_loss, has_aux=True)(3.0, actor, critic, params[0], jnp.array(x))[0]
    np.testing.assert_allclose(slope, -x.mean(), rtol=1e-5)


# Counting


def test_actor_and_targets_wait_for_the_critics():
    """12 steps of the critics in all, 3 of the actor; each time it moves, the targets move a quarter of the way."""
    env, env_params = envs.make("Pendulum-v1")
    sizes = {"num_envs": 2, "num_steps": 2, "train_every": 2, "warmup": 20, "batch_size": 8, "capacity": 100}
    config = td3.Config(**sizes, num_gradient_steps=4, policy_delay=4, network=networks.MLP((5,)))
    agent = td3.make(env, config)
    hparams = td3.Hyperparams(target_rate=0.25, noise=0.5)
    state = jax.tree.map(loop.strong, jax.jit(agent.init)(random.key(0), hparams, env_params))
    update = jax.jit(agent.update)
    for i in range(3):
        before, (state, _) = state, update(random.key(i), state, hparams, env_params)
        online = state.fit.params, state.critics.params
        expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before.target_params, online)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.target_params, expected)
    assert state.fit.opt_state[0].count == 3 and state.critics.opt_state[0].count == 12
    assert (state.buffer.kind != replay.EMPTY).sum() == 20 + 3 * config.steps_per_update == 32
    assert state.noise == 0.5
    obs = jnp.tile(jnp.array([[0.9, 0.1, 0.3]]), (20_000, 1))
    greedy, action = (agent.act(random.key(0), state, obs, greedy=greedy) for greedy in (True, False))
    assert (greedy == greedy[0]).all() and jnp.abs(action).max() == 2
    np.testing.assert_allclose((action - greedy).std(), 0.5 * 2, rtol=0.1)  # a little less: some are clipped


def test_a_delay_of_one_moves_everything_at_each_step():
    env, env_params = envs.make("Pendulum-v1")
    sizes = {"num_envs": 1, "num_steps": 2, "train_every": 1, "warmup": 8, "batch_size": 8, "capacity": 100}
    agent = td3.make(env, td3.Config(**sizes, num_gradient_steps=1, policy_delay=1, network=networks.MLP((5,))))
    state = jax.eval_shape(agent.init, random.key(0), td3.Hyperparams(), env_params)
    assert jax.eval_shape(agent.update, random.key(0), state, td3.Hyperparams(), env_params)[0].fit == state.fit


# Probes


learn = partial(probes.learn, td3, hparams={"target_rate": 0.1, "noise": 0.3})


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 5])
def test_a_task_that_never_ends_has_its_value(n_step):
    _, metrics = learn(*probes.with_idle_action(probes.endless()), n_step=n_step)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 5.0, rtol=0.02)


@pytest.mark.slow
def test_the_true_successor_is_learned_from():
    _, metrics = learn(*probes.with_idle_action(probes.far_start()))
    np.testing.assert_allclose(metrics["eval/predicted_return"], 4.0 - 10.0, rtol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 5])
def test_a_delayed_reward_is_discounted_to_the_right_power(n_step):
    _, metrics = learn(*probes.with_idle_action(probes.delayed()), n_step=n_step)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 0.64, atol=0.02)


@pytest.mark.slow
def test_the_best_action_between_bounds_that_are_not_symmetric():
    env, env_params = probes.aim()
    _, metrics = learn(env, env_params, rates=(0.1, 0.003), critic=probes.quadratic_critic(env.spec))
    assert metrics["eval/return"] > -0.005


@pytest.mark.slow
def test_a_linear_task_with_quadratic_costs_has_the_gain_of_its_riccati_equation():
    """The noise of the targets lowers all values alike: the gain is the same."""
    env, env_params = probes.regulator()
    networks = {"actor": probes.linear_actor(env.spec), "critic": probes.quadratic_critic(env.spec)}
    state, _ = learn(env, env_params, num_updates=60, discount=0.9, rates=(0.1, 0.02), **networks)
    np.testing.assert_allclose(-state.fit.params["gain"], probes.riccati_gain(0.9), atol=0.03)


# What cannot work


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ("CartPole-v1", {}, r"CartPole-v1 has 2 discrete actions.* such as dqn"),
        ("Pendulum-v1", {"policy_delay": 0}, "policy_delay=0 must be at least 1"),
        (
            "Pendulum-v1",
            {"policy_delay": 3},
            "policy_delay=3 does not divide num_gradient_steps=2.* use policy_delay=2",
        ),
        ("Pendulum-v1", {"train_every": 3}, "train_every=3 does not divide num_steps=50.* use train_every=2 or 5"),
        ("Pendulum-v1", {"batch_size": 1001}, "batch_size=1001 asks for more .* than warmup=1000"),
    ],
)
def test_what_cannot_work_is_refused(environment, options, said):
    env, _ = envs.make(environment)
    with pytest.raises(ValueError, match=said):
        td3.make(env, td3.Config(**options))
