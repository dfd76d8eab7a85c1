"""TRPO: its products, solutions and steps against explicit matrices and closed forms, its bound, probes, refusals.

Axes: B transitions, S states, A actions, D parameters or action dimensions.
"""

from functools import cache, partial

import jax
import numpy as np
import optax
import probes
import pytest
from jax import flatten_util, random
from jax import numpy as jnp

from experiments import presets
from jaxrl import policies, rollout
from jaxrl.algorithms import trpo
from jaxrl.core import fit, loop, networks, schedule
from jaxrl.core.schedule import Linear
from jaxrl.envs import Box, Discrete, Spec

BOX = Box((2,), (-1.0, -0.5), (5.0, 0.1))
LINEAR = networks.MLP(hidden=())
SMALL = trpo.Config(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=1, eval_episodes=1, network=LINEAR)
SQUASHED = pytest.param("squashed_gaussian", marks=pytest.mark.slow)
KINDS = pytest.mark.parametrize("kind", ["discrete", "gaussian", SQUASHED])


@cache
def problem(kind):
    """Network, head, parameters and a random batch whose log-probabilities are the network's own."""
    action = Discrete(3) if kind == "discrete" else BOX
    head = policies.head(action, "gaussian" if kind == "discrete" else kind)
    spec = Spec("random", (3,), "float32", None, action, 10)
    network = policies.actor_critic(spec, head, networks.MLP((4,)))

    @jax.jit
    def draw(keys):
        params = jax.tree.map(lambda leaf: leaf + 0.3 * random.normal(keys[0], leaf.shape), network.init(keys[1]))
        obs = random.normal(keys[2], (32, 3))
        policy = head.distribution(*network.apply(params, obs)[0])
        action = policy.sample(seed=keys[3])
        advantage, target = random.normal(keys[4], (2, 32))
        return params, trpo.Batch(obs, action, policy.log_prob(action), advantage, target)

    return network, head, *draw(random.split(random.key(0), 5))


def assert_same_bits(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


# Natural gradients


def test_conjugate_gradients_agree_with_a_direct_solution():
    """More steps than dimensions neither harm nor blow up."""
    generator = np.random.default_rng(0)
    root = generator.normal(size=(8, 8))
    matrix, target = root @ root.T + 0.1 * np.eye(8), generator.normal(size=8)
    product = lambda x: jnp.float32(matrix) @ x  # noqa: E731
    solve = jax.jit(partial(trpo.conjugate_gradients, product), static_argnums=1)
    expected = np.linalg.solve(matrix, target)
    for scale in (1.0, 1e-8, 1e8):
        for num_steps in (12, 100):
            found = solve(jnp.float32(scale * target), num_steps)
            np.testing.assert_allclose(found / scale, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    few = [np.linalg.norm(matrix @ solve(jnp.float32(target), count) - target) for count in (1, 8)]
    assert few[1] < 1e-2 * few[0]


def test_conjugate_gradients_of_nothing_are_nothing():
    for product in (lambda x: 2 * x, jnp.zeros_like):
        np.testing.assert_array_equal(trpo.conjugate_gradients(product, jnp.zeros(5), 10), 0)
        np.testing.assert_array_equal(trpo.natural_step(product, jnp.zeros(5), 0.01, 10), 0)
    flat = trpo.natural_step(jnp.zeros_like, jnp.ones(5), 0.01, 10)  # a gradient where there is no curvature at all
    np.testing.assert_array_equal(flat, 0)


@pytest.mark.slow
@KINDS
def test_fisher_products_agree_with_the_hessian_of_the_divergence(kind):
    """The whole matrix, column by column, against the second derivative of the divergence of the moved policy."""
    network, head, params, batch = problem(kind)
    flat, unravel = flatten_util.ravel_pytree(params)

    @jax.jit
    def matrices(flat):
        old = head.distribution(*network.apply(params, batch.obs)[0])
        fisher = trpo.fisher_product(params, network, head, batch.obs)
        product = lambda vector: flatten_util.ravel_pytree(fisher(unravel(vector)))[0]  # noqa: E731
        explicit = jax.hessian(lambda flat: trpo.divergence(unravel(flat), network, head, old, batch.obs))
        return jax.vmap(product)(jnp.eye(len(flat))), explicit(flat)

    matrix, expected = matrices(flat)
    np.testing.assert_allclose(matrix, expected, atol=1e-4 * np.abs(expected).max())
    critic, _ = flatten_util.ravel_pytree({**jax.tree.map(jnp.zeros_like, params), "critic": params["critic"]})
    np.testing.assert_array_equal(matrix[critic != 0], 0)
    assert np.linalg.matrix_rank(matrix, tol=1e-5) > 3


def test_the_step_in_a_table_of_logits_is_the_advantage():
    """Kakade 2002: where every logit is a parameter, the natural gradient is the advantage, but for its mean."""
    p = np.array([0.5, 0.25, 0.25])
    logits = jnp.log(p) + jnp.array([[1.0], [0.0], [-2.0]])  # constants that change no probability
    weight = np.array([0.25, 0.5, 0.25])  # of each state in the batch
    state = np.repeat([0, 1, 1, 2], 4)
    action = np.tile([0, 0, 1, 2], 4)  # each as often as it is likely
    table = np.random.default_rng(0).normal(size=(3, 3))
    advantage = table[state, action]
    head = policies.head(Discrete(3), "gaussian")
    network = networks.Network(
        lambda key: None, lambda params, obs: ((params["logits"][obs], jnp.zeros(0)), params["critic"][obs])
    )
    params = {"logits": logits, "critic": jnp.ones(3)}
    batch = trpo.Batch(*map(jnp.asarray, (state, action, np.log(p)[action], jnp.float32(advantage), advantage)))
    hparams = trpo.Hyperparams(max_kl=1e-4, damping=0.0)
    moved, metrics = jax.jit(partial(trpo.improve, network=network, head=head, hparams=hparams, config=SMALL))(
        params, batch=batch
    )
    natural = table - table.mean(1, keepdims=True)
    variance = (p * table**2).sum(1) - (p * table).sum(1) ** 2
    expected = np.sqrt(2 * 1e-4 / (weight * variance).sum()) * natural * metrics["step_fraction"]
    np.testing.assert_allclose(moved["logits"] - logits, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(moved["critic"], params["critic"])
    assert metrics["accepted"] == 1


@pytest.mark.slow
def test_the_step_of_a_linear_gaussian_policy_in_closed_form():
    """Fisher matrix: E[o o'] / std**2 for each action's row of the weights, 2 for each log standard deviation."""
    keys = random.split(random.key(0), 4)
    size, std = 64, np.array([0.5, 2.0])
    obs = random.normal(keys[0], (size, 3)) @ jnp.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.3, 1.0]])
    params = {
        "weights": random.normal(keys[1], (3, 2)),
        "free": jnp.log(jnp.float32(std)),
        "critic": jnp.zeros(3),
    }
    network = networks.Network(
        lambda key: None, lambda params, obs: ((obs @ params["weights"], params["free"]), obs @ params["critic"])
    )
    head = policies.head(Box((2,), (-np.inf,) * 2, (np.inf,) * 2), "gaussian")  # of unit 1
    policy = head.distribution(obs @ params["weights"], params["free"])
    action, advantage = policy.sample(seed=keys[2]), random.normal(keys[3], (size,))
    batch = trpo.Batch(obs, action, policy.log_prob(action), advantage, advantage)
    hparams = trpo.Hyperparams(max_kl=1e-4, damping=0.0)
    moved, metrics = jax.jit(partial(trpo.improve, network=network, head=head, hparams=hparams, config=SMALL))(
        params, batch=batch
    )
    obs, noise, advantage = np.asarray(obs), np.asarray(action - obs @ params["weights"]), np.asarray(advantage)
    second_moment = obs.T @ obs / size
    weights = np.linalg.solve(second_moment, obs.T @ (noise * advantage[:, None]) / size)
    free = ((noise**2 / std**2 - 1) * advantage[:, None]).mean(0) / 2
    square = (weights * (second_moment @ weights) / std**2).sum() + 2 * (free**2).sum()
    length = np.sqrt(2 * 1e-4 / square) * metrics["step_fraction"]
    np.testing.assert_allclose(moved["weights"] - params["weights"], length * weights, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(moved["free"] - params["free"], length * free, rtol=1e-2, atol=1e-5)
    assert metrics["accepted"] == 1
    np.testing.assert_allclose(metrics["kl"], 1e-4 * metrics["step_fraction"] ** 2, rtol=0.05)


# The surrogate


@KINDS
def test_gradient_at_ratio_1_is_the_policy_gradient(kind):
    network, head, params, batch = problem(kind)

    def expected(params):
        policy = head.distribution(*network.apply(params, batch.obs)[0])
        return -(policy.log_prob(batch.action) * batch.advantage).mean()

    ours = jax.jit(lambda params: jax.grad(trpo.loss, has_aux=True)(params, network, head, batch)[0])(params)
    theirs = jax.jit(jax.grad(expected))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    assert optax.tree.norm(ours) > 0.1


def test_the_surrogate_weighs_by_the_ratio():
    network, head, params, batch = problem("discrete")
    value, _ = trpo.loss(params, network, head, batch._replace(log_prob=batch.log_prob - jnp.log(2.0)))
    np.testing.assert_allclose(value, -2 * batch.advantage.mean(), rtol=1e-4)


# The line search


def search(attempt, max_kl=0.1, num_steps=5, backtrack=0.5):
    hparams = trpo.Hyperparams(max_kl=max_kl, backtrack=backtrack)
    return trpo.line_search(attempt, jnp.float32(0), hparams, num_steps)


def test_steps_shrink_until_they_are_within_the_bound_and_improve():
    steep = lambda fraction: (-fraction, fraction**2)  # noqa: E731
    np.testing.assert_allclose(search(steep), [0.25, -0.25, 0.0625])
    np.testing.assert_allclose(search(steep, max_kl=1.0), [1, -1, 1])  # exactly at the bound
    np.testing.assert_allclose(search(steep, 0.5, backtrack=0.8), [0.64, -0.64, 0.4096], rtol=1e-6)
    overshooting = lambda fraction: (fraction * (fraction - 0.3), 0.01 * fraction)  # noqa: E731
    np.testing.assert_allclose(search(overshooting), [0.25, -0.25 * 0.05, 0.0025], rtol=1e-5)


def test_no_step_is_taken_if_none_will_do():
    for attempt in (
        lambda fraction: (-fraction, fraction + 1),  # too far
        lambda fraction: (fraction, 0.01 * fraction),  # worse
        lambda fraction: (0 * fraction, 0.01 * fraction),  # no better
        lambda fraction: (-fraction, 0 * fraction),  # no step: what improved is rounding
        lambda fraction: (-fraction, jnp.nan * fraction),
        lambda fraction: (jnp.nan * fraction, 0.01 * fraction),
        lambda fraction: (-fraction, 10 * fraction - 0.5),  # the sixth would do: one too many
    ):
        np.testing.assert_array_equal(search(attempt), 0)


def test_each_lane_searches_for_itself():
    bounds = jnp.array([1.0, 0.1, 1e-9, 0.02])
    found = jax.vmap(lambda bound: search(lambda fraction: (-fraction, fraction**2), bound)[0])(bounds)
    np.testing.assert_array_equal(found, [1, 0.25, 0, 0.125])


# Updates


@pytest.mark.slow
@KINDS
def test_a_step_keeps_the_bound_whatever_its_size(kind):
    """The divergence reported is that of the parameters returned; large bounds are where the second order fails."""
    network, head, params, batch = problem(kind)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def improve(max_kl, batch):
        old = head.distribution(*network.apply(params, batch.obs)[0])
        hparams = trpo.Hyperparams(max_kl=max_kl, damping=1e-3)
        moved, metrics = trpo.improve(params, network, head, batch, hparams, SMALL)
        return moved, metrics, trpo.divergence(moved, network, head, old, batch.obs)

    bounds = jnp.array([0.0, 1e-4, 0.01, 0.5, 2.0])
    moved, metrics, measured = improve(bounds, batch)
    np.testing.assert_allclose(metrics["kl"], measured, rtol=1e-3, atol=1e-7)
    assert (metrics["kl"] <= bounds).all() and (metrics["kl"][1:] > 0.1 * bounds[1:]).all()
    np.testing.assert_array_equal(metrics["accepted"], [0, 1, 1, 1, 1])
    assert (metrics["step_fraction"][1:] < 1).any()
    assert (metrics["policy_loss"][1:] < -batch.advantage.mean()).all()
    assert_same_bits(jax.tree.map(lambda leaf: leaf[0], moved), params)
    assert_same_bits(moved["critic"], jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), params["critic"]))

    still, metrics, _ = improve(bounds, batch._replace(advantage=jnp.zeros(32)))
    assert not metrics["accepted"].any() and not metrics["kl"].any()
    assert_same_bits(still, jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), params))


@pytest.mark.slow
def test_policy_and_critic_are_moved_each_by_its_own_means():
    """Nothing but the trust region moves the policy; nothing but the optimiser, weight decay included, the critic.

    A policy that is never moved has the loss of ratios 1 whatever the normaliser has learned: minus the mean of
    standardised advantages, 0.
    """
    env, env_params = probes.far_start()
    options = {"optimizer": fit.Optimizer("adamw", weight_decay=0.1), "normalize_observations": True}
    agent = trpo.make(env, trpo.Config(**{**vars(SMALL), **options, "normalize_rewards": True}))
    state = agent.init(random.key(0), trpo.Hyperparams(), env_params)
    actor = jax.tree.map(lambda leaf: 300 * leaf, state.fit.params["actor"])  # whose probabilities differ
    start = state._replace(fit=state.fit._replace(params={**state.fit.params, "actor": actor}))
    update = jax.jit(agent.update)

    hparams = trpo.Hyperparams(learning_rate=jnp.float32(0), max_kl=jnp.float32(0.01))
    state, metrics = update(random.key(1), start, hparams, env_params)
    assert metrics["accepted"]
    assert_same_bits(state.fit.params["critic"], start.fit.params["critic"])
    assert (state.fit.params["actor"]["Dense_0"]["kernel"] != actor["Dense_0"]["kernel"]).all()

    hparams, state = trpo.Hyperparams(learning_rate=jnp.float32(0.1), max_kl=jnp.float32(0)), start
    for step in range(3):
        state, metrics = update(random.fold_in(random.key(2), step), state, hparams, env_params)
        assert not metrics["accepted"]
        np.testing.assert_allclose(metrics["policy_loss"], 0, atol=1e-5)
    assert_same_bits({**state.fit.params, "critic": None}, {**start.fit.params, "critic": None})
    assert (state.fit.params["critic"]["Dense_0"]["kernel"] != start.fit.params["critic"]["Dense_0"]["kernel"]).all()


# From paths to batches


def test_targets_use_the_true_successor_and_stop_only_at_ends():
    """Three environments: cut by the time limit, ended, both. The successor's value is 50, the restart's 1000."""
    terminated = jnp.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    truncated = jnp.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    obs = jnp.array([[1.0] * 3, [2.0] * 3, [1000.0] * 3])[..., None]
    next_obs = jnp.array([[2.0] * 3, [50.0] * 3, [3.0] * 3])[..., None]
    zeros = jnp.zeros((3, 3))
    path = rollout.Transition(obs, zeros, jnp.ones((3, 3)), next_obs, terminated, truncated, (zeros, zeros + 7))
    network = networks.Network(None, lambda params, obs: (None, obs[..., 0]))
    batch = trpo.make_batch(path, {}, network, trpo.Hyperparams(discount=0.5, gae_lambda=0.5))
    assert all(leaf.shape[0] == 9 for leaf in jax.tree.leaves(batch)) and (batch.log_prob == 7).all()
    delta = np.array([1 + 0.5 * 2 - 1, 1 + 0.5 * 50 - 2, 1 + 0.5 * 3 - 1000])
    cut = [delta[0] + 0.25 * delta[1], delta[1], delta[2]]
    ended = [delta[0] + 0.25 * (1 - 2), 1 - 2, delta[2]]
    advantage = np.stack([cut, ended, ended], 1)
    np.testing.assert_allclose(batch.target.reshape(3, 3), advantage + obs[..., 0], rtol=1e-5)
    standard = (advantage - advantage.mean()) / advantage.std()
    np.testing.assert_allclose(batch.advantage.reshape(3, 3), standard, rtol=1e-4)


# Probes


def trained(environment, num_updates=40, hparams=None, **options):
    """An agent, its state after as many updates, and the metrics of every single one [U]."""
    env, env_params = environment
    sizes = {"num_envs": 16, "num_steps": 8, "num_epochs": 4, "num_minibatches": 2, "eval_episodes": 8}
    agent = trpo.make(env, trpo.Config(**{**sizes, "network": LINEAR, **options}))
    # Little damping and a wide bound: full steps would break it.
    hparams = hparams or trpo.Hyperparams(Linear(0.1, 0.0), discount=0.8, max_kl=0.05, damping=1e-3)
    train = jax.jit(partial(loop.train, agent, num_updates=num_updates, eval_every=1))
    run, metrics = train(random.key(0), hparams, env_params)
    return agent, run.state, metrics


def assert_bound_kept(metrics, max_kl):
    """At every update, by full steps and by shortened ones."""
    assert 0.1 * max_kl < metrics["kl"].mean() and metrics["kl"].max() <= max_kl
    assert ((metrics["step_fraction"] > 0) & (metrics["step_fraction"] < 1)).any()
    np.testing.assert_array_equal(metrics["kl"] > 0, metrics["accepted"] > 0)


@pytest.mark.parametrize("probe", [probes.far_start, pytest.param(probes.endless, marks=pytest.mark.slow)])
def test_a_time_limit_is_no_end_and_the_successor_not_what_follows_it(probe):
    env, _ = probe()
    _, state, metrics = trained(probe(), 60)
    assert_bound_kept(metrics, 0.05)
    head = policies.head(env.spec.action, "gaussian")
    obs, expected = ([[1.0]], [5.0]) if probe is probes.endless else (np.eye(2, dtype=np.float32), [-6.0, 5.0])
    _, value = policies.actor_critic(env.spec, head, LINEAR).apply(state.fit.params, jnp.asarray(obs))
    np.testing.assert_allclose(value, expected, rtol=0.05)  # an end would make 5 at most 2.4, a restart far less


@pytest.mark.slow
def test_the_action_that_suits_the_observation_is_found():
    agent, state, metrics = trained(probes.copy())
    assert metrics["eval/return"][-10:].mean() > 0.95
    greedy = agent.act(random.key(0), state, jnp.array([[-1.0], [1.0]]), greedy=True)
    np.testing.assert_array_equal(greedy, [0, 1])
    assert_bound_kept(metrics, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["gaussian", SQUASHED])
def test_a_target_off_the_centre_of_its_bounds_is_reached(distribution):
    agent, state, metrics = trained(probes.aim(), 60, distribution=distribution)
    np.testing.assert_allclose(agent.act(random.key(0), state, jnp.ones((1, 1)), greedy=True), [[2.0, 0.1]], atol=0.1)
    assert metrics["eval/return"][-10:].mean() > -0.2
    sampled = agent.act(random.key(1), state, jnp.ones((50, 1)))
    assert ((sampled >= jnp.array([-1.0, 0.0])) & (sampled <= jnp.array([3.0, 0.5]))).all()
    assert_bound_kept(metrics, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["trpo-cartpole", "trpo-acrobot", "trpo-pendulum"])
def test_no_update_of_a_whole_training_breaks_the_bound(preset):
    experiment = presets.get(preset)
    num_updates = -(-experiment.steps // experiment.config.steps_per_update)
    options = {**vars(experiment.config), "eval_episodes": 1}
    *_, metrics = trained(experiment.source.load(), num_updates, experiment.hparams, **options)
    bound = jax.vmap(lambda progress: schedule.at(experiment.hparams, progress).max_kl)(
        jnp.arange(num_updates) / num_updates
    )
    assert (metrics["kl"] <= bound).all() and (metrics["kl"] > 0.1 * bound).mean() > 0.9


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs=0 must be at least 1"),
        ({"num_epochs": -1}, "num_epochs=-1 must be at least 1"),
        ({"num_conjugate_gradient_steps": 0}, "num_conjugate_gradient_steps=0 must be at least 1"),
        ({"num_line_search_steps": 0}, "num_line_search_steps=0 must be at least 1"),
        ({"num_minibatches": 7}, r"num_minibatches=7 does not divide .*=32 .*use num_minibatches=4 or 8"),
        ({"num_envs": 1, "num_steps": 1}, r"one advantage of each update .*num_steps"),
        ({"network": networks.MLP(dropout=0.1)}, r"dropout=0\.1"),
        ({"network": networks.CNN()}, r"images.*use an MLP"),
    ],
)
def test_what_cannot_work_is_refused_before_tracing(changes, message):
    env, _ = probes.copy()
    with pytest.raises(ValueError, match=message):
        trpo.make(env, trpo.Config(**{**vars(SMALL), **changes}))
