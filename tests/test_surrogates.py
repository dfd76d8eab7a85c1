"""The penalised form of PPO: its gradient and divergences by other means, its coefficient by hand."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import policies, surrogates
from jaxrl.algorithms import ppo
from jaxrl.core import networks
from jaxrl.envs import Box, Discrete, Spec

BETA = 0.7
B = 16


@pytest.mark.parametrize(
    ("kl", "adapted"),
    [(0.0, 0.5), (0.0199, 0.5), (0.0201, 1.0), (0.03, 1.0), (0.0449, 1.0), (0.0451, 2.0), (9.0, 2.0)],
)
def test_the_coefficient_is_halved_or_doubled_off_the_target(kl, adapted):
    """Below two thirds of the target, and above three halves of it."""
    assert surrogates.adapt_kl_coef(jnp.float32(1.0), jnp.float32(kl), 0.03) == adapted


def test_the_coefficient_comes_back_however_often_it_was_halved():
    coef = jnp.float32(1.0)
    for _ in range(200):
        coef = surrogates.adapt_kl_coef(coef, jnp.float32(0.0), 0.01)
    for _ in range(21):
        coef = surrogates.adapt_kl_coef(coef, jnp.float32(1.0), 0.01)
    assert coef > 1


def problem(action):
    """A linear policy, its parameters when it acted and now, and a batch whose ratios are not 1."""
    head = policies.head(action, "gaussian")
    network = policies.actor_critic(Spec("random", (4,), "float32", None, action, 10), head, networks.MLP(hidden=()))
    keys = random.split(random.key(0), 6)
    old = network.init(keys[0])
    move = partial(jax.tree.map, lambda leaf: leaf + 0.3 * random.normal(random.key(leaf.size), leaf.shape))
    old = move(old)
    new = move(old)
    obs = random.normal(keys[1], (B, 4))
    outputs = jax.vmap(lambda obs: network.apply(old, obs)[0])(obs)
    policy = head.distribution(*outputs)
    sample = policy.sample(seed=keys[2])
    advantage, value, target = random.normal(keys[3], (3, B))
    batch = ppo.Batch(obs, sample, policy.log_prob(sample), value, advantage, target, outputs)
    return network, head, old, new, batch


def divergence_by_hand(network, action, old, new, obs):
    """[B] from the textbook: a sum over actions, or the closed form for Gaussians of half the width of the bounds."""
    (p, p_log_std), (q, q_log_std) = (network.apply(params, obs)[0] for params in (old, new))
    if isinstance(action, Discrete):
        p, q = jax.nn.softmax(p), jax.nn.softmax(q)
        return (p * jnp.log(p / q)).sum(-1)
    p_var, q_var = jnp.exp(2 * p_log_std), jnp.exp(2 * q_log_std)
    return (q_log_std - p_log_std + (p_var + (p - q) ** 2) / (2 * q_var) - 0.5).sum(-1)


ACTIONS = [Discrete(3), Box((2,), (-1.0, -0.5), (5.0, 0.1))]


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS, ids=["discrete", "gaussian"])
def test_the_gradient_is_that_of_equation_8(action):
    network, head, old, new, batch = problem(action)
    hparams = ppo.Hyperparams(value_coef=0.0, entropy_coef=0.0)

    def ours(params):
        return ppo.loss(params, network, head, batch, hparams, jnp.float32(BETA))[0]

    def by_hand(params):
        log_ratio = head.distribution(*network.apply(params, batch.obs)[0]).log_prob(batch.action) - batch.log_prob
        penalty = divergence_by_hand(network, action, old, params, batch.obs)
        return -(jnp.exp(log_ratio) * batch.advantage - BETA * penalty).mean()

    def clipped(params):
        return ppo.loss(params, network, head, batch, hparams)[0]

    functions = ours, by_hand, clipped
    found = jax.jit(jax.vmap(lambda params: [jax.value_and_grad(function)(params) for function in functions]))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), new, old)
    )
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, found[0], found[1])
    # Where the policy that acted stands, the penalty is flat, and the gradient is that of the clipped form too.
    jax.tree.map(lambda a, b: close(a[1], b[1]), found[0], found[2])


@pytest.mark.parametrize("action", ACTIONS, ids=["discrete", "gaussian"])
def test_the_divergence_is_from_the_old_policy_to_the_new(action):
    """Against samples of the old one: 20,000 at each observation."""
    network, head, old, new, batch = problem(action)
    found = ppo.divergence(new, network, head, batch)
    was, now = (head.distribution(*network.apply(params, batch.obs)[0]) for params in (old, new))
    sample = was.sample(seed=random.key(9), sample_shape=(20_000,))
    differences = (was.log_prob(sample) - now.log_prob(sample)).mean(1)
    error = differences.std() / np.sqrt(len(differences))
    assert found > 20 * error and abs(found - differences.mean()) < 5 * error
    backward = ppo.divergence(old, network, head, batch._replace(outputs=network.apply(new, batch.obs)[0]))
    assert abs(backward - found) > 20 * error  # the other direction is another number


@pytest.mark.slow
def test_updates_carry_the_coefficient():
    env, env_params = probes.copy()
    sizes = {"num_envs": 4, "num_steps": 8, "num_epochs": 2, "num_minibatches": 2, "eval_episodes": 1}
    agent = ppo.make(env, ppo.Config(**sizes, network=networks.MLP(hidden=()), surrogate="kl"))
    state = jax.jit(agent.init)(random.key(0), ppo.Hyperparams(), env_params)
    update, seen = jax.jit(agent.update), [1.0]
    assert state.kl_coef == 1
    for step, (rate, factor) in enumerate([(0.0, 0.5), (0.0, 0.5), (1.0, 2.0)]):
        hparams = ppo.Hyperparams(learning_rate=rate, target_kl=0.01)
        state, metrics = update(random.fold_in(random.key(1), step), state, hparams, env_params)
        assert metrics["kl_coef"] == seen[-1]  # the one that this update was penalised by
        assert (metrics["kl"] == 0) == (rate == 0)
        seen.append(float(state.kl_coef))
        assert seen[-1] == factor * seen[-2]
