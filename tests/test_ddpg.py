"""DDPG: its gradient against an analytic one, noise, what is counted, probes, a linear task with quadratic costs."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, exploration, policies, replay, values
from jaxrl.algorithms import ddpg
from jaxrl.core import loop, networks
from jaxrl.envs import Box, Spec

BOX = Spec("made up", (2,), "float32", None, Box((1, 2), (-1.0, 0.0), (3.0, 0.5)), 10)


# The losses


def test_the_gradient_of_the_actor_is_that_of_a_linear_quadratic_problem():
    """Value -(u - G x) R (u - G x) and u = K x: the gradient of its mean for K is -2 R (K - G) E[x x]."""
    generator = np.random.default_rng(0)
    gain, best = generator.normal(size=(2, 2, 3))
    root = generator.normal(size=(2, 2))
    cost = root @ root.T
    obs = generator.normal(size=(50, 3))
    critic = networks.Network(
        None, lambda params, obs, u: -(((u - obs @ best.T) @ params) * (u - obs @ best.T)).sum(-1)
    )
    actor = networks.Network(None, lambda params, obs: obs @ params.T)
    found = jax.grad(ddpg.actor_loss, has_aux=True)(jnp.array(gain), actor, critic, jnp.array(cost), jnp.array(obs))[0]
    expected = 2 * cost @ (gain - best) @ (obs.T @ obs) / len(obs)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_critic_learns_from_weighted_squared_errors():
    generator = np.random.default_rng(0)
    value, target, weight = generator.normal(size=(3, 7)).astype(np.float32)
    batch = replay.Batch(value, value, None, None, None, weight, None)
    critic = networks.Network(None, lambda params, obs, action: params * obs)
    (total, metrics), slope = jax.value_and_grad(ddpg.loss, has_aux=True)(1.0, critic, batch, target)
    np.testing.assert_allclose(total, (weight * (value - target) ** 2 / 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(slope, (weight * (value - target) * value).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["value"], value.mean(), rtol=1e-5)


# Networks


def test_actions_fill_their_bounds_and_no_more():
    """Bounds that are not symmetric, actions of two axes; the first actions are near the middle."""
    actor = policies.deterministic(BOX, networks.MLP((16,)))
    params = actor.init(random.key(0))
    obs = 100 * random.normal(random.key(1), (3, 500, 2))
    low, high = np.array([[-1.0, 0.0]]), np.array([[3.0, 0.5]])
    first = actor.apply(params, 0.01 * obs)
    assert first.shape == (3, 500, 1, 2)
    np.testing.assert_allclose(first.mean((0, 1)), (low + high) / 2, atol=0.02)
    wide = actor.apply(jax.tree.map(lambda leaf: 1000 * leaf, params), obs)
    np.testing.assert_allclose(wide.min((0, 1)), low, atol=1e-6)
    np.testing.assert_allclose(wide.max((0, 1)), high, rtol=1e-6)
    assert actor.apply(params, obs[0, 0]).shape == (1, 2)


def test_critics_read_actions_in_half_widths_of_their_bounds():
    critic = values.critic(BOX, networks.MLP(()))
    params = critic.init(random.key(0))
    kernel = params["Dense_0"]["kernel"][:, 0]
    obs, unit = random.normal(random.key(1), (2, 5, 2))
    action = jnp.array([[1.0, 0.25]]) + jnp.array([[2.0, 0.25]]) * unit[:, None]
    expected = jnp.concatenate([obs, unit], axis=-1) @ kernel
    np.testing.assert_allclose(critic.apply(params, obs, action), expected, rtol=1e-4, atol=1e-5)
    both = values.ensemble(critic, 2)
    params = both.init(random.key(2))
    found = both.apply(params, obs, action)
    one, two = (critic.apply(jax.tree.map(lambda leaf, i=i: leaf[i], params), obs, action) for i in range(2))
    np.testing.assert_allclose(found, jnp.stack([one, two]), rtol=1e-5)
    assert jnp.abs(one - two).min() > 1e-3


# Noise


@pytest.mark.parametrize("reversion", [1.0, 0.15])
def test_noise_has_its_size_and_its_memory(reversion):
    """In the long run its standard deviation; from step to step the correlation 1 - reversion."""
    keys = random.split(random.key(0), 200)
    step = lambda noise, key: (exploration.ornstein_uhlenbeck(key, noise, reversion, 0.4),) * 2  # noqa: E731
    path = jax.lax.scan(step, jnp.zeros((2000, 2)), keys)[1][50:]
    np.testing.assert_allclose(path.std(), 0.4, rtol=0.01)
    np.testing.assert_allclose(path.mean(), 0.0, atol=0.01)
    for lag in (1, 3):
        correlation = (path[lag:] * path[:-lag]).mean() / path.var()
        np.testing.assert_allclose(correlation, (1 - reversion) ** lag, atol=0.01)


def test_the_first_step_of_noise_is_that_of_the_paper():
    """Lillicrap et al.: theta 0.15, sigma 0.2, from 0."""
    scale = 0.2 / np.sqrt(1 - 0.85**2)
    before = jnp.array([[0.0, 1.0]])
    gaussian = random.normal(random.key(0), before.shape)
    found = exploration.ornstein_uhlenbeck(random.key(0), before, 0.15, scale)
    np.testing.assert_allclose(found, before - 0.15 * before + 0.2 * gaussian, rtol=1e-5)
    np.testing.assert_allclose(scale, 0.38, atol=0.005)


# Counting


@pytest.fixture(scope="module")
def pendulum():
    """An agent with two environments, its state, and that after an update of one gradient step."""
    env, env_params = envs.make("Pendulum-v1")
    sizes = {"num_envs": 2, "num_steps": 3, "train_every": 3, "warmup": 20, "batch_size": 8, "capacity": 100}
    agent = ddpg.make(env, ddpg.Config(**sizes, network=networks.MLP((5,))))
    hparams = ddpg.Hyperparams(target_rate=0.25, noise=0.5, noise_reversion=0.5)
    state = jax.tree.map(loop.strong, jax.jit(agent.init)(random.key(0), hparams, env_params))
    update = jax.jit(agent.update)
    return agent, state, lambda state: update(random.key(1), state, hparams, env_params)[0]


def test_an_update_collects_learns_and_averages_as_configured(pendulum):
    _, state, update = pendulum
    after = update(state)
    assert (state.buffer.kind != replay.EMPTY).sum() == 20 and (after.buffer.kind != replay.EMPTY).sum() == 26
    assert after.fit.opt_state[0].count == after.critic.opt_state[0].count == 1
    online = after.fit.params, after.critic.params
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, state.target_params, online)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.target_params, expected)


def test_noise_starts_anew_with_an_episode(pendulum):
    """Where the third of three steps cuts the episode, the next begins without noise; elsewhere it goes on."""
    _, state, update = pendulum
    time = state.cursor.state.time
    near_the_end = state.cursor.state.replace(time=jnp.array([197, 100], time.dtype))
    after = update(state._replace(cursor=state.cursor._replace(state=near_the_end)))
    assert (after.noise[0] == 0).all() and (after.noise[1] != 0).all()
    assert (state.noise == 0).all() and after.noise_scale == 0.5


def test_acting_is_greedy_or_with_noise_within_the_bounds(pendulum):
    agent, state, _ = pendulum
    obs = jnp.tile(jnp.array([[0.9, 0.1, 0.3]]), (20_000, 1))
    greedy = agent.act(random.key(0), state, obs, greedy=True)
    assert greedy.shape == (20_000, 1) and (greedy == greedy[0]).all() and jnp.abs(greedy[0, 0]) < 0.5
    action = agent.act(random.key(0), state, obs)
    assert jnp.abs(action).max() == 2
    np.testing.assert_allclose((action - greedy).std(), 0.5 * 2, rtol=0.1)  # a little less: some are clipped


# Probes


learn = partial(probes.learn, ddpg, hparams={"target_rate": 0.05, "noise": 0.3})


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 5])
def test_a_task_that_never_ends_has_its_value(n_step):
    _, metrics = learn(*probes.with_idle_action(probes.endless()), n_step=n_step)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 5.0, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 2])
def test_the_true_successor_is_learned_from(n_step):
    _, metrics = learn(*probes.with_idle_action(probes.far_start()), n_step=n_step)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 4.0 - 10.0, rtol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 5])
def test_a_delayed_reward_is_discounted_to_the_right_power(n_step):
    _, metrics = learn(*probes.with_idle_action(probes.delayed()), n_step=n_step)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 0.64, atol=0.02)
    np.testing.assert_allclose(metrics["eval/discounted_return"], 0.64, rtol=1e-5)


@pytest.mark.slow
def test_the_best_action_between_bounds_that_are_not_symmetric():
    env, env_params = probes.aim()
    _, metrics = learn(env, env_params, rates=(0.1, 0.003), critic=probes.quadratic_critic(env.spec))
    assert metrics["eval/return"] > -0.005


@pytest.mark.slow
def test_a_linear_task_with_quadratic_costs_has_the_gain_of_its_riccati_equation():
    env, env_params = probes.regulator()
    networks = {"actor": probes.linear_actor(env.spec), "critic": probes.quadratic_critic(env.spec)}
    state, metrics = learn(env, env_params, num_updates=60, discount=0.9, rates=(0.1, 0.02), **networks)
    np.testing.assert_allclose(-state.fit.params["gain"], probes.riccati_gain(0.9), atol=0.03)
    np.testing.assert_allclose(metrics["eval/predicted_return"], metrics["eval/discounted_return"], rtol=0.2)


# What cannot work


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_envs": 0}, "num_envs=0 must be at least 1"),
        ({"num_gradient_steps": 0}, "num_gradient_steps=0 must be at least 1"),
        ({"train_every": 3}, "train_every=3 does not divide num_steps=50.* use train_every=2 or 5"),
        ({"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1.* use dropout=0"),
        ({"capacity": 500}, "capacity=500 cannot hold the warmup=1000: use capacity=1000"),
        ({"batch_size": 1001}, "batch_size=1001 asks for more .* than warmup=1000 .* warmup=1001"),
        ({"num_envs": 3}, "warmup=1000 is no whole number .*num_envs=3: use warmup=1002"),
        ({"num_envs": 100, "n_step": 11}, "warmup=1000 ends before .*n_step=11.* use warmup=1100"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, said):
    env, _ = envs.make("Pendulum-v1")
    with pytest.raises(ValueError, match=said):
        ddpg.make(env, ddpg.Config(**options))


def test_actions_without_bounds_are_refused():
    env, _ = envs.make("CartPole-v1")
    with pytest.raises(ValueError, match=r"CartPole-v1 has 2 discrete actions.* such as dqn"):
        ddpg.make(env, ddpg.Config())
    unbounded = Spec("unbounded", (1,), "float32", None, Box((2,), (-1.0, -np.inf), (1.0, np.inf)), 1)
    with pytest.raises(ValueError, match=r"unbounded has actions from low=\(-1.0, -inf\).*finite bounds"):
        ddpg.make(env._replace(spec=unbounded), ddpg.Config())
