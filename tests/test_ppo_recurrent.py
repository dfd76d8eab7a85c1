"""Recurrent PPO: cells against flax, both forms of a network, memory in paths and bootstraps, probes, refusals.

Axes: T steps, N environments.
"""

from functools import cache, partial

import jax
import numpy as np
import probes
import pytest
from flax import linen as nn
from jax import numpy as jnp
from jax import random

from jaxrl import policies, rollout, wrappers
from jaxrl.algorithms import ppo, ppo_recurrent
from jaxrl.core import loop, networks, recurrent
from jaxrl.core.schedule import Linear

CELLS = ["lstm", "gru"]
ONE_QUICK = [pytest.param("lstm", marks=pytest.mark.slow), "gru"]
SMALL = {"num_envs": 4, "num_steps": 8, "num_epochs": 1, "num_minibatches": 1, "eval_episodes": 2}
T, N = 9, 5


@cache
def network(cell):
    """With random parameters, none of them zero, and six units."""
    built = recurrent.build(recurrent.Recurrent(cell, 6, networks.MLP((7,))), (3,), 2, 1.0)

    @jax.jit
    def start(key):
        params = built.init(key)
        return jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(random.key(leaf.size), leaf.shape), params)

    return built, start(random.key(0))


# Cells


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_that_of_flax(cell):
    """Whose gates are layers of their own, with a bias for inputs or memory where ours has one for both."""
    built, params = network(cell)
    gates = {"lstm": "fiog", "gru": "zrn"}[cell]
    biased = {"lstm": "h", "gru": "i"}[cell]
    theirs = {"hn": {"bias": jnp.zeros(6)}} if cell == "gru" else {}
    for side, kernel in (("i", params["input"]), ("h", params["hidden"])):
        blocks = zip(gates, np.split(kernel, len(gates), 1), np.split(params["bias"], len(gates)), strict=True)
        for gate, block, bias in blocks:
            own = {"bias": bias} if side == biased else {}
            theirs[f"{side}{gate}"] = {**theirs.get(f"{side}{gate}", {}), "kernel": block, **own}
    hidden, state, inputs = random.normal(random.key(2), (3, N, 6))
    torso, top = (params[name]["Dense_0"] for name in ("torso", "top"))

    @jax.jit
    def both(inputs):
        features = jnp.tanh(inputs @ torso["kernel"] + torso["bias"])
        if cell == "lstm":
            (after, _), reference = nn.OptimizedLSTMCell(6).apply({"params": theirs}, (state, hidden), features)
            return (reference, after), built.step(params, (hidden, state), inputs)
        _, reference = nn.GRUCell(6).apply({"params": theirs}, hidden, features)
        return (reference,), built.step(params, (hidden,), inputs)

    expected, (memory, outputs) = both(inputs[:, :3])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), memory, expected)
    np.testing.assert_allclose(outputs, expected[0] @ top["kernel"] + top["bias"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_each_gate_starts_orthogonal_and_the_memory_kept(cell):
    built = recurrent.build(recurrent.Recurrent(cell, 6), (3,), 2, 0.5)
    params = jax.device_get(jax.jit(built.init)(random.key(0)))
    for block in np.split(params["hidden"], params["hidden"].shape[1] // 6, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(params["top"]["Dense_0"]["kernel"], axis=0), 0.5, rtol=1e-5)
    # With that bias alone, but wide open, the gate keeps a memory for good.
    keeping = {**jax.tree.map(np.zeros_like, params), "bias": 50 * params["bias"]}
    memory = tuple(np.arange(1.0, 7.0, dtype=np.float32) / 7 for _ in built.memory())
    after, _ = jax.jit(built.step)(keeping, memory, np.ones(3))
    np.testing.assert_allclose(after[-1], memory[-1], rtol=1e-6)


# Step by step and over time


@pytest.mark.parametrize("cell", CELLS)
def test_over_time_is_step_by_step_with_memories_forgotten_at_starts(cell):
    built, params = network(cell)
    inputs = random.normal(random.key(3), (T, N, 3))
    started = random.bernoulli(random.key(4), 0.3, (T, N)).at[:2].set([[True] * N, [False] * N])
    memory = jax.tree.map(lambda leaf: leaf + 0.7, built.memory(N))
    last, outputs = jax.jit(built.scan)(params, memory, inputs, started)
    step = jax.jit(built.step)
    for time in range(T):
        memory = jax.tree.map(lambda leaf, time=time: jnp.where(started[time][:, None], 0.0, leaf), memory)
        memory, expected = step(params, memory, inputs[time])
        np.testing.assert_allclose(outputs[time], expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), last, memory)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_nothing_crosses_the_start_of_an_episode(cell):
    """Neither what is remembered, bit for bit, nor a gradient."""
    built, params = network(cell)
    inputs, others = random.normal(random.key(5), (2, T, 1, 3))
    start = 4
    started = jnp.zeros((T, 1), bool).at[start].set(True)
    run = jax.jit(lambda memory, inputs: built.scan(params, memory, inputs, started)[1])
    blank = built.memory(1)
    outputs = run(blank, inputs)
    changed = run(jax.tree.map(jnp.ones_like, blank), jnp.where(jnp.arange(T)[:, None, None] < start, others, inputs))
    np.testing.assert_array_equal(changed[start:], outputs[start:])
    assert (changed[:start] != outputs[:start]).any(-1).all()

    def later(memory, inputs):
        return (run(memory, inputs)[start:] ** 2).sum()

    to_memory, to_inputs = jax.grad(later, (0, 1))(blank, inputs)
    assert not any(leaf.any() for leaf in jax.tree.leaves(to_memory)) and not to_inputs[:start].any()
    assert to_inputs[start:].any(-1).all()


# Memory in paths


def digits():
    """A network whose memory is ten times the one before plus the first entry of the observation, and its value too."""

    def step(params, memory, obs):
        memory = (memory[0] * 10 + obs[..., 0],)
        return memory, ((jnp.zeros((*obs.shape[:-1], 2)), jnp.zeros(0)), memory[0])

    return recurrent.RecurrentNetwork(lambda key: {}, lambda *axes: (jnp.zeros(axes),), step, None)


@pytest.fixture(scope="module")
def paths():
    """Three paths of 4 steps, each continuing the last, of episodes of 3 steps with observations 1, 0 and 0."""
    env, env_params = probes.far_start()
    network = digits()
    remembering = wrappers.with_memory(env, network.memory())

    def policy(key, seen):
        obs, memory = seen
        memory, (_, value) = network.step({}, memory, obs)
        action = jnp.zeros(len(obs), jnp.int32)
        return (action, memory), (action, value - 7, value)

    @jax.jit
    def collect(cursor, key):
        return rollout.collect(remembering, policy, cursor, env_params, key, 4)

    cursor, found = rollout.start(remembering, random.key(0), N, env_params), []
    for key in random.split(random.key(1), 3):
        cursor, path = collect(cursor, key)
        found.append(jax.device_get(path))
    return found


def test_a_memory_goes_with_its_episode(paths):
    """Blank at each start, carried else; the true successor has the memory after the step, also at an end."""
    before = np.concatenate([path.obs[1][0][:, 0] for path in paths])
    after = np.concatenate([path.next_obs[1][0][:, 0] for path in paths])
    np.testing.assert_array_equal(before, [0, 1, 10] * 4)
    np.testing.assert_array_equal(after, [1, 10, 100] * 4)
    np.testing.assert_array_equal(paths[0].next_obs[0][2, 0], [0, 1])


def test_targets_read_the_successor_with_the_memory_carried(paths):
    """At the cut, with the memory of the episode that was cut: 1000. A blank one would make the value 0, that of the
    observation after the restart 1.
    """
    hparams = ppo_recurrent.Hyperparams(discount=0.5, gae_lambda=0.0)

    @jax.jit
    def make_batch(path):
        (obs, memory), (next_obs, next_memory) = path.obs, path.next_obs
        path = path._replace(obs=obs, next_obs=next_obs)
        return ppo_recurrent.make_batch(path, memory, next_memory, {}, digits(), hparams)

    first, second, third = map(make_batch, paths)
    np.testing.assert_array_equal(first.memory[0], [0] * N)
    np.testing.assert_array_equal(second.memory[0], [1] * N)
    np.testing.assert_array_equal(third.memory[0], [10] * N)
    np.testing.assert_array_equal(first.started, [[False, False, False, True]] * N)
    np.testing.assert_array_equal(second.started, [[False, False, True, False]] * N)
    np.testing.assert_array_equal(third.started, [[False, True, False, False]] * N)  # it ends with an episode
    np.testing.assert_array_equal(first.value, [[1, 10, 100, 1]] * N)
    np.testing.assert_array_equal(first.target, [[-10 + 10 / 2, 1 + 100 / 2, 1 + 1000 / 2, -10 + 10 / 2]] * N)
    np.testing.assert_array_equal(second.target, [[1 + 100 / 2, 1 + 1000 / 2, -10 + 10 / 2, 1 + 100 / 2]] * N)
    np.testing.assert_array_equal(first.advantage, first.target - first.value)
    np.testing.assert_array_equal(first.log_prob, first.value - 7)
    np.testing.assert_array_equal(first.obs[0], [[1, 0], [0, 1], [0, 1], [1, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("cell", ONE_QUICK)
def test_replayed_logits_are_those_of_the_rollout(cell):
    """One minibatch, one epoch: the only step is taken at the policy that acted, in the middle of episodes."""
    env, env_params = probes.far_start()
    options = {"network": recurrent.Recurrent(cell, 5, networks.MLP((8,))), "normalize_observations": True}
    agent = ppo_recurrent.make(env, ppo_recurrent.Config(**{**SMALL, **options}))
    hparams = ppo_recurrent.Hyperparams(learning_rate=0.05, clip=1e-6)
    update = jax.jit(agent.update)
    state = jax.jit(agent.init)(random.key(0), hparams, env_params)
    for step in range(4):
        state, metrics = update(random.fold_in(random.key(1), step), state, hparams, env_params)
        assert metrics["clip_fraction"] == 0  # no ratio is further than 1e-6 from 1
    actor, critic = state.cursor.obs[1]
    assert actor[0].all() and critic[0].all()


# Probes


def trained(probe, cell, num_updates, learning_rate=0.01):
    env, env_params = probe
    sizes = {"num_envs": 16, "num_steps": 8, "num_minibatches": 2, "eval_episodes": 64}
    head = policies.head(env.spec.action, "gaussian")
    network = policies.recurrent_actor_critic(env.spec, head, recurrent.Recurrent(cell, 8, networks.MLP(())))
    agent = ppo_recurrent.make(env, ppo_recurrent.Config(**sizes), network)
    hparams = ppo_recurrent.Hyperparams(Linear(learning_rate, 0.0), discount=0.8, max_grad_norm=10.0)
    train = jax.jit(partial(loop.train, agent, num_updates=num_updates, eval_every=num_updates))
    run, metrics = train(random.key(0), hparams, env_params)
    return agent, network, run.state, metrics["eval/return"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ONE_QUICK)
def test_what_was_shown_in_the_first_step_is_answered(cell):
    agent, _, state, score = trained(probes.memory(4), cell, 60)
    assert score > 0.95
    # As a user acts, without an environment that keeps the memory.
    memory = agent.memory(2)
    for obs in ([[1.0, 0.0], [-1.0, 0.0]], [[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, [[0.0, 1.0]] * 2):
        action, memory = agent.act(random.key(0), state, (jnp.array(obs), memory), greedy=True)
    np.testing.assert_array_equal(action, [1, 0])


@pytest.mark.slow
def test_without_a_memory_it_is_not():
    env, env_params = probes.memory(4)
    agent = ppo.make(env, ppo.Config(num_envs=16, num_steps=8, num_minibatches=2, eval_episodes=512))
    train = jax.jit(partial(loop.train, agent, num_updates=60, eval_every=60))
    _, metrics = train(random.key(0), ppo.Hyperparams(Linear(0.01, 0.0), discount=0.8), env_params)
    assert abs(metrics["eval/return"][-1]) < 0.2


@pytest.mark.slow
def test_a_time_limit_is_no_end_for_what_is_remembered():
    _, network, state, _ = trained(probes.allowance(), "gru", 150)
    memory = network.memory(2)
    for obs in ([[1.0], [-1.0]], [[0.0]] * 2, [[0.0]] * 2):
        memory, (_, value) = network.step(state.fit.params, memory, jnp.array(obs))
        np.testing.assert_allclose(value, [5.0, -5.0], rtol=0.1)  # an end would make it at most 2.44


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 0}, "num_envs=0 must be at least 1"),
        ({"num_minibatches": 3}, r"num_minibatches=3 does not divide num_envs=4 .*use num_minibatches=2 or 4"),
        ({"num_steps": 1, "num_minibatches": 4}, r"one advantage of each minibatch .*num_steps"),
        ({"network": recurrent.Recurrent(torso=networks.MLP(dropout=0.1))}, r"dropout=0\.1"),
        ({"network": recurrent.Recurrent(torso=networks.CNN())}, r"images.*use an MLP"),
    ],
)
def test_what_cannot_work_is_refused_before_tracing(changes, message):
    env, _ = probes.copy()
    with pytest.raises(ValueError, match=message):
        ppo_recurrent.make(env, ppo_recurrent.Config(**{**SMALL, **changes}))


def test_a_memory_of_nothing_is_refused():
    with pytest.raises(ValueError, match="size=0"):
        recurrent.Recurrent(size=0)
