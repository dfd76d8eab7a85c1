"""Environments of gymnax (Lange 2022, github.com/RobertTLange/gymnax). The only file that knows it."""

import dataclasses
import inspect
from typing import Any

import jax
import numpy as np
from gymnax import registration
from gymnax.environments import spaces
from gymnax.environments.classic_control import cartpole
from jax import Array, random
from jax import numpy as jnp

from jaxrl import envs
from jaxrl.core import checks
from jaxrl.envs import Box, Discrete, Env, Spec, Step

_DERIVED = {"total_mass": "masscart and masspole", "polemass_length": "masspole and length"}  # of CartPole's parameters


def names() -> list[str]:
    """Every environment that gymnax knows, those included that a user registered with it."""
    return sorted(registration.registered_envs)


def make(name: str, **kwargs: Any) -> tuple[Env, Any]:
    """The environment `name` and its parameters; see `envs.make` for arguments and errors."""
    if name not in registration.registered_envs:
        raise ValueError(checks.unknown("environment", name, envs.names()))
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
    for key, value in changes.items():
        array, default = np.asarray(value), np.asarray(getattr(params, key))
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: {key}={value!r} is no number, as its parameters are.")
        if array.dtype.kind == "f" and default.dtype.kind in "iu" and (array % 1).any():
            raise ValueError(f"{name}: {key}={value!r} must be whole, as the default {default} is.")
        if key in _DERIVED and isinstance(params, cartpole.EnvParams):
            raise ValueError(f"{name}: {key} follows from {_DERIVED[key]}: change those.")
        changes[key] = array.astype(default.dtype)  # which 1 for 1.0 would change
    return adapt(env, dataclasses.replace(params, **changes) if changes else params, name)


def _consistent(params: Any) -> Any:
    """CartPole's parameters with those that follow from others, any of which may have been changed."""
    if not isinstance(params, cartpole.EnvParams):
        return params
    masses = params.masscart + params.masspole
    return params.replace(total_mass=masses, polemass_length=params.masspole * params.length)


def _describe(parameters: Any) -> str:
    return ", ".join(str(parameter) for parameter in parameters.values()) or "no arguments"


def adapt(env: Any, params: Any, name: str | None = None) -> tuple[Env, Any]:
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
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, _consistent(params))
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
