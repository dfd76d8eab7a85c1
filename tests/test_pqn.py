"""PQN: targets by hand, probes with known values, what is refused. Axes: T steps, N environments, B transitions."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, normalize, rollout
from jaxrl.algorithms import pqn
from jaxrl.core import loop, networks
from jaxrl.core.schedule import Linear

DISCOUNT = 0.8
LINEAR = networks.MLP(hidden=())
SIZES = {"num_envs": 8, "num_steps": 5, "num_epochs": 1, "num_minibatches": 4, "network": LINEAR}
LAMBDAS = [0.0, 0.65, 1.0]

# Mathematics


def doubled(obs):
    """A network without parameters: the values of two actions are the observation and its double."""
    return jnp.concatenate([obs, 2 * obs], axis=-1)


SPY = networks.Network(lambda key: {}, lambda params, obs: doubled(obs))


def path_of(**changes):
    """Three steps of one environment: observations 1, 2, 3, successors 2, 30, -4; a time limit after the second."""
    flag = np.zeros((3, 1), bool)
    leaves = {
        "obs": np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1),
        "action": np.array([[0], [1], [0]]),
        "reward": np.array([[0.1], [0.2], [0.3]]),
        "next_obs": np.array([2.0, 30.0, -4.0]).reshape(3, 1, 1),
        "terminated": flag,
        "truncated": np.array([[False], [True], [False]]),
    }
    return rollout.Transition(**jax.tree.map(jnp.asarray, {**leaves, "extra": None, **changes}))


def test_targets_are_the_highest_values_of_true_successors():
    """Of the second step 60, twice the 30 that the time limit cut off, not the 6 of where the next episode began."""
    hparams = pqn.Hyperparams(discount=0.5, q_lambda=0.0)
    batch = pqn.make_batch(path_of(), {}, SPY, hparams)
    np.testing.assert_allclose(batch.target, [0.1 + 0.5 * 4, 0.2 + 0.5 * 60, 0.3 - 0.5 * 4], rtol=1e-6)
    np.testing.assert_array_equal(batch.action, [0, 1, 0])
    np.testing.assert_array_equal(batch.obs, [[1], [2], [3]])

    half = pqn.make_batch(path_of(), {}, SPY, hparams._replace(q_lambda=0.5))
    np.testing.assert_allclose(half.target[0], 0.1 + 0.5 * (0.5 * 4 + 0.5 * 30.2), rtol=1e-6)
    np.testing.assert_allclose(half.target[1:], batch.target[1:], rtol=1e-6)

    ended = pqn.make_batch(path_of(terminated=np.array([[False], [True], [True]])), {}, SPY, hparams)
    np.testing.assert_allclose(ended.target, [0.1 + 0.5 * 4, 0.2, 0.3], rtol=1e-6)


def test_successors_are_normalized_like_observations():
    statistics = normalize.Statistics(jnp.array([1.0]), jnp.array([4.0]), jnp.float32(10))
    path, _ = normalize.learn_from(normalize.Normalizer(statistics, None), path_of(), 0.5)
    batch = pqn.make_batch(path, {}, SPY, pqn.Hyperparams(discount=0.5, q_lambda=0.0))
    successors = np.clip((np.array([2.0, 30.0, -4.0]) - 1) / 2, -10, 10)
    highest = np.maximum(successors, 2 * successors)
    np.testing.assert_allclose(batch.target, np.array([0.1, 0.2, 0.3]) + 0.5 * highest, rtol=1e-5)


def test_the_loss_moves_the_actions_taken_alone():
    network = networks.Network(lambda key: jnp.zeros((2, 3)), lambda table, obs: table[obs])
    batch = pqn.Batch(jnp.array([0, 1]), jnp.array([2, 0]), jnp.array([4.0, -2.0]))
    gradient, metrics = jax.grad(pqn.loss, has_aux=True)(jnp.ones((2, 3)), network, batch)
    np.testing.assert_allclose(gradient, [[0, 0, -1.5], [1.5, 0, 0]])
    np.testing.assert_allclose(metrics["loss"], (9 + 9) / 2 / 2)


# Probes


def trained(probe, hparams, num_updates=300, **options):
    env, env_params = probe
    agent = pqn.make(env, pqn.Config(**{**SIZES, **options}))
    run = loop.start(agent, random.key(0), hparams, env_params, num_updates)
    return loop.chunk(agent, num_updates, run, hparams, env_params)


def values_of(probe, obs, **options):
    """Action values [lambdas, observations, A] after training with each of LAMBDAS."""
    network = networks.build(LINEAR, probe[0].spec.obs_shape, 2, 1.0)

    def learn(q_lambda):
        hparams = pqn.Hyperparams(Linear(0.1, 0.001), DISCOUNT, q_lambda, 1.0)
        run, _ = trained(probe, hparams, **options)
        return network.apply(run.state.fit.params, obs)

    return jax.jit(jax.vmap(learn))(jnp.array(LAMBDAS))


def test_a_time_limit_is_no_end():
    found = values_of(probes.endless(), jnp.ones((1, 1)))
    np.testing.assert_allclose(found, np.full((3, 1, 2), 1 / (1 - DISCOUNT)), rtol=0.01)


def test_the_observation_after_a_reset_is_no_successor():
    found = values_of(probes.far_start(), jnp.eye(2))
    later = 1 / (1 - DISCOUNT)
    expected = np.repeat([[DISCOUNT * later - 10], [later]], 2, axis=1)
    np.testing.assert_allclose(found, np.stack([expected] * 3), rtol=0.02)


def test_what_is_predicted_is_held_against_what_is_obtained():
    """One trained on the probe whose value at the start is the discount squared."""
    hparams = pqn.Hyperparams(Linear(0.1, 0.001), DISCOUNT, 0.65, 1.0)
    _, metrics = jax.jit(partial(trained, probes.delayed()))(hparams)
    np.testing.assert_allclose(metrics["eval/discounted_return"], DISCOUNT**2, rtol=1e-5)
    np.testing.assert_allclose(metrics["eval/predicted_return"], DISCOUNT**2, rtol=0.02)


def test_a_late_reward_is_discounted_to_the_right_power():
    found = values_of(probes.delayed(), jnp.eye(3))
    expected = np.repeat([[DISCOUNT**2], [DISCOUNT], [1.0]], 2, axis=1)
    np.testing.assert_allclose(found, np.stack([expected] * 3), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [False, True])
def test_a_policy_is_learned_from_random_actions_and_evaluated_greedily(normalized):
    hparams = pqn.Hyperparams(Linear(0.1, 0.001), epsilon=1.0)
    network = networks.MLP((8,), "relu", layer_norm=True)
    learn = partial(trained, probes.copy(), num_updates=100, normalize_observations=normalized, network=network)
    _, metrics = jax.jit(learn)(hparams)
    assert metrics["eval/return"] == 1.0
    assert abs(metrics["return"]) < 0.3  # while acting, all at random


# Acting


@pytest.mark.slow
def test_act_is_greedy_or_explores_as_the_last_update_did():
    env, env_params = probes.copy()
    network = networks.Network(lambda key: {"w": jnp.zeros(())}, lambda params, obs: doubled(obs) + params["w"])
    agent = pqn.make(env, pqn.Config(**SIZES), network)
    hparams = pqn.Hyperparams(0.0, epsilon=0.4)
    state = agent.init(random.key(0), hparams, env_params)
    obs = jnp.ones((10_000, 1))
    assert (agent.act(random.key(1), state, obs, greedy=True) == 1).all()
    assert (agent.act(random.key(1), state, -obs, greedy=True) == 0).all()
    assert abs((agent.act(random.key(1), state, obs) == 0).mean() - 0.2) < 0.02
    state, _ = jax.jit(agent.update)(random.key(2), state, hparams._replace(epsilon=0.1), env_params)
    assert abs((agent.act(random.key(1), state, obs) == 0).mean() - 0.05) < 0.01


# Bad input


@pytest.mark.parametrize(
    ("environment", "changes", "said"),
    [
        ("Pendulum-v1", {}, r"Pendulum-v1 has continuous actions of shape \(1,\).*use"),
        ("CartPole-v1", {"num_minibatches": 3}, r"num_minibatches=3 .*40.* use num_minibatches=2 or 4"),
        ("CartPole-v1", {"num_envs": 0}, "num_envs=0 must be at least 1"),
        ("CartPole-v1", {"num_epochs": 0}, "num_epochs=0 must be at least 1"),
        ("CartPole-v1", {"network": networks.MLP(dropout=0.1)}, "dropout=0.1 .* dropout=0"),
        ("CartPole-v1", {"network": networks.CNN()}, r"\(4,\): use an MLP"),
    ],
)
def test_what_cannot_work_is_refused(environment, changes, said):
    env, _ = envs.make(environment)
    with pytest.raises(ValueError, match=said):
        pqn.make(env, pqn.Config(**{**SIZES, **changes}))


def test_normalizing_discrete_observations_is_refused():
    env, _ = probes.copy()
    discrete = env._replace(spec=envs.Spec("grid", (), "int32", 16, envs.Discrete(4), 100))
    with pytest.raises(ValueError, match=r"grid shows one of 16 .* normalize_observations=False"):
        pqn.make(discrete, pqn.Config(normalize_observations=True))


# Learning


@pytest.mark.learning
def test_cartpole_is_balanced():
    """4 seeds of what the preset says."""
    from experiments import presets

    experiment = presets.get("pqn-cartpole")
    env, env_params = envs.make("CartPole-v1")
    agent = pqn.make(env, experiment.config)
    num_updates = experiment.steps // experiment.config.steps_per_update
    train = partial(loop.train, agent, num_updates=num_updates, eval_every=num_updates)
    keys = random.split(random.key(0), 4)
    _, metrics = jax.jit(jax.vmap(train, (0, None, None)))(keys, experiment.hparams, env_params)
    assert (metrics["eval/return"][:, -1] >= 495).all(), metrics["eval/return"]
