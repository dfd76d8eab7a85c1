"""Environments as pairs of pure functions. The only file that knows gymnax.

An environment is `reset` and `step` on explicit state and parameters, plus a `Spec` of what is static about it, read
once before tracing, so that the parameters themselves may carry a vmap axis: three pole lengths are
`env_params.replace(length=jnp.array([0.25, 0.5, 1.0]))`, mapped with `in_axes` 0 at that leaf and None at the others.
"""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnax import registration
from gymnax.environments import spaces
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl.core import checks


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
    """Every environment that gymnax knows, those included that a user registered with it."""
    return sorted(registration.registered_envs)


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
        return from_gymnax(name, name.default_params)
    if name.startswith("brax/"):
        from jaxrl import envs_brax

        return envs_brax.make(name.removeprefix("brax/"), **kwargs)
    if name.startswith("tabular/"):
        from jaxrl import envs_tabular

        return envs_tabular.make(name.removeprefix("tabular/"), **kwargs)
    if name not in registration.registered_envs:
        raise ValueError(checks.unknown("environment", name, names()))
    return _make_registered(name, kwargs)


def _make_registered(name: str, kwargs: dict[str, Any]) -> tuple[Env, Any]:
    factory = registration._registry[name]
    accepted = inspect.signature(factory).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    given = {key: value for key, value in kwargs.items() if key in accepted or open_ended}
    changes = {key: value for key, value in kwargs.items() if key not in given}
    try:
        env = factory(**given)
    except OSError as error:
        raise OSError(f"{name} needs data that it downloads when first made, and could not: {error}") from error
    except (AssertionError, TypeError) as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "to be made without arguments"
        raise ValueError(f"{name} refuses {arguments}. It takes {_describe(accepted)}.") from error
    params = env.default_params
    fields = [field.name for field in dataclasses.fields(params)] if dataclasses.is_dataclass(params) else []
    unknown = [key for key in changes if key not in fields]
    if unknown:
        raise ValueError(
            f"{name} does not take {', '.join(unknown)}. Its constructor takes {_describe(accepted)}; "
            f"its parameters are {', '.join(fields)}."
        )
    return from_gymnax(env, dataclasses.replace(params, **changes) if changes else params, name)


def _describe(parameters: Any) -> str:
    return ", ".join(str(parameter) for parameter in parameters.values()) or "no arguments"


def from_gymnax(env: Any, params: Any, name: str | None = None) -> tuple[Env, Any]:
    """Adapt an object with gymnax's interface, whose `step` returns six values and resets by itself.

    Raises:
        ValueError: observations or actions that are not one array; the interface of gymnax before 1.0.
    """
    name = env.name if name is None else name
    observation, action = env.observation_space(params), env.action_space(params)
    for what, space in (("observations", observation), ("actions", action)):
        if not isinstance(space, spaces.Discrete | spaces.Box):
            raise ValueError(f"{name} has {what} of kind {type(space).__name__}: only Discrete and Box are known here.")
    if not hasattr(params, "max_steps_in_episode"):
        raise ValueError(f"{name} has no time limit: its parameters need a field max_steps_in_episode.")
    key = random.key(0)
    obs, state = jax.eval_shape(env.reset, key, params)
    stepped = jax.eval_shape(env.step, key, state, jax.eval_shape(action.sample, key), params)
    if len(stepped) != 6 or "final_observation" not in stepped[-1]:
        raise ValueError(
            f"{name}: step returns {len(stepped)} values where gymnax 1.0 has six (observation, state, reward, "
            "terminated, truncated, info with final_observation): let it inherit gymnax's Environment."
        )
    spec = Spec(
        name=name,
        obs_shape=tuple(obs.shape),
        obs_dtype=str(obs.dtype),
        num_obs=int(observation.n) if isinstance(observation, spaces.Discrete) else None,
        action=_action_space(action),
        max_steps=int(params.max_steps_in_episode),
    )

    def step(key: Array, state: Any, action: Array, params: Any) -> Step:
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        return Step(
            state=state,
            obs=obs,
            next_obs=info["final_observation"],
            reward=jnp.asarray(reward, jnp.float32).reshape(()),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.asarray(truncated, bool) & ~jnp.asarray(terminated, bool),
        )

    return Env(env.reset, step, spec), jax.tree.map(jnp.asarray, params)


def _action_space(space: Any) -> Discrete | Box:
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(bound, float), space.shape) for bound in (space.low, space.high))
    return Box(tuple(space.shape), tuple(low.ravel().tolist()), tuple(high.ravel().tolist()))


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
