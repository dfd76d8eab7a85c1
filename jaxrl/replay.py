"""Replay: the latest transitions of N environments, each observation stored once, in its own dtype.

A ring of M slots holds N streams side by side: slot i is followed by slot i + N of the same environment. A slot holds
an observation and what was done there; its successor is the observation in the next slot. Where the time limit cut an
episode, the true successor takes a slot of its own, without a transition, and the next episode starts behind it. So
windows of n steps are right by construction: they run along a stream until the task ends or no transition follows.

Adding writes O(N) numbers and drawing reads O(B); both leave the rest of the buffer where it is.
Axes: M slots, N environments, B samples.
"""

from typing import Any, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from jaxrl import rollout, sum_tree
from jaxrl.core import checks, devices
from jaxrl.envs import Discrete, Env, Spec
from jaxrl.rollout import Cursor, Policy, Transition

EMPTY, GOES_ON, TERMINATED = 0, 1, 2  # kinds of slots: no transition, one that something follows, one that ended a task
NUM_TRIES = 4  # slots drawn for each uniform sample, of which the first with a transition counts


class Priorities(NamedTuple):
    """How likely each transition is drawn."""

    tree: sum_tree.Tree  # one leaf for each slot
    highest: Array  # [] weight ever given, and what new transitions get


class Buffer(NamedTuple):
    """The ring. Arrays only."""

    obs: Array  # [M], or [M, D] with all axes of an observation in one: a TPU would pad the last to 128
    obs_like: Array  # [0, ...] nothing, in the shape of observations
    action: Array  # [M, ...]
    reward: Array  # [M] float32
    kind: Array  # [M] int8: EMPTY, GOES_ON or TERMINATED
    position: Array  # [N] int32 slot of each newest observation, plus M from the second time round
    priorities: Priorities | None  # None: every transition is as likely


class Batch(NamedTuple):
    """Windows of up to n steps, leaves [B, ...]."""

    obs: Array
    action: Array
    reward: Array  # discounted sum over the window
    discount: Array  # of the value of `next_obs`: 0 where the task ended, else to the power of the window's length
    next_obs: Array  # true successor of the window's last step
    weight: Array  # of the sample in the loss
    slot: Array  # [B] int32 of the first transition, for `prioritize`


def check(config: Any) -> None:
    """Refuse sizes that do not fit in the `Config` of a learner with replay, and dropout.

    Raises:
        ValueError: with the values and the nearest ones that fit.
    """
    num_envs, capacity, warmup, batch_size = config.num_envs, config.capacity, config.warmup, config.batch_size
    n_step = getattr(config, "n_step", 1)
    checks.choices(config)
    checks.at_least_one(
        num_envs=num_envs,
        capacity=capacity,
        warmup=warmup,
        batch_size=batch_size,
        n_step=n_step,
        num_steps=config.num_steps,
        train_every=config.train_every,
        num_gradient_steps=config.num_gradient_steps,
        eval_episodes=config.eval_episodes,
    )
    checks.divides(config.train_every, config.num_steps, "train_every", "num_steps")
    if config.network is not None and config.network.dropout:
        raise ValueError(
            f"dropout={config.network.dropout} would make the targets those of another random network: use dropout=0."
        )
    if warmup % num_envs:
        raise ValueError(
            f"warmup={warmup} is no whole number of steps in each of num_envs={num_envs}: "
            f"use warmup={-(-warmup // num_envs) * num_envs}."
        )
    if batch_size > warmup:
        raise ValueError(
            f"batch_size={batch_size} asks for more transitions than warmup={warmup} collects: "
            f"use warmup={-(-batch_size // num_envs) * num_envs} or more."
        )
    _check_capacity(capacity, num_envs)
    if capacity < warmup:
        raise ValueError(f"capacity={capacity} cannot hold the warmup={warmup}: use capacity={warmup} or more.")
    if warmup < n_step * num_envs:
        raise ValueError(
            f"warmup={warmup} ends before the first n_step={n_step} steps of each of num_envs={num_envs}: "
            f"use warmup={n_step * num_envs} or more."
        )


def _check_capacity(capacity: int, num_envs: int) -> None:
    if capacity < 2 * num_envs:
        raise ValueError(
            f"capacity={capacity} holds less than two transitions of each of {num_envs} environments: "
            f"use at least {2 * num_envs}."
        )


def init(spec: Spec, obs: Array, capacity: int, *, prioritized: bool = False) -> Buffer:
    """A buffer of `capacity` transitions, evenly over N environments that are about to act on `obs` [N, ...].

    Raises:
        ValueError: a capacity below two transitions for each environment, as many as a time limit takes at once.
    """
    num_envs, flat = len(obs), _flat(obs)
    _check_capacity(capacity, num_envs)
    num_slots = capacity // num_envs * num_envs + num_envs  # the newest observations have no transition yet
    action_shape, dtype = ((), jnp.int32) if isinstance(spec.action, Discrete) else (spec.action.shape, jnp.float32)
    return Buffer(
        obs=jnp.zeros((num_slots, *flat.shape[1:]), obs.dtype).at[:num_envs].set(flat),
        obs_like=obs[:0],
        action=jnp.zeros((num_slots, *action_shape), dtype),
        reward=jnp.zeros(num_slots),
        kind=jnp.zeros(num_slots, jnp.int8),
        position=jnp.arange(num_envs, dtype=jnp.int32),
        priorities=Priorities(sum_tree.init(num_slots), jnp.float32(1)) if prioritized else None,
    )


def add(buffer: Buffer, transition: Transition, obs: Array) -> Buffer:
    """`buffer` after one step of every environment, leaves [N, ...], that act on `obs` [N, ...] next.

    The oldest transition of each makes way, two of them where a time limit cut the episode.
    """
    num_slots, num_envs = len(buffer.kind), len(buffer.position)
    truncated = transition.truncated
    here = buffer.position % num_slots
    after = (here + num_envs) % num_slots
    head = (after + num_envs * truncated) % num_slots
    # Without a cut, `after` and `head` are one slot, written twice with one value: no branch.
    cut = truncated.reshape(-1, *[1] * (obs.ndim - 1))
    successor = lax.select(jnp.broadcast_to(cut, obs.shape), transition.next_obs, obs)
    kind = jnp.where(transition.terminated, TERMINATED, GOES_ON).astype(jnp.int8)
    written = jnp.concatenate([here, after, head])
    priorities = buffer.priorities
    if priorities is not None:
        weights = jnp.zeros((3, num_envs)).at[0].set(priorities.highest).ravel()
        priorities = priorities._replace(tree=sum_tree.put(priorities.tree, written, weights))
    position = buffer.position + num_envs * (1 + truncated)
    return Buffer(
        obs=_put(buffer.obs, jnp.concatenate([after, head]), _flat(jnp.concatenate([successor, obs]))),
        obs_like=buffer.obs_like,
        action=_put(buffer.action, here, transition.action.astype(buffer.action.dtype)),
        reward=_put(buffer.reward, here, transition.reward),
        kind=_put(buffer.kind, written, jnp.concatenate([kind, jnp.full(2 * num_envs, EMPTY, jnp.int8)])),
        position=jnp.where(position >= 2 * num_slots, position - num_slots, position),
        priorities=priorities,
    )


def collect(
    env: Env, policy: Policy, cursor: Cursor, buffer: Buffer, env_params: Any, key: Array
) -> tuple[Cursor, Buffer, Transition]:
    """One step of every environment, remembered. Returns cursor and buffer after it, and the step, leaves [N, ...]."""
    cursor, path = rollout.collect(env, policy, cursor, env_params, key, 1)
    transition = jax.tree.map(lambda leaf: leaf[0], path)
    return cursor, add(buffer, transition, cursor.obs), transition


def draw_uniform(key: Array, buffer: Buffer, num_draws: int) -> Array:
    """Slots [B] of transitions, each transition as likely as any other.

    A draw is the first of `NUM_TRIES` slots, drawn from all that were ever written, that holds a transition. If none
    of them does, its window has weight 0: rare, unless a time limit of a few steps leaves many slots without.
    """
    num_written = jnp.minimum(buffer.position.max(), len(buffer.kind)).astype(jnp.uint32)
    # In a loop, because XLA would fuse random numbers with the reads they are for, and draw them one by one.
    bits = lax.map(lambda key: random.bits(key, (num_draws,)), random.split(key, NUM_TRIES))
    # The remainder of a 32-bit word is uniform to within M / 2**32.
    tries = (bits % jnp.maximum(num_written, 1)).astype(jnp.int32)
    filled = _get(buffer.kind, tries) != EMPTY
    slot = tries[-1]
    for i in reversed(range(NUM_TRIES - 1)):
        slot = jnp.where(filled[i], tries[i], slot)
    return slot


def sample(
    key: Array,
    buffer: Buffer,
    batch_size: int,
    *,
    discount: Any,
    n_step: int = 1,
    importance_exponent: Any = 1.0,
) -> Batch:
    """A batch of windows of up to `n_step` steps.

    Where transitions are equally likely, so are the samples' weights. Where they have priorities, the weights undo
    them: inverse probabilities to the power `importance_exponent` (1 undoes them entirely), over the highest in the
    batch (Schaul et al. 2016, arXiv:1511.05952, section 3.4).
    """
    if buffer.priorities is None:
        return windows(buffer, draw_uniform(key, buffer, batch_size), discount, n_step)
    slot, priority = sum_tree.draw(key, buffer.priorities.tree, batch_size)
    batch = windows(buffer, slot, discount, n_step)
    return batch._replace(weight=batch.weight * (priority.min() / priority) ** importance_exponent)


def batches(key: Array, buffer: Buffer, batch_size: int, count: int, *, discount: Any, n_step: int = 1) -> Batch:
    """`count` uniform batches, leaves [count, B, ...]: drawn at once from a buffer that does not change in between."""
    slot = draw_uniform(key, buffer, count * batch_size)
    batch = windows(buffer, slot, discount, n_step)
    return jax.tree.map(lambda leaf: leaf.reshape(count, batch_size, *leaf.shape[1:]), batch)


def windows(buffer: Buffer, slot: Array, discount: Any, n_step: int = 1) -> Batch:
    """The windows of up to `n_step` steps that begin in `slot` [B]; weight 0 where no transition does.

    A window ends early where the task ends, where a time limit cut the episode and at the newest transition.
    """
    num_slots, num_envs = len(buffer.kind), len(buffer.position)
    place = slot
    reward = jnp.zeros(slot.shape)
    power = jnp.ones(slot.shape)  # of the discount, so far
    running = jnp.ones(slot.shape, bool)
    ended = jnp.zeros(slot.shape, bool)
    for _ in range(n_step):
        kind = _get(buffer.kind, place)
        running = running & (kind != EMPTY)
        reward = reward + jnp.where(running, power * _get(buffer.reward, place), 0.0)
        power = jnp.where(running, power * discount, power)
        place = jnp.where(running, (place + num_envs) % num_slots, place)
        ended = ended | (running & (kind == TERMINATED))
        running = running & (kind == GOES_ON)
    both = _get(buffer.obs, jnp.concatenate([slot, place]))
    obs, next_obs = jnp.split(both.reshape(len(both), *buffer.obs_like.shape[1:]), 2)
    batch = Batch(
        obs=obs,
        action=_get(buffer.action, slot),
        reward=reward,
        discount=jnp.where(ended, 0.0, power),
        next_obs=next_obs,
        weight=(_get(buffer.kind, slot) != EMPTY).astype(jnp.float32),
        slot=slot,
    )
    return devices.split(batch)


def prioritize(buffer: Buffer, slot: Array, weight: Array) -> Buffer:
    """`buffer` in which the transitions in `slot` [B] are drawn in proportion to `weight` [B], positive.

    A slot that occurs twice must have one weight.
    """
    assert buffer.priorities is not None
    tree, highest = buffer.priorities
    return buffer._replace(priorities=Priorities(sum_tree.put(tree, slot, weight), jnp.maximum(highest, weight.max())))


def _flat(obs: Array) -> Array:
    """Observations [N, ...] of several axes as [N, D]."""
    return obs.reshape(len(obs), -1) if obs.ndim > 2 else obs


def _get(array: Array, index: Array) -> Array:
    return array.at[index].get(mode="promise_in_bounds")


def _put(array: Array, index: Array, value: Array) -> Array:
    if len(index) == 1:
        # XLA fuses a single write with the reads that follow, which then need the array as it was too: a copy of it at
        # every step. Two writes, here of the same, stay apart.
        index, value = jnp.concatenate([index, index]), jnp.concatenate([value, value])
    return array.at[index].set(value, mode="promise_in_bounds")
