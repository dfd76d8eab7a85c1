"""Parallelised Q-learning: no replay, no target network, but layer norm (Gallici et al. 2024, arXiv:2407.04811).

Algorithm 1 with Peng's Q(lambda) targets. Axes: T steps, N environments, B = T * N transitions, A actions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl import normalize, returns, rollout, values
from jaxrl.core import checks, fit, networks
from jaxrl.core.schedule import Linear
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 32  # environments acted in at once, N
    num_steps: int = 32  # steps in each of them per update, T
    num_epochs: int = 2  # passes over the collected transitions
    num_minibatches: int = 16  # gradient steps per pass
    network: networks.MLP | networks.CNN = networks.MLP((128, 128), "relu", layer_norm=True)  # of the action values
    normalize_observations: bool = False  # by running statistics, to mean 0 and variance 1
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # the paper's is radam, which scores alike
    eval_episodes: int = 16  # per evaluation, greedy

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 5e-4  # of the optimiser
    discount: Any = 0.99  # weight of a reward one step later
    q_lambda: Any = 0.65  # 0 one-step targets, 1 Monte Carlo
    epsilon: Any = Linear(1.0, 0.05, 0.1)  # chance of an action at random
    max_grad_norm: Any = 10.0  # bound on the global norm of the gradient


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: rollout.Cursor  # N unfinished episodes
    normalizer: normalize.Normalizer  # of observations
    epsilon: Array  # [] of the last update, for `act`


class Batch(NamedTuple):
    """What the loss needs of each transition, leaves [B, ...]."""

    obs: Array
    action: Array
    target: Array  # the value to regress on


def loss(params: Any, network: networks.Network, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Half the mean squared error over B of the values of the actions taken. Returns (scalar, metrics)."""
    value = values.chosen(network.apply(params, batch.obs), batch.action)
    value_loss = 0.5 * jnp.square(value - batch.target).mean()
    return value_loss, {"loss": value_loss, "value": value.mean()}


def make_batch(path: rollout.Transition, params: Any, network: networks.Network, hparams: Hyperparams) -> Batch:
    """Normalised path [T, N, ...] to batch [B, ...] with lambda-returns of the highest values as targets."""
    next_value = network.apply(params, path.next_obs).max(axis=-1)
    target = returns.lambda_returns(
        path.reward, next_value, path.terminated, path.truncated, hparams.discount, hparams.q_lambda
    )
    batch = Batch(path.obs, path.action, target)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    checks.choices(config)
    checks.at_least_one(
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        num_epochs=config.num_epochs,
        num_minibatches=config.num_minibatches,
        eval_episodes=config.eval_episodes,
    )
    checks.divides(config.num_minibatches, config.steps_per_update, "num_minibatches", "num_envs * num_steps")
    if config.network.dropout:
        raise ValueError(
            f"dropout={config.network.dropout} would make the targets those of another random network: "
            "PQN needs dropout=0."
        )
    if config.normalize_observations:
        normalize.check(spec)


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """A PQN agent; `network` replaces the one of `config` (see `values.network` for its outputs).

    Raises:
        ValueError: continuous actions, sizes that do not fit, dropout, or a network that does not suit the
            observations.
    """
    values.num_actions(env.spec)
    check(env.spec, config)
    if network is None:
        network = values.network(env.spec, config.network)

    def init(key, hparams, env_params):
        network_key, env_key = random.split(key)
        fitted = fit.start(config.optimizer, network.init(network_key))
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        which = {"observations": config.normalize_observations, "rewards": False}
        normalizer = normalize.start(env.spec.obs_shape, config.num_envs, **which)
        return State(fitted, cursor, normalizer, jnp.asarray(hparams.epsilon, jnp.float32))

    def action_values(state, obs):
        return network.apply(state.fit.params, normalize.see(state.normalizer, obs))

    def act(key, state, obs, greedy=False):
        found = action_values(state, obs)
        return values.greedy(found) if greedy else values.epsilon_greedy(key, found, state.epsilon)

    def explore(state, epsilon, key, obs):
        return values.epsilon_greedy(key, action_values(state, obs), epsilon), None

    def update(key, state, hparams, env_params):
        collect_key, epochs_key = random.split(key)
        policy = partial(explore, state, hparams.epsilon)
        cursor, path = rollout.collect(env, policy, state.cursor, env_params, collect_key, config.num_steps)
        path, normalizer = normalize.learn_from(state.normalizer, path, hparams.discount)
        batch = make_batch(path, state.fit.params, network, hparams)
        optimizer = config.optimizer(hparams.learning_rate)

        def step(fitted, minibatch):
            return fit.step(optimizer, loss, fitted, network, minibatch, max_grad_norm=hparams.max_grad_norm)

        fitted, metrics = fit.epochs(epochs_key, step, state.fit, batch, config.num_epochs, config.num_minibatches)
        epsilon = jnp.asarray(hparams.epsilon, jnp.float32)
        return State(fitted, cursor, normalizer, epsilon), {**metrics, "return": cursor.last_return.mean()}

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            found = action_values(state, obs)
            return values.greedy(found), found.max(axis=-1)

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes, hparams.discount)

    return rollout.Agent(init, update, evaluate, act)
