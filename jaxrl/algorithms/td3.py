"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477, algorithm 1).

Axes: C = 2 critics, N environments, B samples. Noise is measured in half widths of the action space.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import policies, replay, rollout, values
from jaxrl.core import checks, fit, networks
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 1  # environments acted in at once, N
    num_steps: int = 50  # steps in each of them per update
    train_every: int = 2  # steps in each of them between gradient steps
    num_gradient_steps: int = 2  # taken then, of the critics
    policy_delay: int = 2  # of them for each one of the actor and the targets
    batch_size: int = 256  # samples of replay per gradient step, B
    capacity: int = 100_000  # transitions that replay holds
    warmup: int = 1000  # environment steps at random before the first update, beside those of the run
    network: networks.MLP = networks.MLP((64, 64), "relu")  # of the actor, and of each critic
    n_step: int = 1  # rewards summed before the bootstrap
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # of actor and critics
    eval_episodes: int = 16  # per evaluation, without noise

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the critics
    actor_learning_rate: Any = 1e-3  # of the actor
    discount: Any = 0.99  # weight of a reward one step later
    target_rate: Any = 0.005  # of the way to the online networks that the targets go at each step of the actor
    noise: Any = 0.1  # standard deviation of the noise on actions, in half widths
    target_noise: Any = 0.2  # the same in targets
    target_noise_clip: Any = 0.5  # bound on it


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # of the actor
    critics: fit.Fit
    target_params: tuple[Any, Any]  # of actor and critics
    buffer: replay.Buffer
    cursor: rollout.Cursor  # N unfinished episodes
    noise: Array  # [] of the last update, for `act`


def disturb(key: Array, action: Array, scale: Any, clip: Any, bounds: policies.Bounds) -> Array:
    """`action` [B, ...] plus noise of standard deviation `scale` [], cut at `clip` []; the sum is cut at the bounds.

    Algorithm 1, the smoothing of the targets. With an infinite `clip`, exploration.
    """
    noise = jnp.clip(scale * random.normal(key, action.shape), -clip, clip)
    return jnp.clip(action + bounds.half_width * noise, bounds.low, bounds.high)


def clipped_double_q_target(reward: Array, discount: Array, next_values: Array) -> Array:
    """Reward plus discount times the lower of the critics' next values [C, B]: [B] (equation 10)."""
    return reward + discount * next_values.min(0)


def loss(params: Any, critics: networks.Network, batch: replay.Batch, target: Array) -> tuple[Array, dict[str, Array]]:
    """Half the squared error of each critic's values against `target` [B], summed over critics and mean over B.

    Returns (scalar, metrics).
    """
    value = critics.apply(params, batch.obs, batch.action)
    total = (batch.weight * 0.5 * jnp.square(value - target)).mean(-1).sum()
    return total, {"critic_loss": total, "value": value.mean()}


def actor_loss(
    params: Any, actor: networks.Network, critic: networks.Network, critic_params: Any, obs: Array
) -> tuple[Array, dict[str, Array]]:
    """Less the mean value of the actor's own actions, by the first critic. Returns (scalar, metrics)."""
    total = -critic.apply(critic_params, obs, actor.apply(params, obs)).mean()
    return total, {"actor_loss": total}


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    policies.bounds(spec)
    replay.check(config)
    checks.at_least_one(policy_delay=config.policy_delay)
    checks.divides(config.policy_delay, config.num_gradient_steps, "policy_delay", "num_gradient_steps")


def make(
    env: Env, config: Config, actor: networks.Network | None = None, critic: networks.Network | None = None
) -> rollout.Agent:
    """A TD3 agent; `actor` and `critic` replace the ones of `config`: `policies.deterministic`, `values.critic`.

    Raises:
        ValueError: discrete or unbounded actions, sizes that do not fit, dropout.
    """
    check(env.spec, config)
    bounds = policies.bounds(env.spec)
    actor = actor or policies.deterministic(env.spec, config.network)
    critic = critic or values.critic(env.spec, config.network)
    critics = values.ensemble(critic, 2)

    def remember(env_params, policy, state, key):
        """One step of `policy` in every environment."""
        cursor, buffer, _ = replay.collect(env, policy, state.cursor, state.buffer, env_params, key)
        return state._replace(cursor=cursor, buffer=buffer), None

    def init(key, hparams, env_params):
        actor_key, critic_key, env_key, warmup_key = random.split(key, 4)
        params = actor.init(actor_key), critics.init(critic_key)
        actor_fit, critics_fit = (fit.start(config.optimizer, each) for each in params)
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        buffer = replay.init(env.spec, cursor.obs, config.capacity)
        state = State(actor_fit, critics_fit, params, buffer, cursor, jnp.asarray(hparams.noise, jnp.float32))

        keys = random.split(warmup_key, config.warmup // config.num_envs)
        return lax.scan(partial(remember, env_params, policies.uniform(env.spec)), state, keys)[0]

    def explore(params, scale, key, obs):
        return disturb(key, actor.apply(params, obs), scale, jnp.inf, bounds), None

    def critics_step(optimizer, hparams, state, draw):
        key, batch = draw
        target_actor, target_critics = state.target_params
        action = actor.apply(target_actor, batch.next_obs)
        action = disturb(key, action, hparams.target_noise, hparams.target_noise_clip, bounds)
        next_values = critics.apply(target_critics, batch.next_obs, action)
        target = clipped_double_q_target(batch.reward, batch.discount, next_values)
        fitted, metrics = fit.step(optimizer, loss, state.critics, critics, batch, target)
        return state._replace(critics=fitted), metrics

    def gradient_steps(hparams, state, draws):
        """`policy_delay` steps of the critics, then one of the actor on the last batch, and of the targets."""
        optimizer = config.optimizer(hparams.learning_rate)
        state, metrics = lax.scan(partial(critics_step, optimizer, hparams), state, draws)
        _, batches = draws
        first = jax.tree.map(lambda leaf: leaf[0], state.critics.params)
        optimizer = config.optimizer(hparams.actor_learning_rate)
        fitted, more = fit.step(optimizer, actor_loss, state.fit, actor, critic, first, batches.obs[-1])
        params = fitted.params, state.critics.params
        target_params = values.follow(state.target_params, params, hparams.target_rate)
        return state._replace(fit=fitted, target_params=target_params), {**jax.tree.map(jnp.mean, metrics), **more}

    def update(key, state, hparams, env_params):
        def collect_and_learn(state, key):
            collect_key, draw_key, noise_key = random.split(key, 3)
            policy = partial(explore, state.fit.params, hparams.noise)
            keys = random.split(collect_key, config.train_every)
            state, _ = lax.scan(partial(remember, env_params, policy), state, keys)
            sizes = config.batch_size, config.num_gradient_steps
            batches = replay.batches(draw_key, state.buffer, *sizes, discount=hparams.discount, n_step=config.n_step)
            draws = random.split(noise_key, config.num_gradient_steps), batches
            draws = jax.tree.map(lambda leaf: leaf.reshape(-1, config.policy_delay, *leaf.shape[1:]), draws)
            return lax.scan(partial(gradient_steps, hparams), state, draws)

        state, metrics = lax.scan(collect_and_learn, state, random.split(key, config.num_steps // config.train_every))
        metrics = {**jax.tree.map(jnp.mean, metrics), "return": state.cursor.last_return.mean()}
        return state._replace(noise=jnp.asarray(hparams.noise, jnp.float32)), metrics

    def act(key, state, obs, greedy=False):
        return actor.apply(state.fit.params, obs) if greedy else explore(state.fit.params, state.noise, key, obs)[0]

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            action = actor.apply(state.fit.params, obs)
            return action, critics.apply(state.critics.params, obs, action).min(0)

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes, hparams.discount)

    return rollout.Agent(init, update, evaluate, act)
