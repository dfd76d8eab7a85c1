"""What is compared: all contestants are given the very numbers of a task, and those alone."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from jaxrl.core import checks


@dataclass(frozen=True)
class OnPolicy:
    """Proximal policy optimisation; a round is a whole training of every seed."""

    num_envs: int
    steps: int  # environment steps per seed in a round
    torch_steps: int  # in a round of a library that is slower by an order of magnitude; its rounds are one training
    seeds: int = 1  # trained together, where a library can
    algorithm: str = "ppo"
    env: str = "CartPole-v1"
    num_steps: int = 128  # of every environment per update
    num_epochs: int = 4
    num_minibatches: int = 4
    hidden: tuple[int, ...] = (64, 64)  # of actor and critic, each
    activation: str = "tanh"
    learning_rate: float = 2.5e-4
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5
    eval_episodes: int = 128  # behind a score


@dataclass(frozen=True)
class OffPolicy:
    """Learning from replay, one gradient step per step of all environments; a round is a whole training."""

    algorithm: str
    env: str
    num_envs: int
    steps: int  # environment steps per seed in a round, those of the warm-up among them
    torch_steps: int  # in a round of a library that is slower by an order of magnitude; its rounds are one training
    seeds: int = 1  # trained together, where a library can
    batch_size: int = 256
    capacity: int = 10_000
    warmup: int = 1000  # environment steps before the first gradient step
    hidden: tuple[int, ...] = (64, 64)  # of every network
    activation: str = "relu"
    learning_rate: float = 1e-3
    discount: float = 0.99
    target_every: int = 1  # gradient steps between updates of the targets
    target_rate: float = 0.005  # of the way that each of them goes
    eval_episodes: int = 128  # behind a score


@dataclass(frozen=True)
class Autoencoding:
    """A variational autoencoder on enlarged digits; a round is a whole training, however short."""

    algorithm: str = "vae"
    steps: int = 60_000  # images in a round, so many that a model's start is little of it
    torch_steps: int = 60_000
    seeds: int = 1
    num_images: int = 1200  # to train on
    side: int = 28  # pixels
    hidden: tuple[int, ...] = (200, 200)  # each way, tanh
    latent_size: int = 50
    batch_size: int = 100
    learning_rate: float = 1e-3
    file: str = ""  # of the images, see `images.py`


@dataclass(frozen=True)
class Autoregression:
    """A PixelCNN on enlarged digits; a round is a whole training, however short."""

    algorithm: str = "pixelcnn"
    steps: int = 1600  # images in a round
    torch_steps: int = 1600
    seeds: int = 1
    num_images: int = 1200  # to train on
    side: int = 28  # pixels
    features: int = 32  # of the residual blocks, twice as many between them
    num_blocks: int = 7
    first_kernel: int = 7
    kernel: int = 3
    head: int = 32
    num_parameters: int = 69_121  # less those that masks make zero; each contestant compares it with its own
    batch_size: int = 16
    learning_rate: float = 2e-3
    max_grad_norm: float = 1.0  # per pixel
    file: str = ""  # of the images, see `images.py`


Images = Autoencoding | Autoregression
Task = OnPolicy | OffPolicy | Images


def _on_policy() -> dict[str, Task]:
    cartpole = {
        f"ppo-cartpole-{num_envs}x{seeds}": OnPolicy(num_envs, 2**19 if seeds == 1 else 2**17, 20_480, seeds)
        for num_envs in (4, 64)
        for seeds in (1, 8, 32)
    }
    breakout = OnPolicy(64, 2**18, 16_384, env="Breakout-MinAtar", num_minibatches=8)
    return {**cartpole, "ppo-breakout-64x1": breakout}


def _off_policy() -> dict[str, Task]:
    cartpole = OffPolicy(
        "dqn",
        "CartPole-v1",
        num_envs=10,
        steps=100_000,
        torch_steps=10_000,
        batch_size=128,
        target_every=200,
        target_rate=1.0,
    )
    # Less its warm-up, a whole number of updates of 50 steps in each environment.
    one = OffPolicy("", "Pendulum-v1", num_envs=1, steps=10_000, torch_steps=1000)
    many = dataclasses.replace(one, num_envs=64, warmup=1024, steps=1024 + 64 * 1600, torch_steps=6400)
    pendulum = {"1x1": one, "1x8": dataclasses.replace(one, seeds=8), "64x1": many}
    return {
        "dqn-cartpole-10x1": cartpole,
        "dqn-cartpole-10x8": dataclasses.replace(cartpole, seeds=8),
        **{
            f"{algorithm}-pendulum-{size}": dataclasses.replace(task, algorithm=algorithm)
            for algorithm in ("ddpg", "td3", "sac")
            for size, task in pendulum.items()
        },
    }


TASKS: dict[str, Task] = {**_on_policy(), **_off_policy(), "vae": Autoencoding(), "pixelcnn": Autoregression()}


def get(name: str) -> Task:
    """The task called `name`.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in TASKS:
        raise ValueError(checks.unknown("benchmark", name, TASKS))
    return TASKS[name]


def tiny(task: Task) -> Task:
    """`task` at a size that only shows that it runs."""
    if isinstance(task, Autoencoding):
        return dataclasses.replace(task, steps=200, torch_steps=200, num_images=200, side=8)
    if isinstance(task, Autoregression):
        return dataclasses.replace(task, steps=32, torch_steps=32, num_images=32, side=8)
    if isinstance(task, OnPolicy):
        steps = 2 * task.num_envs * 8
        return dataclasses.replace(task, steps=steps, torch_steps=steps, num_steps=8, eval_episodes=2)
    count = task.num_envs
    small = dataclasses.replace(task, batch_size=8, eval_episodes=2)
    return dataclasses.replace(small, steps=40 * count, torch_steps=24 * count, capacity=32 * count, warmup=16 * count)


def to_json(task: Any) -> str:
    """For a contestant's command line."""
    return json.dumps(dataclasses.asdict(task))


def from_json(text: str) -> Task:
    """What `to_json` wrote."""
    fields = json.loads(text)
    if "hidden" in fields:
        fields["hidden"] = tuple(fields["hidden"])
    kinds = {"ppo": OnPolicy, "vae": Autoencoding, "pixelcnn": Autoregression}
    kind = kinds.get(fields["algorithm"], OffPolicy)
    return kind(**fields)
