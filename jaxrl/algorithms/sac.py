"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1801.01290) with its own temperature (arXiv:1812.05905, algorithm 1).

Entropies are those of the environment's actions, in nats: where the bounds of a dimension are 2 w apart, log w above
that of the same policy between -1 and 1. The target is given for bounds of -1 and 1 and moved by log w for each
dimension, so that one number serves every environment.
Axes: C = 2 critics, D action dimensions, N environments, B samples.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import policies, replay, rollout, values
from jaxrl.core import fit, networks
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 1  # environments acted in at once, N
    num_steps: int = 50  # steps in each of them per update
    train_every: int = 1  # steps in each of them between gradient steps
    num_gradient_steps: int = 1  # taken then, of critics, actor and temperature
    batch_size: int = 256  # samples of replay per gradient step, B
    capacity: int = 100_000  # transitions that replay holds
    warmup: int = 1000  # environment steps at random before the first update, beside those of the run
    network: networks.MLP = networks.MLP((64, 64), "relu")  # of the actor, and of each critic
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # of actor, critics and temperature
    eval_episodes: int = 16  # per evaluation, at the middle of each distribution

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the critics
    actor_learning_rate: Any = 1e-3  # of the actor
    temperature_learning_rate: Any = 1e-3  # 0 leaves it as it is
    discount: Any = 0.99  # weight of a reward one step later
    target_rate: Any = 0.005  # of the way to the online critics that their targets go at each gradient step
    temperature: Any = 1.0  # weight of the entropy at the beginning
    target_entropy: Any = -1.0  # for each action dimension in nats, were its bounds -1 and 1; uniform is 0.69


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # of the actor
    critics: fit.Fit
    temperature: fit.Fit  # of its logarithm []
    target_params: Any  # of the critics
    buffer: replay.Buffer
    cursor: rollout.Cursor  # N unfinished episodes


def soft_target(reward: Array, discount: Array, next_values: Array, next_log_prob: Array, temperature: Array) -> Array:
    """Reward plus discount times the soft value of the next state: [B] (2018a, equations 2 and 3).

    From `next_values` [C, B] of an action of the policy, the lower counts, and its `next_log_prob` [B].
    """
    return reward + discount * (next_values.min(0) - temperature * next_log_prob)


def loss(params: Any, critics: networks.Network, batch: replay.Batch, target: Array) -> tuple[Array, dict[str, Array]]:
    """Half the squared error of each critic's values against `target` [B], summed over critics and mean over B.

    Returns (scalar, metrics).
    """
    value = critics.apply(params, batch.obs, batch.action)
    total = (batch.weight * 0.5 * jnp.square(value - target)).mean(-1).sum()
    return total, {"critic_loss": total, "value": value.mean()}


def actor_loss(
    params: Any, policy: Any, critics: networks.Network, critic_params: Any, temperature: Array, obs: Array, key: Array
) -> tuple[Array, dict[str, Array]]:
    """Mean of temperature * log-probability - value over one action for each of `obs` (2018b, equation 9).

    `policy(params, key, obs) -> (action, log_prob [B])`, differentiable through the action. Returns (scalar, metrics).
    """
    action, log_prob = policy(params, key, obs)
    value = critics.apply(critic_params, obs, action).min(0)
    total = (temperature * log_prob - value).mean()
    return total, {"actor_loss": total, "entropy": -log_prob.mean()}


def temperature_loss(log_temperature: Array, entropy: Array, target: Array) -> tuple[Array, dict[str, Array]]:
    """Rises with the temperature while `entropy` [] is above `target` []. Returns (scalar, metrics).

    2018b, equation 18, with the logarithm in place of the temperature, whose steps are then relative ones.
    """
    return log_temperature * (entropy - target), {"temperature": jnp.exp(log_temperature)}


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    policies.bounds(spec)
    replay.check(config)


def make(
    env: Env, config: Config, actor: networks.Network | None = None, critic: networks.Network | None = None
) -> rollout.Agent:
    """A SAC agent; `actor` and `critic` replace the ones of `config`: `policies.gaussian` and `values.critic`.

    Raises:
        ValueError: discrete or unbounded actions, sizes that do not fit, dropout.
    """
    check(env.spec, config)
    bounds = policies.bounds(env.spec)
    head = policies.head(env.spec.action, "squashed_gaussian")
    actor = actor or policies.gaussian(env.spec, config.network)
    critics = values.ensemble(critic or values.critic(env.spec, config.network), 2)

    def policy(params, key, obs):
        """An action for each of `obs`, and its log-probability."""
        action, log_prob = head.distribution(*actor.apply(params, obs)).sample_and_log_prob(seed=key)
        return head.to_env(action), log_prob

    def remember(env_params, policy, state, key):
        """One step of `policy` in every environment."""
        cursor, buffer, _ = replay.collect(env, policy, state.cursor, state.buffer, env_params, key)
        return state._replace(cursor=cursor, buffer=buffer), None

    def init(key, hparams, env_params):
        actor_key, critic_key, env_key, warmup_key = random.split(key, 4)
        critic_params = critics.init(critic_key)
        params = actor.init(actor_key), critic_params, jnp.log(jnp.asarray(hparams.temperature, jnp.float32))
        actor_fit, critics_fit, temperature_fit = (fit.start(config.optimizer, each) for each in params)
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        buffer = replay.init(env.spec, cursor.obs, config.capacity)
        state = State(actor_fit, critics_fit, temperature_fit, critic_params, buffer, cursor)

        keys = random.split(warmup_key, config.warmup // config.num_envs)
        return lax.scan(partial(remember, env_params, policies.uniform(env.spec)), state, keys)[0]

    def gradient_step(hparams, state, draw):
        key, batch = draw
        target_key, actor_key = random.split(key)
        temperature = jnp.exp(state.temperature.params)
        next_action, next_log_prob = policy(state.fit.params, target_key, batch.next_obs)
        next_values = critics.apply(state.target_params, batch.next_obs, next_action)
        target = soft_target(batch.reward, batch.discount, next_values, next_log_prob, temperature)
        optimizer = config.optimizer(hparams.learning_rate)
        critics_fit, metrics = fit.step(optimizer, loss, state.critics, critics, batch, target)
        optimizer = config.optimizer(hparams.actor_learning_rate)
        for_actor = policy, critics, critics_fit.params, temperature, batch.obs, actor_key
        actor_fit, more = fit.step(optimizer, actor_loss, state.fit, *for_actor)
        optimizer = config.optimizer(hparams.temperature_learning_rate)
        target_entropy = (hparams.target_entropy + jnp.log(bounds.half_width)).sum()
        for_temperature = more["entropy"], target_entropy
        temperature_fit, most = fit.step(optimizer, temperature_loss, state.temperature, *for_temperature)
        target_params = values.follow(state.target_params, critics_fit.params, hparams.target_rate)
        fits = actor_fit, critics_fit, temperature_fit
        return State(*fits, target_params, state.buffer, state.cursor), {**metrics, **more, **most}

    def update(key, state, hparams, env_params):
        def collect_and_learn(state, key):
            collect_key, draw_key, noise_key = random.split(key, 3)

            def explore(key, obs):
                return policy(state.fit.params, key, obs)

            keys = random.split(collect_key, config.train_every)
            state, _ = lax.scan(partial(remember, env_params, explore), state, keys)
            sizes = config.batch_size, config.num_gradient_steps
            batches = replay.batches(draw_key, state.buffer, *sizes, discount=hparams.discount)
            draws = random.split(noise_key, config.num_gradient_steps), batches
            return lax.scan(partial(gradient_step, hparams), state, draws)

        state, metrics = lax.scan(collect_and_learn, state, random.split(key, config.num_steps // config.train_every))
        return state, {**jax.tree.map(jnp.mean, metrics), "return": state.cursor.last_return.mean()}

    def act(key, state, obs, greedy=False):
        distribution = head.distribution(*actor.apply(state.fit.params, obs))
        return head.to_env(distribution.mode() if greedy else distribution.sample(seed=key))

    def evaluate(key, state, hparams, env_params):
        def greedy(key, obs):
            return act(key, state, obs, greedy=True), None

        return rollout.evaluate(env, greedy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
