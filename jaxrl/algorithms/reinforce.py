"""REINFORCE: the score of each action times the return that followed it (Williams 1992, doi:10.1007/BF00992696).

Sutton and Barto 2018, equation 13.8, and 13.11 with a baseline: a constant or the value of the state.
What is estimated is the gradient of the expected return of an episode, undiscounted, or discounted and with
`weight_by_discount`. Discounted without these weights, as is usual, actions are credited with what follows soon, but
late ones count like early ones: that is the gradient of no objective (Nota and Thomas 2020, arXiv:1906.07073).
Axes: T steps, N environments, B = T * N steps.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import policies, returns, rollout
from jaxrl.core import checks, fit, networks
from jaxrl.envs import Env, Spec

Baseline = Literal["none", "constant", "value"]


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 2  # environments acted in at once, N
    num_steps: int = 1000  # steps in each of them per update, T: at least the time limit of an episode
    baseline: Baseline = "value"  # taken from the returns: nothing, their running mean, or a learned value
    weight_by_discount: bool = False  # step t of an episode counts discount**t: the gradient of the discounted return
    num_epochs: int = 4  # of the learned value: passes over the collected steps
    num_minibatches: int = 8  # and its gradient steps per pass
    network: networks.MLP | networks.CNN = networks.MLP()  # of actor and critic
    distribution: policies.HeadName = "gaussian"  # of continuous actions
    optimizer: fit.OptimizerFactory = fit.Optimizer(epsilon=1e-5)  # from a learning rate to a transformation
    eval_episodes: int = 16  # per evaluation
    eval_greedy: bool = False  # evaluate the likeliest actions instead of sampled ones

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 5e-3  # of the policy
    value_learning_rate: Any = 3e-3  # of the value
    discount: Any = 0.99  # weight of a reward one step later
    baseline_rate: Any = 0.5  # of the way that the constant baseline goes to the mean return of each update
    max_grad_norm: Any = jnp.inf  # bound on the global norm of the policy's gradient


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # policy and critic; the state of the optimiser is the policy's
    critic_opt_state: Any  # of the learned value
    mean_return: Array  # [] running mean of the returns of earlier updates: the constant baseline


class Batch(NamedTuple):
    """What the loss needs of each step, leaves [B, ...]."""

    obs: Array
    action: Array  # as sampled
    to_go: Array  # the return from there
    advantage: Array  # that less the baseline
    whole: Array  # bool: of an episode that counts


def whole_episodes(done: Array, max_steps: int) -> tuple[Array, Array]:
    """Which steps count, bool [T, N], and how many came before each in its episode, int32 [T, N].

    `done` [T, N] is true where an episode ended, and every path begins with a new one. An episode counts if it began
    with at least `max_steps` of the path to go: long enough to see its end, and known before its first action. To take
    all that happen to end within the path would favour short ones.
    """
    length = done.shape[0]
    time = jnp.arange(length)[:, None]
    begins = jnp.roll(done, 1, axis=0)  # whatever comes round to the first step, which begins an episode: its time is 0
    first = lax.cummax(jnp.where(begins, time, 0), axis=0)
    return first <= length - max_steps, time - first


def make_batch(
    path: rollout.Transition,
    state: State,
    network: networks.Network,
    config: Config,
    max_steps: int,
    hparams: Hyperparams,
) -> Batch:
    """Path [T, N, ...] to batch [B, ...].

    What a time limit cuts off is estimated by the learned value if there is one. Without, the return within the limit
    is all there is: then it is that one whose gradient is estimated.
    """
    done = path.terminated | path.truncated
    whole, time = whole_episodes(done, max_steps)
    value = next_value = jnp.zeros_like(path.reward)
    if config.baseline == "value":
        _, value = network.apply(state.fit.params, path.obs)
        _, next_value = network.apply(state.fit.params, path.next_obs)
    to_go = returns.lambda_returns(path.reward, next_value, path.terminated, path.truncated, hparams.discount, 1.0)
    advantage = to_go - (state.mean_return if config.baseline == "constant" else value)
    if config.weight_by_discount:
        advantage *= hparams.discount**time
    batch = Batch(path.obs, path.extra, to_go, advantage, whole)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def mean(x: Array, whole: Array) -> Array:
    """[] of `x` [...] over the steps that count."""
    return (whole * x).sum() / whole.sum()


def loss(params: Any, network: networks.Network, head: policies.Head, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Equation 13.11 as a loss. Returns (scalar, metrics).

    The steps that count are summed and divided by B, always the same number. Their mean would weigh each step by the
    lengths of the episodes played with it, which its action has a part in.
    """
    outputs, _ = network.apply(params, batch.obs)
    policy = head.distribution(*outputs)
    total = -(batch.whole * policy.log_prob(batch.action) * batch.advantage).mean()
    return total, {"policy_loss": total, "entropy": mean(policy.entropy(), batch.whole)}


def value_loss(critic: Any, params: Any, network: networks.Network, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """Half the squared error against the returns, over B, with `critic` in its place among `params`."""
    _, value = network.apply({**params, "critic": critic}, batch.obs)
    total = 0.5 * (batch.whole * jnp.square(value - batch.to_go)).mean()
    return total, {"value_loss": total}


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    checks.choices(config)
    checks.at_least_one(num_envs=config.num_envs, num_steps=config.num_steps, eval_episodes=config.eval_episodes)
    if config.num_steps < spec.max_steps:
        raise ValueError(
            f"num_steps={config.num_steps} may not see the end of an episode of {spec.name}, which is cut after "
            f"{spec.max_steps}: use num_steps={spec.max_steps} or more."
        )
    if config.baseline == "value":
        checks.at_least_one(num_epochs=config.num_epochs, num_minibatches=config.num_minibatches)
        checks.divides(config.num_minibatches, config.steps_per_update, "num_minibatches", "num_envs * num_steps")
    if config.network.dropout:
        raise ValueError(
            f"dropout={config.network.dropout} would credit the actions of one random network to another: "
            "REINFORCE needs dropout=0."
        )


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """A REINFORCE agent; `network` replaces the one of `config` (see `policies.actor_critic` for its outputs).

    Of its parameters, a dict, those called "critic" are the value's and only the value's.

    Raises:
        ValueError: a path shorter than an episode may be, sizes that do not fit, dropout, or a network that does not
            suit the observations.
    """
    check(env.spec, config)
    head = policies.head(env.spec.action, config.distribution)
    if network is None:
        network = policies.actor_critic(env.spec, head, config.network)

    def init(key, hparams, env_params):
        params = network.init(key)
        critic_opt_state = config.optimizer(hparams.value_learning_rate).init(params["critic"])
        return State(fit.start(config.optimizer, params), critic_opt_state, jnp.zeros(()))

    def act(key, state, obs, greedy=False):
        outputs, _ = network.apply(state.fit.params, obs)
        distribution = head.distribution(*outputs)
        return head.to_env(distribution.mode() if greedy else distribution.sample(seed=key))

    def explore(state, key, obs):
        outputs, _ = network.apply(state.fit.params, obs)
        action = head.distribution(*outputs).sample(seed=key)
        return head.to_env(action), action

    def learn_value(key, state, batch, hparams):
        params, optimizer = state.fit.params, config.optimizer(hparams.value_learning_rate)
        critic, metrics = fit.epochs(
            key,
            lambda critic, minibatch: fit.step(optimizer, value_loss, critic, params, network, minibatch),
            fit.Fit(params["critic"], state.critic_opt_state),
            batch,
            config.num_epochs,
            config.num_minibatches,
        )
        fitted = state.fit._replace(params={**params, "critic": critic.params})
        return state._replace(fit=fitted, critic_opt_state=critic.opt_state), metrics

    def update(key, state, hparams, env_params):
        start_key, collect_key, epochs_key = random.split(key, 3)
        cursor = rollout.start(env, start_key, config.num_envs, env_params)
        policy = partial(explore, state)
        _, path = rollout.collect(env, policy, cursor, env_params, collect_key, config.num_steps)
        batch = make_batch(path, state, network, config, env.spec.max_steps, hparams)
        optimizer, bound = config.optimizer(hparams.learning_rate), hparams.max_grad_norm
        fitted, metrics = fit.step(optimizer, loss, state.fit, network, head, batch, max_grad_norm=bound)
        # The critic has an optimiser of its own, and one that decays weights moves them without a gradient too.
        fitted = fitted._replace(params={**fitted.params, "critic": state.fit.params["critic"]})
        error = mean(batch.to_go, batch.whole) - state.mean_return
        state = State(fitted, state.critic_opt_state, state.mean_return + hparams.baseline_rate * error)
        if config.baseline == "value":
            state, value_metrics = learn_value(epochs_key, state, batch, hparams)
            metrics = {**metrics, **value_metrics}
        whole, done = batch.whole.reshape(path.reward.shape), path.terminated | path.truncated
        episode_return = (whole * path.reward).sum() / (whole & done).sum()
        return state, {**metrics, "return": episode_return, "share_whole": whole.mean()}

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            return act(key, state, obs, config.eval_greedy), None

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act)
