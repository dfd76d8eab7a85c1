"""Environments of Brax (Freeman et al. 2021, arXiv:2106.13281). The only file that knows Brax, an optional extra.

Brax's own wrappers are left aside: they restart every episode of a lane from one and the same state and hide the
observation in which an episode ended.
"""

import contextlib
import io
import warnings
from typing import Any, NamedTuple

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl.core import checks
from jaxrl.envs import Box, Env, Spec, auto_reset

MAX_STEPS = 1000  # the time limit with which Brax's authors train and score


class Params(NamedTuple):
    """All that can be varied within one program."""

    max_steps_in_episode: Array  # [] int32


def make(name: str, max_steps_in_episode: int = MAX_STEPS, **kwargs: Any) -> tuple[Env, Params]:
    """The Brax environment `name`, "hopper" say, and its parameters.

    Keyword arguments go to its constructor: `backend="spring"` chooses the cheaper physics. Every reset draws a new
    first state, a few percent of the cost of a step. Actions lie in [-1, 1].

    Raises:
        ValueError: Brax is not installed; unknown name or arguments.
    """
    try:
        # Brax prints on import which optional engines it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            from brax import envs as brax_envs
    except ImportError as error:
        raise ValueError(f"brax/{name} needs Brax: pip install 'jaxrl-generative[brax]' ({error}).") from error
    if name not in brax_envs._envs:
        raise ValueError(checks.unknown("Brax environment", name, sorted(brax_envs._envs)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its authors now work on another engine
            env = brax_envs.get_environment(name, **kwargs)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"brax/{name} does not take {', '.join(kwargs)}: {error}") from error

    def reset(key: Array, params: Params) -> tuple[Array, Any]:
        state = env.reset(key)
        return state.obs, state

    def transition(key: Array, state: Any, action: Array, params: Params) -> tuple[Array, Any, Array, Array]:
        state = env.step(state, action)
        return state.obs, state, state.reward, state.done > 0.5

    obs, _ = jax.eval_shape(reset, random.key(0), None)
    spec = Spec(
        name=f"brax/{name}",
        obs_shape=tuple(obs.shape),
        obs_dtype=str(obs.dtype),
        num_obs=None,
        action=Box((env.action_size,), (-1.0,) * env.action_size, (1.0,) * env.action_size),
        max_steps=max_steps_in_episode,
    )
    return auto_reset(reset, transition, spec), Params(jnp.int32(max_steps_in_episode))
