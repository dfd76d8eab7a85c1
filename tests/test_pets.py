"""PETS: the cross-entropy method, what is counted, plans that are kept, probes, a linear task with quadratic costs."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import dynamics, envs, replay
from jaxrl.algorithms import pets
from jaxrl.core import loop, networks

# The cross-entropy method


def test_the_best_plan_is_found_also_at_a_bound():
    """The maximum of -|plan - target|**2 for each of two environments; a target out of bounds is met at the bound."""
    target = jnp.array([[[0.5, -0.3], [0.0, 2.0]], [[-0.9, 0.1], [-2.0, 0.7]]])

    def score(key, plans):
        return -jnp.square(plans - target[:, None]).sum((2, 3))

    plan = pets.cross_entropy(random.key(0), score, jnp.zeros((2, 2, 2)), 1.0, (200, 20, 15))
    np.testing.assert_allclose(plan, jnp.clip(target, -1, 1), atol=0.01)


def test_an_iteration_draws_around_the_mean_and_deviation_of_the_elites():
    drawn = []

    def score(key, plans):
        drawn.append(np.asarray(plans))
        return jnp.sin(7 * plans).sum((2, 3))

    with jax.disable_jit():
        start = jnp.array([[[0.2], [-0.4]], [[0.0], [0.3]]])
        plan = pets.cross_entropy(random.key(0), score, start, 0.1, (3000, 300, 2))
    first, second = drawn
    assert first.shape == (2, 3000, 2, 1)
    np.testing.assert_allclose(first.mean(1), start, atol=0.01)
    np.testing.assert_allclose(first.std(1), 0.1, rtol=0.05)
    for n in range(2):
        elites = first[n][np.argsort(-np.sin(7 * first[n]).sum((1, 2)))[:300]]
        np.testing.assert_allclose(second[n].mean(0), elites.mean(0), atol=0.01)
        np.testing.assert_allclose(second[n].std(0), elites.std(0), rtol=0.1)
        elites = second[n][np.argsort(-np.sin(7 * second[n]).sum((1, 2)))[:300]]
        np.testing.assert_allclose(plan[n], elites.mean(0), rtol=1e-4)


def test_candidates_stay_within_the_bounds():
    def score(key, plans):
        return jnp.where(jnp.abs(plans).max((2, 3)) > 1, jnp.inf, 0.0)

    found = pets.cross_entropy(random.key(0), score, jnp.ones((1, 3, 1)), 5.0, (20, 5, 3))
    assert jnp.abs(found).max() <= 1


# Counting, and what is kept


SIZES = {
    "num_envs": 2,
    "num_steps": 4,
    "train_every": 2,
    "num_gradient_steps": 3,
    "warmup": 20,
    "batch_size": 8,
    "capacity": 100,
    "network": networks.MLP((5,)),
    "num_members": 3,
    "horizon": 6,
    "num_candidates": 7,
    "num_elites": 2,
    "num_iterations": 2,
}


@pytest.fixture(scope="module")
def pendulum():
    """An agent with two environments, its state, and its update."""
    env, env_params = envs.make("Pendulum-v1")
    agent = pets.make(env, pets.Config(**SIZES))
    hparams = pets.Hyperparams(discount=0.7, width=0.5)
    state = jax.tree.map(loop.strong, jax.jit(agent.init)(random.key(0), hparams, env_params))
    update = jax.jit(agent.update)
    return agent, state, lambda state: update(random.key(1), state, hparams, env_params)[0]


def test_an_update_collects_and_learns_as_configured(pendulum):
    _, state, update = pendulum
    after = update(state)
    assert (state.buffer.kind != replay.EMPTY).sum() == 20 and (after.buffer.kind != replay.EMPTY).sum() == 28
    assert after.fit.opt_state[0].count == 2 * 3
    assert state.scale.obs.num_samples == 20 and after.scale.obs.num_samples == 28
    assert after.discount == jnp.float32(0.7) and after.width == 0.5


def test_units_are_those_of_what_is_in_replay(pendulum):
    _, state, update = pendulum
    buffer = update(state).buffer
    found = replay.windows(buffer, jnp.flatnonzero(buffer.kind != replay.EMPTY), 1.0)
    change = np.concatenate([found.next_obs - found.obs, found.reward[:, None]], axis=-1)
    scale = update(state).scale
    np.testing.assert_allclose(scale.obs.mean, found.obs.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scale.change.mean, change.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scale.change.var, change.var(0), rtol=1e-3)


def test_a_plan_goes_on_one_step_later_and_starts_blank_in_every_episode(pendulum):
    agent, state, update = pendulum
    obs, plan = state.cursor.obs
    assert plan.shape == (2, 6, 1) and (plan == 0).all()
    action, rest = agent.act(random.key(0), state, (obs, 0.2 + plan))
    assert action.shape == (2, 1) and (rest[:, -1] == 0).all() and (rest[:, :-1] != 0).all()
    # Of seven candidates the best two of the second round are within a few deviations of where the search began.
    assert jnp.abs(rest[:, :-1] - 0.2).mean() < 0.5
    time = state.cursor.state.time
    near_the_end = state.cursor.state.replace(time=jnp.array([196, 100], time.dtype))
    after = update(state._replace(cursor=state.cursor._replace(state=near_the_end)))
    assert (after.cursor.obs[1][0] == 0).all() and (after.cursor.obs[1][1, :-1] != 0).all()
    assert agent.memory(3, 2).shape == (3, 2, 6, 1)


# Probes


def learned(env, env_params, num_updates=8, **options):
    """The last state and metrics."""
    sizes = {"num_envs": 4, "num_steps": 50, "train_every": 50, "warmup": 400, "num_gradient_steps": 150}
    sizes |= {"batch_size": 64, "capacity": 4000, "network": networks.MLP((32,), "silu"), "num_members": 3}
    agent = pets.make(env, pets.Config(**{**sizes, "eval_episodes": 4, **options}))
    hparams = pets.Hyperparams(loop.schedule.Linear(0.01, 0.0), discount=0.8)
    run = loop.start(agent, random.key(1), hparams, env_params, num_updates)
    run, metrics = jax.jit(partial(loop.chunk, agent, num_updates))(run, hparams, env_params)
    return agent, run.state, metrics


def imagined(env, state, obs, horizon):
    """Return that the ensemble expects from `obs` on, whose actions make no difference."""
    network = dynamics.network(env.spec, networks.MLP((32,), "silu"))
    arguments = network, state.fit.params, state.scale, jnp.array([obs]), 0.8, random.key(0)
    return dynamics.imagine(*arguments, jnp.zeros((1, 1, horizon, 1)))[0, 0]


PROBED = {"horizon": 2, "num_candidates": 4, "num_elites": 2, "num_iterations": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probe", "obs", "expected"),
    [
        (probes.endless, [1.0], sum(0.8**i for i in range(10))),  # cut after 2 steps, which is no end
        (probes.far_start, [1.0, 0.0], sum(0.8**i for i in range(1, 10)) - 10),  # the true successor
        (probes.look, [1.0], 1.0),  # the end after one step, behind which there is nothing
        (probes.delayed, [1.0, 0.0, 0.0], 0.64),
    ],
    ids=["endless", "far_start", "look", "delayed"],
)
def test_ends_time_limits_and_successors_are_learned_as_they_are(probe, obs, expected):
    env, env_params = probes.with_idle_action(probe())
    _, state, _ = learned(env, env_params, **PROBED)
    np.testing.assert_allclose(imagined(env, state, obs, 10), expected, atol=0.05, rtol=0.02)


def actions(env, state, obs, horizon):
    """What a patient planner does with the ensemble that a hasty one has learned, [B, A]."""
    sizes = {"num_candidates": 200, "num_elites": 20, "num_iterations": 8, "num_members": 3}
    agent = pets.make(env, pets.Config(horizon=horizon, network=networks.MLP((32,), "silu"), **sizes))
    return jax.jit(agent.act)(random.key(4), state, (obs, agent.memory(len(obs))))[0]


@pytest.mark.slow
def test_the_best_action_between_bounds_that_are_not_symmetric():
    """Within a twentieth of the bounds' width: -1 to 3, and 0 to 0.5."""
    env, env_params = probes.aim()
    _, state, _ = learned(env, env_params, **PROBED)
    error = actions(env, state, jnp.ones((1, 1)), 1)[0] - env_params.target
    assert (jnp.abs(error) < jnp.array([0.2, 0.025])).all(), error


@pytest.mark.slow
def test_a_linear_task_with_quadratic_costs_has_the_actions_of_its_riccati_equation():
    env, env_params = probes.regulator()
    _, state, _ = learned(env, env_params, **PROBED)
    obs = random.uniform(random.key(3), (50, 2), minval=-1.0, maxval=1.0)
    expected = -obs @ probes.riccati_gain(0.8).T
    error = jnp.sqrt(jnp.square(actions(env, state, obs, 12) - expected).mean())
    assert error < 0.15 * jnp.sqrt(jnp.square(expected).mean()), error


# What cannot work


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_members": 0}, "num_members=0 must be at least 1"),
        ({"horizon": 0}, "horizon=0 must be at least 1"),
        ({"num_elites": 50}, "num_elites=50 of num_candidates=50 is no choice: use num_candidates=500"),
        ({"train_every": 3}, "train_every=3 does not divide num_steps=50.* use train_every=2 or 5"),
        ({"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1.* use dropout=0"),
        ({"batch_size": 201}, "batch_size=201 asks for more .* than warmup=200 .* warmup=201"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, said):
    env, _ = envs.make("Pendulum-v1")
    with pytest.raises(ValueError, match=said):
        pets.make(env, pets.Config(**options))
