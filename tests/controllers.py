"""Controllers written by hand, to measure learned policies by. Each is a policy for `rollout.evaluate`."""

import math
from dataclasses import replace
from typing import Any

from jax import Array
from jax import numpy as jnp

from jaxrl.envs import Env


def _time_to_rest(x: Array, v: Array) -> tuple[Array, Array]:
    """Least time in which a unit mass at `x` with speed `v` comes to rest at 0 under forces of at most 1.

    Returns it and the force to begin with: full force one way, then the other, which begins at x = -v|v| / 2.
    """
    sign = jnp.sign(x + v * jnp.abs(v) / 2)
    return sign * v + 2 * jnp.sqrt(jnp.maximum(v**2 / 2 + sign * x, 0.0)), -sign


def reacher(key: Array, obs: Array) -> tuple[Array, None]:
    """For Reacher-misc: each joint to its angle in the least time, by the quicker of the arm's two postures."""
    cos, sin, v, goal = jnp.split(obs, 4, axis=-1)
    angle, direction = jnp.arctan2(sin, cos), jnp.arctan2(goal[..., 1:], goal[..., :1])
    bend = jnp.arccos(jnp.minimum(jnp.linalg.norm(goal, axis=-1, keepdims=True) / 2, 1.0))
    postures = direction + bend * jnp.array([[1.0, -1.0], [-1.0, 1.0]])[:, None, :]  # [2, N, joints]
    x = angle - postures
    x = x - 2 * math.pi * jnp.array([-1.0, 0.0, 1.0])[:, None, None, None] - 2 * math.pi * jnp.round(x / (2 * math.pi))
    time, force = _time_to_rest(x, jnp.broadcast_to(v, x.shape))  # [turns, 2, N, joints]
    turn = time.argmin(0)[None]
    time, force, x = (jnp.take_along_axis(leaf, turn, 0)[0] for leaf in (time, force, x))
    posture = time.max(-1).argmin(0)[None, :, None]
    force, x = (jnp.take_along_axis(leaf, posture, 0)[0] for leaf in (force, x))
    close = (jnp.abs(x) < 0.1) & (jnp.abs(v) < 0.3)  # where full force would overshoot within a step
    return jnp.clip(jnp.where(close, -10 * x - 5 * v, force), -1, 1), None


def point_robot(key: Array, obs: Array) -> tuple[Array, None]:
    """For PointRobot-misc, whose goal is hidden: along the semicircle of possible goals, back and forth.

    Which way, it remembers by the last action, which it observes.
    """
    place, last = obs[..., :2], obs[..., 3:5]
    angle = jnp.arctan2(place[..., 1], place[..., 0])
    tangent = jnp.stack([-jnp.sin(angle), jnp.cos(angle)], axis=-1)
    forward = jnp.where((last != 0).any(-1), (last * tangent).sum(-1) > 0, angle < math.pi / 2)
    forward = jnp.where(angle > 3.0, False, jnp.where(angle < 0.14, True, forward))
    ahead = angle + jnp.where(forward, 0.12, -0.12)
    target = 0.85 * jnp.stack([jnp.cos(ahead), jnp.sin(ahead)], axis=-1)
    return jnp.clip(target - place, -0.1, 0.1), None


def to_the_goal(key: Array, obs: Array) -> tuple[Array, None]:
    """For PointRobot-misc that shows its goal (`showing_the_goal`): straight there. No policy does better."""
    return jnp.clip(obs[..., 6:] - obs[..., :2], -0.1, 0.1), None


def showing_the_goal(env: Env) -> Env:
    """PointRobot-misc with its goal at the end of the observation."""

    def reset(key: Array, params: Any) -> tuple[Array, Any]:
        obs, state = env.reset(key, params)
        return jnp.concatenate([obs, state.goal]), state

    def step(key: Array, state: Any, action: Array, params: Any) -> Any:
        step = env.step(key, state, action, params)
        return step._replace(
            obs=jnp.concatenate([step.obs, step.state.goal]), next_obs=jnp.concatenate([step.next_obs, state.goal])
        )

    return Env(reset, step, replace(env.spec, obs_shape=(8,)))
