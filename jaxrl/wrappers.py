"""Environments made from environments: each function takes an `Env` and gives another, for the same parameters.

The true successor `next_obs` goes the same way as `obs`, but never through the restart of an episode.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp

from jaxrl.envs import Env, Step


def transform_observation(env: Env, function: Callable[[Array], Array]) -> Env:
    """Observations as `function(obs)` gives them."""
    out = jax.eval_shape(function, jax.ShapeDtypeStruct(env.spec.obs_shape, jnp.dtype(env.spec.obs_dtype)))

    def reset(key: Array, params: Any) -> tuple[Any, Any]:
        obs, state = env.reset(key, params)
        return function(obs), state

    def step(key: Array, state: Any, action: Array, params: Any) -> Step:
        step = env.step(key, state, action, params)
        return step._replace(obs=function(step.obs), next_obs=function(step.next_obs))

    return Env(reset, step, replace(env.spec, obs_shape=tuple(out.shape), obs_dtype=str(out.dtype), num_obs=None))


def flatten_observation(env: Env) -> Env:
    """Observations of any shape as vectors."""
    return transform_observation(env, lambda obs: obs.reshape(-1))


def one_hot_observation(env: Env) -> Env:
    """The observation i of `num_obs` as a float32 vector [num_obs] with a one at i.

    Raises:
        ValueError: observations that are no integers 0 .. num_obs - 1.
    """
    num_obs = env.spec.num_obs
    if num_obs is None:
        raise ValueError(f"{env.spec.name} has observations of shape {env.spec.obs_shape}, not numbers to one-hot.")
    return transform_observation(env, lambda obs: jax.nn.one_hot(obs, num_obs))


def mask_observation(env: Env, indices: Sequence[int]) -> Env:
    """Observation vectors without the entries at `indices`: (1, 3) hides CartPole's two velocities.

    Raises:
        ValueError: observations that are no vectors, indices out of range, nothing left.
    """
    shape = env.spec.obs_shape
    if len(shape) != 1:
        raise ValueError(f"{env.spec.name} has observations of shape {shape}: flatten them before masking entries.")
    kept = np.setdiff1d(np.arange(shape[0]), indices)
    if not set(indices) <= set(range(shape[0])) or not kept.size:
        raise ValueError(f"Cannot hide {tuple(indices)} of {env.spec.name}'s entries 0 .. {shape[0] - 1}.")
    return transform_observation(env, lambda obs: obs[kept])


class Stacked(NamedTuple):
    """State of `stack_frames`."""

    state: Any  # the environment's own
    obs: Array  # the stack acted on


def stack_frames(env: Env, count: int) -> Env:
    """The last `count` observations as one, the newest last; an episode starts with its first one repeated.

    Vectors [D] become [count * D], images [H, W, C] become [H, W, count * C] and grids [H, W] become [H, W, count].

    Raises:
        ValueError: a count below 1, discrete observations.
    """
    shape = env.spec.obs_shape
    if count < 1:
        raise ValueError(f"count={count} frames cannot be stacked: use at least 1.")
    if not shape:
        raise ValueError(f"{env.spec.name} has discrete observations: use one_hot_observation before stack_frames.")
    grid = len(shape) == 2
    size = 1 if grid else shape[-1]  # of one frame along the stacked axis

    def first(obs: Array) -> Array:
        frame = obs[..., None] if grid else obs
        return jnp.concatenate([frame] * count, axis=-1)

    def push(stack: Array, obs: Array) -> Array:
        return jnp.concatenate([stack[..., size:], obs[..., None] if grid else obs], axis=-1)

    def reset(key: Array, params: Any) -> tuple[Array, Stacked]:
        obs, state = env.reset(key, params)
        return first(obs), Stacked(state, first(obs))

    def step(key: Array, stacked: Stacked, action: Array, params: Any) -> Step:
        step = env.step(key, stacked.state, action, params)
        next_obs = push(stacked.obs, step.next_obs)
        # An episode that goes on is at the true successor already.
        obs = jnp.where(step.terminated | step.truncated, first(step.obs), next_obs)
        return step._replace(state=Stacked(step.state, obs), obs=obs, next_obs=next_obs)

    stacked_shape = (*shape, count) if grid else (*shape[:-1], count * size)
    return Env(reset, step, replace(env.spec, obs_shape=stacked_shape))


def with_memory(env: Env, blank: Any) -> Env:
    """An environment that keeps its policy's memory: what a recurrent policy needs to act step by step.

    Observations are pairs (obs, memory) and actions pairs (action, memory). What the policy gives as memory it sees
    at the next step, `blank` at the start of an episode; the true successor comes with what was given.
    """

    def reset(key: Array, params: Any) -> tuple[Any, Any]:
        obs, state = env.reset(key, params)
        return (obs, blank), state

    def step(key: Array, state: Any, action: Any, params: Any) -> Step:
        action, memory = action
        step = env.step(key, state, action, params)
        done = step.terminated | step.truncated
        kept = jax.tree.map(lambda new, old: jnp.where(done, new, old), blank, memory)
        return step._replace(obs=(step.obs, kept), next_obs=(step.next_obs, memory))

    return Env(reset, step, env.spec)


def scale_reward(env: Env, factor: float) -> Env:
    """Rewards times `factor`, which must be positive to leave the task the same."""

    def step(key: Array, state: Any, action: Array, params: Any) -> Step:
        step = env.step(key, state, action, params)
        return step._replace(reward=step.reward * factor)

    return env._replace(step=step)


class Limited(NamedTuple):
    """State of `time_limit`."""

    state: Any  # the environment's own
    time: Array  # [] int32, steps since the episode began


def time_limit(env: Env, max_steps: int) -> Env:
    """Episodes cut after `max_steps` at the latest, wherever the environment keeps its own limit.

    Costs a second reset at each step: `envs.make(name, max_steps_in_episode=...)` sets a limit for nothing, and
    a longer one too.

    Raises:
        ValueError: a limit below 1, or longer than the environment's own.
    """
    if not 1 <= max_steps <= env.spec.max_steps:
        raise ValueError(f"max_steps={max_steps} must be between 1 and {env.spec.name}'s {env.spec.max_steps}.")

    def reset(key: Array, params: Any) -> tuple[Any, Limited]:
        obs, state = env.reset(key, params)
        return obs, Limited(state, jnp.int32(0))

    def step(key: Array, limited: Limited, action: Array, params: Any) -> Step:
        step_key, reset_key = jax.random.split(key)
        step = env.step(step_key, limited.state, action, params)
        time = limited.time + 1
        cut = (time >= max_steps) & ~(step.terminated | step.truncated)
        obs, state = jax.tree.map(
            lambda new, old: jnp.where(cut, new, old), env.reset(reset_key, params), (step.obs, step.state)
        )
        truncated = step.truncated | cut
        time = jnp.where(step.terminated | truncated, 0, time)
        return step._replace(state=Limited(state, time), obs=obs, truncated=truncated)

    return Env(reset, step, replace(env.spec, max_steps=max_steps))
