"""Temporal-difference control: SARSA, expected SARSA, Q-learning, double Q-learning (Sutton and Barto 2018, chapter 6).

They differ in one line, what the successor is worth (`successor_value`); the update is the same for all, for a table
and for other linear features, with eligibility traces (chapter 12; Watkins's for Q-learning) or without. The next
action is drawn before the update, as SARSA needs it.
Axes: K tables, 2 for double Q-learning and else 1; D features; A actions; N environments, where it only acts.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import exploration, features, mdp, rollout, values
from jaxrl.core import checks, fit
from jaxrl.core.schedule import Linear
from jaxrl.envs import Env

Target = Literal["sarsa", "expected_sarsa", "q_learning", "double_q_learning"]


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    target: Target = "q_learning"  # what the successor is worth
    policy: exploration.Rule = "epsilon_greedy"  # how other actions than the best are tried
    basis: features.Description = features.Table()  # of the observation, in which values are linear
    num_steps: int = 100  # steps per update, with as many changes of the values
    initial_value: float = 0.0  # of every entry of a table; above all returns it makes greedy actions explore
    eval_episodes: int = 16  # per evaluation, greedy

    @property
    def steps_per_update(self) -> int:
        return self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 0.1  # step of the values towards their targets
    visit_power: Any = 0.0  # the rate of a table's entry falls as visits ** -power: 1 averages all its targets
    discount: Any = 0.99  # weight of a reward one step later
    trace_lambda: Any = 0.0  # 0 one-step targets, 1 Monte Carlo
    exploration: Any = Linear(1.0, 0.05, 0.5)  # epsilon, temperature of softmax or width of UCB's bound


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # weights [K, D, A]; plain steps along the gradient need no optimiser state
    trace: Array  # [D, A] discounted gradients of the values of this episode's actions
    visits: Array  # [K, D, A] sums of the features in which each action was taken and changed each table
    cursor: rollout.Cursor  # one unfinished episode
    action: Array  # [] int32 to take next
    exploration: Array  # [] of the last update, for `act`


def linear(weights: Array, phi: Array) -> Array:
    """Values [..., A] of features [D] under weights [..., D, A]; a sum, as accelerators round matrix products."""
    return (weights * phi[:, None]).sum(-2)


def successor_value(target: Target, tables: Array, k: Array, action: Array, chances: Array) -> Array:
    """[] what the target bootstraps from, of the successor's values `tables` [K, A].

    `action` [] is the one taken there, `chances` [A] those it was drawn by, `k` [] the table about to change.
    """
    match target:
        case "sarsa":
            return tables[k, action]
        case "expected_sarsa":
            return (chances * tables[k]).sum()
        case "q_learning":
            return tables[k].max()
        case "double_q_learning":
            return tables[1 - k, tables[k].argmax()]
    raise ValueError(f"Unknown target {target!r}: use sarsa, expected_sarsa, q_learning or double_q_learning.")


def make(env: Env, config: Config) -> rollout.Agent:
    """An agent that learns action values from every step.

    Raises:
        ValueError: continuous actions, sizes below 1, features that do not suit the observations.
    """
    num_actions = values.num_actions(env.spec)
    checks.choices(config)
    checks.at_least_one(num_steps=config.num_steps, eval_episodes=config.eval_episodes)
    phi_of = features.build(config.basis, env.spec)
    tabular = isinstance(config.basis, features.Table)
    if config.policy == "ucb" and not tabular:
        raise ValueError("UCB counts visits of discrete observations: use policy='epsilon_greedy' or 'softmax'.")
    double, off_policy = config.target == "double_q_learning", config.target.endswith("q_learning")

    def acting_values(state, phi):
        return linear(state.fit.params, phi).mean(0)

    def chances(state, phi):
        visits = linear(state.visits, phi).sum(0)
        return exploration.chances(config.policy, acting_values(state, phi), visits, state.exploration)

    def draw(key, state, phi):
        """An action for each of some features [M, D], equal ones for equal features, and their chances [M, A]."""
        found = jax.vmap(chances, (None, 0))(state, phi)
        noise = jnp.broadcast_to(random.uniform(key), found.shape[:1])
        return mdp.pick(noise, found), found

    def init(key, hparams, env_params):
        env_key, action_key = random.split(key)
        weights = jnp.full((1 + double, phi_of.size, num_actions), config.initial_value)
        nothing = jnp.zeros(weights.shape[1:])
        cursor = rollout.start_one(env, env_key, env_params)
        amount = jnp.asarray(hparams.exploration, jnp.float32)
        state = State(fit.Fit(weights, ()), nothing, jnp.zeros_like(weights), cursor, jnp.int32(0), amount)
        action, _ = draw(action_key, state, phi_of.apply(cursor.obs)[None])
        return state._replace(action=action[0])

    def one(state, key, hparams, env_params):
        step_key, table_key, action_key = random.split(key, 3)
        step = env.step(step_key, state.cursor.state, state.action, env_params)
        # The true successor, from which to bootstrap, and where to act next: another state if the episode ended.
        phi, next_phi, act_phi = map(phi_of.apply, (state.cursor.obs, step.next_obs, step.obs))
        visited = phi[:, None] * jax.nn.one_hot(state.action, num_actions)
        k = random.randint(table_key, (), 0, 1 + double)
        chosen = jax.nn.one_hot(k, 1 + double)[:, None, None]
        state = state._replace(visits=state.visits + chosen * visited)
        actions, found = draw(action_key, state, jnp.stack([next_phi, act_phi]))

        next_values = linear(state.fit.params, next_phi)
        worth = successor_value(config.target, next_values, k, actions[0], found[0])
        value = linear(state.fit.params, phi)[k, state.action]
        error = step.reward + hparams.discount * (1 - step.terminated) * worth - value

        trace = state.trace + visited
        rate = hparams.learning_rate
        if tabular:
            # A trace may hold entries that this table has not yet counted.
            rate = rate * jnp.maximum(state.visits[k], 1.0) ** -hparams.visit_power
        change = rate * error * chosen * trace
        kept = ~(step.terminated | step.truncated)
        if off_policy:
            acting = acting_values(state, next_phi)
            kept = kept & (acting[actions[0]] == acting.max())
        after = state._replace(
            fit=fit.Fit(state.fit.params + change, ()),
            trace=hparams.discount * hparams.trace_lambda * kept * trace,
            cursor=rollout.follow(state.cursor, step),
            action=actions[1],
        )
        return after, jnp.square(error)

    def update(key, state, hparams, env_params):
        state = state._replace(exploration=jnp.asarray(hparams.exploration, jnp.float32))
        keys = random.split(key, config.num_steps)
        state, loss = lax.scan(lambda state, key: one(state, key, hparams, env_params), state, keys)
        return state, {"loss": loss.mean(), "return": state.cursor.last_return}

    def act(key, state, obs, greedy=False):
        def policy(phi):
            return exploration.greedy(acting_values(state, phi)) if greedy else chances(state, phi)

        found = jax.vmap(policy)(phi_of.apply(obs))
        return mdp.pick(random.uniform(key, found.shape[:1]), found)

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, greedy=True), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
