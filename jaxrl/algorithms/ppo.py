"""Proximal policy optimisation with a clipped ratio (Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9).

Or with a penalty on the divergence from the old policy, whose weight adapts (equation 8).
Axes: T steps, N environments, B = T * N transitions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl import normalize, policies, returns, rollout, surrogates
from jaxrl.core import checks, fit, networks
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 16  # environments acted in at once, N
    num_steps: int = 64  # steps in each of them per update, T
    num_epochs: int = 4  # passes over the collected transitions
    num_minibatches: int = 8  # gradient steps per pass
    network: networks.MLP | networks.CNN = networks.MLP()  # of actor and critic
    shared_torso: bool = False  # one torso for actor and critic
    distribution: policies.HeadName = "gaussian"  # of continuous actions
    surrogate: Literal["clip", "kl"] = "clip"  # clip ratios, or penalise the divergence from the old policy
    normalize_advantages: bool = True  # to mean 0 and variance 1 in each minibatch
    normalize_observations: bool = False  # by running statistics, to mean 0 and variance 1
    normalize_rewards: bool = False  # by the running standard deviation of discounted returns
    optimizer: fit.OptimizerFactory = fit.Optimizer(epsilon=1e-5)  # from a learning rate to a transformation
    eval_episodes: int = 16  # per evaluation
    eval_greedy: bool = False  # evaluate the likeliest actions instead of sampled ones

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 5e-4  # of the optimiser
    discount: Any = 0.99  # weight of a reward one step later
    gae_lambda: Any = 0.95  # 0 one-step advantages, 1 Monte Carlo
    clip: Any = 0.2  # bound on the change of a probability ratio
    target_kl: Any = 0.01  # nats from old to new policy that the penalty aims at, if surrogate is "kl"
    value_clip: Any = jnp.inf  # bound on the change of a value estimate
    value_coef: Any = 0.5  # weight of the critic's loss
    entropy_coef: Any = 0.01  # weight of the entropy bonus
    max_grad_norm: Any = 0.5  # bound on the global norm of the gradient


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: rollout.Cursor  # N unfinished episodes
    normalizer: normalize.Normalizer  # of observations and rewards
    kl_coef: Array | None  # [] weight of the penalty, None without one


class Batch(NamedTuple):
    """What the loss needs of each transition, leaves [B, ...]."""

    obs: Array
    action: Array  # as sampled
    log_prob: Array  # of the action under the policy that took it
    value: Array  # of the observation when it was collected
    advantage: Array
    target: Array  # the value to regress on
    outputs: Any = None  # of the actor when it was collected, for a divergence from it


def loss(
    params: Any,
    network: networks.Network,
    head: policies.Head,
    batch: Batch,
    hparams: Hyperparams,
    kl_coef: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Equation 9, negated: mean over B of policy loss, value loss and entropy bonus. Returns (scalar, metrics).

    The policy loss is that of equation 7 or, with the weight `kl_coef` [] of the penalty, of equation 8.
    """
    outputs, value = network.apply(params, batch.obs)
    policy = head.distribution(*outputs)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    if kl_coef is None:
        surrogate = surrogates.clipped_surrogate(log_ratio, batch.advantage, hparams.clip)
    else:
        kl = head.distribution(*batch.outputs).kl_divergence(policy)
        surrogate = surrogates.penalized_surrogate(log_ratio, batch.advantage, kl, kl_coef)
    policy_loss = -surrogate.mean()
    value_loss = surrogates.clipped_value_loss(value, batch.value, batch.target, hparams.value_clip).mean()
    entropy = policy.entropy().mean()
    total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
    return total, {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": (jnp.expm1(log_ratio) - log_ratio).mean(),
        "clip_fraction": (jnp.abs(jnp.expm1(log_ratio)) > hparams.clip).mean(),
    }


def divergence(params: Any, network: networks.Network, head: policies.Head, batch: Batch) -> Array:
    """Mean over B of the divergence [] in nats from the policy that collected the batch to that of `params`."""
    outputs, _ = network.apply(params, batch.obs)
    return head.distribution(*batch.outputs).kl_divergence(head.distribution(*outputs)).mean()


def make_batch(path: rollout.Transition, params: Any, network: networks.Network, hparams: Hyperparams) -> Batch:
    """Normalised path [T, N, ...] to batch [B, ...] with generalised advantages."""
    _, value = network.apply(params, path.obs)
    _, next_value = network.apply(params, path.next_obs)
    advantage = returns.generalized_advantage(
        path.reward, value, next_value, path.terminated, path.truncated, hparams.discount, hparams.gae_lambda
    )
    action, log_prob = path.extra
    batch = Batch(path.obs, action, log_prob, value, advantage, advantage + value)
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
    if config.normalize_advantages:
        mend = f"use num_minibatches={max(config.steps_per_update // 2, 1)} or fewer, or normalize_advantages=False"
        checks.can_standardize(config.steps_per_update // config.num_minibatches, "minibatch", mend)
    if config.network.dropout:
        raise ValueError(
            f"dropout={config.network.dropout} would compare the policy that acted with another random network: "
            "PPO needs dropout=0."
        )
    if config.normalize_observations:
        normalize.check(spec)


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """A PPO agent; `network` replaces the one of `config` (see `policies.actor_critic` for its outputs).

    Raises:
        ValueError: sizes that do not fit, dropout, or a network that does not suit the observations.
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
        normalizer = normalize.start(env.spec.obs_shape, config.num_envs, **which)
        return State(fitted, cursor, normalizer, jnp.float32(1.0) if config.surrogate == "kl" else None)

    def policy(state, obs):
        outputs, _ = network.apply(state.fit.params, normalize.see(state.normalizer, obs))
        return head.distribution(*outputs)

    def act(key, state, obs, greedy=False):
        distribution = policy(state, obs)
        return head.to_env(distribution.mode() if greedy else distribution.sample(seed=key))

    def explore(state, key, obs):
        distribution = policy(state, obs)
        action = distribution.sample(seed=key)
        return head.to_env(action), (action, distribution.log_prob(action))

    def update(key, state, hparams, env_params):
        collect_key, epochs_key = random.split(key)
        cursor, path = rollout.collect(
            env, partial(explore, state), state.cursor, env_params, collect_key, config.num_steps
        )
        path, normalizer = normalize.learn_from(state.normalizer, path, hparams.discount)
        batch = make_batch(path, state.fit.params, network, hparams)
        if config.surrogate == "kl":
            batch = batch._replace(outputs=jax.vmap(lambda obs: network.apply(state.fit.params, obs)[0])(batch.obs))
        optimizer = config.optimizer(hparams.learning_rate)

        def step(fitted, minibatch):
            if config.normalize_advantages:
                minibatch = minibatch._replace(advantage=returns.standardize(minibatch.advantage))
            arguments = network, head, minibatch, hparams, state.kl_coef
            return fit.step(optimizer, loss, fitted, *arguments, max_grad_norm=hparams.max_grad_norm)

        fitted, metrics = fit.epochs(epochs_key, step, state.fit, batch, config.num_epochs, config.num_minibatches)
        metrics = {**metrics, "return": cursor.last_return.mean()}
        if config.surrogate == "clip":
            return State(fitted, cursor, normalizer, None), metrics
        kl = divergence(fitted.params, network, head, batch)
        kl_coef = surrogates.adapt_kl_coef(state.kl_coef, kl, hparams.target_kl)
        return State(fitted, cursor, normalizer, kl_coef), {**metrics, "kl": kl, "kl_coef": state.kl_coef}

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, config.eval_greedy), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
