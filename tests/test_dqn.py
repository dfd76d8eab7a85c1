"""DQN: its fixed point against value iteration, probes, what is counted and refused."""

from functools import partial

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random
from jaxprs import select_shapes

from jaxrl import envs, policies, replay, value_heads
from jaxrl.algorithms import dqn
from jaxrl.core import fit, loop, networks
from jaxrl.envs import Discrete, Spec, auto_reset

B, A, K = 17, 3, 5


def test_loss_weights_samples_and_moves_only_the_actions_taken():
    table = jnp.arange(12.0).reshape(4, A, 1)
    network = networks.Network(None, lambda params, obs: params[obs])
    weight = jnp.linspace(0, 1, B)
    obs = jnp.asarray(np.arange(B) % 2)
    batch = replay.Batch(obs, jnp.zeros(B, int), jnp.zeros(B), jnp.zeros(B), obs, weight, obs)
    hparams = dqn.Hyperparams(huber_delta=jnp.inf)
    target = jnp.ones((B, 1))
    (total, metrics), slope = jax.value_and_grad(dqn.loss, has_aux=True)(
        table, network, value_heads.expectation(), batch, target, hparams
    )
    error = 1 - np.where(obs == 0, 0.0, 3.0)
    np.testing.assert_allclose(total, (weight * error**2 / 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["error"], np.abs(error))
    expected = np.zeros((4, A, 1))
    np.add.at(expected, (obs, 0, 0), -np.asarray(weight) * error / B)
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


# Networks


@pytest.mark.slow
@pytest.mark.parametrize("description", [networks.MLP((7, 6)), networks.CNN((2,), hidden=(6,))])
@pytest.mark.parametrize("noisy", [False, True])
def test_dueling_streams_add_up(description, noisy):
    """The mean over actions is the value stream's, and outputs are those of the streams by hand."""
    shape = (5, 4, 3)
    network = networks.action_values(description, shape, A, K, dueling=True, noisy=noisy)
    params = network.init(random.key(0))
    obs = random.normal(random.key(1), (B, *shape))
    outputs = network.apply(params, obs)
    assert outputs.shape == (B, A, K)
    flat = jax.tree.map(jnp.zeros_like, params["advantage"])
    value = network.apply({**params, "advantage": flat}, obs)
    np.testing.assert_allclose(outputs.mean(1), value[:, 0], atol=1e-5)
    np.testing.assert_allclose(value, jnp.broadcast_to(value[:, :1], value.shape), atol=1e-6)
    assert jnp.abs(outputs - value).max() > 0.01
    assert network.apply(params, obs[:2, None]).shape == (2, 1, A, K)


def test_noise_has_the_variance_of_its_paper():
    """One layer, inputs x, deviations s: the sum of (s x)^2 E|e|^2, and s^2 E|e| of the bias. E|e| is sqrt(2 / pi)."""
    network = networks.build(networks.MLP(()), (4,), 2, noisy=True)
    params = network.init(random.key(0))
    obs = jnp.array([1.0, -2.0, 0.5, 3.0])
    outputs = jax.vmap(network.apply, (None, None, 0))(params, obs, random.split(random.key(1), 40_000))
    std, mean_size = 0.5 / np.sqrt(4), np.sqrt(2 / np.pi)
    variance = std**2 * ((obs**2).sum() * mean_size**2 + mean_size)
    np.testing.assert_allclose(outputs.var(0), variance, rtol=0.05)
    np.testing.assert_allclose(outputs.mean(0), network.apply(params, obs), atol=0.05)


def test_one_key_makes_the_same_noise_for_one_input_and_for_many():
    network = networks.build(networks.MLP((5,)), (4,), 2, noisy=True)
    params = network.init(random.key(0))
    obs, key = random.normal(random.key(1), (6, 4)), random.key(2)
    alone = jnp.stack([network.apply(params, each, key) for each in obs])
    np.testing.assert_allclose(network.apply(params, obs, key), alone, rtol=1e-5, atol=1e-6)
    assert jnp.abs(alone - network.apply(params, obs)).max() > 0.01


@pytest.mark.slow
def test_every_environment_explores_with_noise_of_its_own():
    env, env_params = envs.make("CartPole-v1")
    agent = dqn.make(env, dqn.Config(num_envs=1, warmup=128, noisy=True))
    state = jax.jit(agent.init)(random.key(0), dqn.Hyperparams(epsilon=0.0), env_params)
    obs = jnp.tile(jnp.array([[0.1, 0.2, -0.1, 0.3]]), (500, 1))
    assert len(set(np.asarray(agent.act(random.key(1), state, obs)).tolist())) == 2
    assert len(set(np.asarray(agent.act(random.key(1), state, obs, greedy=True)).tolist())) == 1


def test_a_network_suits_the_observations():
    def described(*shape):
        return dqn.default_network(Spec("made up", shape, "float32", None, Discrete(2), 10))

    assert isinstance(described(4), networks.MLP) and isinstance(described(10, 5), networks.MLP)
    assert described(10, 10, 4) == networks.CNN()
    assert described(84, 84, 4) == networks.NATURE_CNN


def test_bytes_are_read_as_numbers_from_0_to_1():
    encode, shape = policies.encoder(Spec("pixels", (4, 4, 1), "uint8", None, Discrete(2), 10))
    read = encode(jnp.array([0, 51, 255], jnp.uint8))
    assert shape == (4, 4, 1) and read.dtype == jnp.float32
    np.testing.assert_allclose(read, [0, 0.2, 1])


def pixels():
    """A task of 36x36 pixels whose brightness is the time."""
    spec = Spec("pixels", (36, 36, 1), "uint8", None, Discrete(2), 6)

    def draw(time):
        return jnp.full((36, 36, 1), time, jnp.uint8)

    def transition(key, time, action, params):
        return draw(time + 1), time + 1, jnp.float32(1), jnp.bool_(False)

    env = auto_reset(lambda key, params: (draw(0), jnp.int32(0)), transition, spec)
    return env, probes.Params(jnp.int32(6))


def test_pixels_are_stacked_and_stay_bytes():
    env, env_params = pixels()
    config = dqn.Config(num_envs=2, num_steps=1, batch_size=2, warmup=20, capacity=20, frames=4, eval_episodes=1)
    agent = dqn.make(env, config)
    state = jax.eval_shape(agent.init, random.key(0), dqn.Hyperparams(epsilon=0.1), env_params)
    assert (state.buffer.obs.shape, state.buffer.obs.dtype) == ((22, 36 * 36 * 4), jnp.uint8)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.fit.params)}
    assert (8, 8, 4, 32) in shapes and (3, 3, 64, 64) in shapes
    obs = jax.ShapeDtypeStruct((3, 36, 36, 4), jnp.uint8)
    assert jax.eval_shape(agent.act, random.key(0), state, obs).shape == (3,)


# The fixed point


def value_iteration(next_state, reward, last, discount):
    """Action values [S, A] of a deterministic MDP."""
    q = np.zeros(reward.shape)
    for _ in range(1000):
        q = reward + discount * np.where(last, 0.0, q.max(-1)[next_state])
    return q


def small_mdp(num_states=6, num_actions=3):
    """At random, deterministic, with time limit 4: where to, what for, whether it ends; and as an environment."""
    generator = np.random.default_rng(3)
    next_state = generator.integers(0, num_states, (num_states, num_actions))
    reward = generator.normal(size=next_state.shape).astype(np.float32)
    last = generator.random(next_state.shape) < 0.15
    spec = Spec("small", (), "int32", num_states, Discrete(num_actions), 4)

    def reset(key, params):
        state = random.randint(key, (), 0, num_states)
        return state, state

    def transition(key, state, action, params):
        after = jnp.asarray(next_state)[state, action]
        return after, after, jnp.asarray(reward)[state, action], jnp.asarray(last)[state, action]

    return (next_state, reward, last), auto_reset(reset, transition, spec), probes.Params(jnp.int32(4))


def table(num_states, num_actions, num_outputs=1):
    """A network that is a table."""
    shape = num_states, num_actions, num_outputs
    return networks.Network(lambda key: {"table": jnp.zeros(shape)}, lambda params, obs: params["table"][obs])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "learning_rate", "tolerance"),
    [
        ({}, 1.0, 1e-3),
        ({"double": True, "prioritized": True}, 1.0, 1e-3),
        ({"distribution": "quantile", "num_atoms": 3}, 3.0, 0.02),
        ({"distribution": "categorical", "num_atoms": 41, "v_min": -6.0, "v_max": 6.0}, 40.0, 0.02),
    ],
    ids=["plain", "double, prioritised", "quantile", "categorical"],
)
def test_fixed_point_is_that_of_value_iteration(options, learning_rate, tolerance):
    """A table, acted in at random: every transition is in the buffer, whose odd ends are time limits."""
    (next_state, reward, last), env, env_params = small_mdp()
    config = dqn.Config(
        num_envs=5, num_steps=100, num_gradient_steps=2, warmup=500, capacity=500, batch_size=64,
        optimizer=fit.Optimizer("sgd", momentum=0.0), eval_episodes=1, **options,
    )  # fmt: skip
    outputs = 1 if config.distribution == "none" else config.num_atoms
    agent = dqn.make(env, config, table(*reward.shape, outputs))
    hparams = dqn.Hyperparams(
        learning_rate=learning_rate, discount=0.6, epsilon=1.0, target_every=30, max_grad_norm=jnp.inf,
        huber_delta=1.0 if options else jnp.inf, importance_exponent=0.5,
    )  # fmt: skip
    run = loop.start(agent, random.key(0), hparams, env_params, 10)
    run, _ = jax.jit(partial(loop.chunk, agent, 10))(run, hparams, env_params)
    found = dqn.head_of(config).mean(run.state.fit.params["table"])
    np.testing.assert_allclose(found, value_iteration(next_state, reward, last, 0.6), atol=tolerance)
    assert int(run.state.gradient_steps) == 2000


# Probes


def learn(env, env_params, num_updates=10, discount=0.8, **options):
    """Values and state after some updates of a linear network with bias."""
    sizes = {"num_envs": 4, "num_steps": 40, "warmup": 64, "batch_size": 64, "capacity": 1000, "eval_episodes": 4}
    config = dqn.Config(**{**sizes, "network": networks.MLP(()), **options})
    agent = dqn.make(env, config)
    hparams = dqn.Hyperparams(learning_rate=0.05, discount=discount, epsilon=1.0, target_every=20)
    run = loop.start(agent, random.key(1), hparams, env_params, num_updates)
    run, metrics = jax.jit(partial(loop.chunk, agent, num_updates))(run, hparams, env_params)
    network = networks.action_values(config.network, env.spec.obs_shape, env.spec.action.num, dueling=config.dueling)
    return lambda obs: np.asarray(network.apply(run.state.fit.params, jnp.asarray(obs))[..., 0]), metrics


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 5])
@pytest.mark.parametrize("limit", [2, 1000])
def test_a_task_that_never_ends_has_its_value(n_step, limit):
    """Constant reward: 1 / (1 - g), whether the time limit cuts windows of 5 steps short or not."""
    env, env_params = probes.endless()
    env_params = env_params._replace(max_steps_in_episode=jnp.int32(limit))
    q, metrics = learn(env, env_params, n_step=n_step, num_updates=15)
    np.testing.assert_allclose(q(np.ones((1, 1))), 5.0, rtol=0.02)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 5.0, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 2])
def test_the_true_successor_is_learned_from(n_step):
    q, _ = learn(*probes.far_start(), num_updates=15, n_step=n_step)
    np.testing.assert_allclose(q(np.eye(2)), [[4.0 - 10.0] * 2, [5.0] * 2], rtol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 2, 5])
def test_a_delayed_reward_is_discounted_to_the_right_power(n_step):
    q, metrics = learn(*probes.delayed(), n_step=n_step)
    np.testing.assert_allclose(q(np.eye(3)), np.array([[0.64, 0.8, 1.0]] * 2).T, atol=0.02)
    np.testing.assert_allclose(metrics["eval/discounted_return"], 0.64, rtol=1e-5)
    np.testing.assert_allclose(metrics["eval/predicted_return"], 0.64, atol=0.02)
    assert metrics["eval/return"] == 1 and metrics["eval/length"] == 3


@pytest.mark.slow
def test_actions_are_told_apart():
    q, metrics = learn(*probes.copy(), network=networks.MLP((16,), "relu"), dueling=True)
    np.testing.assert_allclose(q([[-1.0], [1.0]]), [[1, -1], [-1, 1]], atol=0.05)
    assert metrics["eval/return"] == 1


# Counting


def test_the_target_network_is_updated_when_it_should():
    """Every 7 gradient steps, of which there are 3 after each step: neither divides the other, nor the 2 per update."""
    env, env_params = envs.make("CartPole-v1")
    config = dqn.Config(
        num_envs=3, num_steps=1, num_gradient_steps=3, warmup=30, batch_size=8, network=networks.MLP((5,))
    )
    agent = dqn.make(env, config)
    hparams = dqn.Hyperparams(learning_rate=0.01, epsilon=0.1, target_every=7, importance_exponent=1.0)
    state = jax.jit(agent.init)(random.key(0), hparams, env_params)
    update = jax.jit(agent.update)
    for number in range(1, 16):
        before = state
        state, _ = update(random.key(number), state, hparams, env_params)
        steps = 3 * number
        assert int(state.gradient_steps) == steps
        moved = any((a != b).any() for a, b in pairs(before.target_params, state.target_params))
        assert moved == (steps // 7 > (steps - 3) // 7), steps
        if steps % 7 == 0:
            assert all((a == b).all() for a, b in pairs(state.target_params, state.fit.params))
        else:
            assert any((a != b).any() for a, b in pairs(state.target_params, state.fit.params))

    averaging = hparams._replace(target_every=1, target_rate=0.25)
    one = dqn.make(env, dqn.Config(num_envs=3, num_steps=1, warmup=30, batch_size=8, network=networks.MLP((5,))))
    after, _ = jax.jit(one.update)(random.key(0), state, averaging, env_params)
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, state.target_params, after.fit.params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), after.target_params, expected)


def pairs(one, two):
    return zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)


@pytest.mark.slow
def test_steps_are_collected_and_learned_from_as_configured():
    """6 steps per update, a gradient step after every 3: what the buffer gains, and the parameters' count."""
    env, env_params = envs.make("CartPole-v1")
    config = dqn.Config(num_envs=2, num_steps=6, train_every=3, warmup=20, batch_size=8, capacity=100)
    agent = dqn.make(env, config)
    hparams = dqn.Hyperparams(epsilon=0.5, importance_exponent=1.0)
    state = jax.jit(agent.init)(random.key(0), hparams, env_params)
    assert (state.buffer.kind != replay.EMPTY).sum() == 20 and int(state.gradient_steps) == 0
    state, _ = jax.jit(agent.update)(random.key(0), state, hparams, env_params)
    assert (state.buffer.kind != replay.EMPTY).sum() == 20 + config.steps_per_update == 32
    assert int(state.gradient_steps) == 2 and state.epsilon == 0.5


@pytest.mark.slow
def test_acting_is_greedy_or_by_epsilon():
    env, env_params = envs.make("CartPole-v1")
    agent = dqn.make(env, dqn.Config(num_envs=1, warmup=128))
    state = jax.jit(agent.init)(random.key(0), dqn.Hyperparams(epsilon=0.2), env_params)
    obs = jnp.tile(jnp.array([[0.1, 0.2, -0.1, 0.3]]), (20_000, 1))
    greedy = agent.act(random.key(1), state, obs, greedy=True)
    assert (greedy == greedy[0]).all()
    assert abs((agent.act(random.key(1), state, obs) != greedy).mean() - 0.1) < 0.01


# Programs


def test_no_select_over_the_buffer():
    """Neither in one run nor in vmapped and resumed ones: a select of whole arrays is a branch, or a masked write."""
    env, env_params = envs.make("CartPole-v1")
    config = dqn.Config(num_envs=3, num_steps=4, warmup=66, batch_size=8, capacity=100, prioritized=True, n_step=2)
    agent, hparams = dqn.make(env, config), dqn.Hyperparams()

    def train(key):
        return loop.train(agent, key, hparams, env_params, num_updates=2, eval_every=1)[0]

    def resume(run):
        return loop.chunk(agent, 1, run, hparams, env_params)

    keys = random.split(random.key(0), 5)
    runs = jax.eval_shape(jax.vmap(train), keys)
    buffer = runs.state.buffer
    whole = {leaf.shape for leaf in (*buffer[:4], *buffer.priorities.tree[:2])}
    whole |= {shape[1:] for shape in whole}
    programs = [jax.make_jaxpr(train)(keys[0]), jax.make_jaxpr(jax.vmap(train))(keys)]
    for program in [*programs, jax.make_jaxpr(jax.vmap(resume))(runs)]:
        assert not whole & set(select_shapes(program))


@pytest.mark.slow
def test_training_allocates_the_same_for_every_capacity():
    """Eight lanes: what an update allocates beside its donated state does not grow with the buffer."""
    env, env_params = envs.make("CartPole-v1")

    def allocated(capacity):
        options = {"prioritized": True, "n_step": 2, "network": networks.MLP((5,))}
        config = dqn.Config(num_envs=4, num_steps=5, warmup=64, batch_size=16, capacity=capacity, **options)
        agent, hparams = dqn.make(env, config), dqn.Hyperparams(epsilon=0.1, importance_exponent=1.0)
        keys = random.split(random.key(0), 8)
        states = jax.eval_shape(jax.vmap(agent.init, (0, None, None)), keys, hparams, env_params)
        update = jax.jit(jax.vmap(agent.update, (0, 0, None, None)), donate_argnums=1)
        return update.lower(keys, states, hparams, env_params).compile().memory_analysis().temp_size_in_bytes

    assert allocated(200_000) <= allocated(1000) + 64_000


# What cannot work


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ("Pendulum-v1", {}, "Pendulum-v1 has continuous actions.*discrete"),
        ("CartPole-v1", {"num_envs": 0}, "num_envs=0 must be at least 1"),
        ("CartPole-v1", {"capacity": 0}, "capacity=0 must be at least 1"),
        ("CartPole-v1", {"capacity": 500}, "capacity=500 cannot hold the warmup=1000: use capacity=1000"),
        ("CartPole-v1", {"batch_size": 1001}, "batch_size=1001 asks for more .* than warmup=1000 .* warmup=1010"),
        ("CartPole-v1", {"warmup": 1001}, "warmup=1001 is no whole number .*num_envs=10: use warmup=1010"),
        ("CartPole-v1", {"n_step": 101}, "warmup=1000 ends before .*n_step=101.* use warmup=1010"),
        ("CartPole-v1", {"train_every": 3}, "train_every=3 does not divide num_steps=50.* use train_every=2 or 5"),
        ("CartPole-v1", {"priority_exponent": -0.5}, "priority_exponent=-0.5 must be between 0 .* and 1"),
        ("CartPole-v1", {"priority_exponent": 1.5}, "priority_exponent=1.5 must be between 0 .* and 1"),
        ("CartPole-v1", {"distribution": "quantile", "num_atoms": 1}, "num_atoms=1 is no distribution.*at least 2"),
        ("CartPole-v1", {"distribution": "categorical", "v_max": 0.0}, "v_min=0.0 must be below v_max=0.0"),
        ("CartPole-v1", {"distribution": "normal"}, "distribution 'normal': use none, categorical or quantile"),
        ("CartPole-v1", {"network": networks.MLP(dropout=0.1)}, "dropout=0.1 .* dropout=0"),
        ("CartPole-v1", {"network": networks.CNN()}, "A CNN reads images"),
        ("CartPole-v1", {"network": networks.MLP(()), "dueling": True}, "at least one"),
        ("FrozenLake-misc", {"frames": 4}, "one_hot_observation before stack_frames"),
    ],
)
def test_what_cannot_work_is_refused(environment, options, said):
    env, _ = envs.make(environment)
    with pytest.raises(ValueError, match=said):
        dqn.make(env, dqn.Config(**options))
