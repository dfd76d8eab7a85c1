"""Paths and evaluations against plain loops. Axes: T steps, N environments."""

from typing import NamedTuple

import jax
import numpy as np
import probes
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, rollout
from jaxrl.envs import Discrete, Spec, auto_reset

T, N = 40, 5


class Params(NamedTuple):
    max_steps_in_episode: object


class Place(NamedTuple):
    length: object  # [] int32 steps until the task ends
    time: object  # [] int32


def lottery(max_steps=4):
    """The task ends after 1 to 6 steps, drawn at its start; a step gives its number times the length, plus the action.

    Observation: length and time.
    """

    def observe(place):
        return jnp.stack([place.length, place.time]).astype(jnp.float32)

    def reset(key, params):
        place = Place(random.randint(key, (), 1, 7), jnp.int32(0))
        return observe(place), place

    def transition(key, place, action, params):
        after = Place(place.length, place.time + 1)
        return observe(after), after, after.time * place.length + 1000.0 * action, after.time == place.length

    spec = Spec("lottery", (2,), "float32", None, Discrete(2), max_steps)
    return auto_reset(reset, transition, spec), Params(jnp.int32(max_steps))


def even_steps_act(key, obs):
    """Action 1 where the time is even, beside it what was seen and something random."""
    return (obs[:, 1] % 2 == 0).astype(jnp.int32), {"seen": obs, "noise": random.uniform(key, (len(obs),))}


@pytest.fixture(scope="module")
def paths():
    """Two paths, one continuing the other, joined; and the cursors between and after."""
    env, params = lottery()

    @jax.jit
    def collect(cursor, key):
        return rollout.collect(env, even_steps_act, cursor, params, key, T)

    start = rollout.start(env, random.key(0), N, params)
    between, first = collect(start, random.key(1))
    after, second = collect(between, random.key(2))
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), first, second)
    return start, between, after, joined


def test_a_path_is_what_a_plain_loop_sees(paths):
    """Each environment followed by hand: the length of an episode is all that its reset draws."""
    start, _, after, path = paths
    assert path.obs.shape == (2 * T, N, 2) and path.reward.shape == (2 * T, N)
    kinds = set()
    for n in range(N):
        length, time, total, last = int(start.state.state.length[n]), 0, 0.0, 0.0
        for t in range(2 * T):
            np.testing.assert_array_equal(path.obs[t, n], [length, time])
            action = int(time % 2 == 0)
            assert path.action[t, n] == action
            time += 1
            total += time * length + 1000 * action
            assert path.reward[t, n] == time * length + 1000 * action
            np.testing.assert_array_equal(path.next_obs[t, n], [length, time])  # also where the episode ends
            terminated, truncated = time == length, time >= 4 and time != length
            assert (path.terminated[t, n], path.truncated[t, n]) == (terminated, truncated)
            kinds.add((terminated, truncated))
            if terminated or truncated:
                last, total, time = total, 0.0, 0
                following = path.obs[t + 1, n] if t + 1 < 2 * T else after.obs[n]
                length = int(following[0])
        assert (after.episode_return[n], after.last_return[n]) == (total, last)
    assert kinds == {(False, False), (True, False), (False, True)}
    np.testing.assert_array_equal(path.obs, path.extra["seen"])


def test_a_path_goes_on_where_the_last_one_ended(paths):
    _, between, after, path = paths
    np.testing.assert_array_equal(between.obs, path.obs[T])
    assert jax.tree.map(jnp.shape, between) == jax.tree.map(jnp.shape, after)


def test_environments_and_steps_draw_independently(paths):
    start, _, _, path = paths
    noise = path.extra["noise"]
    assert len(np.unique(noise)) == noise.size
    assert len({tuple(row) for row in path.obs[:, :, 0].T}) == N
    assert (start.last_return == 0).all() and (start.episode_return == 0).all()


@pytest.mark.parametrize("max_steps", [4, 10])
def test_evaluation_counts_the_first_episode_of_each_environment(max_steps):
    env, params = lottery(max_steps)
    count = 50
    key = random.key(3)
    result = jax.jit(lambda key: rollout.evaluate(env, even_steps_act, params, key, count))(key)
    assert set(result) == {"eval/return", "eval/length"}
    lengths = np.asarray(rollout.start(env, random.split(key)[0], count, params).state.state.length)
    steps = np.minimum(lengths, max_steps)
    assert len(set(lengths.tolist())) == 6
    returns = [
        sum((t + 1) * length + 1000 * (t % 2 == 0) for t in range(n)) for n, length in zip(steps, lengths, strict=True)
    ]
    np.testing.assert_allclose(result["eval/length"], steps.mean(), rtol=1e-6)
    np.testing.assert_allclose(result["eval/return"], np.mean(returns), rtol=1e-6)


def test_evaluation_ends_at_the_static_time_limit():
    """Even if the parameters, which may be swept, set a later one."""
    env, params = probes.endless()
    params = params._replace(max_steps_in_episode=jnp.int32(1000))
    policy = lambda key, obs: (jnp.zeros(len(obs), jnp.int32), None)  # noqa: E731
    result = rollout.evaluate(env, policy, params, random.key(0), 3)
    assert (result["eval/return"], result["eval/length"]) == (2, 2)


@pytest.mark.slow
def test_a_lane_of_an_evaluation_is_the_one_alone():
    env, params = lottery()

    def evaluate(key):
        return rollout.evaluate(env, even_steps_act, params, key, 4)

    keys = random.split(random.key(0), 3)
    lanes, alone = jax.jit(jax.vmap(evaluate))(keys), jax.jit(evaluate)
    for lane in range(3):
        assert {name: values[lane] for name, values in lanes.items()} == alone(keys[lane])


def test_an_evaluation_holds_predictions_against_discounted_returns():
    """`far_start`: -10 for the first step, 1 for the two later ones. Only the first observation's prediction counts."""
    env, params = probes.far_start()
    policy = lambda key, obs: (jnp.zeros(len(obs), jnp.int32), 7 * obs[:, 0] + 100 * obs[:, 1])  # noqa: E731
    result = rollout.evaluate(env, policy, params, random.key(0), 3, discount=0.5)
    scores = {"return": -8, "length": 3, "discounted_return": -10 + 0.5 + 0.25, "predicted_return": 7}
    assert result == {f"eval/{name}": score for name, score in scores.items()}


@pytest.mark.slow
def test_a_real_environment_gives_whole_paths():
    """CartPole with a short time limit, so that episodes end in both ways."""
    env, params = envs.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=jnp.int32(15))
    policy = lambda key, obs: (random.randint(key, (len(obs),), 0, 2), None)  # noqa: E731
    cursor = rollout.start(env, random.key(0), N, params)
    after, path = jax.jit(lambda key: rollout.collect(env, policy, cursor, params, key, 200))(random.key(1))
    done = np.asarray(path.terminated | path.truncated)
    assert path.terminated.any() and path.truncated.any() and not (path.terminated & path.truncated).any()
    following = np.concatenate([path.obs[1:], after.obs[None]])
    np.testing.assert_array_equal(following[~done], path.next_obs[~done])
    assert np.abs(following[done]).max() <= 0.05  # where CartPole starts
    out = (np.abs(path.next_obs[..., 0]) > 2.4) | (np.abs(path.next_obs[..., 2]) > 12 * 2 * np.pi / 360)
    np.testing.assert_array_equal(out, path.terminated)
    for n in range(N):
        ends = np.flatnonzero(done[:, n])
        assert after.last_return[n] == ends[-1] - ends[-2]
        assert after.episode_return[n] == 199 - ends[-1]
