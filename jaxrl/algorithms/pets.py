"""Planning with a learned model: probabilistic ensembles with trajectory sampling.

Chua et al. 2018 (arXiv:1805.12114), algorithm 1: an ensemble of networks learns what follows on an action; at each step
the cross-entropy method looks for the plan of the next H actions that the ensemble expects most of, and the first of
them is taken. Axes: N environments, M members, B samples, C candidates, H steps of a plan, A numbers of an action.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import dynamics, policies, replay, rollout, wrappers
from jaxrl.core import checks, fit, networks
from jaxrl.dynamics import loss
from jaxrl.envs import Env, Spec


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    num_envs: int = 1  # environments acted in at once, N
    num_steps: int = 50  # steps in each of them per update
    train_every: int = 10  # steps in each of them between rounds of gradient steps
    num_gradient_steps: int = 50  # taken then
    batch_size: int = 64  # samples of replay per gradient step and member, B
    capacity: int = 100_000  # transitions that replay holds
    warmup: int = 200  # environment steps at random before the first update, beside those of the run
    network: networks.MLP = networks.MLP((64, 64), "silu")  # of each member
    num_members: int = 5  # networks in the ensemble, M
    horizon: int = 20  # steps planned ahead, H
    num_candidates: int = 50  # plans drawn per iteration, C
    num_elites: int = 5  # the best of them, around which the next are drawn
    num_iterations: int = 3  # of the cross-entropy method at each step
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from a learning rate to a transformation
    eval_episodes: int = 16  # per evaluation

    @property
    def steps_per_update(self) -> int:
        return self.num_envs * self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the ensemble
    discount: Any = 0.99  # weight of a reward one step later, in plans
    width: Any = 1.0  # standard deviation of the first candidates, in half widths of the action space


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # of the ensemble, leaves [M, ...]
    scale: dynamics.Scale
    buffer: replay.Buffer
    cursor: rollout.Cursor  # N unfinished episodes, the plan in each beside its observation
    discount: Array  # [] of the last update, for `act`
    width: Array  # [] likewise


def cross_entropy(
    key: Array, score: Callable[[Array, Array], Array], plan: Array, width: Any, sizes: tuple[int, int, int]
) -> Array:
    """The plans [N, H, A], actions from -1 to 1, that the cross-entropy method finds from `plan` [N, H, A] on.

    `score(key, plans [N, C, H, A]) -> [N, C]`, higher is better; `sizes` are those of candidates, elites and
    iterations, `width` [] the standard deviation of the first candidates.
    """
    num_candidates, num_elites, num_iterations = sizes

    def improve(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        mean, std = (leaf[:, None] for leaf in carry)
        draw_key, score_key = random.split(key)
        shape = len(plan), num_candidates, *plan.shape[1:]
        candidates = jnp.clip(mean + std * random.normal(draw_key, shape), -1.0, 1.0)
        _, best = lax.top_k(score(score_key, candidates), num_elites)
        elites = jnp.take_along_axis(candidates, best[..., None, None], axis=1)
        return (elites.mean(1), elites.std(1)), None

    start = plan, jnp.full(plan.shape, width, jnp.float32)
    (plan, _), _ = lax.scan(improve, start, random.split(key, num_iterations))
    return plan


def check(spec: Spec, config: Config) -> None:
    """Refuse what cannot work."""
    dynamics.check(spec)
    replay.check(config)
    checks.at_least_one(
        num_members=config.num_members,
        horizon=config.horizon,
        num_iterations=config.num_iterations,
        num_elites=config.num_elites,
    )
    if config.num_elites >= config.num_candidates:
        raise ValueError(
            f"num_elites={config.num_elites} of num_candidates={config.num_candidates} is no choice: "
            f"use num_candidates={10 * config.num_elites}."
        )


def make(env: Env, config: Config, network: networks.Network | None = None) -> rollout.Agent:
    """An agent that plans with what it has learned; `network` replaces the one of `config` (see `dynamics.network`).

    It always takes the best plan that it finds, greedy or not; the ensemble's doubts are what makes it explore.

    Raises:
        ValueError: observations that are no vectors, discrete or unbounded actions, sizes that do not fit, dropout.
    """
    check(env.spec, config)
    bounds = policies.bounds(env.spec)
    network = network or dynamics.network(env.spec, config.network)
    sizes = config.num_candidates, config.num_elites, config.num_iterations

    def memory(*axes):
        return jnp.zeros((*axes, config.horizon, bounds.low.size))

    remembering = wrappers.with_memory(env, memory())

    def to_env(unit):
        return bounds.center + bounds.half_width * unit.reshape(-1, *bounds.low.shape)

    def collect(env_params, policy, state, key, length):
        """`length` steps of `policy` in every environment, remembered."""

        def remember(carry, key):
            cursor, path = rollout.collect(remembering, policy, carry[0], env_params, key, 1)
            step = jax.tree.map(lambda leaf: leaf[0], path)
            step = step._replace(obs=step.obs[0], action=step.action[0], next_obs=step.next_obs[0])
            seen = dynamics.transitions(bounds, step.obs, step.action, step.reward, step.next_obs, step.terminated)
            return (cursor, replay.add(carry[1], step, cursor.obs[0])), seen

        (cursor, buffer), seen = lax.scan(remember, (state.cursor, state.buffer), random.split(key, length))
        return state._replace(cursor=cursor, buffer=buffer, scale=dynamics.widen(state.scale, seen))

    def noted(hparams):
        return {name: jnp.asarray(getattr(hparams, name), jnp.float32) for name in ("discount", "width")}

    def init(key, hparams, env_params):
        network_key, env_key, warmup_key = random.split(key, 3)
        fitted = fit.start(config.optimizer, jax.vmap(network.init)(random.split(network_key, config.num_members)))
        cursor = rollout.start(remembering, env_key, config.num_envs, env_params)
        buffer = replay.init(env.spec, cursor.obs[0], config.capacity)
        state = State(fitted, dynamics.start(env.spec), buffer, cursor, **noted(hparams))

        def policy(key, seen):
            _, plan = seen
            return (to_env(random.uniform(key, plan[:, 0].shape, minval=-1.0)), plan), None

        return collect(env_params, policy, state, warmup_key, config.warmup // config.num_envs)

    def act(key, state, seen, greedy=False):
        obs, plan = seen
        score = partial(dynamics.imagine, network, state.fit.params, state.scale, obs, state.discount)
        plan = cross_entropy(key, score, plan, state.width, sizes)
        return to_env(plan[:, 0]), jnp.roll(plan, -1, axis=1).at[:, -1].set(0.0)

    def gradient_step(optimizer, scale, fitted, found):
        steps = found.obs, found.action, found.reward, found.next_obs, found.discount == 0, found.weight
        each = jax.tree.map(lambda leaf: leaf.reshape(config.num_members, -1, *leaf.shape[1:]), steps)
        return fit.step(optimizer, loss, fitted, network, scale, dynamics.transitions(bounds, *each))

    def update(key, state, hparams, env_params):
        optimizer = config.optimizer(hparams.learning_rate)

        def collect_and_learn(state, key):
            collect_key, learn_key = random.split(key)

            def policy(key, seen):
                return act(key, state, seen), None

            state = collect(env_params, policy, state, collect_key, config.train_every)
            sizes = config.num_members * config.batch_size, config.num_gradient_steps
            batches = replay.batches(learn_key, state.buffer, *sizes, discount=1.0)
            fitted, metrics = lax.scan(partial(gradient_step, optimizer, state.scale), state.fit, batches)
            return state._replace(fit=fitted), metrics

        state = state._replace(**noted(hparams))
        state, metrics = lax.scan(collect_and_learn, state, random.split(key, config.num_steps // config.train_every))
        return state, {**jax.tree.map(jnp.mean, metrics), "return": state.cursor.last_return.mean()}

    def evaluate(key, state, hparams, env_params):
        def policy(key, seen):
            return act(key, state, seen), None

        return rollout.evaluate(remembering, policy, env_params, key, config.eval_episodes)

    return rollout.Agent(init, update, evaluate, act, memory)
