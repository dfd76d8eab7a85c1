"""SAC: entropies and gradients against quadrature, temperature by hand, soft values, probes; its discrete form too."""

import math
from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, policies, replay, values
from jaxrl.algorithms import sac, sac_discrete
from jaxrl.core import networks
from jaxrl.envs import Box, Spec

BOX = Spec("made up", (3,), "float32", None, Box((2,), (-1.0, 0.0), (3.0, 0.5)), 10)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

# The policy


def test_the_spread_of_actions_depends_on_the_observation_and_has_bounds():
    actor = policies.gaussian(BOX, networks.MLP((16,)))
    params = jax.tree.map(lambda leaf: 300 * leaf, actor.init(random.key(0)))
    mean, log_std = actor.apply(params, random.normal(random.key(1), (4, 100, 3)))
    assert mean.shape == log_std.shape == (4, 100, 2)
    low, high = policies.LOG_STD_RANGE
    assert (log_std.min(), log_std.max()) == (low, high) and jnp.unique(log_std).size > 20
    mean, log_std = actor.apply(actor.init(random.key(0)), random.normal(random.key(1), (100, 3)))
    assert jnp.abs(mean).max() < 0.1 and jnp.abs(log_std).max() < 0.1  # standard deviations near 1 at first


def expected(log_std, temperature, shift, box):
    """Loss of the actor at latent mean `shift` and value -(action - 1)^2, by quadrature."""
    half_width, center = (box[1] - box[0]) / 2, (box[1] + box[0]) / 2
    latent = shift + jnp.exp(log_std) * NODES
    action = center + half_width * jnp.tanh(latent)
    log_prob = -0.5 * NODES**2 - log_std - 0.5 * math.log(2 * math.pi)
    log_prob -= jnp.log1p(-(jnp.tanh(latent) ** 2)) + math.log(half_width)
    return (WEIGHTS * (temperature * log_prob + (action - 1) ** 2)).sum()


@pytest.mark.parametrize("box", [(-1.0, 3.0), (0.0, 0.5)])
def test_the_gradient_of_the_actor_is_that_of_the_expectation(box):
    """Sampled through the action, corrected for tanh and the width of the bounds; Monte Carlo within its error."""
    head = policies.head(Box((1,), box[:1], box[1:]), "squashed_gaussian")
    critics = networks.Network(None, lambda params, obs, action: -jnp.stack([(action[:, 0] - 1) ** 2] * 2))

    def policy(params, key, obs):
        mean, log_std = params
        shape = len(obs), 1
        distribution = head.distribution(jnp.broadcast_to(mean, shape), jnp.broadcast_to(log_std, shape))
        return distribution.sample_and_log_prob(seed=key)

    obs, temperature = jnp.zeros((200_000, 1)), 0.7
    mean, log_std = jnp.float32(0.3), jnp.float32(-0.5)
    loss = jax.jit(jax.value_and_grad(lambda params: sac.actor_loss(
        params, policy, critics, None, temperature, obs, random.key(0)), has_aux=True))  # fmt: skip
    (found, metrics), slope = loss((mean, log_std))
    reference = jax.value_and_grad(expected, (2, 0))
    value, slopes = reference(log_std, temperature, mean, box)
    np.testing.assert_allclose(found, value, atol=0.01)
    np.testing.assert_allclose(slope, slopes, atol=0.02)
    np.testing.assert_allclose(metrics["entropy"], head.distribution(mean[None], log_std[None]).entropy(), atol=0.01)


# Targets, temperature


def test_the_soft_target_by_hand():
    """1 + 0.9 (min(3, 5) - 0.5 * 2), and the reward alone where the task ended."""
    found = sac.soft_target(
        jnp.ones(2), jnp.array([0.9, 0.0]), jnp.array([[3.0, 7.0], [5.0, 1.0]]), jnp.array([2.0, -1.0]), 0.5
    )
    np.testing.assert_allclose(found, [1 + 0.9 * 2, 1], rtol=1e-6)


@pytest.mark.parametrize("module", [sac, sac_discrete])
def test_the_temperature_falls_where_there_is_more_entropy_than_asked_for(module):
    (_, metrics), slope = jax.value_and_grad(module.temperature_loss, has_aux=True)(math.log(0.3), 1.5, 0.5)
    np.testing.assert_allclose((metrics["temperature"], slope), (0.3, 1.0), rtol=1e-6)


@pytest.mark.parametrize("module", [sac, sac_discrete])
def test_an_update_by_hand(module):
    """One step with Adam: its first one has the size of the learning rate and the sign of the gradient."""
    env, env_params = envs.make("Pendulum-v1" if module is sac else "CartPole-v1")
    sizes = {"num_envs": 2, "num_steps": 3, "train_every": 3, "warmup": 20, "batch_size": 8, "capacity": 100}
    agent = module.make(env, module.Config(**sizes, network=networks.MLP((5,))))
    asked = jnp.float32(-1.0)
    hparams = module.Hyperparams(target_rate=0.25, temperature=0.3, temperature_learning_rate=0.1, target_entropy=asked)
    state = jax.jit(agent.init)(random.key(0), hparams, env_params)
    update = jax.jit(agent.update)
    after, metrics = update(random.key(1), state, hparams, env_params)
    average = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, state.target_params, after.critics.params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.target_params, average)
    np.testing.assert_allclose(metrics["temperature"], 0.3, rtol=1e-5)
    np.testing.assert_allclose(after.temperature.params, math.log(0.3) - 0.1, rtol=1e-4)
    counts = [each.opt_state[0].count for each in (after.fit, after.critics, after.temperature)]
    assert counts == [1, 1, 1] and (after.buffer.kind != replay.EMPTY).sum() == 26
    # The target: an entropy between -1 and 1, moved to the pendulum's bounds of -2 and 2; or a share of log 2.
    entropy = metrics["entropy"]
    target = entropy - math.log(2) if module is sac else entropy / math.log(2)
    for difference in (-0.01, 0.01):
        changed = hparams._replace(target_entropy=target + difference)
        after, _ = update(random.key(1), state, changed, env_params)
        assert (after.temperature.params > math.log(0.3)) == (difference > 0)


# Expectations over discrete actions


def test_expectations_over_actions_are_those_of_enumeration():
    generator = np.random.default_rng(0)
    logits, (one, two), temperature = generator.normal(size=(7, 4)), generator.normal(size=(2, 7, 4)), 0.3
    found = sac_discrete.soft_value(jnp.array(logits), jnp.array([one, two]), temperature)
    total, entropy = np.zeros(7), np.zeros(7)
    for b in range(7):
        chances = np.exp(logits[b]) / np.exp(logits[b]).sum()
        for chance, first, second in zip(chances, one[b], two[b], strict=True):
            total[b] += chance * (min(first, second) - temperature * np.log(chance))
            entropy[b] -= chance * np.log(chance)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    actor = networks.Network(None, lambda params, obs: params)
    loss, metrics = sac_discrete.actor_loss(jnp.array(logits), actor, jnp.array([one, two]), temperature, None)
    np.testing.assert_allclose(loss, -total.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy.mean(), rtol=1e-5)


def test_the_best_soft_policy_is_the_softmax_of_the_values():
    """There the gradient of the actor vanishes, and the soft value is the log-sum-exp."""
    action_values = random.normal(random.key(0), (2, 7, 4))
    lower, temperature = action_values.min(0), 0.3
    actor = networks.Network(None, lambda params, obs: params)
    slope = jax.grad(sac_discrete.actor_loss, has_aux=True)
    np.testing.assert_allclose(slope(lower / temperature, actor, action_values, temperature, None)[0], 0, atol=1e-6)
    found = sac_discrete.soft_value(lower / temperature, action_values, temperature)
    np.testing.assert_allclose(found, temperature * jax.nn.logsumexp(lower / temperature, axis=-1), rtol=1e-4)


def test_the_critics_learn_from_the_actions_taken():
    table = jnp.arange(24.0).reshape(2, 4, 3)
    critics = networks.Network(None, lambda params, obs: params[:, obs])
    obs, action, weight = jnp.array([1, 3]), jnp.array([2, 0]), jnp.array([1.0, 0.5])
    batch = replay.Batch(obs, action, None, None, None, weight, None)
    slope = jax.grad(sac_discrete.loss, has_aux=True)(table, critics, batch, jnp.array([4.0, 8.0]))[0]
    expected = np.zeros((2, 4, 3))
    expected[:, 1, 2] = (np.array([5, 17]) - 4) / 2
    expected[:, 3, 0] = 0.5 * (np.array([9, 21]) - 8) / 2
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


# Probes


def learn(module, env, env_params, hparams=None, **options):
    """As `probes.learn`; the temperature keeps its value."""
    numbers = {"temperature_learning_rate": 0.0, "temperature": 1e-3, "target_rate": 0.05}
    return probes.learn(module, env, env_params, {**numbers, **(hparams or {})}, **options)


def test_the_soft_value_of_a_task_that_never_ends():
    """Reward 1 and, with temperature 2, twice the entropy of a uniform policy at each step but the first."""
    hparams = {"temperature": 2.0, "actor_learning_rate": 0.0}
    state, metrics = learn(sac_discrete, *probes.endless(), hparams=hparams)
    critics = values.ensemble(values.network(probes.endless()[0].spec, networks.MLP(())), 2)
    expected = (1 + 0.8 * 2 * math.log(2)) / (1 - 0.8)
    np.testing.assert_allclose(metrics["entropy"], math.log(2), rtol=1e-3)
    np.testing.assert_allclose(critics.apply(state.critics.params, jnp.ones((1, 1))), expected, rtol=0.02)


@pytest.mark.slow
def test_the_soft_value_of_a_continuous_task_that_never_ends():
    """As above with the entropy of the first policy, in the units of its action: half width 2."""
    env, env_params = probes.with_idle_action(probes.endless())
    state, metrics = learn(sac, env, env_params, hparams={"temperature": 2.0, "actor_learning_rate": 0.0})
    entropy = policies.head(env.spec.action, "squashed_gaussian").distribution(jnp.zeros(1), jnp.zeros(1)).entropy()
    np.testing.assert_allclose(metrics["entropy"], entropy, atol=0.02)
    critics = values.ensemble(values.critic(env.spec, networks.MLP(())), 2)
    found = critics.apply(state.critics.params, jnp.ones((1, 1)), jnp.ones((1, 1)))
    np.testing.assert_allclose(found, (1 + 0.8 * 2 * entropy) / (1 - 0.8), rtol=0.03)


@pytest.mark.slow
def test_the_true_successor_is_learned_from():
    """The policy stays as it began, near uniform: a value that is never tried is never learned."""
    state, _ = learn(sac_discrete, *probes.far_start(), rates=(0.1, 0.0))
    critics = values.ensemble(values.network(probes.far_start()[0].spec, networks.MLP(())), 2)
    found = critics.apply(state.critics.params, jnp.eye(2))
    np.testing.assert_allclose(found.mean((0, 2)), [4.0 - 10.0, 5.0], rtol=0.04)
    env, env_params = probes.with_idle_action(probes.far_start())
    state, _ = learn(sac, env, env_params, rates=(0.1, 0.0))
    critics = values.ensemble(values.critic(env.spec, networks.MLP(())), 2)
    found = critics.apply(state.critics.params, jnp.eye(2), jnp.ones((2, 1)))
    np.testing.assert_allclose(found.mean(0), [4.0 - 10.0, 5.0], rtol=0.04)


@pytest.mark.slow
def test_discrete_actions_are_told_apart():
    options = {"network": networks.MLP((16,), "relu"), "eval_greedy": True}
    state, metrics = learn(sac_discrete, *probes.copy(), **options)
    assert metrics["eval/return"] == 1
    critics = values.ensemble(values.network(probes.copy()[0].spec, options["network"]), 2)
    found = critics.apply(state.critics.params, jnp.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(found.mean(0), [[1, -1], [-1, 1]], atol=0.1)


@pytest.mark.slow
def test_the_best_action_between_bounds_that_are_not_symmetric():
    env, env_params = probes.aim()
    given = {"critic": probes.quadratic_critic(env.spec)}
    _, metrics = learn(sac, env, env_params, num_updates=40, rates=(0.1, 0.003), **given)
    assert metrics["eval/return"] > -0.01


@pytest.mark.slow
def test_a_linear_task_with_quadratic_costs_has_the_gain_of_its_riccati_equation():
    """With wide bounds, between which tanh is nearly linear; the best soft policy's mean has the same gain."""
    env, env_params = probes.regulator()
    env = env._replace(spec=Spec("wide", (2,), "float32", None, Box((1,), (-20.0,), (20.0,)), 3))

    def apply(params, obs):
        mean = jnp.arctanh(jnp.clip(obs @ params["gain"].T / 20, -0.99, 0.99))
        return mean, jnp.broadcast_to(params["log_std"], mean.shape)

    actor = networks.Network(lambda key: {"gain": jnp.zeros((1, 2)), "log_std": jnp.full(1, -2.0)}, apply)
    given = {"actor": actor, "critic": probes.quadratic_critic(env.spec)}
    options = {"num_updates": 200, "discount": 0.9, "rates": (0.1, 0.01), "hparams": {"temperature": 0.5}}
    state, _ = learn(sac, env, env_params, **options, **given)
    np.testing.assert_allclose(-state.fit.params["gain"], probes.riccati_gain(0.9), atol=0.05)


# Acting


def test_acting_is_greedy_or_by_chance():
    env, env_params = probes.aim()
    agent = sac.make(env, sac.Config(warmup=8, batch_size=8, network=networks.MLP((5,))))
    state = agent.init(random.key(0), sac.Hyperparams(), env_params)
    action = agent.act(random.key(1), state, jnp.ones((20_000, 1)))
    assert action.shape == (20_000, 2) and len(jnp.unique(action[:, 0])) > 10_000
    np.testing.assert_allclose(action.min(0), env.spec.action.low, atol=0.1)
    np.testing.assert_allclose(action.max(0), env.spec.action.high, atol=0.1)
    greedy = agent.act(random.key(1), state, jnp.ones((3, 1)), greedy=True)
    np.testing.assert_allclose(greedy, jnp.tile(jnp.median(action, 0), (3, 1)), atol=0.05)


def test_acting_by_chance_or_greedily_with_discrete_actions():
    env, env_params = envs.make("CartPole-v1")
    agent = sac_discrete.make(env, sac_discrete.Config(warmup=8, batch_size=8, network=networks.MLP((5,))))
    state = jax.eval_shape(agent.init, random.key(0), sac_discrete.Hyperparams(), env_params)
    actor = {"Dense_0": {"kernel": jnp.zeros((4, 5)), "bias": jnp.zeros(5)},
             "Dense_1": {"kernel": jnp.zeros((5, 2)), "bias": jnp.log(jnp.array([0.2, 0.8]))}}  # fmt: skip
    state = state._replace(fit=state.fit._replace(params=actor))
    action = agent.act(random.key(0), state, jnp.ones((20_000, 4)))
    np.testing.assert_allclose(action.mean(), 0.8, atol=0.01)
    assert (agent.act(random.key(0), state, jnp.ones((100, 4)), greedy=True) == 1).all()


# What cannot work


@pytest.mark.parametrize(
    ("module", "environment", "options", "said"),
    [
        (sac, "CartPole-v1", {}, r"CartPole-v1 has 2 discrete actions.* such as dqn"),
        (sac_discrete, "Pendulum-v1", {}, r"Pendulum-v1 has continuous actions"),
        (sac, "Pendulum-v1", {"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1.* use dropout=0"),
        (sac, "Pendulum-v1", {"num_steps": 0}, "num_steps=0 must be at least 1"),
        (sac, "Pendulum-v1", {"train_every": 4}, "train_every=4 does not divide num_steps=50.* train_every=2 or 5"),
        (sac_discrete, "CartPole-v1", {"train_every": 4}, "train_every=4 does not divide num_steps=50"),
        (sac, "Pendulum-v1", {"capacity": 10}, "capacity=10 cannot hold the warmup=1000"),
        (sac_discrete, "CartPole-v1", {"batch_size": 2000}, "batch_size=2000 asks for more .* than warmup=1000"),
    ],
)
def test_what_cannot_work_is_refused(module, environment, options, said):
    env, _ = envs.make(environment)
    with pytest.raises(ValueError, match=said):
        module.make(env, module.Config(**options))
