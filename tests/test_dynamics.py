"""Learned models: their likelihood and what they imagine, against the same written out in numpy."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from scipy import stats

from jaxrl import dynamics, envs, normalize, policies
from jaxrl.core import networks
from jaxrl.envs import Box, Spec

BOX = Spec("made up", (3,), "float32", None, Box((1, 2), (-1.0, 0.0), (3.0, 0.5)), 10)


def statistics(mean, var):
    return normalize.Statistics(jnp.array(mean), jnp.array(var), jnp.float32(100))


SCALE = dynamics.Scale(statistics([1.0, -2.0], [4.0, 0.25]), statistics([0.5, 0.0, 3.0], [0.01, 1.0, 9.0]))


def linear():
    """Two numbers seen and one done; params {"kernel" [3, 3], "std" [], "end" []}."""

    def apply(params, obs, action):
        inputs = jnp.concatenate([obs, action], axis=-1)
        mean = inputs @ params["kernel"]
        return dynamics.Prediction(mean, jnp.full(mean.shape, params["std"]), obs[..., 0] * params["end"])

    return networks.Network(None, apply)


def members(seed, count, std):
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(count, 3, 3)).astype(np.float32)
    return {"kernel": kernel, "std": np.full(count, std, np.float32), "end": np.linspace(0.5, 1.5, count)}


# Networks and batches


def test_a_network_predicts_within_its_bounds_at_every_shape():
    network = dynamics.network(BOX, networks.MLP((13,)))
    params = network.init(random.key(0))
    obs, action = random.normal(random.key(1), (4, 5, 3)), jnp.zeros((4, 5, 2))
    found = network.apply(params, obs, action)
    assert found.mean.shape == found.std.shape == (4, 5, 4) and found.end_logit.shape == (4, 5)
    low, high = np.exp(dynamics.LOG_STD_RANGE)
    assert (found.std > low).all() and (found.std < high).all()
    wild = network.apply(jax.tree.map(lambda leaf: 1000 * leaf, params), obs, action)
    np.testing.assert_allclose([wild.std.min(), wild.std.max()], [low, high], rtol=0.02)
    np.testing.assert_allclose(found.mean[2, 3], network.apply(params, obs[2, 3], action[2, 3]).mean, rtol=1e-5)


def test_transitions_have_actions_in_half_widths_and_changes_with_the_reward():
    action = jnp.array([[[3.0, 0.0]], [[1.0, 0.5]]])
    obs, next_obs = jnp.ones((2, 3)), jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    found = dynamics.transitions(policies.bounds(BOX), obs, action, jnp.array([5.0, 6.0]), next_obs, jnp.array([0, 1]))
    np.testing.assert_allclose(found.action, [[1.0, -1.0], [0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(found.change, [[0.0, 1.0, 2.0, 5.0], [-1.0, -1.0, 0.0, 6.0]])
    np.testing.assert_array_equal(found.terminated, [0.0, 1.0])
    np.testing.assert_array_equal(found.weight, [1.0, 1.0])
    seen = jnp.uint8([[7, 7, 7], [7, 7, 7]])
    found = dynamics.transitions(policies.bounds(BOX), seen, action, jnp.zeros(2), seen - 1, jnp.zeros(2))
    np.testing.assert_array_equal(found.change[:, :3], -1.0)


def test_units_are_those_of_all_transitions_seen():
    generator = np.random.default_rng(0)
    spec = Spec("made up", (2,), "float32", None, Box((1,), (-1.0,), (1.0,)), 10)
    scale, obs, change = dynamics.start(spec), [], []
    for size in ((5, 3), (4,)):
        obs.append(generator.normal(size=(*size, 2)))
        change.append(generator.normal(size=(*size, 3)))
        scale = dynamics.widen(scale, dynamics.Batch(jnp.array(obs[-1]), None, jnp.array(change[-1]), None, None))
    for found, seen in ((scale.obs, obs), (scale.change, change)):
        every = np.concatenate([each.reshape(-1, each.shape[-1]) for each in seen])
        np.testing.assert_allclose(found.mean, every.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.var, every.var(0), rtol=1e-4)


# The loss


def random_batch(members=2, size=7):
    generator = np.random.default_rng(1)
    obs, change = generator.normal(size=(members, size, 2)), generator.normal(size=(members, size, 3))
    action, terminated = generator.uniform(-1, 1, (members, size, 1)), generator.integers(0, 2, (members, size))
    weight = np.ones((members, size))
    weight[0, 2] = 0
    return dynamics.Batch(*(jnp.array(leaf, jnp.float32) for leaf in (obs, action, change, terminated, weight)))


def test_the_loss_is_the_negative_log_likelihood_in_nats():
    """Sums over what is predicted, means over samples, a sum over members; weight 0 leaves a sample out."""
    batch, params = random_batch(), members(0, 2, 0.3)
    batch = batch._replace(change=batch.change.at[1, 0, 2].set(500.0))  # 166 standard deviations off, not clipped
    total, metrics = dynamics.loss(params, linear(), SCALE, batch)
    each = np.zeros(2)
    for m in range(2):
        for i in range(7):
            obs = (batch.obs[m, i] - SCALE.obs.mean) / np.sqrt(SCALE.obs.var)
            target = (batch.change[m, i] - SCALE.change.mean) / np.sqrt(SCALE.change.var)
            mean = np.concatenate([obs, batch.action[m, i]]) @ params["kernel"][m]
            chance = 1 / (1 + np.exp(-params["end"][m] * obs[0]))
            nats = -stats.norm.logpdf(target, mean, 0.3).sum() - np.log(
                chance if batch.terminated[m, i] else 1 - chance
            )
            each[m] += batch.weight[m, i] * nats / 7
    np.testing.assert_allclose(total, each.sum(), rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], each.mean(), rtol=1e-4)


def test_a_member_learns_from_its_own_samples_alone():
    batch, params = random_batch(), members(0, 2, 0.3)
    slope = jax.grad(dynamics.loss, has_aux=True)
    changed = batch._replace(change=batch.change.at[0].add(1.0))
    before, after = (slope(params, linear(), SCALE, each)[0]["kernel"] for each in (batch, changed))
    np.testing.assert_array_equal(before[1], after[1])
    assert (before[0] != after[0]).all()


# Imagination


def test_what_is_imagined_is_the_mean_over_members_of_discounted_rewards_until_the_end():
    """One member from the first step to the last, in the environment's own units."""
    generator = np.random.default_rng(2)
    params = members(3, 4, 0.0)
    obs, plans = generator.normal(size=(2, 2)), generator.uniform(-1, 1, (2, 3, 5, 1))
    found = dynamics.imagine(linear(), params, SCALE, jnp.array(obs), 0.9, random.key(0), jnp.array(plans))
    expected = np.zeros((2, 3))
    for n, c, m in np.ndindex(2, 3, 4):
        place, weight = obs[n], 1.0
        for action in plans[n, c]:
            unit = np.clip((place - SCALE.obs.mean) / np.sqrt(SCALE.obs.var), -10, 10)
            mean = np.concatenate([unit, action]) @ params["kernel"][m]
            change = SCALE.change.mean + np.sqrt(SCALE.change.var) * mean
            expected[n, c] += weight * change[2] / 4
            weight *= 0.9 / (1 + np.exp(params["end"][m] * unit[0]))
            place = place + change[:2]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_chance_is_as_wide_as_predicted_and_alike_for_every_plan():
    many = {"kernel": np.zeros((4000, 3, 3)), "std": np.full(4000, 0.3), "end": np.zeros(4000)}
    units = dynamics.Scale(statistics([0.0, 0.0], [1.0, 1.0]), statistics([0.0, 0.0, 1.0], [1.0, 1.0, 4.0]))
    plans = jnp.zeros((2, 3, 1, 1))
    one = [dynamics.imagine(linear(), many, units, jnp.zeros((2, 2)), 1.0, random.key(seed), plans) for seed in (0, 1)]
    assert (one[0] == one[0][:, :1]).all() and (one[0][0] != one[0][1]).all() and (one[0] != one[1]).all()
    alone = linear(), jax.tree.map(lambda leaf: leaf[:1], many), units, jnp.zeros((1, 2)), 1.0
    returns = jax.vmap(lambda key: dynamics.imagine(*alone, key, plans[:1]))(random.split(random.key(2), 4000))[:, 0, 0]
    np.testing.assert_allclose(returns.mean(), 1.0, atol=0.04)
    np.testing.assert_allclose(returns.std(), 0.6, rtol=0.05)


# What cannot work


def test_what_is_no_vector_or_has_discrete_actions_is_refused():
    image = Spec("images", (4, 4, 1), "float32", None, Box((1,), (-1.0,), (1.0,)), 10)
    with pytest.raises(ValueError, match=r"images has observations of shape \(4, 4, 1\).*flatten_observation"):
        dynamics.check(image)
    with pytest.raises(ValueError, match="CartPole-v1 has 2 discrete actions"):
        dynamics.check(envs.make("CartPole-v1")[0].spec)
