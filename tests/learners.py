"""Every learner, small: what the contract is held against. A new algorithm or model adds its line to `LEARNERS`.

Sizes are such that no two arrays of a program have one shape by chance, and hyperparameters such that each of them
makes a difference within four updates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from generative import data
from generative.models import autoencoder, gan, sngan, vae, wgan_gp
from jaxrl import envs, features
from jaxrl.algorithms import a2c, dqn, dyna, ppo, pqn, reinforce, td_control, td_prediction, trpo
from jaxrl.core import fit, networks
from jaxrl.core.schedule import Linear


class Case(NamedTuple):
    learner: Any
    hparams: Any
    source: Any
    unused: tuple[str, ...] = ()  # hyperparameters that this configuration does not read


def ppo_on(environment: str, learning_rate: Any = 0.01, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_envs": 4, "num_steps": 6, "num_epochs": 2, "num_minibatches": 2, "eval_episodes": 2}
    config = ppo.Config(**{**sizes, "network": networks.MLP((13, 11)), **options})
    hparams = ppo.Hyperparams(learning_rate=learning_rate, clip=0.05, target_kl=0.003)
    unused = "target_kl" if config.surrogate == "clip" else "clip"
    return Case(ppo.make(env, config), hparams, env_params, (unused,))


def reinforce_on(environment: str, unused: tuple[str, ...] = ("baseline_rate",), **options: Any) -> Case:
    env, env_params = envs.make(environment, max_steps_in_episode=5)
    sizes = {"num_envs": 4, "num_steps": 12, "eval_episodes": 2}
    config = reinforce.Config(**{**sizes, "network": networks.MLP((13, 11)), **options})
    hparams = reinforce.Hyperparams(learning_rate=Linear(0.01, 0.002), max_grad_norm=0.5)
    return Case(reinforce.make(env, config), hparams, env_params, unused)


def a2c_on(environment: str, learning_rate: Any = 0.01, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_envs": 4, "num_steps": 6, "eval_episodes": 2}
    config = a2c.Config(**{**sizes, "network": networks.MLP((13, 11)), **options})
    return Case(a2c.make(env, config), a2c.Hyperparams(learning_rate=learning_rate), env_params)


def trpo_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_envs": 4, "num_steps": 6, "num_epochs": 2, "num_minibatches": 2, "eval_episodes": 2}
    config = trpo.Config(**{**sizes, "network": networks.MLP((13, 11)), **options}, num_conjugate_gradient_steps=3)
    # Full steps would break the bound, so that the line search has something to do.
    hparams = trpo.Hyperparams(learning_rate=Linear(0.01, 0.002), max_kl=0.5, damping=0.02, backtrack=0.7)
    return Case(trpo.make(env, config), hparams, env_params)


def pqn_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_envs": 4, "num_steps": 6, "num_epochs": 2, "num_minibatches": 2, "eval_episodes": 2}
    network = networks.MLP((13, 11), layer_norm=True)
    config = pqn.Config(**{**sizes, "network": network, "optimizer": fit.Optimizer(), **options})
    hparams = pqn.Hyperparams(learning_rate=0.05, epsilon=Linear(1.0, 0.2), max_grad_norm=0.5)
    return Case(pqn.make(env, config), hparams, env_params)


def dqn_on(environment: str, unused: tuple[str, ...] = (), **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_envs": 4, "num_steps": 6, "train_every": 2, "warmup": 32, "capacity": 36, "batch_size": 10}
    config = dqn.Config(**{**sizes, "eval_episodes": 2, "network": networks.MLP((13, 11), "relu"), **options})
    hparams = dqn.Hyperparams(
        learning_rate=Linear(0.01, 0.002),
        epsilon=Linear(0.6, 0.1),
        target_every=4,
        target_rate=0.5,
        huber_delta=0.8,
        max_grad_norm=0.05,
    )
    return Case(dqn.make(env, config), hparams, env_params, unused)


def td_control_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    agent = td_control.make(env, td_control.Config(**{"num_steps": 40, "eval_episodes": 2, **options}))
    tabular = "basis" not in options
    hparams = td_control.Hyperparams(0.3, 0.5, 0.9, 0.8, exploration=Linear(0.9, 0.4))
    return Case(agent, hparams, env_params, unused=() if tabular else ("visit_power",))


def td_prediction_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_steps": 40, "eval_episodes": 2, "eval_steps": 3}
    agent = td_prediction.make(env, td_prediction.Config(**{**sizes, **options}))
    unused = ("trace_lambda",) if options.get("n_step") else ()
    return Case(agent, td_prediction.Hyperparams(0.3, 0.9, 0.8), env_params, unused)


def dyna_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    agent = dyna.make(env, dyna.Config(**{"num_steps": 20, "planning_steps": 5, "eval_episodes": 2, **options}))
    return Case(agent, dyna.Hyperparams(0.3, 0.9, Linear(0.9, 0.4)), env_params)


def vae_on_reals() -> Case:
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(2, 30, 7)).astype(np.float32)
    spec, source = data.from_arrays("reals", train, test)
    config = vae.Config(
        latent_size=3,
        encoder=networks.MLP((13,), dropout=0.1),
        decoder=networks.MLP((11,)),
        likelihood="gaussian",
        batch_size=6,
        eval_samples=2,
    )
    # A capacity between the rates that these updates see and twice those: half of it asks for less.
    hparams = vae.Hyperparams(learning_rate=Linear(0.01, 0.002), capacity=1.4)
    return Case(vae.make(spec, config), hparams, source)


def vae_on_bits() -> Case:
    generator = np.random.default_rng(0)
    train, test = generator.integers(0, 256, size=(2, 30, 4, 3, 1), dtype=np.uint8)
    spec, source = data.from_arrays("bytes", train, test)
    config = vae.Config(
        latent_size=3, encoder=networks.MLP((13,)), decoder=networks.MLP((11,)), binarization="dynamic", batch_size=6
    )
    return Case(vae.make(spec, config), vae.Hyperparams(learning_rate=0.01), source, unused=("capacity", "scale"))


def vae_on_labels() -> Case:
    spec, source = labelled_images()
    config = vae.Config(
        latent_size=5,
        encoder=networks.CNN((3,), padding="SAME", hidden=(13,)),
        decoder=networks.TransposedCNN((11,), (6,), (2,), (1,)),
        likelihood="gaussian",
        learned_scale=True,
        conditional=True,
        importance_samples=2,
        batch_size=7,
    )
    return Case(vae.make(spec, config), vae.Hyperparams(learning_rate=0.01), source, unused=("beta", "capacity"))


def autoencoder_on_images() -> Case:
    spec, source = labelled_images()
    config = autoencoder.Config(
        latent_size=5, encoder=networks.MLP((13,), dropout=0.1), decoder=networks.MLP((11,)), batch_size=7
    )
    return Case(autoencoder.make(spec, config), autoencoder.Hyperparams(Linear(0.01, 0.002)), source)


def labelled_images() -> Any:
    """Description and arrays of 30 images of bytes, 4x3x1, in 3 classes."""
    generator = np.random.default_rng(0)
    train, test = generator.integers(0, 256, size=(2, 30, 4, 3, 1), dtype=np.uint8)
    label = np.arange(30) % 3
    return data.from_arrays("bytes", data.Examples(train, label), data.Examples(test, label))


def gan_on(unused: tuple[str, ...] = (), **options: Any) -> Case:
    spec, source = labelled_images()
    sizes = {"latent_size": 5, "batch_size": 6, "classifier_updates": 2, "eval_samples": 10}
    players = {"generator": networks.MLP((13,), "relu"), "discriminator": networks.MLP((11,), "leaky_relu")}
    config = gan.Config(**{**sizes, **players, **options})
    hparams = gan.Hyperparams(Linear(0.01, 0.002), 0.02, gradient_penalty=5.0)
    return Case(gan.make(spec, config), hparams, source, ("average_decay", *unused))


def wgan_gp_on_images() -> Case:
    spec, source = labelled_images()
    players = {"generator": networks.MLP((13,), "relu"), "critic": networks.MLP((11,), "leaky_relu")}
    sizes = {"latent_size": 5, "batch_size": 6, "critic_steps": 2, "classifier_updates": 0, "eval_samples": 10}
    config = wgan_gp.Config(**players, **sizes)
    hparams = wgan_gp.Hyperparams(Linear(0.01, 0.002), 0.02)
    return Case(wgan_gp.make(spec, config), hparams, source, ("average_decay",))


def sngan_on_images() -> Case:
    spec, source = labelled_images()
    players = {"generator": networks.MLP((13,), "relu"), "discriminator": networks.MLP((11,), "leaky_relu")}
    sizes = {"latent_size": 5, "batch_size": 6, "discriminator_steps": 2, "classifier_updates": 0, "eval_samples": 10}
    config = sngan.Config(**players, **sizes)
    hparams = sngan.Hyperparams(Linear(0.01, 0.002), 0.02)
    return Case(sngan.make(spec, config), hparams, source, ("average_decay",))


LEARNERS: dict[str, Callable[[], Case]] = {
    "reinforce": lambda: reinforce_on("CartPole-v1"),
    "reinforce-constant": lambda: reinforce_on(
        "Pendulum-v1", ("value_coef",), baseline="constant", weight_by_discount=True, eval_greedy=True
    ),
    "a2c-discrete": lambda: a2c_on("CartPole-v1", Linear(0.01, 0.002)),
    "a2c-gaussian": lambda: a2c_on(
        "Pendulum-v1",
        normalize_advantages=True,
        normalize_observations=True,
        normalize_rewards=True,
        optimizer=fit.Optimizer(epsilon=1e-5),
    ),
    "a2c-image": lambda: a2c_on("Breakout-MinAtar", network=networks.CNN((3,), hidden=(11,)), shared_torso=True),
    "ppo-discrete": lambda: ppo_on("CartPole-v1", Linear(0.01, 0.002)),
    "ppo-gaussian": lambda: ppo_on(
        "Pendulum-v1", normalize_observations=True, normalize_rewards=True, optimizer=fit.Optimizer("rmsprop")
    ),
    "ppo-squashed": lambda: ppo_on("MountainCarContinuous-v0", distribution="squashed_gaussian", eval_greedy=True),
    "ppo-kl": lambda: ppo_on("CartPole-v1", surrogate="kl"),
    "ppo-image": lambda: ppo_on("Breakout-MinAtar", network=networks.CNN((3,), hidden=(11,)), shared_torso=True),
    "trpo-discrete": lambda: trpo_on("CartPole-v1"),
    "trpo-gaussian": lambda: trpo_on("Pendulum-v1", normalize_observations=True, normalize_rewards=True),
    "trpo-squashed": lambda: trpo_on("MountainCarContinuous-v0", distribution="squashed_gaussian", eval_greedy=True),
    "pqn-vector": lambda: pqn_on("CartPole-v1", normalize_observations=True),
    "pqn-image": lambda: pqn_on("Breakout-MinAtar", network=networks.CNN((3,), hidden=(11,), layer_norm=True)),
    "dqn": lambda: dqn_on("CartPole-v1", unused=("importance_exponent",)),
    "rainbow": lambda: dqn_on(
        "CartPole-v1",
        double=True,
        dueling=True,
        n_step=2,
        prioritized=True,
        distribution="categorical",
        num_atoms=7,
        noisy=True,
        unused=("huber_delta",),
    ),
    "qr-dqn-image": lambda: dqn_on(
        "Breakout-MinAtar",
        network=networks.CNN((3,), hidden=(11,)),
        distribution="quantile",
        num_atoms=7,
        num_gradient_steps=2,
        unused=("importance_exponent",),
    ),
    "sarsa": lambda: td_control_on("tabular/CliffWalking", target="sarsa"),
    "expected-sarsa": lambda: td_control_on("tabular/CliffWalking", target="expected_sarsa", policy="softmax"),
    "q-learning": lambda: td_control_on("FrozenLake-misc", initial_value=1.0),
    "double-q-learning": lambda: td_control_on("tabular/CliffWalking", target="double_q_learning"),
    "ucb": lambda: td_control_on("tabular/Garnet", policy="ucb"),
    "q-learning-fourier": lambda: td_control_on(
        "MountainCar-v0", basis=features.Fourier((-1.2, -0.07), (0.6, 0.07), order=2)
    ),
    "td-lambda": lambda: td_prediction_on("tabular/RandomWalk"),
    "td-n-step": lambda: td_prediction_on("tabular/RandomWalk", n_step=3),
    "monte-carlo": lambda: td_prediction_on("tabular/RandomWalk", offline=True),
    "dyna-q": lambda: dyna_on("tabular/CliffWalking"),
    "dyna-sweeps": lambda: dyna_on("tabular/Garnet", planner="sweeps", planning_steps=1),
    "vae-gaussian": vae_on_reals,
    "vae-bernoulli": vae_on_bits,
    "vae-labels": vae_on_labels,
    "autoencoder": autoencoder_on_images,
    "gan": lambda: gan_on(conditional=True, penalize=True),
    "wgan-gp": wgan_gp_on_images,
    "sngan": sngan_on_images,
    "gan-packed": lambda: gan_on(("gradient_penalty",), packing=2, discriminator_steps=2, generator_steps=3),
}

# One form of each algorithm; the rest is tested in the longer run.
QUICK = {
    "reinforce",
    "a2c-discrete",
    "ppo-discrete",
    "ppo-gaussian",
    "trpo-discrete",
    "pqn-vector",
    "dqn",
    "q-learning",
    "td-lambda",
    "dyna-q",
    "vae-bernoulli",
    "autoencoder",
    "gan",
}
