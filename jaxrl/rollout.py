"""Acting in many copies of an environment at once. Axes: T steps, N environments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import devices
from jaxrl.envs import Env, Step

Policy = Callable[[Array, Any], tuple[Array, Any]]  # (key, obs [N, ...]) -> (action [N, ...], anything [N, ...])


class Agent(NamedTuple):
    """A learner (`jaxrl.core.loop.Learner`) that can also act."""

    init: Callable[..., Any]  # (key, hparams, env_params) -> state
    update: Callable[..., Any]  # (key, state, hparams, env_params) -> (state, metrics)
    evaluate: Callable[..., Any]  # (key, state, hparams, env_params) -> metrics
    act: Callable[..., Any]  # (key, state, obs [N, ...], greedy=False) -> action [N, ...]
    # (*axes) -> memory before an episode, leaves [*axes, ...]. With one, `act` takes and gives pairs with the memory,
    # as `wrappers.with_memory` does.
    memory: Callable[..., Any] | None = None


class Transition(NamedTuple):
    """One step of every environment; a path stacks T of them, leaves [T, N, ...]."""

    obs: Any
    action: Array  # as the environment received it
    reward: Array  # [N] float32
    next_obs: Any  # the true successor, also where the episode ended
    terminated: Array  # [N] bool: the task ended
    truncated: Array  # [N] bool: the time limit cut the episode
    extra: Any  # what the policy gave beside the action


class Cursor(NamedTuple):
    """N unfinished episodes, and how the last finished ones went."""

    obs: Any  # [N, ...] to act on next
    state: Any  # environment states, leaves [N, ...]
    episode_return: Array  # [N] of the unfinished episode so far
    last_return: Array  # [N] of the last finished episode, 0 before the first


def start(env: Env, key: Array, num_envs: int, env_params: Any) -> Cursor:
    """N fresh episodes."""
    obs, state = jax.vmap(env.reset, (0, None))(random.split(key, num_envs), env_params)
    return devices.split(Cursor(obs, state, jnp.zeros(num_envs), jnp.zeros(num_envs)))


def start_one(env: Env, key: Array, env_params: Any) -> Cursor:
    """One fresh episode, leaves without the axis N: for what learns from every single step."""
    obs, state = env.reset(key, env_params)
    return Cursor(obs, state, jnp.zeros(()), jnp.zeros(()))


def follow(cursor: Cursor, step: Step) -> Cursor:
    """The cursor after a step of every environment."""
    done = step.terminated | step.truncated
    total = cursor.episode_return + step.reward
    return Cursor(step.obs, step.state, jnp.where(done, 0.0, total), jnp.where(done, total, cursor.last_return))


def collect(
    env: Env, policy: Policy, cursor: Cursor, env_params: Any, key: Array, length: int
) -> tuple[Cursor, Transition]:
    """Act for `length` steps. Returns the cursor after them and their path [T, N, ...]."""
    num_envs = cursor.last_return.shape[0]
    policy_key, env_key = random.split(key)
    keys = random.split(policy_key, length), random.split(env_key, (length, num_envs))

    def one(cursor: Cursor, keys: tuple[Array, Array]) -> tuple[Cursor, Transition]:
        policy_key, env_keys = keys
        action, extra = policy(policy_key, cursor.obs)
        step = jax.vmap(env.step, (0, 0, 0, None))(env_keys, cursor.state, action, env_params)
        transition = Transition(cursor.obs, action, step.reward, step.next_obs, step.terminated, step.truncated, extra)
        return devices.split(follow(cursor, step)), transition

    return lax.scan(one, cursor, keys)


def evaluate(
    env: Env, policy: Policy, env_params: Any, key: Array, num_episodes: int, discount: Any = None
) -> dict[str, Array]:
    """Mean return and length [] of `num_episodes` whole episodes, one in each of as many environments.

    Undiscounted, to the task's end or its time limit, whichever comes first. With a `discount` [], `policy` gives
    beside each action its estimate [N] of the discounted return from there, and what it predicts at the start of an
    episode is held against the discounted return obtained.
    """
    start_key, step_key = random.split(key)
    cursor = start(env, start_key, num_episodes, env_params)
    nothing = jnp.zeros(num_episodes)
    running = jnp.ones(num_episodes, bool)

    def unfinished(carry: tuple[Array, ...]) -> Array:
        step, _, _, running, *_ = carry
        return running.any() & (step < env.spec.max_steps)

    def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, obs, state, running, total, length, discounted, predicted = carry
        policy_key, env_key = random.split(random.fold_in(step_key, step))
        action, extra = policy(policy_key, obs)
        env_keys = random.split(env_key, num_episodes)
        after = jax.vmap(env.step, (0, 0, 0, None))(env_keys, state, action, env_params)
        total, length = total + running * after.reward, length + running
        if discount is not None:
            discounted = discounted + running * after.reward * discount**step
            predicted = jnp.where(step == 0, extra, predicted)
        running = running & ~(after.terminated | after.truncated)
        return step + 1, after.obs, after.state, running, total, length, discounted, predicted

    carry = (jnp.int32(0), cursor.obs, cursor.state, running, nothing, nothing, nothing, nothing)
    *_, total, length, discounted, predicted = lax.while_loop(unfinished, one, carry)
    scores = {"eval/return": total.mean(), "eval/length": length.mean()}
    if discount is None:
        return scores
    return {**scores, "eval/discounted_return": discounted.mean(), "eval/predicted_return": predicted.mean()}
