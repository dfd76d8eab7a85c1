"""REINFORCE: which steps count, returns and baselines by hand, probes, and what it refuses.

Its gradient is held against the exact one in `test_policy_gradient.py`. Axes: T steps, N environments.
"""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import policies, rollout
from jaxrl.algorithms import reinforce
from jaxrl.core import fit, loop, networks
from jaxrl.core.schedule import Linear
from jaxrl.envs import Discrete

LINEAR = networks.MLP(hidden=())


def test_episodes_count_that_had_time_enough():
    """Against a loop over random ends, at most `max_steps` apart."""
    num_steps, num_envs, max_steps = 12, 200, 4
    ends = np.random.default_rng(0).random((num_steps, num_envs)) < 0.4
    expected, times = np.zeros((2, num_steps, num_envs), int)
    for env in range(num_envs):
        start = 0
        for step in range(num_steps):
            times[step, env] = step - start
            ends[step, env] |= times[step, env] == max_steps - 1
            expected[step, env] = start + max_steps <= num_steps
            start = step + 1 if ends[step, env] else start
    whole, time = reinforce.whole_episodes(jnp.asarray(ends), max_steps)
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(time, times)
    assert 0 < expected.mean() < 1 and expected[0].all()


def obs_is_value():
    """A network whose value is the observation and whose policy is even."""
    return networks.Network(
        lambda key: {},
        lambda params, obs: ((jnp.zeros((*obs.shape[:-1], 2)), jnp.zeros(0)), obs[..., 0] + params.get("critic", 0)),
    )


def path():
    """Three environments: the first episode is cut by the time limit, ended, both. 50 follows it, 1000 the restart."""
    terminated = jnp.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    truncated = jnp.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    obs = jnp.array([[1.0] * 3, [2.0] * 3, [1000.0] * 3])[..., None]
    next_obs = jnp.array([[2.0] * 3, [50.0] * 3, [3.0] * 3])[..., None]
    reward = jnp.array([[1.0] * 3, [4.0] * 3, [70.0] * 3])
    return rollout.Transition(obs, jnp.zeros((3, 3), int), reward, next_obs, terminated, truncated, jnp.zeros((3, 3)))


@pytest.mark.parametrize("baseline", ["none", "constant", "value"])
def test_returns_and_baselines_by_hand(baseline):
    """Only a value knows what comes after a time limit; nothing comes after an end, whatever the limit says."""
    config = reinforce.Config(baseline=baseline, weight_by_discount=True)
    state = reinforce.State(fit.Fit({}, ()), (), jnp.float32(10))
    batch = reinforce.make_batch(path(), state, obs_is_value(), config, 2, reinforce.Hyperparams(discount=0.5))
    after = 50 if baseline == "value" else 0
    to_go = np.array([[1 + 0.5 * (4 + 0.5 * after), 3, 3], [4 + 0.5 * after, 4, 4]])
    subtracted = {"none": np.zeros((2, 1)), "constant": np.full((2, 1), 10), "value": np.array([[1], [2]])}[baseline]
    np.testing.assert_allclose(batch.to_go.reshape(3, 3)[:2], to_go)
    np.testing.assert_allclose(batch.advantage.reshape(3, 3)[:2], (to_go - subtracted) * np.array([[1], [0.5]]))
    np.testing.assert_array_equal(batch.whole.reshape(3, 3), [[True] * 3, [True] * 3, [False] * 3])
    assert all(leaf.shape[0] == 9 for leaf in jax.tree.leaves(batch))


def test_losses_by_hand():
    """Steps that do not count, here the last, add nothing, but each sum is over the number of all."""
    head, network = policies.head(Discrete(2), "gaussian"), obs_is_value()
    obs, action = jnp.array([[1.0], [2.0], [3.0], [4.0]]), jnp.array([0, 1, 1, 0])
    to_go, advantage = jnp.array([3.0, 2.0, 0.0, 99.0]), jnp.array([1.0, -2.0, 4.0, 99.0])
    batch = reinforce.Batch(obs, action, to_go, advantage, jnp.array([True, True, True, False]))
    total, metrics = reinforce.loss({}, network, head, batch)
    np.testing.assert_allclose([total, metrics["entropy"]], [np.log(2) * (1 - 2 + 4) / 4, np.log(2)], rtol=1e-6)
    total, _ = reinforce.value_loss(jnp.float32(1), {"critic": jnp.float32(50)}, network, batch)
    np.testing.assert_allclose(total, 0.5 * (1**2 + 1**2 + 4**2) / 4, rtol=1e-6)


# Updates


@pytest.mark.slow
def test_a_constant_baseline_is_of_earlier_updates():
    """Three steps, the last of which pays 1: returns to go of 0.25, 0.5 and 1, whatever is done."""
    env, env_params = probes.delayed()
    agent = reinforce.make(env, reinforce.Config(num_envs=3, num_steps=104, baseline="constant", network=LINEAR))
    hparams = reinforce.Hyperparams(discount=0.5, baseline_rate=0.25)
    state, update = agent.init(random.key(0), hparams, env_params), jax.jit(agent.update)
    critic = state.fit.params["critic"]
    mean = 1.75 / 3
    for step, expected in enumerate([0.25 * mean, 0.25 * mean + 0.75 * 0.25 * mean]):
        state, metrics = update(random.fold_in(random.key(1), step), state, hparams, env_params)
        np.testing.assert_allclose(state.mean_return, expected, rtol=1e-5)
        assert metrics["return"] == 1
        # Those that begin at steps 0 and 3 have a whole time limit of 100 steps to go.
        np.testing.assert_allclose(metrics["share_whole"], 6 / 104, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, state.fit.params["critic"], critic)


# Probes


def solved(probe, hparams, **options):
    """Train on a probe; a function from observations to values, the last evaluation, the agent and its state."""
    env, env_params = probe
    options = {"num_epochs": 1, "num_minibatches": 1, **options}
    config = reinforce.Config(num_envs=16, num_steps=6, network=LINEAR, eval_episodes=64, **options)
    agent = reinforce.make(env, config)
    train = partial(loop.train, agent, num_updates=400, eval_every=400)
    # Far longer compiled than run: optimised less, it is ready in half the time.
    train = jax.jit(train, compiler_options={"xla_backend_optimization_level": 0})
    run, metrics = train(random.key(0), hparams, env_params)
    network = policies.actor_critic(env.spec, policies.head(env.spec.action, config.distribution), LINEAR)

    def value(obs):
        return network.apply(run.state.fit.params, jnp.asarray(obs, jnp.float32))[1]

    return value, metrics, agent, run.state


def test_the_critic_moves_by_its_own_optimiser_alone():
    env, env_params = probes.copy()
    decaying = fit.Optimizer("adamw", weight_decay=1.0)
    agent = reinforce.make(env, reinforce.Config(num_envs=4, num_steps=6, network=LINEAR, optimizer=decaying))
    hparams = reinforce.Hyperparams(learning_rate=0.1, value_learning_rate=0.0)
    before = agent.init(random.key(0), hparams, env_params)
    after, _ = jax.jit(agent.update)(random.key(1), before, hparams, env_params)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before.fit.params, after.fit.params)
    assert not any(jax.tree.leaves(moved["critic"])) and all(jax.tree.leaves(moved["actor"]))


FAST = reinforce.Hyperparams(learning_rate=Linear(0.1, 0.0), value_learning_rate=Linear(0.1, 0.0), discount=0.8)


def test_a_time_limit_is_no_end():
    value, *_ = solved(probes.endless(), FAST)
    np.testing.assert_allclose(value([[1.0]]), 1 / (1 - 0.8), rtol=0.03)  # an end would make it at most 1.8


@pytest.mark.slow
def test_the_successor_is_not_the_observation_after_the_reset():
    value, *_ = solved(probes.far_start(), FAST)
    np.testing.assert_allclose(value([[1.0, 0.0], [0.0, 1.0]]), [-6.0, 5.0], rtol=0.05)


@pytest.mark.slow
def test_the_action_that_suits_the_observation_is_found():
    *_, metrics, agent, state = solved(probes.copy(), FAST, baseline="none")
    assert metrics["eval/return"][-1] > 0.95
    greedy = agent.act(random.key(0), state, jnp.array([[-1.0], [1.0]]), greedy=True)
    np.testing.assert_array_equal(greedy, [0, 1])


@pytest.mark.slow
def test_a_target_off_the_centre_of_its_bounds_is_reached():
    *_, metrics, agent, state = solved(probes.aim(), FAST, distribution="squashed_gaussian")
    np.testing.assert_allclose(agent.act(random.key(0), state, jnp.ones((1, 1)), greedy=True), [[2.0, 0.1]], atol=0.1)
    assert metrics["eval/return"][-1] > -0.2


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs=0 must be at least 1"),
        ({"eval_episodes": 0}, "eval_episodes=0 must be at least 1"),
        ({"num_minibatches": 7}, r"num_minibatches=7 does not divide .*=2000 .*use num_minibatches=5 or 8"),
        ({"num_steps": 99}, r"num_steps=99 .* delayed.* use num_steps=100 or more"),
        ({"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1"),
        ({"network": networks.CNN()}, r"images.*use an MLP"),
    ],
)
def test_what_cannot_work_is_refused_before_tracing(changes, message):
    env, _ = probes.delayed()
    with pytest.raises(ValueError, match=message):
        reinforce.make(env, reinforce.Config(**changes))
