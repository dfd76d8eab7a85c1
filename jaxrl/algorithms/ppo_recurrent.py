"""Proximal policy optimisation of a policy with a memory, an LSTM or a GRU, for tasks that do not show their state.

Schulman et al. 2017 (arXiv:1707.06347, equations 7 and 9) with gradients through the T steps of a path (Mnih et al.
2016, arXiv:1602.01783, section 5.1). The memory is blank at the start of an episode and carried from path to path;
updates replay whole paths from the memory stored at their start. Axes: T steps, N environments.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, random
from jax import numpy as jnp

from jaxrl import normalize, policies, returns, rollout, surrogates, wrappers
from jaxrl.core import checks, fit, recurrent
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 16  # environments acted in at once, N
    num_steps: int = 64  # steps in each of them per update, T: no gradient reaches further back
    num_epochs: int = 4  # passes over the collected paths
    num_minibatches: int = 4  # gradient steps per pass, each on the paths of as many environments
    network: recurrent.Recurrent = recurrent.Recurrent()  # of actor and critic, each with its own
    distribution: policies.HeadName = "gaussian"  # of continuous actions
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

    learning_rate: Any = 1e-3  # of the optimiser
    discount: Any = 0.99  # weight of a reward one step later
    gae_lambda: Any = 0.95  # 0 one-step advantages, 1 Monte Carlo
    clip: Any = 0.2  # bound on the change of a probability ratio
    value_clip: Any = jnp.inf  # bound on the change of a value estimate
    value_coef: Any = 0.5  # weight of the critic's loss
    entropy_coef: Any = 0.01  # weight of the entropy bonus
    max_grad_norm: Any = 0.5  # bound on the global norm of the gradient


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: rollout.Cursor  # N unfinished episodes, the memory in each beside its observation
    normalizer: normalize.Normalizer  # of observations and rewards


class Batch(NamedTuple):
    """What the loss needs of each path, leaves [N, T, ...] but for the memory's [N, ...]."""

    memory: recurrent.Memory  # before the first step
    obs: Array
    started: Array  # bool: the first step of an episode
    action: Array  # as sampled
    log_prob: Array  # of the action under the policy that took it
    value: Array  # of the observation when it was collected
    advantage: Array
    target: Array  # the value to regress on


def loss(
    params: Any, network: recurrent.RecurrentNetwork, head: policies.Head, batch: Batch, hparams: Hyperparams
) -> tuple[Array, dict[str, Array]]:
    """Equation 9, negated: mean of policy loss, value loss and entropy bonus. Returns (scalar, metrics)."""
    memory, *paths = batch
    obs, started, action, old_log_prob, old_value, advantage, target = (leaf.swapaxes(0, 1) for leaf in paths)
    _, (outputs, value) = network.scan(params, memory, obs, started)
    policy = head.distribution(*outputs)
    log_ratio = policy.log_prob(action) - old_log_prob
    policy_loss = -surrogates.clipped_surrogate(log_ratio, advantage, hparams.clip).mean()
    value_loss = surrogates.clipped_value_loss(value, old_value, target, hparams.value_clip).mean()
    entropy = policy.entropy().mean()
    total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
    return total, {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl": (jnp.expm1(log_ratio) - log_ratio).mean(),
        "clip_fraction": (jnp.abs(jnp.expm1(log_ratio)) > hparams.clip).mean(),
    }


def make_batch(
    path: rollout.Transition,
    memory: recurrent.Memory,
    next_memory: recurrent.Memory,
    params: Any,
    network: recurrent.RecurrentNetwork,
    hparams: Hyperparams,
) -> Batch:
    """Normalised path [T, N, ...] to batch [N, T, ...] with generalised advantages.

    `memory` and `next_memory` [T, N, ...] are those before and after each step. The value of a successor is read with
    the memory after the step, also where the episode was cut there.
    """
    action, log_prob, value = path.extra
    _, (_, next_value) = network.step(params, next_memory, path.next_obs)
    advantage = returns.generalized_advantage(
        path.reward, value, next_value, path.terminated, path.truncated, hparams.discount, hparams.gae_lambda
    )
    # The memory of the first step is stored as it was, blank or not.
    started = jnp.roll(path.terminated | path.truncated, 1, axis=0).at[0].set(False)
    paths = path.obs, started, action, log_prob, value, advantage, advantage + value
    return Batch(jax.tree.map(lambda leaf: leaf[0], memory), *(leaf.swapaxes(0, 1) for leaf in paths))


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
    checks.divides(config.num_minibatches, config.num_envs, "num_minibatches", "num_envs")
    if config.normalize_advantages:
        mend = "use more num_steps, or normalize_advantages=False"
        checks.can_standardize(config.steps_per_update // config.num_minibatches, "minibatch", mend)
    if config.network.torso.dropout:
        raise ValueError(
            f"dropout={config.network.torso.dropout} would compare the policy that acted with another random network: "
            "PPO needs dropout=0."
        )
    if config.normalize_observations:
        normalize.check(spec)


def make(env: Env, config: Config, network: recurrent.RecurrentNetwork | None = None) -> rollout.Agent:
    """A recurrent PPO agent; `network` replaces the one of `config` (see `policies.recurrent_actor_critic`).

    Raises:
        ValueError: sizes that do not fit, dropout, or a network that does not suit the observations.
    """
    check(env.spec, config)
    head = policies.head(env.spec.action, config.distribution)
    if network is None:
        network = policies.recurrent_actor_critic(env.spec, head, config.network)
    remembering = wrappers.with_memory(env, network.memory())

    def init(key, hparams, env_params):
        network_key, env_key = random.split(key)
        fitted = fit.start(config.optimizer, network.init(network_key))
        cursor = rollout.start(remembering, env_key, config.num_envs, env_params)
        which = {"observations": config.normalize_observations, "rewards": config.normalize_rewards}
        return State(fitted, cursor, normalize.start(env.spec.obs_shape, config.num_envs, **which))

    def policy(state, seen):
        obs, memory = seen
        memory, (outputs, value) = network.step(state.fit.params, memory, normalize.see(state.normalizer, obs))
        return head.distribution(*outputs), value, memory

    def act(key, state, seen, greedy=False):
        distribution, _, memory = policy(state, seen)
        return head.to_env(distribution.mode() if greedy else distribution.sample(seed=key)), memory

    def explore(state, key, seen):
        distribution, value, memory = policy(state, seen)
        action = distribution.sample(seed=key)
        return (head.to_env(action), memory), (action, distribution.log_prob(action), value)

    def update(key, state, hparams, env_params):
        collect_key, epochs_key = random.split(key)
        cursor, path = rollout.collect(
            remembering, partial(explore, state), state.cursor, env_params, collect_key, config.num_steps
        )
        (obs, memory), (next_obs, next_memory) = path.obs, path.next_obs
        path = path._replace(obs=obs, next_obs=next_obs)
        path, normalizer = normalize.learn_from(state.normalizer, path, hparams.discount)
        batch = make_batch(path, memory, next_memory, state.fit.params, network, hparams)
        optimizer = config.optimizer(hparams.learning_rate)

        def step(fitted, minibatch):
            if config.normalize_advantages:
                minibatch = minibatch._replace(advantage=returns.standardize(minibatch.advantage))
            arguments = network, head, minibatch, hparams
            return fit.step(optimizer, loss, fitted, *arguments, max_grad_norm=hparams.max_grad_norm)

        fitted, metrics = fit.epochs(epochs_key, step, state.fit, batch, config.num_epochs, config.num_minibatches)
        return State(fitted, cursor, normalizer), {**metrics, "return": cursor.last_return.mean()}

    def evaluate(key, state, hparams, env_params):
        def policy(key, seen):
            return act(key, state, seen, config.eval_greedy), None

        return rollout.evaluate(remembering, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act, network.memory)
