import functools
import re
from typing import Any, NamedTuple

import gymnax
import jax
import numpy as np
import probes
import pytest
from gymnax.environments import environment, spaces
from jax import lax, random
from jax import numpy as jnp

from jaxrl import envs, envs_gymnax

NUM_ENVS, NUM_STEPS, LIMIT = 4, 8, 3
OFFLINE = "MNISTBandit-bsuite"
# Compiling is nearly all the work here: half of it is optimisation that a few steps never repay.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("gymnax.utils.load_mnist._download", refuse)


def random_action(key, action: envs.Discrete | envs.Box):
    if isinstance(action, envs.Discrete):
        return random.randint(key, (), 0, action.num)
    low, high = (np.reshape(bound, action.shape) for bound in (action.low, action.high))
    return random.uniform(key, action.shape, minval=low, maxval=high)


class Seen(NamedTuple):
    obs: Any  # acted on
    state: Any
    action: Any
    step: envs.Step


def roll(env: envs.Env, params: Any, key, length: int = NUM_STEPS) -> Seen:
    """One environment under random actions, leaves [length, ...]."""
    reset_key, key = random.split(key)

    def one(carry, key):
        obs, state = carry
        action_key, step_key = random.split(key)
        action = random_action(action_key, env.spec.action)
        step = env.step(step_key, state, action, params)
        return (step.obs, step.state), Seen(obs, state, action, step)

    return lax.scan(one, env.reset(reset_key, params), random.split(key, length))[1]


def successors(name: str, params: Any, key, seen: Seen):
    """What gymnax's own transition gives from the states that `roll` went through, without its restarts."""
    raw, _ = gymnax.make(name)
    keys = random.split(random.split(key)[1], NUM_STEPS)

    def one(key, state, action):
        transition_key, _ = random.split(random.split(key)[1])
        return raw.step_env(transition_key, state, action, params)[0]

    return jax.vmap(one)(keys, seen.state, seen.action)


@pytest.mark.parametrize("name", [name for name in gymnax.registered_envs if name != OFFLINE])
def test_every_environment_of_gymnax(name):
    env, params = envs.make(name)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    # The even copies have time limit 3, the odd ones their own. All parameters are traced.
    own = params.max_steps_in_episode
    limits = jnp.where(jnp.arange(NUM_ENVS) % 2 == 0, jnp.asarray(LIMIT, own.dtype), own)
    axes = jax.tree.map(lambda _: None, params).replace(max_steps_in_episode=0)
    params, keys = params.replace(max_steps_in_episode=limits), random.split(random.key(1), NUM_ENVS)
    seen = jit(jax.vmap(functools.partial(roll, env), (axes, 0)))(params, keys)

    spec, step = env.spec, seen.step
    shape = (NUM_ENVS, NUM_STEPS)
    for obs in (seen.obs, step.obs, step.next_obs):
        assert obs.shape == (*shape, *spec.obs_shape) and obs.dtype == spec.obs_dtype
        assert np.isfinite(obs).all()
    assert (spec.num_obs is None) == (spec.obs_shape != ())
    assert step.reward.shape == shape and step.reward.dtype == jnp.float32
    for flag in (step.terminated, step.truncated):
        assert flag.shape == shape and flag.dtype == bool
    assert spec.name == name

    done = step.terminated | step.truncated
    assert not (step.terminated & step.truncated).any()
    if name in ("CartPole-v1", "Pendulum-v1", "DeepSea-bsuite", "FrozenLake-misc"):
        true = jit(jax.vmap(functools.partial(successors, name), (axes, 0, 0)))(params, keys, seen)
        np.testing.assert_allclose(step.next_obs, true, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(step.next_obs[~done], step.obs[~done])
    # Only the limited copies are cut, and these exactly at the limit.
    length = np.zeros(NUM_ENVS, int)
    for time in range(NUM_STEPS):
        length += 1
        limit = np.where(np.arange(NUM_ENVS) % 2 == 0, LIMIT, spec.max_steps)
        np.testing.assert_array_equal(step.truncated[:, time], (length == limit) & ~step.terminated[:, time])
        length[done[:, time]] = 0
    if name == "CartPole-v1":  # whose task cannot end so early
        assert step.truncated.sum() == 2 * (NUM_STEPS // LIMIT) and not step.terminated.any()


def test_three_pole_lengths_in_one_program():
    env, params = envs.make("CartPole-v1")
    lengths = jnp.array([0.25, 0.5, 1.0])
    axes = jax.tree.map(lambda _: None, params).replace(length=0)
    run = functools.partial(roll, env)
    together = jit(jax.vmap(run, (axes, None)))(params.replace(length=lengths), random.key(0)).step.next_obs
    alone = [jit(run)(params.replace(length=length), random.key(0)).step.next_obs for length in lengths]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5, atol=1e-6)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_arguments_reach_constructor_and_parameters():
    assert envs.make("Catch-bsuite", rows=7)[0].spec.obs_shape == (7, 5)
    assert envs.make("FrozenLake-misc", map_name="8x8")[0].spec.num_obs == 64
    env, params = envs.make("CartPole-v1", max_steps_in_episode=1000, length=0.7)
    assert env.spec.max_steps == 1000 == params.max_steps_in_episode
    assert params.length == np.float32(0.7)
    assert envs.make("CartPole-v1", length=1)[1].length.dtype == np.float32


@pytest.mark.parametrize("change", [{"masscart": 5.0}, {"masspole": 1.0}, {"length": 0.25}], ids=str)
def test_cart_and_pole_obey_their_equations_whatever_is_changed(change):
    """Barto, Sutton and Anderson 1983, without friction; gymnax holds sums and products of these numbers apart."""
    env, params = envs.make("CartPole-v1")
    values = {"masscart": 1.0, "masspole": 0.1, "length": 0.5, **change}
    obs, state = env.reset(random.key(0), params)
    step = jax.jit(env.step)(random.key(1), state, jnp.int32(1), params.replace(**change))
    _, velocity, angle, turning = np.asarray(obs, float)
    mass, length = values["masscart"] + values["masspole"], values["length"]
    push = (10 + values["masspole"] * length * turning**2 * np.sin(angle)) / mass
    lever = length * (4 / 3 - values["masspole"] * np.cos(angle) ** 2 / mass)
    turn = (9.8 * np.sin(angle) - np.cos(angle) * push) / lever
    moved = push - values["masspole"] * length * turn * np.cos(angle) / mass
    np.testing.assert_allclose(step.next_obs[1], velocity + 0.02 * moved, rtol=1e-4)
    np.testing.assert_allclose(step.next_obs[3], turning + 0.02 * turn, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("cartpole", {}, ["'cartpole'", "CartPole-v1"]),
        ("xyzzy", {}, ["'xyzzy'", "Breakout-MinAtar", "Pendulum-v1"]),
        ("CartPole-v1", {"lenght": 1.0}, ["CartPole-v1", "lenght", "no arguments", "length"]),
        ("CartPole-v1", {"length": "abc"}, ["CartPole-v1", "length='abc' is no number"]),
        ("CartPole-v1", {"total_mass": 2.0}, ["total_mass follows from masscart and masspole"]),
        ("CartPole-v1", {"max_steps_in_episode": 9.5}, ["max_steps_in_episode=9.5 must be whole"]),
        ("Catch-bsuite", {"rowz": 3}, ["rowz", "rows: int = 10"]),
        ("MetaMaze-misc", {"maze_size": 4}, ["maze_size=4", "rf_size: int = 3"]),
        ("FrozenLake-misc", {"map_name": "9x9"}, ["8x8"]),
        (3, {}, ["3 is no environment"]),
    ],
)
def test_refusals_name_the_values_and_the_mend(name, kwargs, words):
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        envs.make(name, **kwargs)


def test_data_that_cannot_be_downloaded(no_network):
    with pytest.raises(OSError, match=r"MNISTBandit-bsuite needs data that it downloads .* no route to host"):
        envs.make(OFFLINE)


def test_environment_with_data(monkeypatch):
    images, labels = np.ones((5, 28, 28), np.int8), np.arange(5, dtype=np.uint8)
    monkeypatch.setattr("gymnax.utils.load_mnist.load_mnist", lambda: ((images, labels), None))
    env, params = envs.make(OFFLINE)
    assert env.spec.obs_shape == (28, 28)
    assert roll(env, params, random.key(0)).step.terminated.all()


class Counter(environment.Environment):
    """A user's own: rewards of shape [1], flags as floats, ends at 2."""

    def __init__(self, end: int = 2):
        self.end = end

    def reset_env(self, key, params):
        return jnp.zeros(1), environment.EnvState(time=jnp.int32(0))

    def step_env(self, key, state, action, params):
        state = environment.EnvState(time=state.time + 1)
        terminated = (state.time >= self.end).astype(jnp.float32)
        return state.time[None].astype(jnp.float32), state, jnp.ones(1), terminated > 0, {}

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0, 2, (1,))


class Old(Counter):
    def step(self, key, state, action, params=None):
        return *super().step(key, state, action, params)[:4], {}


class Nested(Counter):
    def observation_space(self, params):
        return spaces.Dict({"a": spaces.Box(0, 1, (1,))})


def test_environments_of_the_user(monkeypatch):
    monkeypatch.setattr(gymnax.registration, "_registry", dict(gymnax.registration._registry))
    monkeypatch.setattr(gymnax.registration, "registered_envs", list(gymnax.registration.registered_envs))
    gymnax.registration.register("Counter-v0", Counter)
    assert "Counter-v0" in envs.names()
    with pytest.raises(ValueError, match="Counter-v0"):
        envs.make("counter")
    for env, params in (
        envs.make("Counter-v0", end=2, max_steps_in_episode=9),
        envs_gymnax.adapt(Counter(), environment.EnvParams(max_steps_in_episode=9)),
    ):
        step = roll(env, params, random.key(0), 4).step
        np.testing.assert_array_equal(step.next_obs[:, 0], [1, 2, 1, 2])
        np.testing.assert_array_equal(step.obs[:, 0], [1, 0, 1, 0])
        np.testing.assert_array_equal(step.terminated, [False, True, False, True])
        assert step.reward.shape == (4,)
    assert envs.make(Counter())[0].spec.name == "Counter"


def test_objects_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Old: step returns 5 values"):
        envs.make(Old())
    with pytest.raises(ValueError, match="observations of kind Dict"):
        envs.make(Nested())
    with pytest.raises(ValueError, match="end: only an environment made by name"):
        envs.make(Counter(), end=3)


def test_pairs_pass():
    pair = probes.endless()
    assert envs.make(pair) == pair


@pytest.mark.slow
def test_probes_have_the_returns_they_promise():
    def seen(probe, length=12):
        return jit(jax.vmap(functools.partial(roll, *probe, length=length)))(random.split(random.key(0), 8))

    step = seen(probes.endless()).step
    assert (step.reward == 1).all() and not step.terminated.any()
    np.testing.assert_array_equal(step.truncated[0], [False, True] * 6)

    start, step = (seen_ := seen(probes.far_start())).obs, seen_.step
    np.testing.assert_array_equal(step.reward[0], [-10, 1, 1] * 4)
    np.testing.assert_array_equal(start[0], [[1, 0], [0, 1], [0, 1]] * 4)
    assert (step.next_obs == jnp.array([0.0, 1.0])).all()  # where step.obs is back at the start
    np.testing.assert_array_equal(step.truncated[0], [False, False, True] * 4)

    obs, _, action, step = seen(probes.copy())
    np.testing.assert_array_equal(step.reward, np.where((action == 1) == (obs[..., 0] > 0), 1, -1))
    assert step.terminated.all()

    obs, _, _, step = seen(probes.look())
    np.testing.assert_array_equal(step.reward, obs[..., 0])
    assert set(np.unique(step.reward)) == {-1, 1}

    obs, _, _, step = seen(probes.delayed())
    np.testing.assert_array_equal(obs[0], np.tile(np.eye(3), (4, 1)))
    np.testing.assert_array_equal(step.reward[0], [0, 0, 1] * 4)
    np.testing.assert_array_equal(step.terminated[0], [False, False, True] * 4)

    obs, _, action, step = seen(probes.memory(4))
    cue = np.repeat(obs[:, ::4, 0], 4, 1)
    last = np.tile([False, False, False, True], 3)
    np.testing.assert_array_equal(step.terminated, np.tile(last, (8, 1)))
    np.testing.assert_array_equal(obs[..., 1], np.tile(last, (8, 1)))
    np.testing.assert_array_equal(step.reward, np.where((action == 1) == (cue > 0), 1, -1) * last)

    env, params = probes.aim()
    assert env.step(random.key(0), *env.reset(random.key(0), params)[1:], params.target, params).reward == 0
    step = env.step(random.key(0), env.reset(random.key(0), params)[1], jnp.array([1.0, 0.1]), params)
    assert step.reward == -1 and step.terminated


def test_brax():
    pytest.importorskip("brax", reason="Brax, an optional extra, is not installed")
    env, params = envs.make("brax/inverted_pendulum", backend="spring", max_steps_in_episode=LIMIT)
    assert env.spec == envs.Spec(
        "brax/inverted_pendulum", (4,), "float32", None, envs.Box((1,), (-1.0,), (1.0,)), LIMIT
    )
    seen = jit(jax.vmap(functools.partial(roll, env, params)))(random.split(random.key(0), 2))
    step = seen.step
    np.testing.assert_array_equal(step.truncated[0], [False, False, True] * 2 + [False] * 2)
    assert np.isfinite(step.next_obs).all() and not step.terminated.any()
    starts = np.concatenate([seen.obs[:, 0], step.obs[step.truncated]])
    assert len(np.unique(starts, axis=0)) == 6  # every episode begins anew
    assert not np.allclose(step.next_obs[step.truncated], step.obs[step.truncated])
    with pytest.raises(ValueError, match=r"'hoper': did you mean hopper"):
        envs.make("brax/hoper")
    with pytest.raises(ValueError, match="wings"):
        envs.make("brax/ant", wings=2)


def test_without_brax(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "brax", None)
    with pytest.raises(ValueError, match=r"brax/hopper needs Brax: pip install 'jaxrl-generative\[brax\]'"):
        envs.make("brax/hopper")
