import functools
from typing import Any

import jax
import numpy as np
import probes
import pytest
from jax import lax, random
from jax import numpy as jnp

from jaxrl import envs, wrappers


def counting(shape=(), max_steps=3, end=1000) -> tuple[envs.Env, Any]:
    """Observation n everywhere in `shape`, from 0 in steps of 1; cut after `max_steps`, ends at n = `end`."""

    def reset(key, params):
        return jnp.zeros(shape), jnp.int32(0)

    def transition(key, place, action, params):
        place = place + 1
        return jnp.full(shape, place, jnp.float32), place, place.astype(jnp.float32), place == end

    spec = envs.Spec("counting", shape, "float32", None, envs.Discrete(2), max_steps)
    return envs.auto_reset(reset, transition, spec), probes.Params(jnp.int32(max_steps))


def roll(env, params, length=7):
    """Observations acted on [length, ...] and the steps taken there."""
    obs, state = env.reset(random.key(0), params)

    def one(carry, key):
        obs, state = carry
        step = env.step(key, state, jnp.int32(0), params)
        return (step.obs, step.state), (obs, step)

    return lax.scan(one, (obs, state), random.split(random.key(1), length))[1]


def agrees_with_spec(env, params):
    obs, _ = jax.eval_shape(env.reset, random.key(0), params)
    assert (obs.shape, obs.dtype) == (env.spec.obs_shape, env.spec.obs_dtype)
    _, step = roll(env, params)
    for obs in (step.obs, step.next_obs):
        assert obs.shape[1:] == env.spec.obs_shape and obs.dtype == env.spec.obs_dtype


@pytest.mark.parametrize("end", [3, 1000], ids=["terminated", "truncated"])
def test_stack_restarts_with_the_episode_and_ends_in_the_true_successor(end):
    env, params = counting((1,), 3, end)
    stacked = wrappers.stack_frames(env, 3)
    obs, step = roll(stacked, params)
    np.testing.assert_array_equal(obs[:4], [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(step.next_obs[:4], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 1]])
    np.testing.assert_array_equal(step.obs[:3], [[0, 0, 1], [0, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal((step.terminated if end == 3 else step.truncated)[:3], [False, False, True])


@pytest.mark.parametrize(
    ("shape", "stacked"), [((3,), (12,)), ((3, 2), (3, 2, 4)), ((3, 2, 5), (3, 2, 20))], ids=["vector", "grid", "image"]
)
def test_frames_lie_on_the_last_axis_oldest_first(shape, stacked):
    env, params = counting(shape, 9)
    env = wrappers.stack_frames(env, 4)
    assert env.spec.obs_shape == stacked
    agrees_with_spec(env, params)
    fifth = roll(env, params)[1].next_obs[4]
    frames = np.repeat([2, 3, 4, 5], stacked[-1] // 4)
    np.testing.assert_array_equal(fifth, np.broadcast_to(frames, stacked))


def test_one_frame_is_the_environment_itself():
    env, params = counting((2,))
    (obs, step), (one_obs, one_step) = roll(env, params), roll(wrappers.stack_frames(env, 1), params)
    np.testing.assert_array_equal(obs, one_obs)
    jax.tree.map(np.testing.assert_array_equal, step._replace(state=()), one_step._replace(state=()))


@pytest.mark.slow
def test_flatten():
    env, params = envs.make("Catch-bsuite")
    flat = wrappers.flatten_observation(env)
    assert flat.spec.obs_shape == (50,)
    agrees_with_spec(flat, params)
    np.testing.assert_array_equal(roll(flat, params)[0], roll(env, params)[0].reshape(7, -1))


@pytest.mark.slow
def test_velocities_hidden():
    env, params = envs.make("CartPole-v1")
    masked = wrappers.mask_observation(env, (1, 3))
    assert masked.spec.obs_shape == (2,)
    agrees_with_spec(masked, params)
    (obs, step), (whole_obs, whole_step) = roll(masked, params, 20), roll(env, params, 20)
    np.testing.assert_array_equal(obs, whole_obs[:, jnp.array([0, 2])])
    np.testing.assert_array_equal(step.next_obs, whole_step.next_obs[:, jnp.array([0, 2])])


def test_one_hot():
    env, params = envs.make("FrozenLake-misc")
    hot = wrappers.one_hot_observation(env)
    assert hot.spec.obs_shape == (16,) and hot.spec.num_obs is None and hot.spec.obs_dtype == "float32"
    agrees_with_spec(hot, params)
    np.testing.assert_array_equal(roll(hot, params)[1].next_obs.argmax(-1), roll(env, params)[1].next_obs)


def test_scaled_reward():
    env, params = counting((1,))
    np.testing.assert_array_equal(roll(wrappers.scale_reward(env, 0.5), params, 3)[1].reward, [0.5, 1.0, 1.5])


def test_time_limit_cuts_and_restarts():
    env, params = counting((1,), max_steps=4, end=1000)
    limited = wrappers.time_limit(env, 2)
    assert limited.spec.max_steps == 2
    agrees_with_spec(limited, params)
    obs, step = roll(limited, params)
    np.testing.assert_array_equal(obs[:, 0], [0, 1, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(step.next_obs[:, 0], [1, 2, 1, 2, 1, 2, 1])
    np.testing.assert_array_equal(step.truncated, [False, True, False, True, False, True, False])
    assert not step.terminated.any()
    # A task that ends by itself at the limit, or before it, is terminated, and the count starts anew.
    for end, limit in ((2, 2), (2, 3)):
        env, params = counting((1,), max_steps=4, end=end)
        _, step = roll(wrappers.time_limit(env, limit), params)
        np.testing.assert_array_equal(step.terminated, [False, True] * 3 + [False])
        assert not step.truncated.any()


@pytest.mark.slow
def test_composed_and_mapped_over_environments_and_seeds():
    env, params = envs.make("CartPole-v1")
    env = wrappers.stack_frames(wrappers.mask_observation(wrappers.time_limit(env, 5), (1, 3)), 4)
    assert env.spec.obs_shape == (8,) and env.spec.max_steps == 5

    def run(key):
        keys = random.split(key, 3)
        obs, state = jax.vmap(env.reset, (0, None))(keys, params)
        step = jax.vmap(env.step, (0, 0, 0, None))(keys, state, jnp.ones(3, jnp.int32), params)
        return obs, step.next_obs

    obs, next_obs = jax.vmap(run)(random.split(random.key(0), 2))
    assert obs.shape == (2, 3, 8)
    np.testing.assert_array_equal(next_obs[..., :6], obs[..., 2:])


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (functools.partial(wrappers.mask_observation, indices=(1, 4)), r"\(1, 4\) of counting's entries 0 .. 3"),
        (functools.partial(wrappers.mask_observation, indices=range(4)), "Cannot hide"),
        (wrappers.one_hot_observation, "not numbers to one-hot"),
        (functools.partial(wrappers.stack_frames, count=0), "count=0"),
        (functools.partial(wrappers.time_limit, max_steps=4), "max_steps=4 must be between 1 and counting's 3"),
        (functools.partial(wrappers.time_limit, max_steps=0), "max_steps=0"),
    ],
)
def test_refusals(wrap, words):
    with pytest.raises(ValueError, match=words):
        wrap(counting((4,))[0])


def test_refusals_of_shapes():
    with pytest.raises(ValueError, match="flatten them before"):
        wrappers.mask_observation(counting((4, 2))[0], (0,))
    with pytest.raises(ValueError, match="one_hot_observation before stack_frames"):
        wrappers.stack_frames(envs.make("FrozenLake-misc")[0], 4)
