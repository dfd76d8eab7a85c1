"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971, algorithm 1).

Axes: N environments, B samples. Noise is measured in half widths of the action space.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import exploration, policies, replay, rollout, values
from jaxrl.core import fit, networks
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 1  # environments acted in at once, N
    num_steps: int = 50  # steps in each of them per update
    train_every: int = 1  # steps in each of them between gradient steps
    num_gradient_steps: int = 1  # taken then, of critic and actor
    batch_size: int = 256  # samples of replay per gradient step, B
    capacity: int = 100_000  # transitions that replay holds
    warmup: int = 1000  # environment steps at random before the first update, beside those of the run
    network: networks.MLP = networks.MLP((64, 64), "relu")  # of the actor, and of the critic
    n_step: int = 1  # rewards summed before the bootstrap
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # of actor and critic
    eval_episodes: int = 16  # per evaluation, without noise

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the critic
    actor_learning_rate: Any = 1e-3  # of the actor
    discount: Any = 0.99  # weight of a reward one step later
    target_rate: Any = 0.005  # of the way to the online networks that the targets go at each gradient step
    noise: Any = 0.1  # standard deviation of the noise on actions, in half widths
    noise_reversion: Any = 1.0  # 1: Gaussian noise at each step anew; less: an Ornstein-Uhlenbeck process


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # of the actor
    critic: fit.Fit
    target_params: tuple[Any, Any]  # of actor and critic
    buffer: replay.Buffer
    cursor: rollout.Cursor  # N unfinished episodes
    noise: Array  # [N, ...] on the actions of these episodes
    noise_scale: Array  # [] of the last update, for `act`


def loss(params: Any, critic: networks.Network, batch: replay.Batch, target: Array) -> tuple[Array, dict[str, Array]]:
    """Half the squared error of the critic's values against `target` [B], mean over B. Returns (scalar, metrics)."""
    value = critic.apply(params, batch.obs, batch.action)
    total = (batch.weight * 0.5 * jnp.square(value - target)).mean()
    return total, {"critic_loss": total, "value": value.mean()}


def actor_loss(
    params: Any, actor: networks.Network, critic: networks.Network, critic_params: Any, obs: Array
) -> tuple[Array, dict[str, Array]]:
    """Less the mean value of the actor's own actions; its gradient is the deterministic policy gradient, equation 6.

    Returns (scalar, metrics).
    """
    total = -critic.apply(critic_params, obs, actor.apply(params, obs)).mean()
    return total, {"actor_loss": total}


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    policies.bounds(spec)
    replay.check(config)


def make(
    env: Env, config: Config, actor: networks.Network | None = None, critic: networks.Network | None = None
) -> rollout.Agent:
    """A DDPG agent; `actor` and `critic` replace the ones of `config`: `policies.deterministic`, `values.critic`.

    Raises:
        ValueError: discrete or unbounded actions, sizes that do not fit, dropout.
    """
    check(env.spec, config)
    bounds = policies.bounds(env.spec)
    actor = actor or policies.deterministic(env.spec, config.network)
    critic = critic or values.critic(env.spec, config.network)

    def remember(env_params, policy, state, key):
        """One step of `policy` in every environment."""
        cursor, buffer, step = replay.collect(env, policy, state.cursor, state.buffer, env_params, key)
        done = (step.terminated | step.truncated).reshape(-1, *[1] * bounds.low.ndim)
        return state._replace(cursor=cursor, buffer=buffer, noise=jnp.where(done, 0.0, step.extra)), None

    def init(key, hparams, env_params):
        actor_key, critic_key, env_key, warmup_key = random.split(key, 4)
        params = actor.init(actor_key), critic.init(critic_key)
        actor_fit, critic_fit = (fit.start(config.optimizer, each) for each in params)
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        buffer = replay.init(env.spec, cursor.obs, config.capacity)
        noise = jnp.zeros((config.num_envs, *bounds.low.shape))
        state = State(actor_fit, critic_fit, params, buffer, cursor, noise, jnp.asarray(hparams.noise, jnp.float32))

        def policy(key, obs):
            return random.uniform(key, noise.shape, minval=bounds.low, maxval=bounds.high), noise

        keys = random.split(warmup_key, config.warmup // config.num_envs)
        return lax.scan(partial(remember, env_params, policy), state, keys)[0]

    def disturb(action, noise):
        return jnp.clip(action + bounds.half_width * noise, bounds.low, bounds.high)

    def gradient_step(hparams, state, batch):
        target_actor, target_critic = state.target_params
        next_action = actor.apply(target_actor, batch.next_obs)
        target = batch.reward + batch.discount * critic.apply(target_critic, batch.next_obs, next_action)
        optimizer = config.optimizer(hparams.learning_rate)
        critic_fit, metrics = fit.step(optimizer, loss, state.critic, critic, batch, target)
        optimizer = config.optimizer(hparams.actor_learning_rate)
        actor_fit, more = fit.step(optimizer, actor_loss, state.fit, actor, critic, critic_fit.params, batch.obs)
        params = actor_fit.params, critic_fit.params
        target_params = values.follow(state.target_params, params, hparams.target_rate)
        return state._replace(fit=actor_fit, critic=critic_fit, target_params=target_params), {**metrics, **more}

    def update(key, state, hparams, env_params):
        def collect_and_learn(state, key):
            collect_key, learn_key = random.split(key)

            def explore(state, key):
                def policy(key, obs):
                    noise = exploration.ornstein_uhlenbeck(key, state.noise, hparams.noise_reversion, hparams.noise)
                    return disturb(actor.apply(state.fit.params, obs), noise), noise

                return remember(env_params, policy, state, key)

            state, _ = lax.scan(explore, state, random.split(collect_key, config.train_every))
            sizes = config.batch_size, config.num_gradient_steps
            batches = replay.batches(learn_key, state.buffer, *sizes, discount=hparams.discount, n_step=config.n_step)
            return lax.scan(partial(gradient_step, hparams), state, batches)

        state, metrics = lax.scan(collect_and_learn, state, random.split(key, config.num_steps // config.train_every))
        metrics = {**jax.tree.map(jnp.mean, metrics), "return": state.cursor.last_return.mean()}
        return state._replace(noise_scale=jnp.asarray(hparams.noise, jnp.float32)), metrics

    def act(key, state, obs, greedy=False):
        action = actor.apply(state.fit.params, obs)
        return action if greedy else disturb(action, state.noise_scale * random.normal(key, action.shape))

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            action = actor.apply(state.fit.params, obs)
            return action, critic.apply(state.critic.params, obs, action)

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes, hparams.discount)

    return rollout.Agent(init, update, evaluate, act)
