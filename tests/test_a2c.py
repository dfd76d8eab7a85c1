"""A2C: its targets and its loss by hand, probes, and what it refuses.

Its gradient is held against the exact one in `test_policy_gradient.py`. Axes: T steps, N environments.
"""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, normalize, policies, returns, rollout
from jaxrl.algorithms import a2c
from jaxrl.core import fit, loop, networks
from jaxrl.core.schedule import Linear
from jaxrl.envs import Discrete

LINEAR = networks.MLP(hidden=())


def obs_is_value():
    """A network whose value is the observation and whose policy is even."""
    return networks.Network(
        lambda key: {}, lambda params, obs: ((jnp.zeros((*obs.shape[:-1], 2)), jnp.zeros(0)), obs[..., 0])
    )


def test_targets_are_returns_of_several_steps_to_an_end_a_cut_or_the_last_step():
    """Three environments: cut by the time limit, ended, both. The successor's value is 50, the restart's 1000."""
    terminated = jnp.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    truncated = jnp.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    obs = jnp.array([[1.0] * 3, [2.0] * 3, [1000.0] * 3])[..., None]
    next_obs = jnp.array([[2.0] * 3, [50.0] * 3, [3.0] * 3])[..., None]
    action = jnp.zeros((3, 3))
    path = rollout.Transition(obs, action, jnp.ones((3, 3)), next_obs, terminated, truncated, action)
    batch = a2c.make_batch(path, {}, obs_is_value(), a2c.Hyperparams(discount=0.5))
    cut = [1 + 0.5 * (1 + 0.5 * 50), 1 + 0.5 * 50, 1 + 0.5 * 3]
    ended = [1 + 0.5 * 1, 1, 1 + 0.5 * 3]
    target = np.stack([cut, ended, ended], 1)
    np.testing.assert_allclose(batch.target.reshape(3, 3), target, rtol=1e-5)
    np.testing.assert_allclose(batch.advantage.reshape(3, 3), target - obs[..., 0], rtol=1e-5)
    assert all(leaf.shape[0] == 9 for leaf in jax.tree.leaves(batch))


def test_loss_by_hand():
    head = policies.head(Discrete(2), "gaussian")
    obs, target, advantage = jnp.array([[1.0], [2.0]]), jnp.array([3.0, 2.0]), jnp.array([1.0, -2.0])
    batch = a2c.Batch(obs, jnp.array([0, 1]), advantage, target)
    total, metrics = a2c.loss({}, obs_is_value(), head, batch, a2c.Hyperparams(value_coef=0.3, entropy_coef=0.2))
    policy_loss, value_loss, entropy = np.log(2) * (1 - 2) / 2, 0.5 * 2**2 / 2, np.log(2)
    np.testing.assert_allclose(total, policy_loss + 0.3 * value_loss - 0.2 * entropy, rtol=1e-6)
    found = [metrics[name] for name in ("policy_loss", "value_loss", "entropy")]
    np.testing.assert_allclose(found, [policy_loss, value_loss, entropy], rtol=1e-6)


@pytest.mark.slow
def test_an_update_is_one_step_down_the_gradient_of_its_path():
    """With observations normalised as they were while acting, advantages standardised and the gradient clipped."""
    env, env_params = envs.make("Pendulum-v1")
    sizes = {"num_envs": 3, "num_steps": 5, "network": networks.MLP((8,))}
    config = a2c.Config(
        **sizes,
        normalize_advantages=True,
        normalize_observations=True,
        optimizer=fit.Optimizer("sgd", momentum=0.0),
    )
    agent, hparams = a2c.make(env, config), a2c.Hyperparams(learning_rate=0.5, max_grad_norm=0.1)
    head = policies.head(env.spec.action, "gaussian")
    network = policies.actor_critic(env.spec, head, config.network)
    statistics = normalize.Statistics(jnp.array([0.1, -0.2, 1.0]), jnp.array([0.5, 0.3, 4.0]), jnp.float32(100))

    def by_hand(key, state):
        def see(obs):
            return jnp.clip((obs - statistics.mean) / jnp.sqrt(statistics.var), -10, 10)

        def explore(key, obs):
            outputs, _ = network.apply(state.fit.params, see(obs))
            action = head.distribution(*outputs).sample(seed=key)
            return head.to_env(action), action

        _, path = rollout.collect(env, explore, state.cursor, env_params, key, config.num_steps)
        path = path._replace(obs=see(path.obs), next_obs=see(path.next_obs))
        batch = a2c.make_batch(path, state.fit.params, network, hparams)
        batch = batch._replace(advantage=returns.standardize(batch.advantage))
        gradient, _ = jax.grad(a2c.loss, has_aux=True)(state.fit.params, network, head, batch, hparams)
        gradient, norm = fit.clip_by_global_norm(gradient, 0.1)
        return norm, jax.tree.map(lambda param, slope: param - 0.5 * slope, state.fit.params, gradient)

    def both():
        state = agent.init(random.key(0), hparams, env_params)
        state = state._replace(normalizer=state.normalizer._replace(observations=statistics))
        return agent.update(random.key(1), state, hparams, env_params), by_hand(random.key(1), state)

    (after, metrics), (norm, expected) = jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})()
    assert norm > 0.2
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), after.fit.params, expected)


# Probes


def solved(probe, hparams, **options):
    """Train on a probe; a function from observations to values, the last evaluation, the agent and its state."""
    env, env_params = probe
    config = a2c.Config(num_envs=16, num_steps=5, network=LINEAR, eval_episodes=64, **options)
    agent = a2c.make(env, config)
    train = partial(loop.train, agent, num_updates=400, eval_every=400)
    # Far longer compiled than run: optimised less, it is ready in half the time.
    train = jax.jit(train, compiler_options={"xla_backend_optimization_level": 0})
    run, metrics = train(random.key(0), hparams, env_params)
    network = policies.actor_critic(env.spec, policies.head(env.spec.action, config.distribution), LINEAR)

    def value(obs):
        return network.apply(run.state.fit.params, jnp.asarray(obs, jnp.float32))[1]

    return value, metrics, agent, run.state


FAST = a2c.Hyperparams(learning_rate=Linear(0.1, 0.0), discount=0.8, entropy_coef=0.0, max_grad_norm=10.0)


def test_a_time_limit_is_no_end():
    value, *_ = solved(probes.endless(), FAST)
    np.testing.assert_allclose(value([[1.0]]), 1 / (1 - 0.8), rtol=0.03)  # an end would make it at most 1.8


def test_the_successor_is_not_the_observation_after_the_reset():
    value, *_ = solved(probes.far_start(), FAST)
    np.testing.assert_allclose(value([[1.0, 0.0], [0.0, 1.0]]), [-6.0, 5.0], rtol=0.05)


def test_the_action_that_suits_the_observation_is_found():
    *_, metrics, agent, state = solved(probes.copy(), FAST)
    assert metrics["eval/return"][-1] > 0.95
    greedy = agent.act(random.key(0), state, jnp.array([[-1.0], [1.0]]), greedy=True)
    np.testing.assert_array_equal(greedy, [0, 1])


@pytest.mark.slow
def test_a_target_off_the_centre_of_its_bounds_is_reached():
    options = {"distribution": "squashed_gaussian", "optimizer": fit.Optimizer()}
    *_, metrics, agent, state = solved(probes.aim(), FAST, **options)
    np.testing.assert_allclose(agent.act(random.key(0), state, jnp.ones((1, 1)), greedy=True), [[2.0, 0.1]], atol=0.1)
    assert metrics["eval/return"][-1] > -0.2


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs=0 must be at least 1"),
        ({"num_steps": 0}, "num_steps=0 must be at least 1"),
        ({"eval_episodes": 0}, "eval_episodes=0 must be at least 1"),
        ({"num_envs": 1, "num_steps": 1, "normalize_advantages": True}, r"one advantage of each update"),
        ({"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1"),
        ({"network": networks.CNN()}, r"images.*use an MLP"),
    ],
)
def test_what_cannot_work_is_refused_before_tracing(changes, message):
    env, _ = probes.copy()
    with pytest.raises(ValueError, match=message):
        a2c.make(env, a2c.Config(**changes))
