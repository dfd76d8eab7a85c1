"""Policy gradients of a small MDP: what REINFORCE, A2C and PPO estimate against the exact ones.

A step of gradient descent at rate 1 moves the logits by the estimate, so whole updates are tested, over many seeds and
with two environments only: what is wrong by a share that falls with the number of episodes shows. States are pairs of
time and place, so that nothing is the same after another number of steps. Axes: R seeds, S states, A actions.
"""

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from jaxrl import mdp, planning
from jaxrl.algorithms import a2c, ppo, reinforce
from jaxrl.core import fit, networks

HORIZON, PLACES, S, A = 4, 3, 13, 2  # the last state is terminal
LOGITS = np.array(random.normal(random.key(1), (S, A)))
POLICY = np.array(jax.nn.softmax(LOGITS))
ANY_CRITIC = np.array(4 * random.normal(random.key(2), (S,)))
COMMON: dict[str, Any] = {"num_envs": 2, "optimizer": fit.Optimizer("sgd", momentum=0.0)}
ONE_STEP = {"num_epochs": 1, "num_minibatches": 1}
# Nothing else moves the logits, and PPO's one step is taken at ratio 1.
PLAIN: dict[Any, tuple[dict[str, Any], dict[str, float]]] = {
    reinforce: (ONE_STEP, {}),
    a2c: ({}, {"entropy_coef": 0.0}),
    ppo: ({**ONE_STEP, "normalize_advantages": False}, {"entropy_coef": 0.0}),
}
REPEATS, BOUND = 20_000, 5.0  # seeds, standard errors; 24 numbers beyond it by chance: once in 70,000 tests


@cache
def task(*, same_length: bool = False, limit: int = HORIZON) -> mdp.MDP:
    """A random MDP of at most `HORIZON` steps, or of exactly as many. Nothing follows the first `limit` of them."""
    generator = np.random.default_rng(0)
    transition, reward = np.zeros((A, S, S)), np.zeros((S, A))
    for time in range(HORIZON):
        here, there = (slice(each * PLACES, (each + 1) * PLACES) for each in (time, time + 1))
        rewards, chances = generator.normal(size=(PLACES, A)), generator.dirichlet(np.ones(PLACES), (A, PLACES))
        going_on = generator.uniform(1.0 if same_length else 0.4, 1.0, (A, PLACES, 1))
        if time < limit:
            reward[here] = 2 + 3 * rewards
        if time + 1 < limit:
            transition[:, here, there] = going_on * chances
    transition[..., -1] = np.maximum(0, 1 - transition[..., :-1].sum(-1))
    return mdp.create(transition, reward, np.arange(S) == S - 1, [0.5, 0.3, 0.2, *[0.0] * (S - PLACES)])


def values(task, discount=1.0):
    """[S] those of the policy."""
    return np.array(planning.solve_policy(task, jnp.asarray(POLICY), discount))


def exact(task, discount=1.0):
    """[S, A] the gradient of the expected return: the solution of the linear equations, differentiated."""

    @jax.jit
    def expected(logits):
        return task.start @ planning.solve_policy(task, jax.nn.softmax(logits), discount)

    return np.array(jax.grad(expected)(jnp.asarray(LOGITS)))


def visits(task, num_steps, limit=HORIZON, restarts=True):
    """[num_steps, S] the chance of each state at each step of a path, of its first episode alone without restarts."""
    chain, start = np.einsum("sa,ast->st", POLICY, task.transition), np.asarray(task.start)
    chain[(limit - 1) * PLACES : limit * PLACES] = np.eye(S)[-1]
    if restarts:
        chain = chain * (np.arange(S) < S - 1) + np.outer(chain[:, -1], start)
    return np.array([start @ np.linalg.matrix_power(chain, time) for time in range(num_steps)])


def ascent(task, at, discount):
    """[S, A] score times action value, mean over the steps of a path whose states have the chances `at` [T, S].

    Below a discount of 1, or where a time limit cuts episodes, this is the gradient of no objective.
    """
    action_value = np.array(planning.action_values(task, jnp.asarray(values(task, discount)), discount))
    advantage = action_value - (POLICY * action_value).sum(-1, keepdims=True)
    return at.mean(0)[:, None] * POLICY * advantage


@cache
def program(module, config, hparams, *, same_length=False, limit=HORIZON):
    """Estimates [R, S, A] as a compiled function of keys [R], critic [S] and constant []."""
    env, env_params = mdp.as_env(task(same_length=same_length), limit)
    sizes, numbers = PLAIN[module]
    config = module.Config(**{**COMMON, **sizes, **dict(config)})
    hparams = module.Hyperparams(learning_rate=1.0, max_grad_norm=jnp.inf, **numbers, **dict(hparams))

    def one(key, critic, constant):
        network = networks.Network(
            lambda key: {"logits": jnp.asarray(LOGITS), "critic": critic},
            lambda params, obs: ((params["logits"][obs], jnp.zeros(0)), params["critic"][obs]),
        )
        agent = module.make(env, config, network)
        init_key, update_key = random.split(key)
        state = agent.init(init_key, hparams, env_params)
        state = state._replace(mean_return=constant) if module is reinforce else state
        after, _ = agent.update(update_key, state, hparams, env_params)
        return after.fit.params["logits"] - LOGITS

    # Far longer compiled than run: optimised less, it is ready in half the time.
    return jax.jit(jax.vmap(one, (0, None, None)), compiler_options={"xla_backend_optimization_level": 0})


def estimates(module, config, hparams, critic=ANY_CRITIC, constant=3.0, **kwargs):
    """[R, S, A]"""
    run = program(module, tuple(config.items()), tuple(hparams.items()), **kwargs)
    return np.array(run(random.split(random.key(3), REPEATS), jnp.asarray(critic), jnp.float32(constant)))


def assert_unbiased(found: np.ndarray, expected: np.ndarray) -> None:
    error = found.std(0) / np.sqrt(REPEATS)
    assert np.abs(expected).max() > 20 * error.max()  # else a bias could hide
    deviations = (found.mean(0) - expected) / (error + 1e-7)
    assert np.abs(deviations).max() < BOUND, deviations.round(1)


# REINFORCE

WHOLE: dict[str, Any] = {"num_steps": HORIZON}  # one episode in each environment, as long as it may be
UNDISCOUNTED: dict[str, Any] = {"discount": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["none", "constant", "value"])
def test_every_baseline_leaves_the_gradient_as_it_is(baseline):
    found = estimates(reinforce, {**WHOLE, "baseline": baseline}, UNDISCOUNTED)
    assert_unbiased(found, exact(task()) / HORIZON)  # per step of the path, which has one episode


def test_baselines_lower_the_variance():
    """The mean return from the states visited against nothing, the value of each against that."""
    value, at = values(task()), visits(task(), HORIZON, restarts=False)[:, :-1]
    constant = (at * value[:-1]).sum() / at.sum()
    none, constant, best = (
        estimates(reinforce, {**WHOLE, "baseline": baseline}, UNDISCOUNTED, value, constant).var(0).sum()
        for baseline in ("none", "constant", "value")
    )
    assert none > 1.05 * constant and constant > 1.05 * best


def episodes_that_count(task, num_steps):
    """Their mean number in a path of one environment: those that begin with a whole `HORIZON` to go."""
    first = np.asarray(task.start) > 0
    return (visits(task, num_steps) * first).sum(1)[: num_steps - HORIZON + 1].sum()


def test_episodes_of_all_lengths_have_their_share():
    """Several in a path, of which those that end in time are no fair sample; discounted from each one's first step."""
    config = {"num_steps": 9, "baseline": "constant", "weight_by_discount": True}
    found = estimates(reinforce, config, {"discount": 0.8})
    assert_unbiased(found, exact(task(), 0.8) * episodes_that_count(task(), 9) / 9)


@pytest.mark.slow
def test_without_a_value_the_gradient_is_that_of_the_return_within_the_time_limit():
    found = estimates(reinforce, {"num_steps": 3, "baseline": "none"}, UNDISCOUNTED, limit=3)
    assert_unbiased(found, exact(task(limit=3)) / 3)


def test_a_value_stands_for_what_the_time_limit_cuts_off():
    discount = 0.9
    critic = values(task(), discount)
    found = estimates(reinforce, {"num_steps": 3}, {"discount": discount}, critic, limit=3)
    assert_unbiased(found, ascent(task(), visits(task(), 3, 3, restarts=False), discount))


# A2C and PPO, whose advantages are measured along paths that end anywhere


@pytest.mark.parametrize("module", [a2c, ppo], ids=["a2c", "ppo"])
def test_over_whole_episodes_any_critic_gives_the_gradient(module):
    found = estimates(module, WHOLE, {**UNDISCOUNTED, "gae_lambda": 1.0}, same_length=True)
    assert_unbiased(found, exact(task(same_length=True)) / HORIZON)


@pytest.mark.parametrize("module", [a2c, pytest.param(ppo, marks=pytest.mark.slow)], ids=["a2c", "ppo"])
def test_cut_anywhere_the_right_critic_gives_the_gradient(module):
    """Ends, time limits and the end of the path all fall between two steps of it."""
    discount = 0.9
    hparams = {"discount": discount, "gae_lambda": 0.7}
    found = estimates(module, {"num_steps": 7}, hparams, values(task(), discount), limit=3)
    assert_unbiased(found, ascent(task(), visits(task(), 7, 3), discount))
