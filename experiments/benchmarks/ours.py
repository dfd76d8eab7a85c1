"""This library as a contestant: `python -m experiments.benchmarks.ours TASK` (see `protocol.py`)."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax import random

from experiments import registry
from experiments.benchmarks import protocol, tasks
from experiments.experiment import over_seeds
from generative import data
from generative.models import pixelcnn, vae
from jaxrl import envs
from jaxrl.core import devices, fit, loop, schedule
from jaxrl.core.networks import MLP


def agent(task: tasks.OnPolicy | tasks.OffPolicy) -> tuple[Any, Any, Any, int]:
    """Learner, hyperparameters, environment parameters and number of updates of a task."""
    module = registry.get(task.algorithm).load()
    env, env_params = envs.make(task.env)
    network = MLP(task.hidden, task.activation)  # type: ignore[arg-type]
    if isinstance(task, tasks.OnPolicy):
        config = module.Config(
            num_envs=task.num_envs,
            num_steps=task.num_steps,
            num_epochs=task.num_epochs,
            num_minibatches=task.num_minibatches,
            network=network,
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
        config = module.Config(
            num_envs=task.num_envs,
            num_steps=math.gcd(50, task.steps // task.num_envs),
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
    return module.make(env, config), hparams, env_params, max(1, task.steps // config.steps_per_update)


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


def model(task: tasks.Images) -> tuple[Any, Any, Any, int]:
    """Model, hyperparameters, images and number of updates of a task.

    Raises:
        ValueError: a number of parameters that is not the task's.
    """
    shape = (task.side, task.side, 1)
    images = np.random.default_rng(0).integers(0, 2, (task.num_images, *shape), dtype=np.uint8)
    spec, source = data.from_arrays("random", images, images[:10], levels=2)
    num_updates = task.steps // task.batch_size
    if isinstance(task, tasks.Autoencoding):
        config = vae.Config(
            latent_size=task.latent_size,
            encoder=MLP(task.hidden),
            decoder=MLP(task.hidden),
            batch_size=task.batch_size,
            optimizer=fit.Optimizer(),
        )
        return vae.make(spec, config), vae.Hyperparams(learning_rate=task.learning_rate), source, num_updates
    sizes = ("features", "num_blocks", "first_kernel", "kernel", "head", "batch_size")
    pixels = pixelcnn.make(spec, pixelcnn.Config(**{name: getattr(task, name) for name in sizes}))
    hparams = pixelcnn.Hyperparams(task.learning_rate, task.max_grad_norm)
    params = jax.eval_shape(pixels.init, random.key(0), hparams, source).fit.params
    if (count := sum(leaf.size for leaf in jax.tree.leaves(params))) != task.num_parameters:
        raise ValueError(f"{count:,} parameters where the task has {task.num_parameters:,}.")
    return pixels, hparams, source, num_updates


def learner(task: tasks.Task) -> tuple[Any, Any, Any, int]:
    """Learner, hyperparameters, what it learns from and number of updates of a task."""
    return model(task) if isinstance(task, tasks.Images) else agent(task)


def start(fields: dict[str, Any]) -> tuple[Callable[[int], protocol.Round], float]:
    """Compile a task. A round trains every seed from its start; evaluation is left out of its seconds."""
    task = tasks.from_json(json.dumps(fields))
    if task.seeds > 1:
        devices.use_cores()  # as sweeps do
    trained, hparams, source, num_updates = learner(task)
    training = loop.Learner(trained.init, trained.update, lambda *_: {})

    def train(key: jax.Array, hparams: Any, source: Any) -> Any:
        run = loop.start(training, key, hparams, source, num_updates)
        return loop.chunk(training, num_updates, run, hparams, source)[0].state

    mesh = devices.mesh(devices=jax.local_devices()[: math.gcd(task.seeds, jax.local_device_count())])
    axes = (0, None, None)
    lanes = devices.lanes_over(mesh, over_seeds(train, task.seeds), axes)

    def arguments(number: int) -> Any:
        root = random.fold_in(random.key(0), number)
        keys = random.split(root, task.seeds) if task.seeds > 1 else root[None]
        return jax.device_put((keys, hparams, source), devices.shardings(mesh, axes))

    begin = time.perf_counter()
    program = jax.jit(lanes).lower(*arguments(0)).compile()
    compile_seconds = time.perf_counter() - begin

    def last_return(state: Any, hparams: Any, source: Any) -> jax.Array:
        final = schedule.at(hparams, jnp.float32(1))
        return trained.evaluate(random.key(1), state, final, source)["eval/return"]

    scores = jax.jit(over_seeds(last_return, task.seeds))

    def play(number: int) -> protocol.Round:
        given = jax.block_until_ready(arguments(number))
        begin = time.perf_counter()
        states = jax.block_until_ready(program(*given))
        seconds = time.perf_counter() - begin
        score = None if isinstance(task, tasks.Images) else float(scores(states, *given[1:]).mean())
        per_update = task.steps // num_updates
        return protocol.Round(per_update * num_updates * task.seeds, seconds, score)

    return play, compile_seconds


if __name__ == "__main__":
    protocol.serve(start)
