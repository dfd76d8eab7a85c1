"""Dyna: acting, learning a tabular model, and planning on it, in turn (Sutton and Barto 2018, chapter 8).

The model counts what followed each observation and action. Dyna-Q plans by one-step Q-learning on transitions drawn
from it; the other planner sweeps over all it has seen, value iteration on the estimated MDP.
Axes: A actions, S observations, N environments, where it only acts.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import exploration, mdp, planning, rollout, values
from jaxrl.core import checks, fit
from jaxrl.core.schedule import Linear
from jaxrl.envs import Env


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    planner: Literal["sampled", "sweeps"] = "sampled"  # Dyna-Q, or value iteration on the estimated MDP
    planning_steps: int = 10  # transitions drawn after each step, or sweeps after each update
    policy: exploration.Rule = "epsilon_greedy"  # how other actions than the best are tried
    num_steps: int = 100  # per update
    eval_episodes: int = 16  # per evaluation, greedy

    @property
    def steps_per_update(self) -> int:
        return self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 0.1  # step of the values towards their targets
    discount: Any = 0.99  # weight of a reward one step later
    exploration: Any = Linear(1.0, 0.05, 0.5)  # epsilon, temperature of softmax or width of UCB's bound


class Model(NamedTuple):
    """All experience, summed up."""

    counts: Array  # [S, A, S + 1] of what followed; the last is the task's end
    reward: Array  # [S, A] sums


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # action values [S, A]; plain steps need no optimiser state
    model: Model
    cursor: rollout.Cursor  # one unfinished episode
    exploration: Array  # [] of the last update, for `act`


def observe(model: Model, obs: Array, action: Array, reward: Array, next_obs: Array, terminated: Array) -> Model:
    """The model after one more transition. A time limit is no part of the task, and of the model neither."""
    after = jnp.where(terminated, model.counts.shape[-1] - 1, next_obs)
    counts = model.counts.at[obs, action, after].add(1.0)
    return Model(counts, model.reward.at[obs, action].add(reward))


def estimate(model: Model) -> mdp.MDP:
    """The likeliest MDP, with one state more: the end, S. What was never tried is taken to end at once, without reward.

    An episode starts anywhere.
    """
    num_states, num_actions, _ = model.counts.shape
    visits = model.counts.sum(-1, keepdims=True)
    end = jax.nn.one_hot(num_states, num_states + 1)
    chances = jnp.where(visits > 0, model.counts / jnp.maximum(visits, 1.0), end)
    chances = jnp.concatenate([chances, jnp.broadcast_to(end, (1, num_actions, num_states + 1))])
    reward = jnp.pad(model.reward / jnp.maximum(visits[..., 0], 1.0), ((0, 1), (0, 0)))
    start = (1 - end) / num_states
    return mdp.MDP(chances.swapaxes(0, 1), reward, end > 0, start, jnp.zeros_like(reward))


def q_learning(
    action_values: Array, obs: Array, action: Array, reward: Array, next_obs: Array, ended: Array, hparams: Hyperparams
) -> tuple[Array, Array]:
    """One step of Q-learning (equation 6.8) on a table [S, A]. Returns it and the error []."""
    bootstrap = jnp.where(ended, 0.0, action_values[next_obs].max())
    error = reward + hparams.discount * bootstrap - action_values[obs, action]
    return action_values.at[obs, action].add(hparams.learning_rate * error), error


def imagine(key: Array, model: Model) -> tuple[Array, Array, Array, Array, Array]:
    """A transition from the model: a pair that was tried, all alike, what it gave on average and what followed."""
    pair_key, after_key = random.split(key)
    num_states, num_actions, _ = model.counts.shape
    visits = model.counts.sum(-1)
    pair = mdp.pick(random.uniform(pair_key), (visits > 0).astype(jnp.float32).ravel())
    obs, action = pair // num_actions, pair % num_actions
    after = mdp.pick(random.uniform(after_key), model.counts[obs, action])
    ended = after == num_states
    return obs, action, model.reward[obs, action] / visits[obs, action], jnp.where(ended, 0, after), ended


def make(env: Env, config: Config) -> rollout.Agent:
    """An agent that learns a model of its environment and plans on it.

    Raises:
        ValueError: continuous actions, observations that cannot be counted, sizes below 1.
    """
    num_actions, num_obs = values.num_actions(env.spec), env.spec.num_obs
    checks.choices(config)
    checks.at_least_one(
        num_steps=config.num_steps, planning_steps=config.planning_steps, eval_episodes=config.eval_episodes
    )
    if num_obs is None:
        raise ValueError(
            f"{env.spec.name} has observations of shape {env.spec.obs_shape}, and a model here counts discrete ones: "
            "use an environment such as tabular/FrozenLake."
        )

    def chances(state, obs):
        visits = state.model.counts[obs].sum(-1)
        return exploration.chances(config.policy, state.fit.params[obs], visits, state.exploration)

    def init(key, hparams, env_params):
        model = Model(jnp.zeros((num_obs, num_actions, num_obs + 1)), jnp.zeros((num_obs, num_actions)))
        fitted = fit.Fit(jnp.zeros((num_obs, num_actions)), ())
        cursor = rollout.start_one(env, key, env_params)
        return State(fitted, model, cursor, jnp.asarray(hparams.exploration, jnp.float32))

    def one(state, key, hparams, env_params):
        step_key, action_key, plan_key = random.split(key, 3)
        obs = state.cursor.obs
        action = mdp.pick(random.uniform(action_key), chances(state, obs))
        step = env.step(step_key, state.cursor.state, action, env_params)
        seen = obs, action, step.reward, step.next_obs, step.terminated
        model = observe(state.model, *seen)
        table, error = q_learning(state.fit.params, *seen, hparams)
        if config.planner == "sampled":

            def plan(table, key):
                return q_learning(table, *imagine(key, model), hparams)[0], None

            table, _ = lax.scan(plan, table, random.split(plan_key, config.planning_steps))
        return State(fit.Fit(table, ()), model, rollout.follow(state.cursor, step), state.exploration), error

    def update(key, state, hparams, env_params):
        state = state._replace(exploration=jnp.asarray(hparams.exploration, jnp.float32))
        keys = random.split(key, config.num_steps)
        state, error = lax.scan(lambda state, key: one(state, key, hparams, env_params), state, keys)
        if config.planner == "sweeps":
            known = jnp.append(state.fit.params.max(-1), 0.0)
            found = planning.sweep_values(estimate(state.model), hparams.discount, config.planning_steps, value=known)
            state = state._replace(fit=fit.Fit(found.action_value[:-1], ()))
        return state, {"loss": jnp.square(error).mean(), "return": state.cursor.last_return}

    def act(key, state, obs, greedy=False):
        found = exploration.greedy(state.fit.params[obs]) if greedy else chances(state, obs)
        return mdp.pick(random.uniform(key, obs.shape), found)

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, greedy=True), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
