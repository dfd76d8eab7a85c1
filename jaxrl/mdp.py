"""Markov decision processes as arrays, which planners solve and every learner can act in.

Axes: A actions, S states.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, random
from jax import numpy as jnp

from jaxrl.envs import Discrete, Env, Spec, Step, auto_reset

TOLERANCE = 1e-4  # how far from one the sum of probabilities may be


class MDP(NamedTuple):
    """A tabular task. What follows a terminal state is worth nothing, whatever its rows say."""

    transition: Array  # [A, S, S] chance of each next state, of taking an action in a state
    reward: Array  # [S, A] mean reward of taking an action in a state
    terminal: Array  # [S] bool
    start: Array  # [S] chance of each state to be the first
    reward_std: Array  # [S, A] standard deviation of the reward, Gaussian


def create(transition: Any, reward: Any, terminal: Any, start: Any, reward_std: Any = 0.0) -> MDP:
    """The MDP of arrays given by hand. A terminal state is made absorbing, without reward.

    Probabilities that sum to 1 but for rounding are divided by their sum: `TOLERANCE` too much in every step would add
    a tenth to a value at a discount of 0.999.

    Raises:
        ValueError: shapes that do not agree, numbers that are not finite, rows that are no probabilities.
    """
    transition, reward, start = (np.asarray(array, float) for array in (transition, reward, start))
    terminal = np.asarray(terminal, bool)
    if transition.ndim != 3 or transition.shape[1] != transition.shape[2]:
        raise ValueError(f"transition has shape {transition.shape}: give [actions, states, states].")
    num_actions, num_states, _ = transition.shape
    expected = {"reward": (num_states, num_actions), "terminal": (num_states,), "start": (num_states,)}
    for (name, shape), array in zip(expected.items(), (reward, terminal, start), strict=True):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, where transition {transition.shape} asks for {shape}.")
    deviation = np.broadcast_to(np.asarray(reward_std, float), reward.shape)
    if not (np.isfinite(reward).all() and np.isfinite(deviation).all() and (deviation >= 0).all()):
        raise ValueError("Rewards must be finite, and their standard deviations at least 0.")
    transition = np.where(terminal[:, None], np.eye(num_states), transition)
    for name, chances in (("transition", transition), ("start", start)):
        bad = np.argwhere(~((chances.min(-1) >= 0) & (np.abs(chances.sum(-1) - 1) <= TOLERANCE)))
        if len(bad):
            place = tuple(bad[0].tolist())
            where = f"{name}[{', '.join(map(str, place))}]" if place else name
            raise ValueError(
                f"{where} = {chances[place].tolist()} sums to {chances[place].sum():.6g}: probabilities must be at "
                "least 0 and sum to 1."
            )
    transition, start = (chances / chances.sum(-1, keepdims=True) for chances in (transition, start))
    reward, deviation = (np.where(terminal[:, None], 0.0, array) for array in (reward, deviation))
    stored = partial(jnp.asarray, dtype=jnp.float32)
    return MDP(stored(transition), stored(reward), jnp.asarray(terminal), stored(start), stored(deviation))


def garnet(key: Array, num_states: int, num_actions: int, branching: int, num_terminal: int = 0) -> MDP:
    """A random MDP (Bhatnagar et al. 2009, section 6.1), which unlike `create` can be vmapped over keys.

    Each action leads to `branching` states, drawn without replacement, with chances uniform over the simplex; mean
    rewards are uniform in [-1, 1]. The last `num_terminal` states are terminal, any other may be the first.

    Raises:
        ValueError: more successors or terminal states than there are states.
    """
    if not 1 <= branching <= num_states or not 0 <= num_terminal < num_states:
        raise ValueError(
            f"branching={branching} must be in 1 .. {num_states} and num_terminal={num_terminal} in "
            f"0 .. {num_states - 1}, the number of states being {num_states}."
        )
    successor_key, weight_key, reward_key = random.split(key, 3)
    shape = num_actions, num_states, num_states
    scores = random.uniform(successor_key, shape)
    _, successors = jax.lax.top_k(scores, branching)
    weights = random.exponential(weight_key, shape) * jax.nn.one_hot(successors, num_states).sum(-2)
    terminal = jnp.arange(num_states) >= num_states - num_terminal
    transition = jnp.where(terminal[:, None], jnp.eye(num_states), weights / weights.sum(-1, keepdims=True))
    reward = random.uniform(reward_key, (num_states, num_actions), minval=-1.0, maxval=1.0) * ~terminal[:, None]
    return MDP(transition, reward, terminal, ~terminal / (~terminal).sum(), jnp.zeros_like(reward))


def pick(noise: Array, chances: Array) -> Array:
    """The index [...] that `noise` [...], uniform in [0, 1), draws from `chances` [..., K]: never one of chance 0."""
    ladder = jnp.cumsum(chances, axis=-1)
    return (ladder <= noise[..., None] * ladder[..., -1:]).sum(-1)


def as_env(mdp: MDP, max_steps: int, name: str = "MDP") -> tuple[Env, MDP]:
    """An environment whose observation is the state, and its parameters: the MDP itself, of which every array may
    carry a vmap axis. An episode is cut after `max_steps`.

    Raises:
        ValueError: a time limit below 1; a first state that may be terminal.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps} must be at least 1.")
    if bool((mdp.terminal & (mdp.start > 0)).any()):
        raise ValueError("An episode cannot start in a terminal state: make start 0 wherever terminal is true.")
    num_actions, num_states, _ = mdp.transition.shape

    class Limited(NamedTuple):
        mdp: MDP
        max_steps_in_episode: Array

    def reset(key: Array, params: Limited) -> tuple[Array, Array]:
        state = pick(random.uniform(key), params.mdp.start)
        return state, state

    def transition(key: Array, state: Array, action: Array, params: Limited) -> tuple[Array, Array, Array, Array]:
        state_key, reward_key = random.split(key)
        mdp = params.mdp
        after = pick(random.uniform(state_key), mdp.transition[action, state])
        reward = mdp.reward[state, action] + mdp.reward_std[state, action] * random.normal(reward_key)
        return after, after, reward, mdp.terminal[after]

    spec = Spec(name, (), "int32", num_states, Discrete(num_actions), max_steps)
    inner = auto_reset(reset, transition, spec)

    def limited(mdp: MDP) -> Limited:
        return Limited(mdp, jnp.int32(max_steps))

    def step(key: Array, state: Any, action: Array, mdp: MDP) -> Step:
        return inner.step(key, state, action, limited(mdp))

    return Env(lambda key, mdp: inner.reset(key, limited(mdp)), step, spec), mdp
