"""What bounds a training on this machine: the environment alone, acting without learning, a product, a copy."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax, random
from jax import numpy as jnp

from experiments.benchmarks import ours, steady, tasks
from experiments.experiment import over_seeds
from jaxrl import envs, rollout
from jaxrl.core import keys, loop
from jaxrl.envs import Discrete


class Share(NamedTuple):
    """A training's speed beside its ceilings; steps of all seeds together per second, medians of the same rounds."""

    task: str
    training: float
    acting: float  # its network acting in its environments under the same scan, without learning
    environment: float  # random actions in them
    share_of_acting: float


def of_task(name: str, task: tasks.OnPolicy | tasks.OffPolicy, rounds: int) -> Share:
    """Training, acting and environment in alternation."""
    agent, hparams, env_params, num_updates = ours.agent(task)
    env, _ = envs.make(task.env)
    learner = agent._replace(evaluate=lambda *_: {})
    length = max(1, task.steps // task.num_envs)
    work = length * task.num_envs * task.seeds

    def start(key, hparams, env_params):
        return loop.start(learner, key, hparams, env_params, num_updates)

    def act(run, _, env_params):
        def policy(key, obs):
            return agent.act(key, run.state, obs), None

        return rollout.collect(env, policy, run.state.cursor, env_params, keys.unrolled(run.key), length)[0]

    def wander(run, _, env_params):
        def policy(key, obs):
            return _random_action(env.spec.action, key, task.num_envs), None

        return rollout.collect(env, policy, run.state.cursor, env_params, keys.unrolled(run.key), length)[0]

    given = hparams, env_params
    runs = jax.jit(over_seeds(start, task.seeds))(random.split(random.key(0), task.seeds), *given)
    parts: dict[str, Any] = {
        "training": partial(loop.chunk, learner, num_updates),
        "acting": act,
        "environment": wander,
    }
    programs = {name: steady.compiled(over_seeds(part, task.seeds), work, runs, *given) for name, part in parts.items()}
    found = steady.medians(programs, rounds)
    return Share(name, **found, share_of_acting=found["training"] / found["acting"])


def _random_action(space: Any, key: jax.Array, count: int) -> jax.Array:
    if isinstance(space, Discrete):
        return random.randint(key, (count,), 0, space.num)
    return random.uniform(key, (count, *space.shape), minval=jnp.array(space.low), maxval=jnp.array(space.high))


class Hardware(NamedTuple):
    """What the processor does at the sizes of small networks."""

    product_gflops: float  # [2048, 64] times [64, 64]
    weight_gradient_gflops: float  # [64, 2048] times [2048, 64]
    copy_gigabytes_per_second: float  # read and written, 64 MB


def of_machine(rounds: int, repeats: int = 200) -> Hardware:
    """A product as in a layer of 64 units, its weight gradient, and a copy too large for caches."""
    key = random.key(0)
    batch, kernel = random.normal(key, (2048, 64)), random.normal(key, (64, 64)) / 8
    block = jnp.zeros(16 * 2**20)

    def product(batch, kernel):
        return lax.fori_loop(0, repeats, lambda _, batch: batch @ kernel, batch)

    def weight_gradient(batch, kernel):
        return lax.fori_loop(0, repeats, lambda _, kernel: batch.T @ (batch * kernel[0]), kernel)

    work = 2 * 2048 * 64 * 64 * repeats
    programs = {
        "product": steady.compiled(product, work, batch, kernel),
        "weight_gradient": steady.compiled(weight_gradient, work, batch, kernel),
        "copy": steady.compiled(lambda block: block + 1, 2 * block.nbytes, block),
    }
    found = steady.medians(programs, rounds)
    return Hardware(*(found[name] / 1e9 for name in ("product", "weight_gradient", "copy")))
