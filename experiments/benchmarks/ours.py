"""This library as a contestant: `python -m experiments.benchmarks.ours TASK` (see `protocol.py`)."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax import random
from jax.sharding import NamedSharding, PartitionSpec

from experiments import registry
from experiments.benchmarks import images, protocol, tasks
from experiments.experiment import over_seeds
from generative import data
from generative.models import pixelcnn, vae
from jaxrl import envs
from jaxrl.core import devices, fit, loop, schedule
from jaxrl.core.networks import MLP

SCORES = {"vae": ("eval/elbo", -1.0), "pixelcnn": ("eval/nll", 1.0)}  # metric and sign; of the others the return


class Subject(NamedTuple):
    """What trains in a task."""

    learner: Any
    hparams: Any
    source: Any  # environment parameters or images
    num_updates: int
    steps_per_update: int  # of each seed: environment steps or images


def agent(task: tasks.OnPolicy | tasks.OffPolicy) -> Subject:
    """The agent of a task. Its warm-up is part of the task's steps, beside those of its updates."""
    module = registry.get(task.algorithm).load()
    env, env_params = envs.make(task.env)
    network = MLP(task.hidden, task.activation)  # type: ignore[arg-type]
    steps = task.steps
    if isinstance(task, tasks.OnPolicy):
        config = module.Config(
            num_envs=task.num_envs,
            num_steps=task.num_steps,
            num_epochs=task.num_epochs,
            num_minibatches=task.num_minibatches,
            network=network,
            optimizer=fit.Optimizer(),
            eval_episodes=task.eval_episodes,
        )
        hparams = module.Hyperparams(
            learning_rate=task.learning_rate,
            discount=task.discount,
            gae_lambda=task.gae_lambda,
            clip=task.clip,
            value_coef=task.value_coef,
            entropy_coef=task.entropy_coef,
            max_grad_norm=task.max_grad_norm,
        )
    else:
        steps -= task.warmup
        config = module.Config(
            num_envs=task.num_envs,
            num_steps=math.gcd(50, steps // task.num_envs),
            batch_size=task.batch_size,
            capacity=task.capacity,
            warmup=task.warmup,
            network=network,
            eval_episodes=task.eval_episodes,
        )
        hparams = module.Hyperparams(
            learning_rate=task.learning_rate,
            discount=task.discount,
            target_rate=task.target_rate,
            **_like_rejax(task),
        )
        if task.algorithm != "dqn":
            hparams = hparams._replace(actor_learning_rate=task.learning_rate)
    num_updates = max(1, steps // config.steps_per_update)
    learner = module.make(env, config)
    if task.algorithm in ("ppo", "dqn"):
        learner = learner._replace(init=_init_like_rejax(learner.init))
    return Subject(learner, hparams, env_params, num_updates, config.steps_per_update)


def _like_rejax(task: tasks.OffPolicy) -> dict[str, Any]:
    """Loss and noise as the other library has them fixed; its noise on actions is in their units, from -2 to 2."""
    if task.algorithm == "dqn":
        return {
            "target_every": task.target_every,
            "epsilon": schedule.Linear(1.0, 0.05, 0.1),
            "huber_delta": math.inf,
            "max_grad_norm": math.inf,
        }
    noise = {"ddpg": {"noise": 0.15}, "td3": {"noise": 0.15, "target_noise": 0.1, "target_noise_clip": 0.25}}
    return noise.get(task.algorithm, {})


def _init_like_rejax(init: Callable[..., Any]) -> Callable[..., Any]:
    """`init` of a learner with weights as Flax draws them if it is not told otherwise: variance 1 / inputs."""

    def start(key: jax.Array, hparams: Any, source: Any) -> Any:
        key, weights_key = random.split(key)
        state = init(key, hparams, source)
        leaves, structure = jax.tree.flatten(state.fit.params)
        drawn = [
            jax.nn.initializers.lecun_normal()(random.fold_in(weights_key, i), leaf.shape) if leaf.ndim > 1 else leaf
            for i, leaf in enumerate(leaves)
        ]
        params = jax.tree.unflatten(structure, drawn)
        state = state._replace(fit=state.fit._replace(params=params))
        return state._replace(target_params=params) if hasattr(state, "target_params") else state

    return start


def model(task: tasks.Images) -> Subject:
    """The model of a task.

    Raises:
        ValueError: a number of parameters that is not the task's.
    """
    x = images.read(task.file, task.side)
    spec, source = data.from_arrays("images", x["train"][: task.num_images, ..., None], x["test"][..., None], levels=2)
    num_updates = task.steps // task.batch_size
    if isinstance(task, tasks.Autoencoding):
        config = vae.Config(
            latent_size=task.latent_size,
            encoder=MLP(task.hidden),
            decoder=MLP(task.hidden),
            batch_size=task.batch_size,
            optimizer=fit.Optimizer(),
        )
        rates = vae.Hyperparams(learning_rate=task.learning_rate)
        return Subject(vae.make(spec, config), rates, source, num_updates, task.batch_size)
    sizes = ("features", "num_blocks", "first_kernel", "kernel", "head", "batch_size")
    pixels = pixelcnn.make(spec, pixelcnn.Config(**{name: getattr(task, name) for name in sizes}))
    hparams = pixelcnn.Hyperparams(task.learning_rate, task.max_grad_norm)
    params = jax.eval_shape(pixels.init, random.key(0), hparams, source).fit.params
    if (count := sum(leaf.size for leaf in jax.tree.leaves(params))) != task.num_parameters:
        raise ValueError(f"{count:,} parameters where the task has {task.num_parameters:,}.")
    return Subject(pixels, hparams, source, num_updates, task.batch_size)


def subject(task: tasks.Task) -> Subject:
    """The agent or model of a task."""
    return model(task) if isinstance(task, tasks.Images) else agent(task)


def start(fields: dict[str, Any]) -> protocol.Ready:
    """Compile a task. A round trains every seed from its start; evaluation is left out of its seconds."""
    task = tasks.from_json(json.dumps(fields))
    split = isinstance(task, tasks.Autoregression)  # over all cores, as `train --split` does
    if task.seeds > 1 or split:
        devices.use_cores()  # as sweeps do
    trained, hparams, source, num_updates, steps_per_update = subject(task)
    training = loop.Learner(trained.init, trained.update, lambda *_: {})

    def train(key: jax.Array, hparams: Any, source: Any) -> Any:
        run = loop.start(training, key, hparams, source, num_updates)
        return loop.chunk(training, num_updates, run, hparams, source)[0].state

    over_cores = devices.mesh(devices=jax.local_devices()[: math.gcd(task.seeds, jax.local_device_count())])
    axes = (0, None, None)
    lanes = devices.lanes_over(over_cores, over_seeds(train, task.seeds), axes)
    batches = devices.mesh(devices.BATCH)
    whole = NamedSharding(batches, PartitionSpec())

    def arguments(number: int) -> Any:
        root = random.fold_in(random.key(0), number)
        keys = random.split(root, task.seeds) if task.seeds > 1 else root[None]
        return jax.device_put((keys, hparams, source), whole if split else devices.shardings(over_cores, axes))

    begin = time.perf_counter()
    with jax.set_mesh(batches) if split else nullcontext():
        program = jax.jit(lanes).lower(*arguments(0)).compile()
    compile_seconds = time.perf_counter() - begin

    metric, sign = SCORES.get(task.algorithm, ("eval/return", 1.0))

    def last_score(state: Any, hparams: Any, source: Any) -> jax.Array:
        final = schedule.at(hparams, jnp.float32(1))
        return sign * trained.evaluate(random.key(1), state, final, source)[metric]

    scores = jax.jit(over_seeds(last_score, task.seeds))
    warmup = task.warmup if isinstance(task, tasks.OffPolicy) else 0
    steps = warmup + num_updates * steps_per_update

    def play(number: int) -> protocol.Round:
        given = jax.block_until_ready(arguments(number))
        begin = time.perf_counter()
        states = jax.block_until_ready(program(*given))
        seconds = time.perf_counter() - begin
        return protocol.Round(steps * task.seeds, seconds, float(scores(states, *given[1:]).mean()), steps)

    return protocol.Ready(play, compile_seconds, jax.devices()[0].device_kind, ("jax", "jaxlib"))


if __name__ == "__main__":
    protocol.serve(start)
