"""The value of a given policy: TD(0), n-step TD, TD(lambda) and Monte Carlo (Sutton and Barto 2018, chapters 5 to 12).

All move the values of visited states by learning_rate * error * features. With eligibility traces, lambda 0 is TD(0);
applied at the end of each episode (`offline`), lambda 1 is Monte Carlo, every visit counted: changes are added up, so
that the learning rate times a state's visits in an episode has to stay below 2. Where a time limit cuts an episode, the
value of the observation there stands for the rest of the return.
Axes: D features, n steps before the bootstrap, T steps, N environments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import features, returns, rollout, values
from jaxrl.core import checks, fit
from jaxrl.envs import Env


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    basis: features.Description = features.Table()  # of the observation, in which values are linear
    n_step: int | None = None  # steps before the bootstrap, n; None for eligibility traces
    offline: bool = False  # change the values at the end of each episode only; with traces
    num_steps: int = 100  # per update
    eval_episodes: int = 16  # environments per evaluation
    eval_steps: int = 100  # steps in each of them

    @property
    def steps_per_update(self) -> int:
        return self.num_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 0.1  # step of the values towards their targets
    discount: Any = 0.99  # weight of a reward one step later
    trace_lambda: Any = 0.0  # 0 one-step targets, 1 Monte Carlo; with traces


class Trace(NamedTuple):
    """What eligibility traces remember of an episode."""

    trace: Array  # [D] sum of past features, each decayed
    pending: Array  # [D] changes that wait for the episode's end


class Window(NamedTuple):
    """The last n steps, the newest first."""

    phi: Array  # [n, D]
    total: Array  # [n] discounted rewards since
    power: Array  # [n] the discount to the number of steps since
    waiting: Array  # [n] bool: not learned from yet


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit  # weights [D]; plain steps along the gradient need no optimiser state
    memory: Trace | Window
    cursor: rollout.Cursor  # one unfinished episode


class Moment(NamedTuple):
    """One step as the rules see it."""

    phi: Array  # [D] where it began
    next_phi: Array  # [D] of the true successor
    reward: Array  # []
    terminated: Array  # [] bool
    done: Array  # [] bool: terminated or truncated


class Errors(NamedTuple):
    """The errors of the values changed at one step."""

    squares: Array  # [] their sum
    number: Array  # [] int32, how many


def linear(weights: Array, phi: Array) -> Array:
    """Values [...] of features [..., D]; a sum, as accelerators round matrix products."""
    return (phi * weights).sum(-1)


def td_lambda(
    weights: Array, memory: Trace, moment: Moment, hparams: Hyperparams, offline: bool
) -> tuple[Array, Trace, Errors]:
    """TD(lambda) with accumulating traces (section 12.2). Returns weights, memory and the step's error."""
    bootstrap = linear(weights, moment.next_phi) * ~moment.terminated
    error = moment.reward + hparams.discount * bootstrap - linear(weights, moment.phi)
    trace = hparams.discount * hparams.trace_lambda * memory.trace + moment.phi
    pending = memory.pending + error * trace
    now = moment.done if offline else True
    weights = weights + hparams.learning_rate * now * pending
    return weights, Trace(trace * ~moment.done, pending * (1 - now)), Errors(jnp.square(error), jnp.int32(1))


def n_step_td(weights: Array, memory: Window, moment: Moment, hparams: Hyperparams) -> tuple[Array, Window, Errors]:
    """n-step TD (section 7.1): the state n steps ago is due, at an episode's end all since. Returns as `td_lambda`.

    The oldest learns first, and the next from what it has learned.
    """

    def push(new: Any, old: Array) -> Array:
        return jnp.concatenate([jnp.asarray(new, old.dtype)[None], old[:-1]])

    total = push(0.0, memory.total) + push(1.0, memory.power) * moment.reward
    power = push(1.0, memory.power) * hparams.discount
    window = Window(push(moment.phi, memory.phi), total, power, push(True, memory.waiting))
    bootstrap = linear(weights, moment.next_phi) * ~moment.terminated
    due = window.waiting & (moment.done | (jnp.arange(len(total)) == len(total) - 1))

    def learn(weights: Array, visit: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        phi, target, due = visit
        error = due * (target - linear(weights, phi))
        return weights + hparams.learning_rate * error * phi, error

    visits = window.phi, total + power * bootstrap, due
    weights, error = lax.scan(learn, weights, visits, reverse=True)
    return weights, window._replace(waiting=window.waiting & ~due), Errors(jnp.square(error).sum(), due.sum())


def make(env: Env, config: Config, policy: Callable[[Array, Any], Array] | None = None) -> rollout.Agent:
    """A learner of the values of `policy(key, obs [N, ...]) -> action [N, ...]`, uniform over actions if not given.

    Raises:
        ValueError: sizes below 1, an offline n-step rule, features that do not suit the observations, continuous
            actions without a policy.
    """
    checks.choices(config)
    checks.at_least_one(num_steps=config.num_steps, eval_episodes=config.eval_episodes, eval_steps=config.eval_steps)
    if config.n_step is not None:
        checks.at_least_one(n_step=config.n_step)
        if config.offline:
            raise ValueError(
                f"n_step={config.n_step} learns as it goes: use offline=False, or n_step=None with traces."
            )
    phi_of = features.build(config.basis, env.spec)
    if policy is None:
        num_actions = values.num_actions(env.spec)

        def policy(key, obs):
            return random.randint(key, obs.shape[: obs.ndim - len(env.spec.obs_shape)], 0, num_actions)

    def init(key, hparams, env_params):
        nothing, n = jnp.zeros(phi_of.size), config.n_step
        memory: Trace | Window = Trace(nothing, nothing)
        if n is not None:
            memory = Window(jnp.zeros((n, phi_of.size)), jnp.zeros(n), jnp.zeros(n), jnp.zeros(n, bool))
        return State(fit.Fit(nothing, ()), memory, rollout.start_one(env, key, env_params))

    def update(key, state, hparams, env_params):
        def one(state, key):
            step_key, action_key = random.split(key)
            weights, memory, cursor = state.fit.params, state.memory, state.cursor
            action = policy(action_key, cursor.obs[None])[0]
            step = env.step(step_key, cursor.state, action, env_params)
            phi, next_phi = phi_of.apply(cursor.obs), phi_of.apply(step.next_obs)
            moment = Moment(phi, next_phi, step.reward, step.terminated, step.terminated | step.truncated)
            if config.n_step is None:
                weights, memory, errors = td_lambda(weights, memory, moment, hparams, config.offline)
            else:
                weights, memory, errors = n_step_td(weights, memory, moment, hparams)
            return State(fit.Fit(weights, ()), memory, rollout.follow(cursor, step)), errors

        state, errors = lax.scan(one, state, random.split(key, config.num_steps))
        loss = errors.squares.sum() / jnp.maximum(errors.number.sum(), 1)
        return state, {"loss": loss, "return": state.cursor.last_return}

    def act(key, state, obs, greedy=False):
        return policy(key, obs)

    def evaluate(key, state, hparams, env_params):
        """`eval/error` [], root mean square difference of returns and values. True values leave the returns' spread."""
        start_key, collect_key = random.split(key)
        cursor = rollout.start(env, start_key, config.eval_episodes, env_params)

        def explore(key, obs):
            return policy(key, obs), None

        _, path = rollout.collect(env, explore, cursor, env_params, collect_key, config.eval_steps)
        value, next_value = (linear(state.fit.params, phi_of.apply(obs)) for obs in (path.obs, path.next_obs))
        difference = returns.generalized_advantage(
            path.reward, value, next_value, path.terminated, path.truncated, hparams.discount, 1.0
        )
        return {"eval/error": jnp.sqrt(jnp.square(difference).mean()), "eval/value": value.mean()}

    return rollout.Agent(init, update, evaluate, act)
