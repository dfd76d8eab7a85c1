"""Tiny environments with known answers. Each is one that a learner with one specific bug cannot pass.

Probes give `(env, env_params)`; their values are of the discount g and hold whatever the policy, unless said. `learn`
trains on them from replay.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, random
from jax import numpy as jnp

from jaxrl.core import loop
from jaxrl.core.networks import MLP, Network
from jaxrl.envs import Box, Discrete, Env, Spec, auto_reset


class Params(NamedTuple):
    max_steps_in_episode: Array  # [] int32


class ContinuousParams(NamedTuple):
    max_steps_in_episode: Array  # [] int32
    target: Array  # [2] the best action


def _make(name: str, obs_size: int, max_steps: int, reset: Any, transition: Any) -> tuple[Env, Params]:
    spec = Spec(name, (obs_size,), "float32", None, Discrete(2), max_steps)
    return auto_reset(reset, transition, spec), Params(jnp.int32(max_steps))


def endless() -> tuple[Env, Params]:
    """A task that never ends, cut after 2 steps: observation 1, reward 1.

    Value 1 / (1 - g). A learner that takes the cut for an end finds at most 1 + g, and one whose n-step target has
    the discount to the wrong power is off for every n > 1.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Any]:
        return jnp.ones(1), ()

    def transition(key: Array, state: Any, action: Array, params: Params) -> tuple[Array, Any, Array, Array]:
        return jnp.ones(1), state, jnp.float32(1), jnp.bool_(False)

    return _make("endless", 1, 2, reset, transition)


def far_start() -> tuple[Env, Params]:
    """Never ends, cut after 3 steps. The first step, from [1, 0], costs 10; later ones, from [0, 1], pay 1.

    Values 1 / (1 - g) at [0, 1], and g / (1 - g) - 10 at [1, 0]. A learner that takes the observation after the restart
    for the successor mixes the second into the first on every other of its transitions there.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Array]:
        return jnp.array([1.0, 0.0]), jnp.bool_(True)

    def transition(key: Array, first: Array, action: Array, params: Params) -> tuple[Array, Array, Array, Array]:
        return jnp.array([0.0, 1.0]), jnp.bool_(False), jnp.where(first, -10.0, 1.0), jnp.bool_(False)

    return _make("far_start", 2, 3, reset, transition)


def copy() -> tuple[Env, Params]:
    """One step. The observation is -1 or 1 at random; action 1 is right at 1 and action 0 at -1: reward 1, else -1.

    The best policy has value 1 everywhere, a random one 0, one that ignores the observation 0 on average. Action
    values are 1 and -1.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Array]:
        sign = random.rademacher(key, (), jnp.float32)
        return sign[None], sign

    def transition(key: Array, sign: Array, action: Array, params: Params) -> tuple[Array, Array, Array, Array]:
        return sign[None], sign, jnp.where((action == 1) == (sign > 0), 1.0, -1.0), jnp.bool_(True)

    return _make("copy", 1, 1, reset, transition)


def look() -> tuple[Env, Params]:
    """One step. The observation is -1 or 1 at random and is the reward too; the action is ignored.

    Value equal to the observation, advantages 0: whatever moves the policy, entropy bonus apart, is noise or a bug.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Array]:
        sign = random.rademacher(key, (), jnp.float32)
        return sign[None], sign

    def transition(key: Array, sign: Array, action: Array, params: Params) -> tuple[Array, Array, Array, Array]:
        return sign[None], sign, sign, jnp.bool_(True)

    return _make("look", 1, 1, reset, transition)


def delayed() -> tuple[Env, Params]:
    """Three steps, observations the rows of the 3x3 identity; the last step alone gives 1 and ends the task.

    Values g**2, g, 1. The time limit lies far beyond.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Array]:
        return jnp.eye(3)[0], jnp.int32(0)

    def transition(key: Array, place: Array, action: Array, params: Params) -> tuple[Array, Array, Array, Array]:
        last = place == 2
        return jnp.eye(3)[jnp.minimum(place + 1, 2)], place + 1, last.astype(jnp.float32), last

    return _make("delayed", 3, 100, reset, transition)


def memory(length: int = 3) -> tuple[Env, Params]:
    """`length` steps. Observation [cue, 0] first, [0, 0] in between, [0, 1] last; the cue is -1 or 1 at random.

    The last action is rewarded with 1 if it repeats the cue (1 for 1, 0 for -1), else with -1. With memory return 1,
    without it 0 on average. State that leaks over the end of an episode gives the cue of the episode before.
    """

    class State(NamedTuple):
        cue: Array  # [] float32
        time: Array  # [] int32

    def reset(key: Array, params: Params) -> tuple[Array, State]:
        cue = random.rademacher(key, (), jnp.float32)
        return jnp.stack([cue, jnp.float32(0)]), State(cue, jnp.int32(0))

    def transition(key: Array, state: State, action: Array, params: Params) -> tuple[Array, State, Array, Array]:
        ended = state.time == length - 1
        reward = jnp.where((action == 1) == (state.cue > 0), 1.0, -1.0) * ended
        time = state.time + 1
        obs = jnp.stack([jnp.float32(0), (time >= length - 1).astype(jnp.float32)])
        return obs, State(state.cue, time), reward, ended

    if length < 2:
        raise ValueError(f"length={length} leaves nothing to remember: use at least 2.")
    return _make("memory", 2, 100 * length, reset, transition)


def allowance() -> tuple[Env, Params]:
    """Never ends, cut after 3 steps. The first observation is a cue, -1 or 1 at random, later ones 0; a step pays it.

    With memory the value is cue / (1 - g) throughout. A learner that takes the cut for an end finds at most
    1 + g + g**2 times the cue, and so does one that values what follows it with another memory than its own.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Array]:
        cue = random.rademacher(key, (), jnp.float32)
        return cue[None], cue

    def transition(key: Array, cue: Array, action: Array, params: Params) -> tuple[Array, Array, Array, Array]:
        return jnp.zeros(1), cue, cue, jnp.bool_(False)

    return _make("allowance", 1, 3, reset, transition)


def aim() -> tuple[Env, ContinuousParams]:
    """One step, two actions bounded by [-1, 3] and [0, 0.5]. Reward: minus the squared distance to the target.

    The target is `env_params.target`, (2, 0.1) to begin with: the best action, of value 0. The action is not clipped
    here, so that one outside its bounds shows. A learner that forgets the centre or the width of the bounds
    cannot reach the target: 2 is outside [-1, 1], and tanh alone does not stay within [0, 0.5].
    """

    def reset(key: Array, params: ContinuousParams) -> tuple[Array, Any]:
        return jnp.ones(1), ()

    def transition(key: Array, state: Any, action: Array, params: Any) -> tuple[Array, Any, Array, Array]:
        return jnp.ones(1), state, -((action - params.target) ** 2).sum(), jnp.bool_(True)

    spec = Spec("aim", (1,), "float32", None, Box((2,), (-1.0, 0.0), (3.0, 0.5)), 1)
    return auto_reset(reset, transition, spec), ContinuousParams(jnp.int32(1), jnp.array([2.0, 0.1]))


def with_idle_action(made: tuple[Env, Any]) -> tuple[Env, Any]:
    """The same task, for a probe whose action is ignored, with one continuous action between -1 and 3."""
    env, env_params = made
    return env._replace(spec=replace(env.spec, action=Box((1,), (-1.0,), (3.0,)))), env_params


# A linear task with quadratic costs: position and speed [2], a force [1].
DYNAMICS, FORCE = np.array([[0.9, 0.3], [0.0, 0.8]]), np.array([[0.1], [0.5]])
STATE_COST, ACTION_COST = np.diag([1.0, 0.2]), np.array([[0.1]])


def regulator() -> tuple[Env, Params]:
    """x' = DYNAMICS x + FORCE u, reward -(x STATE_COST x + u ACTION_COST u). Never ends, cut after 3 steps.

    The force is bounded by [-6, 9]; the best one from the first states, -`riccati_gain(g)` x, is within.
    """

    def reset(key: Array, params: Params) -> tuple[Array, Array]:
        x = random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return x, x

    def transition(key: Array, x: Array, action: Array, params: Params) -> tuple[Array, Array, Array, Array]:
        reward = -(x @ STATE_COST @ x + action @ ACTION_COST @ action)
        after = jnp.asarray(DYNAMICS, jnp.float32) @ x + jnp.asarray(FORCE, jnp.float32) @ action
        return after, after, reward, jnp.bool_(False)

    spec = Spec("regulator", (2,), "float32", None, Box((1,), (-6.0,), (9.0,)), 3)
    return auto_reset(reset, transition, spec), Params(jnp.int32(3))


def riccati_gain(discount: float) -> np.ndarray:
    """K [1, 2] of the best policy u = -K x of `regulator`, by iteration of the discounted Riccati equation."""
    p = STATE_COST
    for _ in range(1000):
        gain = discount * np.linalg.solve(ACTION_COST + discount * FORCE.T @ p @ FORCE, FORCE.T @ p @ DYNAMICS)
        p = STATE_COST + discount * DYNAMICS.T @ p @ (DYNAMICS - FORCE @ gain)
    return gain


def linear_actor(spec: Spec) -> Network:
    """Actions u = K x, whatever the bounds."""
    size = spec.action.shape[0]
    return Network(lambda key: {"gain": jnp.zeros((size, *spec.obs_shape))}, lambda params, obs: obs @ params["gain"].T)


def quadratic_critic(spec: Spec) -> Network:
    """Values (x, u) W (x, u) plus a constant: those of `regulator` are of this form."""
    size = spec.obs_shape[0] + spec.action.shape[0]

    def apply(params, obs, action):
        both = jnp.concatenate([obs, action], axis=-1)
        return (both @ params["weight"] * both).sum(-1) + params["constant"]

    return Network(lambda key: {"weight": jnp.zeros((size, size)), "constant": jnp.zeros(())}, apply)


def learn(
    module: Any,
    env: Env,
    env_params: Any,
    hparams: dict[str, Any],
    num_updates: int = 20,
    discount: float = 0.8,
    rates: tuple[float, float] = (0.05, 0.05),
    **options: Any,
) -> tuple[Any, dict[str, Array]]:
    """The last state and metrics of DDPG or one of its heirs, with a linear network or those given among `options`.

    `rates` of critics and actor fall to 0.
    """
    given = {name: options.pop(name) for name in ("actor", "critic") if name in options}
    sizes = {"num_envs": 4, "num_steps": 40, "warmup": 256, "batch_size": 128, "capacity": 2000, "eval_episodes": 4}
    agent = module.make(env, module.Config(**{**sizes, "network": MLP(()), **options}), **given)
    numbers = module.Hyperparams(*map(loop.schedule.Linear, rates))._replace(**{"discount": discount, **hparams})
    run = loop.start(agent, random.key(1), numbers, env_params, num_updates)
    run, metrics = jax.jit(partial(loop.chunk, agent, num_updates))(run, numbers, env_params)
    return run.state, metrics
