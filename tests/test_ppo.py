"""PPO: its loss by hand, updates, probes, and what it refuses.

Its gradient is held against the exact one in `test_policy_gradient.py`. Axes: T steps, N environments, B transitions.
"""

from functools import partial

import jax
import numpy as np
import optax
import probes
import pytest
from jax import numpy as jnp
from jax import random
from jaxprs import primitives

from jaxrl import envs, policies, returns, rollout, surrogates
from jaxrl.algorithms import ppo
from jaxrl.core import loop, networks
from jaxrl.core.schedule import Linear
from jaxrl.envs import Box, Discrete, Spec

BOX = Box((2,), (-1.0, -0.5), (5.0, 0.1))
LINEAR = networks.MLP(hidden=())


# The loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.0, 2.0, 2.0, 2.0),
        (1.0, -2.0, -2.0, -2.0),
        (1.1, 2.0, 2.2, 2.2),  # within the bounds: plain
        (0.9, -2.0, -1.8, -1.8),
        (1.5, 2.0, 2.4, 0.0),  # good and already likelier: clipped
        (0.5, -2.0, -1.6, 0.0),  # bad and already less likely: clipped
        (0.5, 2.0, 1.0, 1.0),  # good but less likely: drawn back
        (1.5, -2.0, -3.0, -3.0),  # bad but likelier: drawn back
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, expected, slope):
    """The slope is that in the log-probability."""
    arguments = jnp.log(ratio), jnp.float32(advantage), jnp.float32(0.2)
    value, gradient = jax.value_and_grad(surrogates.clipped_surrogate)(*arguments)
    np.testing.assert_allclose([value, gradient], [expected, slope], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("clip", [jnp.inf, 1e6])
def test_value_loss_without_a_bound_is_half_the_squared_error(clip):
    value, old, target = random.normal(random.key(0), (3, 50)) * 10
    loss = lambda value: surrogates.clipped_value_loss(value, old, target, clip).mean()  # noqa: E731
    plain = lambda value: 0.5 * jnp.square(value - target).mean()  # noqa: E731
    np.testing.assert_allclose(loss(value), plain(value), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(loss)(value), jax.grad(plain)(value), rtol=1e-6)


def test_value_loss_with_a_bound_by_hand():
    value = jnp.array([1.05, 2.0, 2.0, -1.0])
    target = jnp.array([3.0, 3.0, 0.0, 3.0])
    loss = partial(surrogates.clipped_value_loss, old_value=jnp.ones(4), target=target, clip=0.1)
    # Within the bound; beyond it towards the target, where it stops; beyond it away from the target, drawn back.
    np.testing.assert_allclose(loss(value), 0.5 * np.array([1.95, 1.9, 2.0, 4.0]) ** 2, rtol=1e-5)
    gradient = jax.grad(lambda value: loss(value).sum())(value)
    np.testing.assert_allclose(gradient, [-1.95, 0.0, 2.0, -4.0], rtol=1e-5)


def test_advantages_that_do_not_vary_are_zero():
    for x in (jnp.array([3.0]), jnp.full(8, -2.0), jnp.zeros(4)):
        np.testing.assert_array_equal(returns.standardize(x), 0)
    x = returns.standardize(3 + 5 * random.normal(random.key(0), (1000,)))
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-5)


def problem(kind):
    """Network, head, parameters and a random batch whose log-probabilities are the network's own."""
    action = Discrete(3) if kind == "discrete" else BOX
    head = policies.head(action, "gaussian" if kind == "discrete" else kind)
    spec = Spec("random", (4,), "float32", None, action, 10)
    network = policies.actor_critic(spec, head, networks.MLP((8,)))
    keys = random.split(random.key(0), 7)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(keys[0], leaf.shape), network.init(keys[1]))
    obs = random.normal(keys[2], (32, 4))
    outputs, value = network.apply(params, obs)
    policy = head.distribution(*outputs)
    action = policy.sample(seed=keys[3])
    advantage, target = random.normal(keys[4], (2, 32))
    return network, head, params, ppo.Batch(obs, action, policy.log_prob(action), value, advantage, target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "gaussian", "squashed_gaussian"])
def test_gradient_at_ratio_1_is_the_policy_gradient(kind):
    network, head, params, batch = problem(kind)

    def expected(params):
        outputs, value = network.apply(params, batch.obs)
        policy = head.distribution(*outputs)
        objective = (policy.log_prob(batch.action) * batch.advantage).mean() + 0.3 * policy.entropy().mean()
        return -objective + 0.7 * 0.5 * jnp.square(value - batch.target).mean()

    hparams = ppo.Hyperparams(value_coef=0.7, entropy_coef=0.3)
    ours, metrics = jax.jit(jax.grad(lambda params: ppo.loss(params, network, head, batch, hparams), has_aux=True))(
        params
    )
    theirs = jax.jit(jax.grad(expected))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    assert optax.tree.norm(ours) > 0.1
    np.testing.assert_allclose([metrics["kl"], metrics["clip_fraction"]], 0, atol=1e-6)


def test_metrics_of_a_moved_policy():
    """Ratios of 2 and 1/2, half each: k3 estimate of the divergence, all clipped."""
    network, head, params, batch = problem("discrete")
    shift = jnp.where(jnp.arange(32) % 2, jnp.log(2.0), -jnp.log(2.0))
    _, metrics = ppo.loss(params, network, head, batch._replace(log_prob=batch.log_prob - shift), ppo.Hyperparams())
    np.testing.assert_allclose(metrics["kl"], ((2 - 1 - np.log(2)) + (0.5 - 1 + np.log(2))) / 2, rtol=1e-4)
    assert metrics["clip_fraction"] == 1


# From paths to batches


def obs_is_value():
    """A network whose value is the observation and whose policy is even."""
    return networks.Network(
        lambda key: {"unused": jnp.zeros(1)}, lambda params, obs: ((jnp.zeros((*obs.shape[:-1], 2)), ()), obs[..., 0])
    )


def test_targets_use_the_true_successor_and_stop_only_at_ends():
    """Three environments: cut by the time limit, ended, both. The successor's value is 50, the restart's 1000."""
    terminated = jnp.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    truncated = jnp.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    obs = jnp.array([[1.0] * 3, [2.0] * 3, [1000.0] * 3])[..., None]
    next_obs = jnp.array([[2.0] * 3, [50.0] * 3, [3.0] * 3])[..., None]
    zeros = jnp.zeros((3, 3))
    path = rollout.Transition(obs, zeros, jnp.ones((3, 3)), next_obs, terminated, truncated, (zeros, zeros))
    hparams = ppo.Hyperparams(discount=0.5, gae_lambda=0.5)
    batch = ppo.make_batch(path, {}, obs_is_value(), hparams)
    assert all(leaf.shape[0] == 9 for leaf in jax.tree.leaves(batch))
    delta = np.array([1 + 0.5 * 2 - 1, 1 + 0.5 * 50 - 2, 1 + 0.5 * 3 - 1000])
    cut = [delta[0] + 0.25 * delta[1], delta[1], delta[2]]
    ended = [delta[0] + 0.25 * (1 - 2), 1 - 2, delta[2]]
    advantage = np.stack([cut, ended, ended], 1)
    np.testing.assert_allclose(batch.advantage.reshape(3, 3), advantage, rtol=1e-5)
    np.testing.assert_allclose(batch.value.reshape(3, 3), obs[..., 0])
    np.testing.assert_allclose(batch.target.reshape(3, 3), advantage + obs[..., 0], rtol=1e-5)


# Updates

SMALL = ppo.Config(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=1, eval_episodes=1)


def advance(agent, env_params, hparams, count):
    """Metrics of each of `count` updates, and the states after them."""
    update = jax.jit(agent.update)
    state, results = jax.jit(agent.init)(random.key(0), hparams, env_params), []
    for step in range(count):
        state, metrics = update(random.fold_in(random.key(1), step), state, hparams, env_params)
        results.append((state, metrics))
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "options"),
    [
        (lambda: envs.make("CartPole-v1"), {"normalize_observations": True, "normalize_rewards": True}),
        (probes.aim, {}),
        (probes.aim, {"distribution": "squashed_gaussian"}),
    ],
    ids=["discrete", "gaussian", "squashed"],
)
def test_the_first_ratios_are_1_whatever_the_normaliser_learned(environment, options):
    """One minibatch, one epoch: the only step is taken at the policy that acted."""
    env, env_params = environment()
    agent = ppo.make(env, ppo.Config(**{**vars(SMALL), "network": networks.MLP((8,)), **options}))
    hparams = ppo.Hyperparams(learning_rate=0.01, clip=1e-4)
    for _, metrics in advance(agent, env_params, hparams, 3):
        assert metrics["clip_fraction"] == 0  # no ratio is further than 1e-4 from 1
        assert metrics["kl"] < 1e-9


def storing_rate(rate):
    """Moves nothing, and keeps every learning rate it is given."""
    return optax.GradientTransformation(
        lambda params: (jnp.zeros(3), jnp.int32(0)),
        lambda updates, state, params=None: (
            jax.tree.map(jnp.zeros_like, updates),
            (state[0].at[jnp.minimum(state[1], 2)].set(rate), state[1] + 1),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("num_envs", "num_steps", "num_epochs", "num_minibatches"), [(2, 3, 1, 1), (3, 4, 2, 2)])
def test_annealing_counts_updates_and_nothing_else(num_envs, num_steps, num_epochs, num_minibatches):
    env, env_params = probes.endless()
    config = ppo.Config(num_envs, num_steps, num_epochs, num_minibatches, LINEAR, optimizer=storing_rate)
    agent = ppo.make(env, config)
    hparams = ppo.Hyperparams(learning_rate=Linear(1.0, 0.0))
    run = loop.start(agent, random.key(0), hparams, env_params, 4)
    chunk = jax.jit(lambda run: loop.chunk(agent, 1, run, hparams, env_params)[0])
    for step in range(4):
        run = run._replace(state=run.state._replace(fit=run.state.fit._replace(opt_state=storing_rate(0.0).init(None))))
        run = chunk(run)
        rates, count = run.state.fit.opt_state
        assert count == num_epochs * num_minibatches
        np.testing.assert_allclose(rates[: min(3, int(count))], 1 - step / 4, rtol=1e-6)


def test_a_large_batch_is_not_sorted():
    env, env_params = probes.copy()
    agent = ppo.make(env, ppo.Config(num_envs=16, num_steps=8, num_minibatches=4, network=LINEAR))
    state = jax.eval_shape(agent.init, random.key(0), ppo.Hyperparams(), env_params)
    program = jax.make_jaxpr(agent.update)(random.key(0), state, ppo.Hyperparams(), env_params)
    assert not {"sort", "top_k"} & set(primitives(program))


@pytest.mark.parametrize("distribution", ["gaussian", "squashed_gaussian"])
def test_acting(distribution):
    env, env_params = probes.aim()
    agent = ppo.make(env, ppo.Config(**{**vars(SMALL), "distribution": distribution, "network": LINEAR}))
    state = agent.init(random.key(0), ppo.Hyperparams(), env_params)
    obs = jnp.ones((50, 1))
    sampled, greedy = agent.act(random.key(1), state, obs), agent.act(random.key(1), state, obs, greedy=True)
    assert sampled.shape == greedy.shape == (50, 2)
    assert (greedy == greedy[0]).all() and len(np.unique(sampled)) > 10
    np.testing.assert_array_equal(greedy, agent.act(random.key(2), state, obs, greedy=True))
    for action in (sampled, greedy):
        assert ((action >= jnp.array(env.spec.action.low)) & (action <= jnp.array(env.spec.action.high))).all()


@pytest.mark.slow
def test_a_network_of_the_users_own():
    """Any pair of functions whose outputs are those of `policies.actor_critic`; every field of Config but its size."""
    env, env_params = probes.copy()
    network = networks.Network(
        lambda key: {"w": jnp.zeros((1, 3))},
        lambda params, obs: (((obs @ params["w"])[..., :2], jnp.zeros(0)), (obs @ params["w"])[..., 2]),
    )
    agent = ppo.make(env, SMALL, network)
    (state, _), *_ = advance(agent, env_params, ppo.Hyperparams(), 1)
    assert state.fit.params["w"].shape == (1, 3) and state.fit.params["w"].all()
    assert agent.act(random.key(0), state, jnp.ones((7, 1))).shape == (7,)


# Probes


def solved(probe, num_updates=60, hparams=None, **options):
    """Train on a probe; the values of some observations, the last evaluation, the agent and its state."""
    env, env_params = probe
    config = ppo.Config(
        **{"num_envs": 16, "num_steps": 8, "num_minibatches": 2, "network": LINEAR, "eval_episodes": 64, **options}
    )
    agent = ppo.make(env, config)
    hparams = hparams or ppo.Hyperparams(learning_rate=Linear(0.1, 0.0), discount=0.8, max_grad_norm=10.0)
    train = jax.jit(partial(loop.train, agent, num_updates=num_updates, eval_every=num_updates))
    run, metrics = train(random.key(0), hparams, env_params)
    head = policies.head(env.spec.action, config.distribution)
    network = policies.actor_critic(env.spec, head, config.network)

    def value(obs):
        return network.apply(run.state.fit.params, jnp.asarray(obs, jnp.float32))[1]

    return value, jax.tree.map(lambda leaf: leaf[-1], metrics), agent, run.state


def test_a_time_limit_is_no_end():
    value, *_ = solved(probes.endless())
    np.testing.assert_allclose(value([[1.0]]), 1 / (1 - 0.8), rtol=0.03)  # an end would make it at most 1.8


@pytest.mark.slow
def test_the_successor_is_not_the_observation_after_the_reset():
    value, *_ = solved(probes.far_start(), 120)
    np.testing.assert_allclose(value([[1.0, 0.0], [0.0, 1.0]]), [-6.0, 5.0], rtol=0.05)


@pytest.mark.slow
def test_credit_reaches_back_over_a_delay():
    value, *_ = solved(probes.delayed())
    np.testing.assert_allclose(value(np.eye(3)), [0.64, 0.8, 1.0], atol=0.03)


@pytest.mark.slow
def test_the_action_that_suits_the_observation_is_found():
    _, metrics, agent, state = solved(probes.copy())
    assert metrics["eval/return"] > 0.95
    greedy = agent.act(random.key(0), state, jnp.array([[-1.0], [1.0]]), greedy=True)
    np.testing.assert_array_equal(greedy, [0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["gaussian", "squashed_gaussian"])
def test_a_target_off_the_centre_of_its_bounds_is_reached(distribution):
    hparams = ppo.Hyperparams(learning_rate=Linear(0.1, 0.0), entropy_coef=0.0, max_grad_norm=10.0)
    _, metrics, agent, state = solved(probes.aim(), 80, hparams, distribution=distribution)
    np.testing.assert_allclose(agent.act(random.key(0), state, jnp.ones((1, 1)), greedy=True), [[2.0, 0.1]], atol=0.1)
    assert metrics["eval/return"] > -0.2


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs=0 must be at least 1"),
        ({"num_steps": 0}, "num_steps=0 must be at least 1"),
        ({"num_epochs": -1}, "num_epochs=-1 must be at least 1"),
        ({"num_minibatches": 0}, "num_minibatches=0 must be at least 1"),
        ({"eval_episodes": 0}, "eval_episodes=0 must be at least 1"),
        ({"num_minibatches": 7}, r"num_minibatches=7 does not divide .*=32 .*use num_minibatches=4 or 8"),
        ({"num_minibatches": 33}, r"num_minibatches=33 does not divide .*=32 .*use num_minibatches=32"),
        ({"num_minibatches": 32}, r"one advantage of each minibatch .*num_minibatches=16"),
        ({"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1"),
        ({"network": networks.CNN()}, r"images.*use an MLP"),
    ],
)
def test_what_cannot_work_is_refused_before_tracing(changes, message):
    env, _ = probes.copy()
    with pytest.raises(ValueError, match=message):
        ppo.make(env, ppo.Config(**{**vars(SMALL), **changes}))


def test_a_squashed_gaussian_without_bounds_is_refused():
    env, _ = probes.aim()
    unbounded = env._replace(spec=Spec("aim", (1,), "float32", None, Box((1,), (-np.inf,), (np.inf,)), 1))
    with pytest.raises(ValueError, match="distribution='gaussian'"):
        ppo.make(unbounded, ppo.Config(distribution="squashed_gaussian"))
