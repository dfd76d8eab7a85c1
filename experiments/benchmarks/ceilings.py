"""What bounds a training on this machine: the environment alone, acting without learning, a product, a copy."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax, random
from jax import numpy as jnp

from experiments import counting
from experiments.benchmarks import ours, steady, tasks
from experiments.experiment import over_seeds
from jaxrl import envs, policies, rollout
from jaxrl.core import keys, loop
from jaxrl.core.networks import MLP
from jaxrl.envs import Spec

PARTS = "training", "acting", "environment"
# Of products: a layer of 64 units at small batches and a whole one, the autoencoder's first, a masked convolution.
SIZES = ((128, 64, 64), (256, 64, 64), (2048, 64, 64), (100, 784, 200), (12_544, 288, 32))


class Share(NamedTuple):
    """A training's speed beside its ceilings; steps of all seeds together per second, medians of the same rounds."""

    task: str
    training: float
    acting: float  # its network acting in its environments under the same scan, without learning; PPO's critic as well
    environment: float  # random actions in them
    share_of_acting: float


class ImagesShare(NamedTuple):
    """A model's speed beside that of its matrix products and convolutions, were they all plain products."""

    task: str
    training: float  # images per second
    products: float  # images per second
    share_of_products: float


def of_task(name: str, task: tasks.Task, rounds: int) -> Share | ImagesShare:
    """A training and its ceilings in alternation."""
    return of_model(name, task, rounds) if isinstance(task, tasks.Images) else of_agent(name, task, rounds)


def of_model(name: str, task: tasks.Images, rounds: int, repeats: int = 20) -> ImagesShare:
    """Training beside products at the size of the layer that costs most."""
    model, hparams, images, num_updates, steps_per_update = ours.subject(task)
    learner = model._replace(evaluate=lambda *_: {})
    runs = jax.jit(partial(loop.start, learner, num_updates=num_updates))(random.key(0), hparams, images)
    chunk = partial(loop.chunk, learner, num_updates)
    work = num_updates * steps_per_update
    training = steady.compiled(chunk, work, runs, hparams, images)
    found = steady.medians({"training": training}, rounds)["training"]
    best = product(*layer(task), rounds, repeats).product_gflops * 1e9 / in_products(task)
    return ImagesShare(name, found, best, found / best)


def in_products(task: tasks.Task) -> float:
    """Multiplications and additions in matrix products and convolutions, per environment step or example."""
    trained, hparams, source, _, steps_per_update = ours.subject(task)
    learner = trained._replace(evaluate=lambda *_: {})
    start = over_seeds(partial(loop.start, learner, num_updates=1), task.seeds)
    runs = jax.eval_shape(start, random.split(random.key(0), task.seeds), hparams, source)
    update = jax.make_jaxpr(over_seeds(partial(loop.chunk, learner, 1), task.seeds))(runs, hparams, source)
    return counting.products(counting.live(update.jaxpr)) / (steps_per_update * task.seeds)


def layer(task: tasks.Images) -> tuple[int, int, int]:
    """Sizes [m, k] times [k, n] of the costliest layer; of a masked convolution what its mask leaves, about half."""
    if isinstance(task, tasks.Autoencoding):
        return task.batch_size, task.side**2, task.hidden[0]
    return task.batch_size * task.side**2, task.kernel**2 * task.features, task.features


def of_agent(name: str, task: tasks.OnPolicy | tasks.OffPolicy, rounds: int) -> Share:
    """Training, acting and environment in alternation."""
    found = steady.medians(programs(task, PARTS), rounds)
    return Share(name, **found, share_of_acting=found["training"] / found["acting"])


def programs(task: tasks.OnPolicy | tasks.OffPolicy, names: Sequence[str]) -> dict[str, steady.Program]:
    """Of a training, less evaluation, and its ceilings, `PARTS`, those in `names`; their work in steps."""
    agent, hparams, env_params, num_updates, steps_per_update = ours.agent(task)
    env, _ = envs.make(task.env)
    learner = agent._replace(evaluate=lambda *_: {})
    work = num_updates * steps_per_update * task.seeds
    length = num_updates * steps_per_update // task.num_envs
    value = critic(task, env.spec)

    def start(key, hparams, env_params):
        return loop.start(learner, key, hparams, env_params, num_updates)

    def act(run, _, env_params):
        def policy(key, obs):
            return agent.act(key, run.state, obs), value(run.state, obs)

        cursor, path = rollout.collect(env, policy, run.state.cursor, env_params, keys.unrolled(run.key), length)
        return cursor, path.extra

    def wander(run, _, env_params):
        policy = policies.uniform(env.spec)
        return rollout.collect(env, policy, run.state.cursor, env_params, keys.unrolled(run.key), length)[0]

    given = hparams, env_params
    runs = jax.jit(over_seeds(start, task.seeds))(random.split(random.key(0), task.seeds), *given)
    parts: dict[str, Any] = {
        "training": partial(loop.chunk, learner, num_updates),
        "acting": act,
        "environment": wander,
    }
    return {name: steady.compiled(over_seeds(parts[name], task.seeds), work, runs, *given) for name in names}


def critic(task: tasks.OnPolicy | tasks.OffPolicy, spec: Spec) -> Callable[[Any, jax.Array], jax.Array | None]:
    """What PPO computes for each observation beside an action, from (state, obs); others compute nothing more."""
    if isinstance(task, tasks.OffPolicy):
        return lambda state, obs: None
    description = MLP(task.hidden, task.activation)  # type: ignore[arg-type]
    network = policies.actor_critic(spec, policies.head(spec.action, "gaussian"), description)
    return lambda state, obs: network.apply(state.fit.params, obs)[1]


class Product(NamedTuple):
    """A matrix product of one size, [m, k] times [k, n], in billions of multiplications and additions a second."""

    size: str  # m x k x n
    product_gflops: float  # of a layer, in turn with the product back to its inputs
    weight_gradient_gflops: float  # [k, m] times [m, n]


class Memory(NamedTuple):
    """An array too large for caches, changed in place."""

    copy_gigabytes_per_second: float  # read and written, 256 MB


def product(m: int, k: int, n: int, rounds: int, repeats: int) -> Product:
    """The speed of a product, of its gradient to the inputs and of that to the weights."""
    batch_key, kernel_key, gradient_key = random.split(random.key(0), 3)
    batch, gradient = random.normal(batch_key, (m, k)), random.normal(gradient_key, (m, n))
    # Of orthogonal rows or columns: there and back nothing grows or fades, however often.
    kernel = jnp.linalg.qr(random.normal(kernel_key, (max(k, n), min(k, n))))[0]
    kernel = kernel if k >= n else kernel.T

    def there_and_back(batch, kernel):
        return lax.fori_loop(0, repeats, lambda _, batch: batch @ kernel @ kernel.T, batch)

    def weight_gradient(batch, gradient):
        def again(_, total):  # which has to depend on the one before, but hardly
            return batch.T @ (gradient + 1e-6 * total[0])

        return lax.fori_loop(0, repeats, again, jnp.zeros((k, n)))

    work = 2 * m * k * n * repeats
    programs = {
        "product": steady.compiled(there_and_back, 2 * work, batch, kernel),
        "weight_gradient": steady.compiled(weight_gradient, work, batch, gradient),
    }
    found = steady.medians(programs, rounds)
    return Product(f"{m}x{k}x{n}", found["product"] / 1e9, found["weight_gradient"] / 1e9)


def copy(rounds: int, repeats: int = 8) -> Memory:
    """The speed of memory."""
    block = jnp.zeros(64 * 2**20)

    def again(block):
        return lax.fori_loop(0, repeats, lambda _, block: block + 1, block)

    program = steady.in_place(again, 2 * block.nbytes * repeats, block)
    return Memory(steady.medians({"copy": program}, rounds)["copy"] / 1e9)


def of_machine(rounds: int, repeats: int = 200) -> Iterator[Product | Memory]:
    """Products at the sizes of small networks and of images, and memory."""
    for size in SIZES:
        yield product(*size, rounds, max(1, repeats * math.prod(SIZES[0]) // math.prod(size)))
    yield copy(rounds)
