"""Environments as pairs of pure functions. The only file that knows gymnax.

An environment is `reset` and `step` on explicit state and parameters, plus a `Spec` of what is static about it, read
once before tracing, so that the parameters themselves may carry a vmap axis.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnax
import jax
import numpy as np
from gymnax.environments import spaces
from gymnax.registration import registered_envs
from jax import Array
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
    """Every registered environment."""
    return sorted(registered_envs)


def make(name: str | Any, **kwargs: Any) -> tuple[Env, Any]:
    """An environment and its default parameters, by gymnax name or from an object with gymnax's interface.

    Keyword arguments go to the environment's constructor.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if not isinstance(name, str):
        return from_gymnax(name, name.default_params)
    if name not in registered_envs:
        known = {known.lower(): known for known in registered_envs}
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
        hint = " or ".join(known[match] for match in near) or f"one of {', '.join(names())}"
        raise ValueError(f"Unknown environment {name!r}: did you mean {hint}?")
    return from_gymnax(*gymnax.make(name, **kwargs))


def from_gymnax(env: Any, params: Any) -> tuple[Env, Any]:
    """Adapt an object with gymnax's interface, whose `step` returns six values and resets by itself."""
    observation = env.observation_space(params)
    discrete = isinstance(observation, spaces.Discrete)
    obs, _ = jax.eval_shape(env.reset, jax.random.key(0), params)
    spec = Spec(
        name=env.name,
        obs_shape=tuple(obs.shape),
        obs_dtype=str(obs.dtype),
        num_obs=int(observation.n) if discrete else None,
        action=_action_space(env.action_space(params)),
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
