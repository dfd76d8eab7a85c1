"""Deep Q-networks (Mnih et al. 2015, doi:10.1038/nature14236, algorithm 1), and what together makes Rainbow of them.

Double Q-learning, dueling streams, returns of n steps, prioritised replay, distributions of returns (C51 and QR-DQN)
and noisy networks are options of their own; Rainbow (Hessel et al. 2018, arXiv:1710.02298) is all of them at once.
Axes: N environments, B samples, A actions, K outputs for each action: 1, or the atoms or quantiles of a distribution.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import policies, replay, rollout, value_heads, values, wrappers
from jaxrl.core import fit, networks
from jaxrl.core.schedule import Linear
from jaxrl.envs import Env, Spec

MIN_PRIORITY = 1e-6  # added to what a transition still has to teach, so that none is forgotten for good


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 10  # environments acted in at once, N
    num_steps: int = 50  # steps in each of them per update
    train_every: int = 1  # steps in each of them between gradient steps
    num_gradient_steps: int = 1  # taken then
    batch_size: int = 128  # samples of replay per gradient step, B
    capacity: int = 10_000  # transitions that replay holds
    warmup: int = 1000  # environment steps at random before the first update, beside those of the run
    network: networks.MLP | networks.CNN | None = None  # of the action values; none: by the kind of observation
    frames: int = 1  # latest observations seen as one, 4 for pixels
    double: bool = False  # the online network chooses the action that the target network values
    dueling: bool = False  # separate streams for the value of a state and the advantages of its actions
    n_step: int = 1  # rewards summed before the bootstrap
    prioritized: bool = False  # replay in proportion to what each transition still has to teach
    priority_exponent: float = 0.5  # 0 replays all alike, 1 in full proportion
    distribution: Literal["none", "categorical", "quantile"] = "none"  # of returns: their mean alone, C51, QR-DQN
    num_atoms: int = 51  # of a categorical distribution, or quantiles, K
    v_min: float = 0.0  # lowest return of a categorical distribution
    v_max: float = 100.0  # highest return of it
    noisy: bool = False  # noise in the weights explores: then epsilon may be 0
    optimizer: fit.OptimizerFactory = fit.Optimizer()
    eval_episodes: int = 16  # per evaluation, greedy and without noise

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 5e-4  # of the optimiser
    discount: Any = 0.99  # weight of a reward one step later
    epsilon: Any = Linear(1.0, 0.05, 0.5)  # chance of an action at random
    target_every: Any = 200  # gradient steps between updates of the target network
    target_rate: Any = 1.0  # of the way that each of them goes: 1 copies the online network, less averages it
    huber_delta: Any = 1.0  # error where the loss goes from quadratic to linear; inf: squared loss
    max_grad_norm: Any = 10.0  # bound on the global norm of the gradient
    importance_exponent: Any = Linear(0.4, 1.0)  # of prioritised replay: 1 undoes its bias entirely


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    target_params: Any
    buffer: replay.Buffer
    cursor: rollout.Cursor  # N unfinished episodes
    gradient_steps: Array  # [] int32 taken so far
    epsilon: Array  # [] of the last update, for `act`


def head_of(config: Config) -> value_heads.Head:
    """The head that `config` asks for."""
    match config.distribution:
        case "none":
            return value_heads.expectation()
        case "categorical":
            return value_heads.categorical(config.v_min, config.v_max, config.num_atoms)
        case "quantile":
            return value_heads.quantile(config.num_atoms)
    raise ValueError(f"Unknown distribution {config.distribution!r}: use none, categorical or quantile.")


def loss(
    params: Any,
    network: networks.Network,
    head: value_heads.Head,
    batch: replay.Batch,
    target: Array,
    hparams: Hyperparams,
    *noise: Array,
) -> tuple[Array, dict[str, Array]]:
    """Weighted mean over B of the loss against `target` [B, K]; `noise` is a noisy network's key.

    Returns (scalar, metrics and the error of each sample [B]).
    """
    outputs = value_heads.choose(network.apply(params, batch.obs, *noise), batch.action)
    each, error = head.loss(outputs, target, hparams.huber_delta)
    total = (batch.weight * each).mean()
    return total, {"loss": total, "value": head.mean(outputs).mean(), "error": error}


def default_network(spec: Spec) -> networks.MLP | networks.CNN:
    """A small CNN for grids [H, W, C], that of Mnih et al. 2015 for pixels, an MLP for the rest."""
    if len(spec.obs_shape) != 3:
        return networks.MLP((64, 64), "relu")
    smallest = 36  # side of the images that its convolutions can still read
    return networks.NATURE_CNN if min(spec.obs_shape[:2]) >= smallest else networks.CNN()


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    replay.check(config)
    if not 0 <= config.priority_exponent <= 1:
        raise ValueError(f"priority_exponent={config.priority_exponent} must be between 0 (all alike) and 1.")
    if config.distribution != "none" and config.num_atoms < 2:
        raise ValueError(f"num_atoms={config.num_atoms} is no distribution: use at least 2, or distribution='none'.")
    if config.distribution == "categorical" and not config.v_min < config.v_max:
        raise ValueError(f"v_min={config.v_min} must be below v_max={config.v_max}, the highest return to tell apart.")


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """A DQN agent; `network`, `apply(params, obs [..., *obs_shape]) -> [..., A, K]`, replaces the one of `config`.

    With `frames` above 1, `act` expects stacked observations, as `wrappers.stack_frames` gives them.

    Raises:
        ValueError: continuous actions, sizes that do not fit, dropout, or a network that does not suit the
            observations.
    """
    num_actions = values.num_actions(env.spec)
    check(env.spec, config)
    if config.frames != 1:
        env = wrappers.stack_frames(env, config.frames)
    head = head_of(config)
    if network is None:
        encode, obs_shape = policies.encoder(env.spec)
        description = config.network or default_network(env.spec)
        options = {"dueling": config.dueling, "noisy": config.noisy}
        inner = networks.action_values(description, obs_shape, num_actions, head.num_outputs, **options)
        network = networks.Network(inner.init, lambda params, obs, *noise: inner.apply(params, encode(obs), *noise))

    def noise(key):
        """What `network.apply` takes beside parameters and observations."""
        return (key,) if config.noisy else ()

    def remember(env_params, policy, state, key):
        """One step of `policy` in every environment."""
        cursor, buffer, _ = replay.collect(env, policy, state.cursor, state.buffer, env_params, key)
        return state._replace(cursor=cursor, buffer=buffer), None

    def init(key, hparams, env_params):
        network_key, env_key, warmup_key = random.split(key, 3)
        params = network.init(network_key)
        fitted = fit.start(config.optimizer, params)
        cursor = rollout.start(env, env_key, config.num_envs, env_params)
        buffer = replay.init(env.spec, cursor.obs, config.capacity, prioritized=config.prioritized)
        state = State(fitted, params, buffer, cursor, jnp.int32(0), jnp.asarray(hparams.epsilon, jnp.float32))

        keys = random.split(warmup_key, config.warmup // config.num_envs)
        return lax.scan(partial(remember, env_params, policies.uniform(env.spec)), state, keys)[0]

    def explore(params, epsilon, key, obs):
        noise_key, epsilon_key = random.split(key)
        if config.noisy:
            keys = random.split(noise_key, len(obs))  # each environment explores in its own way
            outputs = jax.vmap(network.apply, (None, 0, 0))(params, obs, keys)
        else:
            outputs = network.apply(params, obs)
        return values.epsilon_greedy(epsilon_key, head.mean(outputs), epsilon), None

    def gradient_step(optimizer, hparams, state, key):
        sample_key, online_key, target_key, selector_key = random.split(key, 4)
        params, buffer = state.fit.params, state.buffer
        batch = replay.sample(
            sample_key,
            buffer,
            config.batch_size,
            discount=hparams.discount,
            n_step=config.n_step,
            importance_exponent=hparams.importance_exponent,
        )
        next_outputs = network.apply(state.target_params, batch.next_obs, *noise(target_key))
        selector = network.apply(params, batch.next_obs, *noise(selector_key)) if config.double else next_outputs
        target = head.target(batch.reward, batch.discount, next_outputs, head.mean(selector))
        arguments = network, head, batch, target, hparams, *noise(online_key)
        fitted, metrics = fit.step(optimizer, loss, state.fit, *arguments, max_grad_norm=hparams.max_grad_norm)
        error = metrics.pop("error")
        if config.prioritized:
            buffer = replay.prioritize(buffer, batch.slot, (error + MIN_PRIORITY) ** config.priority_exponent)
        gradient_steps = state.gradient_steps + 1
        rate = jnp.where(gradient_steps % hparams.target_every == 0, hparams.target_rate, 0.0)
        return state._replace(
            fit=fitted,
            target_params=values.follow(state.target_params, fitted.params, rate),
            buffer=buffer,
            gradient_steps=gradient_steps,
        ), metrics

    def update(key, state, hparams, env_params):
        optimizer = config.optimizer(hparams.learning_rate)

        def collect_and_learn(state, key):
            collect_key, learn_key = random.split(key)
            policy = partial(explore, state.fit.params, hparams.epsilon)
            keys = random.split(collect_key, config.train_every)
            state, _ = lax.scan(partial(remember, env_params, policy), state, keys)
            keys = random.split(learn_key, config.num_gradient_steps)
            return lax.scan(partial(gradient_step, optimizer, hparams), state, keys)

        keys = random.split(key, config.num_steps // config.train_every)
        state, metrics = lax.scan(collect_and_learn, state, keys)
        metrics = {**jax.tree.map(jnp.mean, metrics), "return": state.cursor.last_return.mean()}
        return state._replace(epsilon=jnp.asarray(hparams.epsilon, jnp.float32)), metrics

    def act(key, state, obs, greedy=False):
        if not greedy:
            return explore(state.fit.params, state.epsilon, key, obs)[0]
        return values.greedy(head.mean(network.apply(state.fit.params, obs)))

    def evaluate(key, state, hparams, env_params):
        def policy(key, obs):
            found = head.mean(network.apply(state.fit.params, obs))
            return values.greedy(found), found.max(-1)

        return rollout.evaluate(env, policy, env_params, key, config.eval_episodes, hparams.discount)

    return rollout.Agent(init, update, evaluate, act)
