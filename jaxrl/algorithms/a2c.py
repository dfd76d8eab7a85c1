"""Synchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, algorithm S3, all actors in step).

Returns of up to T steps, or generalised advantages (Schulman et al. 2015, arXiv:1506.02438), and one gradient step per
path. Axes: T steps, N environments, B = T * N transitions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl import normalize, policies, returns, rollout
from jaxrl.core import checks, fit, networks
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 16  # environments acted in at once, N
    num_steps: int = 8  # steps in each of them per update, T
    network: networks.MLP | networks.CNN = networks.MLP()  # of actor and critic
    shared_torso: bool = False  # one torso for actor and critic
    distribution: policies.HeadName = "gaussian"  # of continuous actions
    normalize_advantages: bool = False  # to mean 0 and variance 1 in each update
    normalize_observations: bool = False  # by running statistics, to mean 0 and variance 1
    normalize_rewards: bool = False  # by the running standard deviation of discounted returns
    optimizer: fit.OptimizerFactory = fit.Optimizer("rmsprop", epsilon=1e-5)  # from a learning rate to a transformation
    eval_episodes: int = 16  # per evaluation
    eval_greedy: bool = False  # evaluate the likeliest actions instead of sampled ones

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 7e-4  # of the optimiser
    discount: Any = 0.99  # weight of a reward one step later
    gae_lambda: Any = 1.0  # 1 returns of up to T steps, 0 of one step
    value_coef: Any = 0.5  # weight of the critic's loss
    entropy_coef: Any = 0.01  # weight of the entropy bonus
    max_grad_norm: Any = 0.5  # bound on the global norm of the gradient


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: rollout.Cursor  # N unfinished episodes
    normalizer: normalize.Normalizer  # of observations and rewards


class Batch(NamedTuple):
    """What the loss needs of each transition, leaves [B, ...]."""

    obs: Array
    action: Array  # as sampled
    advantage: Array
    target: Array  # the value to regress on


def loss(
    params: Any, network: networks.Network, head: policies.Head, batch: Batch, hparams: Hyperparams
) -> tuple[Array, dict[str, Array]]:
    """Mean over B of policy loss, value loss and entropy bonus. Returns (scalar, metrics).

    Its gradient is that of algorithm S3, with half the squared error of the value and, as in section 4, the entropy.
    """
    outputs, value = network.apply(params, batch.obs)
    policy = head.distribution(*outputs)
    policy_loss = -(policy.log_prob(batch.action) * batch.advantage).mean()
    value_loss = 0.5 * jnp.square(value - batch.target).mean()
    entropy = policy.entropy().mean()
    total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
    return total, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}


def make_batch(path: rollout.Transition, params: Any, network: networks.Network, hparams: Hyperparams) -> Batch:
    """Normalised path [T, N, ...] to batch [B, ...] with generalised advantages."""
    _, value = network.apply(params, path.obs)
    _, next_value = network.apply(params, path.next_obs)
    advantage = returns.generalized_advantage(
        path.reward, value, next_value, path.terminated, path.truncated, hparams.discount, hparams.gae_lambda
    )
    batch = Batch(path.obs, path.extra, advantage, advantage + value)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    checks.choices(config)
    checks.at_least_one(num_envs=config.num_envs, num_steps=config.num_steps, eval_episodes=config.eval_episodes)
    if config.normalize_advantages:
        mend = "use more num_steps or num_envs, or normalize_advantages=False"
        checks.can_standardize(config.steps_per_update, "update", mend)
    if config.network.dropout:
        raise ValueError(
            f"dropout={config.network.dropout} would credit the actions of one random network to another: "
            "A2C needs dropout=0."
        )
    if config.normalize_observations:
        normalize.check(spec)


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """An A2C agent; `network` replaces the one of `config` (see `policies.actor_critic` for its outputs).

    Raises:
        ValueError: sizes below 1, dropout, or a network that does not suit the observations.
    """
    check(env.spec, config)
    head = policies.head(env.spec.action, config.distribution)
    if network is None:
        network = policies.actor_critic(env.spec, head, config.network, shared=config.shared_torso)

    def init(key, hparams, env_params):
        network_key, env_key = random.split(key)
        fitted = fit.start(config.optimizer, network.init(network_key))
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        which = {"observations": config.normalize_observations, "rewards": config.normalize_rewards}
        return State(fitted, cursor, normalize.start(env.spec.obs_shape, config.num_envs, **which))

    def policy(state, obs):
        outputs, _ = network.apply(state.fit.params, normalize.see(state.normalizer, obs))
        return head.distribution(*outputs)

    def act(key, state, obs, greedy=False):
        distribution = policy(state, obs)
        return head.to_env(distribution.mode() if greedy else distribution.sample(seed=key))

    def explore(state, key, obs):
        action = policy(state, obs).sample(seed=key)
        return head.to_env(action), action

    def update(key, state, hparams, env_params):
        cursor, path = rollout.collect(env, partial(explore, state), state.cursor, env_params, key, config.num_steps)
        path, normalizer = normalize.learn_from(state.normalizer, path, hparams.discount)
        batch = make_batch(path, state.fit.params, network, hparams)
        if config.normalize_advantages:
            batch = batch._replace(advantage=returns.standardize(batch.advantage))
        optimizer, arguments = config.optimizer(hparams.learning_rate), (network, head, batch, hparams)
        fitted, metrics = fit.step(optimizer, loss, state.fit, *arguments, max_grad_norm=hparams.max_grad_norm)
        return State(fitted, cursor, normalizer), {**metrics, "return": cursor.last_return.mean()}

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, config.eval_greedy), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
