"""Exact solutions of a known MDP by dynamic programming (Sutton and Barto 2018, chapter 4).

A sweep replaces every value at once. Applied to values V it gives V', and the true values lie within
discount / (1 - discount) * max |V' - V| of V': the contraction bound, by which the loops here know when to stop.
Undiscounted tasks have no such bound; there a loop stops once a sweep changes nothing.
Axes: A actions, S states. A policy is the chance of each action in each state, [S, A].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax import numpy as jnp

from jaxrl.mdp import MDP

Sweep = Callable[[Array], Array]  # values [S] -> values [S]


class Solution(NamedTuple):
    """Values, and how far they may be from the true ones."""

    value: Array  # [S]
    action_value: Array  # [S, A] one step ahead of `value`
    error: Array  # [] the contraction bound on `value`, rounding apart; infinite where there is none
    num_sweeps: Array  # [] int32, done


def action_values(mdp: MDP, value: Array, discount: Array | float) -> Array:
    """[S, A] the mean of reward and discounted `value` [S] of the next state (equation 4.6, inner part)."""
    worth = jnp.where(mdp.terminal, 0.0, value)
    ahead = jnp.einsum("ast,t->sa", mdp.transition, worth, precision=lax.Precision.HIGHEST)
    return jnp.where(mdp.terminal[:, None], 0.0, mdp.reward + discount * ahead)


def greedy(action_value: Array) -> Array:
    """The policy [S, A] that takes the first of the best actions."""
    return jax.nn.one_hot(action_value.argmax(-1), action_value.shape[-1])


def uniform(mdp: MDP) -> Array:
    """The policy [S, A] that takes every action alike."""
    return jnp.full(mdp.reward.shape, 1 / mdp.reward.shape[1])


def solve_policy(mdp: MDP, policy: Array, discount: Array | float) -> Array:
    """The values [S] of a policy as the solution of S linear equations (equation 4.4).

    For one MDP at a time: two vmapped solves in one program may deadlock jaxlib on two cores, `evaluate_policy` not.
    """
    chain = jnp.einsum("sa,ast->st", policy, mdp.transition, precision=lax.Precision.HIGHEST)
    going_on = ~mdp.terminal
    chain = chain * (going_on[:, None] & going_on)
    reward = jnp.where(mdp.terminal, 0.0, (policy * mdp.reward).sum(-1))
    return jnp.linalg.solve(jnp.eye(chain.shape[0]) - discount * chain, reward)


def evaluate_policy(
    mdp: MDP,
    policy: Array,
    discount: Array | float,
    *,
    value: Array | None = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 10_000,
) -> Solution:
    """The values of a policy by sweeps from `value`, zeros if not given, until the bound is below `tolerance`.

    A tolerance finer than float32 can hold, a millionth of the values over 1 - discount, ends after `max_sweeps`.
    """
    return _until_close(mdp, _expected(mdp, policy, discount), discount, value, tolerance, max_sweeps)


def value_iteration(
    mdp: MDP,
    discount: Array | float,
    *,
    value: Array | None = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 10_000,
) -> Solution:
    """The best values (equation 4.10), by sweeps from `value` as in `evaluate_policy`.

    Vmapped over MDPs, all of them go on until the slowest is done; `sweep_values` has a length of its own.
    """
    return _until_close(mdp, _best(mdp, discount), discount, value, tolerance, max_sweeps)


def sweep_values(mdp: MDP, discount: Array | float, num_sweeps: int, *, value: Array | None = None) -> Solution:
    """The best values after exactly `num_sweeps` sweeps, at least one: a program of fixed length."""
    sweep = _best(mdp, discount)

    def one(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return sweep(carry[0]), carry[0]

    start = _start(mdp, value)
    value, before = lax.fori_loop(0, num_sweeps, one, (start, start))
    return _solution(mdp, value, before, jnp.int32(num_sweeps), discount)


def policy_iteration(
    mdp: MDP, discount: float, *, tolerance: float = 1e-6, max_sweeps: int = 10_000, max_improvements: int = 100
) -> Solution:
    """The best values, by evaluating a policy and improving it in turn until it is stable (section 4.3).

    An action is replaced by one better by more than twice `tolerance`, to which its value is known. `num_sweeps`
    counts those of all evaluations. Undiscounted, a policy that never ends has no finite values.
    """

    def improve(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        action, value, sweeps, rounds, _ = carry
        policy = jax.nn.one_hot(action, mdp.reward.shape[1])
        found = evaluate_policy(mdp, policy, discount, value=value, tolerance=tolerance, max_sweeps=max_sweeps)
        advantage = found.action_value.max(-1) - (policy * found.action_value).sum(-1)
        better = advantage > 2 * tolerance
        action = jnp.where(better, found.action_value.argmax(-1), action)
        return action, found.value, sweeps + found.num_sweeps, rounds + 1, better.any()

    def unstable(carry: tuple[Any, ...]) -> Array:
        return carry[4] & (carry[3] < max_improvements)

    action = jnp.zeros(mdp.terminal.shape, jnp.int32)
    carry = action, _start(mdp, None), jnp.int32(0), jnp.int32(0), jnp.bool_(True)
    _, value, sweeps, *_ = lax.while_loop(unstable, improve, carry)
    return _solution(mdp, _best(mdp, discount)(value), value, sweeps, discount)


def _best(mdp: MDP, discount: Array | float) -> Sweep:
    return lambda value: action_values(mdp, value, discount).max(-1)


def _expected(mdp: MDP, policy: Array, discount: Array | float) -> Sweep:
    return lambda value: (policy * action_values(mdp, value, discount)).sum(-1)


def _start(mdp: MDP, value: Array | None) -> Array:
    return jnp.zeros(mdp.terminal.shape) if value is None else value


def _until_close(
    mdp: MDP, sweep: Sweep, discount: Array | float, value: Array | None, tolerance: float, max_sweeps: int
) -> Solution:
    def far(carry: tuple[Array, Array, Array]) -> Array:
        value, before, sweeps = carry
        return (sweeps < max_sweeps) & ((sweeps == 0) | (_bound(value, before, discount) > tolerance))

    def one(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, _, sweeps = carry
        return sweep(value), value, sweeps + 1

    start = _start(mdp, value)
    return _solution(mdp, *lax.while_loop(far, one, (start, start, jnp.int32(0))), discount)


def _bound(value: Array, before: Array, discount: Array | float) -> Array:
    change = jnp.abs(value - before).max()
    return jnp.where(change > 0, discount * change / (1 - discount), 0.0)


def _solution(mdp: MDP, value: Array, before: Array, sweeps: Array, discount: Array | float) -> Solution:
    return Solution(value, action_values(mdp, value, discount), _bound(value, before, discount), sweeps)
