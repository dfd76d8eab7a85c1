"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv:1910.07207, algorithm 1).

Where `sac` draws an action, expectations over all of them are exact here.
Axes: A actions, C = 2 critics, N environments, B samples.
"""

import math
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
    network: networks.MLP | networks.CNN = networks.MLP((64, 64), "relu")  # of the actor, and of each critic
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # of actor, critics and temperature
    eval_episodes: int = 16  # per evaluation
    eval_greedy: bool = False  # evaluate the likeliest actions instead of sampled ones

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
    target_entropy: Any = 0.5  # as a share of that of a uniform policy, log A


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # of the actor
    critics: fit.Fit
    temperature: fit.Fit  # of its logarithm []
    target_params: Any  # of the critics
    buffer: replay.Buffer
    cursor: rollout.Cursor  # N unfinished episodes


def soft_value(logits: Array, action_values: Array, temperature: Array) -> Array:
    """Mean over actions of value less temperature times log-probability: [B] (equation 10).

    From `logits` [B, A] of the policy and `action_values` [C, B, A], of which the lower count.
    """
    log_probs = jax.nn.log_softmax(logits)
    return (jnp.exp(log_probs) * (action_values.min(0) - temperature * log_probs)).sum(-1)


def loss(params: Any, critics: networks.Network, batch: replay.Batch, target: Array) -> tuple[Array, dict[str, Array]]:
    """Half the squared error of each critic's values against `target` [B], summed over critics and mean over B.

    Returns (scalar, metrics).
    """
    value = values.chosen(critics.apply(params, batch.obs), batch.action)
    total = (batch.weight * 0.5 * jnp.square(value - target)).mean(-1).sum()
    return total, {"critic_loss": total, "value": value.mean()}


def actor_loss(
    params: Any, actor: networks.Network, action_values: Array, temperature: Array, obs: Array
) -> tuple[Array, dict[str, Array]]:
    """Less the mean soft value of `obs`, from `action_values` [C, B, A] (equation 12). Returns (scalar, metrics)."""
    logits = actor.apply(params, obs)
    total = -soft_value(logits, action_values, temperature).mean()
    log_probs = jax.nn.log_softmax(logits)
    return total, {"actor_loss": total, "entropy": -(jnp.exp(log_probs) * log_probs).sum(-1).mean()}


def temperature_loss(log_temperature: Array, entropy: Array, target: Array) -> tuple[Array, dict[str, Array]]:
    """Rises with the temperature while `entropy` [] is above `target` []. Returns (scalar, metrics).

    Equation 11, with the logarithm in place of the temperature, whose steps are then relative ones.
    """
    return log_temperature * (entropy - target), {"temperature": jnp.exp(log_temperature)}


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    replay.check(config)


def make(
    env: Env, config: Config, actor: networks.Network | None = None, critic: networks.Network | None = None
) -> rollout.Agent:
    """A SAC agent for discrete actions; `actor` and `critic` replace the ones of `config`, both obs -> [..., A].

    Raises:
        ValueError: continuous actions, sizes that do not fit, dropout, or a network that does not suit the
            observations.
    """
    num_actions = values.num_actions(env.spec)
    check(env.spec, config)
    actor = actor or values.network(env.spec, config.network, 0.01)
    critics = values.ensemble(critic or values.network(env.spec, config.network), 2)

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

    def gradient_step(hparams, state, batch):
        temperature = jnp.exp(state.temperature.params)
        next_values = critics.apply(state.target_params, batch.next_obs)
        next_value = soft_value(actor.apply(state.fit.params, batch.next_obs), next_values, temperature)
        target = batch.reward + batch.discount * next_value
        optimizer = config.optimizer(hparams.learning_rate)
        critics_fit, metrics = fit.step(optimizer, loss, state.critics, critics, batch, target)
        optimizer = config.optimizer(hparams.actor_learning_rate)
        for_actor = actor, critics.apply(critics_fit.params, batch.obs), temperature, batch.obs
        actor_fit, more = fit.step(optimizer, actor_loss, state.fit, *for_actor)
        optimizer = config.optimizer(hparams.temperature_learning_rate)
        for_temperature = more["entropy"], hparams.target_entropy * math.log(num_actions)
        temperature_fit, most = fit.step(optimizer, temperature_loss, state.temperature, *for_temperature)
        target_params = values.follow(state.target_params, critics_fit.params, hparams.target_rate)
        fits = actor_fit, critics_fit, temperature_fit
        return State(*fits, target_params, state.buffer, state.cursor), {**metrics, **more, **most}

    def update(key, state, hparams, env_params):
        def collect_and_learn(state, key):
            collect_key, draw_key = random.split(key)

            def explore(key, obs):
                return act(key, state, obs), None

            keys = random.split(collect_key, config.train_every)
            state, _ = lax.scan(partial(remember, env_params, explore), state, keys)
            sizes = config.batch_size, config.num_gradient_steps
            batches = replay.batches(draw_key, state.buffer, *sizes, discount=hparams.discount)
            return lax.scan(partial(gradient_step, hparams), state, batches)

        state, metrics = lax.scan(collect_and_learn, state, random.split(key, config.num_steps // config.train_every))
        return state, {**jax.tree.map(jnp.mean, metrics), "return": state.cursor.last_return.mean()}

    def act(key, state, obs, greedy=False):
        logits = actor.apply(state.fit.params, obs)
        return logits.argmax(-1) if greedy else random.categorical(key, logits)

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, config.eval_greedy), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
