"""Environments as pairs of pure functions.

An environment is `reset` and `step` on explicit state and parameters, plus a `Spec` of what is static about it, read
once before tracing, so that the parameters themselves may carry a vmap axis: three pole lengths are
`env_params.replace(length=jnp.array([0.25, 0.5, 1.0]))`, mapped with `in_axes` 0 at that leaf and None at the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp


@dataclass(frozen=True)
class Discrete:
    """Integers 0 .. num - 1."""

    num: int


@dataclass(frozen=True)
class Box:
    """Arrays of a shape between two bounds, which may be infinite."""

    shape: tuple[int, ...]
    low: tuple[float, ...]  # flattened, one bound per entry
    high: tuple[float, ...]


@dataclass(frozen=True)
class Spec:
    """What is static about an environment."""

    name: str
    obs_shape: tuple[int, ...]  # () for a discrete observation
    obs_dtype: str
    num_obs: int | None  # number of observations if they are the integers 0 .. num_obs - 1, else None
    action: Discrete | Box
    max_steps: int  # an episode's time limit


class Step(NamedTuple):
    """What one step gives. An episode that ends restarts within the step."""

    state: Any
    obs: Any  # of the state to act in next: the first of the next episode if this one ended
    next_obs: Any  # the true successor, also where the episode ended
    reward: Array  # [] float32
    terminated: Array  # [] bool: the task ended, nothing follows
    truncated: Array  # [] bool: the time limit cut the episode, the task would have gone on


class Env(NamedTuple):
    """Two pure functions and the static facts."""

    reset: Callable[..., tuple[Any, Any]]  # (key, env_params) -> (obs, state)
    step: Callable[..., Step]  # (key, state, action, env_params) -> Step
    spec: Spec


def names() -> list[str]:
    """Every environment that gymnax knows, those included that a user registered with it, and the tabular ones."""
    from jaxrl import envs_gymnax, envs_tabular

    return envs_gymnax.names() + [f"tabular/{name}" for name in envs_tabular.names()]


def make(name: Any, **kwargs: Any) -> tuple[Env, Any]:
    """An environment and its default parameters.

    `name` is one that gymnax knows, "tabular/CliffWalking" and the like for MDPs, "brax/hopper" and the like for
    Brax's, or an object with gymnax's interface.
    A pair `(env, env_params)` is returned as it is.

    Keyword arguments go to the environment's constructor; those that it does not take replace parameters, such as
    `max_steps_in_episode=1000` or CartPole's `length=0.7`. Parameters can be changed later too,
    `env_params.replace(length=0.7)`, but not the time limit, which the spec holds as well.

    Raises:
        ValueError: unknown name, with the nearest known ones; arguments that do not fit, with those that do; a Brax
            environment without Brax.
        OSError: data that an environment downloads cannot be had.
    """
    if not isinstance(name, str):
        if kwargs:
            raise ValueError(f"{', '.join(kwargs)}: only an environment made by name takes arguments.")
        if isinstance(name, tuple) and isinstance(name[0], Env):
            return name[0], name[1]
        if not hasattr(name, "default_params"):
            raise ValueError(f"{name!r} is no environment: give a name, an object like gymnax's or (env, env_params).")
        from jaxrl import envs_gymnax  # where it is needed: gymnax takes seconds to import

        return envs_gymnax.adapt(name, name.default_params)
    if name.startswith("brax/"):
        from jaxrl import envs_brax

        return envs_brax.make(name.removeprefix("brax/"), **kwargs)
    if name.startswith("tabular/"):
        from jaxrl import envs_tabular

        return envs_tabular.make(name.removeprefix("tabular/"), **kwargs)
    from jaxrl import envs_gymnax

    return envs_gymnax.make(name, **kwargs)


class Episode(NamedTuple):
    """State of an environment made by `auto_reset`."""

    state: Any  # the task's own
    time: Array  # [] int32, steps since the episode began


def auto_reset(reset: Callable[..., Any], transition: Callable[..., Any], spec: Spec) -> Env:
    """An environment whose episodes end and restart, from a task that knows neither time limit nor restart.

    `reset(key, env_params) -> (obs, state)` and
    `transition(key, state, action, env_params) -> (obs, state, reward, terminated)`.
    The time limit is `env_params.max_steps_in_episode` [] int32.
    """

    def first(key: Array, params: Any) -> tuple[Any, Episode]:
        obs, state = reset(key, params)
        return obs, Episode(state, jnp.int32(0))

    def step(key: Array, episode: Episode, action: Array, params: Any) -> Step:
        step_key, reset_key = random.split(key)
        next_obs, state, reward, terminated = transition(step_key, episode.state, action, params)
        time = episode.time + 1
        terminated = jnp.asarray(terminated, bool)
        truncated = (time >= params.max_steps_in_episode) & ~terminated
        done = terminated | truncated
        restart, going_on = first(reset_key, params), (next_obs, Episode(state, time))
        obs, after = jax.tree.map(lambda new, old: lax.select(done, new, old), restart, going_on)
        return Step(after, obs, next_obs, jnp.asarray(reward, jnp.float32), terminated, truncated)

    return Env(first, step, spec)
