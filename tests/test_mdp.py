"""MDPs: what is refused, what they are as environments, and known ones."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import envs, envs_tabular, mdp, planning, rollout

COIN = [[[0.5, 0.5], [0.0, 1.0]]]  # one action, two states


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": [[0.5, 0.5], [0.0, 1.0]]}, r"shape \(2, 2\): give \[actions, states, states\]"),
        ({"transition": [[[0.5, 0.6], [0.0, 1.0]]]}, r"transition\[0, 0\] = .* sums to 1.1"),
        ({"transition": [[[1.5, -0.5], [0.0, 1.0]]]}, r"transition\[0, 0\] .* at least 0"),
        ({"transition": [[[np.nan, 1.0], [0.0, 1.0]]]}, r"transition\[0, 0\]"),
        ({"reward": [[0.0, 0.0]]}, r"reward has shape \(1, 2\), .* asks for \(2, 1\)"),
        ({"reward": [[np.inf], [0.0]]}, "finite"),
        ({"reward_std": -1.0}, "at least 0"),
        ({"start": [0.5, 0.4]}, "start = .* sums to 0.9"),
        ({"terminal": [False]}, "terminal has shape"),
    ],
)
def test_arrays_that_are_no_mdp_are_refused(change, message):
    arrays = {"transition": COIN, "reward": [[1.0], [5.0]], "terminal": [False, True], "start": [1, 0]}
    mdp.create(**arrays)
    with pytest.raises(ValueError, match=message):
        mdp.create(**{**arrays, **change})


def test_rounded_probabilities_are_made_to_sum_to_one():
    """A reward of 1 for ever is worth 1000; rows of .33334 would make it 1020."""
    made = mdp.create(np.full((1, 3, 3), 0.33334), np.ones((3, 1)), [False] * 3, [0.33334] * 3)
    np.testing.assert_allclose(made.transition.sum(-1), 1, rtol=1e-7)
    np.testing.assert_allclose(made.start, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(planning.solve_policy(made, jnp.ones((3, 1)), 0.999), 1000, rtol=1e-3)


def test_terminal_states_absorb_without_reward():
    made = mdp.create([[[0.5, 0.5], [1.0, 0.0]]], [[1.0], [5.0]], [False, True], [1, 0])
    np.testing.assert_array_equal(made.transition, COIN)
    np.testing.assert_array_equal(made.reward, [[1.0], [0.0]])


def test_as_env_refuses_what_cannot_work():
    made = mdp.create(COIN, [[1.0], [5.0]], [False, True], [1, 0])
    with pytest.raises(ValueError, match="max_steps=0"):
        mdp.as_env(made, 0)
    with pytest.raises(ValueError, match="start in a terminal state"):
        mdp.as_env(made._replace(start=jnp.array([0.5, 0.5])), 10)
    with pytest.raises(ValueError, match="did you mean FrozenLake"):
        envs.make("tabular/FrozenLak")
    with pytest.raises(ValueError, match="does not take size"):
        envs.make("tabular/CliffWalking", size=3)


def test_pick_draws_by_the_chances_and_never_what_has_none():
    chances = jnp.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    noise = jnp.append(jnp.arange(10_000) / 10_000, jnp.float32(1 - 2**-24))
    drawn = mdp.pick(noise, jnp.broadcast_to(chances, (len(noise), 6)))
    np.testing.assert_allclose(np.bincount(drawn, minlength=6) / len(noise), chances, atol=1e-3)
    assert set(np.asarray(drawn).tolist()) == {1, 3, 4}
    tiny = jnp.full(1000, 1e-3).at[-1].set(0.0)  # rounding of the sum must not reach the last
    assert mdp.pick(jnp.float32(1 - 2**-24), tiny) == 998


@pytest.mark.slow
def test_steps_follow_the_arrays():
    """Frequencies of successors, mean and deviation of rewards, ends, and cuts at the limit."""
    made = mdp.create(
        [[[0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]],
        [[2.0], [0.0], [0.0]],
        [False, False, True],
        [1, 0, 0],
        [[0.5], [0.0], [0.0]],
    )
    env, env_params = mdp.as_env(made, 2)
    num = 20_000

    def one(key):
        reset_key, step_key = random.split(key)
        _, state = env.reset(reset_key, env_params)
        return env.step(step_key, state, jnp.int32(0), env_params)

    step = jax.jit(jax.vmap(one))(random.split(random.key(0), num))
    np.testing.assert_allclose(np.bincount(step.next_obs) / num, [0.2, 0.5, 0.3], atol=0.02)
    np.testing.assert_array_equal(step.terminated, step.next_obs == 2)
    np.testing.assert_array_equal(step.obs, np.where(step.terminated, 0, step.next_obs))
    assert not step.truncated.any()
    np.testing.assert_allclose((step.reward.mean(), step.reward.std()), (2.0, 0.5), atol=0.02)
    second = jax.vmap(env.step, (0, 0, None, None))(
        random.split(random.key(1), num), step.state, jnp.int32(0), env_params
    )
    cut = ~step.terminated & (second.next_obs != 2)
    np.testing.assert_array_equal(second.truncated, cut)


def test_the_mdp_itself_carries_a_vmap_axis():
    env, made = envs.make("tabular/CliffWalking")
    rewards = jnp.stack([made.reward, 3 * made.reward])

    def total(reward):
        cursor = rollout.start(env, random.key(0), 2, made)
        policy = lambda key, obs: (jnp.zeros(2, jnp.int32), None)  # noqa: E731
        return rollout.collect(env, policy, cursor, made._replace(reward=reward), random.key(1), 5)[1].reward.sum()

    np.testing.assert_array_equal(jax.vmap(total)(rewards), [-10, -30])


@pytest.mark.slow
def test_frozen_lake_is_gymnaxs():
    """Frequencies of gymnax's own successors and its rewards, against the arrays, for both maps."""
    for name, options in (("FrozenLake", {}), ("FrozenLake8x8", {"map_name": "8x8"})):
        theirs, their_params = envs.make("FrozenLake-misc", **options)
        ours, made = envs.make(f"tabular/{name}")
        assert theirs.spec.max_steps == ours.spec.max_steps
        num_actions = ours.spec.action.num
        place = theirs.reset(random.key(0), their_params)[1]
        free = np.flatnonzero(~made.terminal)

        def one(key, state, action, place=place, theirs=theirs, their_params=their_params):
            return theirs.step(key, place.replace(position=state), action, their_params)

        repeats = 3000
        states, actions = np.repeat(free, num_actions * repeats), np.tile(np.arange(num_actions), len(free) * repeats)
        step = jax.jit(jax.vmap(one))(random.split(random.key(0), len(states)), states, actions)
        counts = np.zeros(made.transition.shape)
        np.add.at(counts, (actions, states, np.asarray(step.next_obs)), 1 / repeats)
        np.testing.assert_allclose(counts[:, free], made.transition[:, free], atol=0.05)
        rewards = np.zeros(made.reward.shape)
        np.add.at(rewards, (states, actions), np.asarray(step.reward) / repeats)
        np.testing.assert_allclose(rewards[free], made.reward[free], atol=0.05)
        np.testing.assert_array_equal(step.terminated, made.terminal[step.next_obs])


def test_cliff_walking_by_hand():
    _, made = envs.make("tabular/CliffWalking")
    start, cliff_edge = 36, 25  # bottom left; above the cliff's first cell
    left, down, right, up = range(4)
    assert made.start[start] == 1 and made.terminal.sum() == 1 and made.terminal[47]
    assert made.transition[right, start, start] == 1 and made.reward[start, right] == -100
    assert made.transition[down, cliff_edge, start] == 1 and made.reward[cliff_edge, down] == -100
    assert made.transition[up, start, 24] == 1 and made.reward[start, up] == -1
    assert made.transition[left, start, start] == 1 and made.reward[start, left] == -1
    assert made.transition[down, 35, 47] == 1 and made.reward[35, down] == -1


def test_walls_stop():
    made = envs_tabular.grid_world(("S#G",), {"G": 1.0})
    assert (made.transition[:, 0, 0] == 1).all() and (made.reward[0] == 0).all()
    with pytest.raises(ValueError, match="rows of one length"):
        envs_tabular.grid_world(("S.", "..."), {})
    with pytest.raises(ValueError, match="an S to start"):
        envs_tabular.grid_world(("..", ".."), {})


def test_garnets_are_mdps_and_can_be_vmapped():
    many = jax.device_get(jax.jit(jax.vmap(lambda key: mdp.garnet(key, 7, 3, 2, 1)))(random.split(random.key(0), 10)))
    for lane in range(10):
        mdp.create(*(leaf[lane] for leaf in many))
    assert ((many.transition[:, :, :-1] > 0).sum(-1) == 2).all()
    assert not (many.transition[0] == many.transition[1]).all()
    with pytest.raises(ValueError, match="branching=8"):
        mdp.garnet(random.key(0), 7, 3, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", envs_tabular.names())
def test_every_task_has_a_name_and_steps(name):
    env, env_params = envs.make(f"tabular/{name}")
    assert env.spec.name == f"tabular/{name}" in envs.names() and env.spec.num_obs == len(env_params.terminal)
    policy = lambda key, obs: (random.randint(key, (3,), 0, env.spec.action.num), None)  # noqa: E731

    @jax.jit
    def act(key):
        return rollout.collect(env, policy, rollout.start(env, key, 3, env_params), env_params, key, 20)[1]

    path = act(random.key(0))
    assert (path.obs < env.spec.num_obs).all() and np.isfinite(path.reward).all()
    task = envs_tabular.get(name)
    assert task.layout is None or len("".join(task.layout)) == env.spec.num_obs
