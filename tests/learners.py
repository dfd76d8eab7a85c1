"""Every learner, small: what the contract is held against. A new algorithm or model adds its line to `LEARNERS`.

Sizes are such that no two arrays of a program have one shape by chance, and hyperparameters such that each of them
makes a difference within four updates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from generative import data, image_networks
from generative.models import (
    autoencoder,
    cyclegan,
    gan,
    gated_pixelcnn,
    made,
    nade,
    pix2pix,
    pixelcnn,
    pixelcnnpp,
    pixelrnn,
    sngan,
    vae,
    wavenet,
    wgan_gp,
)
from generative.residual import Residual
from jaxrl import envs, features
from jaxrl.algorithms import (
    a2c,
    ddpg,
    dqn,
    dyna,
    pets,
    ppo,
    ppo_recurrent,
    pqn,
    reinforce,
    sac,
    sac_discrete,
    td3,
    td_control,
    td_prediction,
    trpo,
)
from jaxrl.core import fit, networks, recurrent
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
    sizes = {"num_envs": 4, "num_steps": 12, "num_epochs": 2, "num_minibatches": 3, "eval_episodes": 2}
    config = reinforce.Config(**{**sizes, "network": networks.MLP((13, 11)), **options})
    hparams = reinforce.Hyperparams(learning_rate=Linear(0.01, 0.002), max_grad_norm=0.01)
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


def ppo_recurrent_on(environment: str, cell: Any, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_envs": 4, "num_steps": 6, "num_epochs": 2, "num_minibatches": 2, "eval_episodes": 2}
    network = recurrent.Recurrent(cell, 7, networks.MLP((13,)))
    config = ppo_recurrent.Config(**sizes, network=network, **options)
    hparams = ppo_recurrent.Hyperparams(learning_rate=Linear(0.01, 0.002), clip=0.05)
    return Case(ppo_recurrent.make(env, config), hparams, env_params)


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


OFF_POLICY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 6,
    "train_every": 2,
    "num_gradient_steps": 2,
    "warmup": 32,
    "capacity": 36,
    "batch_size": 10,
    "network": networks.MLP((13, 11), "relu"),
    "eval_episodes": 3,
}


def ddpg_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    config = ddpg.Config(**{**OFF_POLICY, **options})
    hparams = ddpg.Hyperparams(Linear(0.01, 0.002), 0.005, target_rate=0.1, noise=Linear(0.3, 0.1), noise_reversion=0.4)
    return Case(ddpg.make(env, config), hparams, env_params)


def td3_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    config = td3.Config(**{**OFF_POLICY, **options})
    hparams = td3.Hyperparams(
        Linear(0.01, 0.002), 0.005, target_rate=0.1, noise=Linear(0.3, 0.1), target_noise=0.4, target_noise_clip=0.3
    )
    return Case(td3.make(env, config), hparams, env_params)


def sac_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    hparams = sac.Hyperparams(Linear(0.01, 0.002), 0.005, 0.02, target_rate=0.1, temperature=0.5)
    return Case(sac.make(env, sac.Config(**{**OFF_POLICY, **options})), hparams, env_params)


def sac_discrete_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    hparams = sac_discrete.Hyperparams(Linear(0.01, 0.002), 0.005, 0.02, target_rate=0.1, temperature=0.5)
    return Case(sac_discrete.make(env, sac_discrete.Config(**{**OFF_POLICY, **options})), hparams, env_params)


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


def pets_on(environment: str, **options: Any) -> Case:
    env, env_params = envs.make(environment)
    sizes = {"num_members": 3, "horizon": 5, "num_candidates": 14, "num_elites": 7, "num_iterations": 2}
    config = pets.Config(**{**OFF_POLICY, **sizes, **options})
    return Case(pets.make(env, config), pets.Hyperparams(Linear(0.01, 0.002), 0.9, 0.6), env_params)


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


def vae_with_residual_networks() -> Case:
    spec, source = labelled_images(4)
    small = Residual((3, 5))
    sizes = {"latent_size": 3, "encoder": small, "decoder": small, "batch_size": 6}
    config = vae.Config(**sizes, conditional=True, likelihood="logistic")
    return Case(vae.make(spec, config), vae.Hyperparams(learning_rate=0.01), source, unused=("capacity",))


def autoencoder_on_images() -> Case:
    spec, source = labelled_images()
    config = autoencoder.Config(
        latent_size=5, encoder=networks.MLP((13,), dropout=0.1), decoder=networks.MLP((11,)), batch_size=7
    )
    return Case(autoencoder.make(spec, config), autoencoder.Hyperparams(Linear(0.01, 0.002)), source)


def labelled_images(width: int = 3) -> Any:
    """Description and arrays of 30 images of bytes, 4 x `width` x 1, in 3 classes."""
    generator = np.random.default_rng(0)
    train, test = generator.integers(0, 256, size=(2, 30, 4, width, 1), dtype=np.uint8)
    label = np.arange(30) % 3
    return data.from_arrays("bytes", data.Examples(train, label), data.Examples(test, label))


DCGANS = {"generator": image_networks.DCGAN((3,)), "discriminator": image_networks.DCGAN((4, 5))}


def gan_on(unused: tuple[str, ...] = (), **options: Any) -> Case:
    spec, source = labelled_images(4)
    sizes = {"latent_size": 5, "batch_size": 6, "classifier_updates": 2, "eval_samples": 10}
    players = {"generator": networks.MLP((13,), "relu"), "discriminator": networks.MLP((11,), "leaky_relu")}
    config = gan.Config(**{**sizes, **players, **options})
    hparams = gan.Hyperparams(Linear(0.01, 0.002), 0.02, gradient_penalty=5.0)
    return Case(gan.make(spec, config), hparams, source, ("average_decay", *unused))


def wgan_gp_on_images(optimizer: str = "sgd") -> Case:
    spec, source = labelled_images(4)
    players = {"generator": networks.MLP((13,), "relu"), "critic": image_networks.DCGAN((4, 5), norm="none")}
    sizes = {"latent_size": 5, "batch_size": 6, "critic_steps": 2, "classifier_updates": 0, "eval_samples": 10}
    config = wgan_gp.Config(**players, **sizes, optimizer=fit.Optimizer(optimizer))
    hparams = wgan_gp.Hyperparams(Linear(0.01, 0.002), 0.02)
    return Case(wgan_gp.make(spec, config), hparams, source, ("average_decay",))


def pairs_of_images() -> Any:
    """Description and arrays of 12 pairs of images of bytes, 6x5x1."""
    generator = np.random.default_rng(0)
    return data.from_arrays("pairs", *generator.integers(0, 256, size=(2, 12, 2, 6, 5, 1), dtype=np.uint8))


def pix2pix_on_pairs() -> Case:
    spec, source = pairs_of_images()
    generator, discriminator = image_networks.UNet((3, 7)), image_networks.Patch((4,))
    config = pix2pix.Config(generator, discriminator, batch_size=5, optimizer=fit.Optimizer("sgd"))
    return Case(pix2pix.make(spec, config), pix2pix.Hyperparams(Linear(0.001, 0.0002), 0.002, 10.0), source)


def cyclegan_on_pairs() -> Case:
    spec, source = pairs_of_images()
    generator, discriminator = image_networks.ResNet((3,), 0), image_networks.Patch((4,))
    config = cyclegan.Config(generator, discriminator, 2, history_size=4, optimizer=fit.Optimizer("sgd"))
    hparams = cyclegan.Hyperparams(Linear(0.001, 0.0002), 0.002, 5.0, 2.0)
    return Case(cyclegan.make(spec, config), hparams, source)


def sngan_on_images() -> Case:
    spec, source = labelled_images()
    players = {"generator": networks.MLP((13,), "relu"), "discriminator": networks.MLP((11,), "leaky_relu")}
    sizes = {"latent_size": 5, "batch_size": 7, "discriminator_steps": 2, "classifier_updates": 0, "eval_samples": 10}
    config = sngan.Config(**players, **sizes, optimizer=fit.Optimizer("sgd"))
    hparams = sngan.Hyperparams(Linear(0.01, 0.002), 0.02)
    return Case(sngan.make(spec, config), hparams, source, ("average_decay",))


def autoregressive_on(module: Any, shape: tuple[int, ...], levels: int, **options: Any) -> Case:
    generator = np.random.default_rng(0)
    x = generator.integers(0, levels, size=(30, *shape), dtype=np.uint8)
    split = data.Examples(x, generator.integers(0, 4, size=30))
    spec, source = data.from_arrays("grey", split, split, levels=levels)
    # A rate of 0.01, and for convolutions a bound that clips.
    hparams = module.Hyperparams(0.01, *([0.001] if "max_grad_norm" in module.Hyperparams._fields else []))
    return Case(module.make(spec, module.Config(batch_size=6, **options)), hparams, source)


LEARNERS: dict[str, Callable[[], Case]] = {
    "reinforce": lambda: reinforce_on("CartPole-v1"),
    "reinforce-constant": lambda: reinforce_on(
        "Pendulum-v1", ("value_learning_rate",), baseline="constant", weight_by_discount=True, eval_greedy=True
    ),
    "a2c-discrete": lambda: a2c_on("CartPole-v1", Linear(0.01, 0.002)),
    "a2c-gaussian": lambda: a2c_on(
        "Pendulum-v1",
        normalize_advantages=True,
        normalize_observations=True,
        normalize_rewards=True,
        optimizer=fit.Optimizer(epsilon=1e-5),
    ),
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
    "ppo-gru": lambda: ppo_recurrent_on("CartPole-v1", "gru"),
    "ppo-lstm": lambda: ppo_recurrent_on("Pendulum-v1", "lstm", normalize_observations=True, normalize_rewards=True),
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
    "ddpg": lambda: ddpg_on("MountainCarContinuous-v0", n_step=2),
    "td3": lambda: td3_on("MountainCarContinuous-v0", num_gradient_steps=4),
    "sac": lambda: sac_on("Pendulum-v1"),
    "sac-discrete": lambda: sac_discrete_on("CartPole-v1"),
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
    "pets": lambda: pets_on("Pendulum-v1"),
    "vae-gaussian": vae_on_reals,
    "vae-bernoulli": vae_on_bits,
    "vae-labels": vae_on_labels,
    "autoencoder": autoencoder_on_images,
    "gan": lambda: gan_on(conditional=True, penalize=True),
    "wgan-gp": wgan_gp_on_images,
    "pix2pix": pix2pix_on_pairs,
    "cyclegan": cyclegan_on_pairs,
    "sngan": sngan_on_images,
    "made": lambda: autoregressive_on(made, (4, 3, 1), 2, hidden=(13, 11), num_masks=2),
    "made-resampled": lambda: autoregressive_on(made, (7,), 5, hidden=(13,), resample=True),
    "nade": lambda: autoregressive_on(nade, (7,), 2, hidden=(13, 11)),
    "nade-orders": lambda: autoregressive_on(nade, (7,), 5, hidden=(13, 11), training="all_orders", num_orders=2),
    "pixelcnn": lambda: autoregressive_on(pixelcnn, (4, 3, 1), 2, features=7, num_blocks=1, head=11),
    "pixelcnn-colors": lambda: autoregressive_on(pixelcnn, (4, 2, 3), 5, features=6, num_blocks=1, head=9),
    "gated-pixelcnn": lambda: autoregressive_on(
        gated_pixelcnn, (4, 3, 1), 2, features=7, num_layers=2, head=11, conditional=True
    ),
    "wavenet": lambda: autoregressive_on(wavenet, (7,), 5, features=9, skip=11, num_layers=2, conditional=True),
    "gated-pixelcnn-colors": lambda: autoregressive_on(gated_pixelcnn, (4, 2, 3), 5, features=6, num_layers=2, head=9),
    "pixelrnn-row": lambda: autoregressive_on(
        pixelrnn, (4, 3, 1), 2, features=7, num_layers=1, first_kernel=3, head=11
    ),
    "pixelrnn-diagonal-colors": lambda: autoregressive_on(
        pixelrnn, (4, 2, 3), 5, recurrence="diagonal", features=6, num_layers=1, first_kernel=3, head=9
    ),
    "pixelcnnpp": lambda: autoregressive_on(
        pixelcnnpp, (4, 3, 1), 5, features=7, num_layers=1, num_sizes=2, num_logistics=2, conditional=True
    ),
    "gan-dcgan": lambda: gan_on(("gradient_penalty",), **DCGANS, classifier_updates=0),
    "vae-residual": vae_with_residual_networks,
    "gan-packed": lambda: gan_on(
        ("gradient_penalty",),
        loss="minimax",
        packing=2,
        discriminator_steps=2,
        generator_steps=3,
        classifier_updates=0,
    ),
}

# One learner of each kind; the others are held to the contract in the longer run.
QUICK = {"ppo-discrete", "dqn", "sac", "q-learning", "vae-bernoulli", "made", "gan"}
