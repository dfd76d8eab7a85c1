"""Settings that are known to work, by name. What a preset does not say is the default of the algorithm's module."""

from dataclasses import dataclass, field
from typing import Any

from experiments import registry, sources
from experiments.experiment import Experiment
from generative.image_networks import DCGAN, Patch, ResNet, UNet
from jaxrl.core import checks
from jaxrl.core.fit import Optimizer
from jaxrl.core.networks import CNN, MLP, Recurrent, TransposedCNN
from jaxrl.core.schedule import Linear
from jaxrl.features import Fourier


@dataclass(frozen=True)
class Preset:
    """An experiment as what differs from the defaults."""

    algorithm: str
    source: sources.Environment | sources.Data
    steps: int
    config: dict[str, Any] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 50
    seeds: int = 16  # in the results table
    published: str = ""  # the figure of a paper or of another library, beside ours in that table

    def experiment(self) -> Experiment:
        """The whole experiment, with one seed."""
        module = registry.get(self.algorithm).load()
        config, hparams = module.Config(**self.config), module.Hyperparams(**self.hparams)
        return Experiment(self.algorithm, self.source, config, hparams, self.steps, self.evaluations)


def env(name: str, *pairs: str, hide: tuple[int, ...] = ()) -> sources.Environment:
    """The environment `name`, made with name=value `pairs`, less the entries of its observations to `hide`."""
    return sources.Environment(name, pairs, hide)


def data(name: str, *pairs: str) -> sources.Data:
    """The data set `name`, loaded with name=value `pairs`."""
    return sources.Data(name, data_kwargs=pairs)


# Every option of DQN at once (Hessel et al. 2018).
RAINBOW: dict[str, Any] = {
    "double": True,
    "dueling": True,
    "n_step": 3,
    "prioritized": True,
    "distribution": "categorical",
    "noisy": True,
}

# Recurrent PPO: few steps in many environments, because a CPU computes steps one after the other.
RECURRENT: dict[str, Any] = {"num_envs": 32, "num_steps": 32, "eval_greedy": True}
GRU, LSTM = (Recurrent(cell, 32, MLP((32,))) for cell in ("gru", "lstm"))

# CartPole whose velocities are hidden.
MASKED_CARTPOLE: dict[str, Any] = {
    "source": env("CartPole-v1", hide=(1, 3)),
    "steps": 500_000,
    "hparams": {"learning_rate": Linear(3e-3), "discount": 0.98, "gae_lambda": 0.9, "entropy_coef": 0.0},
}

# A bit is shown at the first step and asked for at the last, 30 steps later: paths are longer than that.
MEMORY_CHAIN: dict[str, Any] = {
    "source": env("MemoryChain-bsuite", "memory_length=30"),
    "steps": 400_000,
    "hparams": {"learning_rate": Linear(3e-3), "entropy_coef": 0.0},
}

# DQN on MinAtar's grids: a tenth of Mnih et al.'s replay for a tenth of their steps and a small network.
MINATAR_DQN: dict[str, Any] = {
    "config": {"num_steps": 100, "batch_size": 64, "capacity": 100_000, "warmup": 5000, "double": True, "n_step": 3},
    "hparams": {"learning_rate": 2.5e-4, "epsilon": Linear(1.0, 0.02, 0.02), "target_every": 500},
    "evaluations": 100,
    "seeds": 1,
}

# PQN on them: one pass over the steps of many environments (Gallici et al. 2024, appendix).
MINATAR_PQN: dict[str, Any] = {
    "config": {"num_envs": 64, "num_epochs": 1, "network": CNN(layer_norm=True)},
    "hparams": {"learning_rate": Linear(1e-3)},
    "seeds": 1,
}

# A GAN on mixtures of narrow modes: with a penalty that fades, no mode is lost and each is sharp at the end.
TOY_GAN: dict[str, Any] = {
    "generator": MLP((128, 128, 128), "relu"),
    "discriminator": MLP((128, 128, 128), "leaky_relu"),
    "penalize": True,
    "batch_size": 64,
}

# Strided convolutions down, transposed ones up, for 28x28 pixels.
CONV_28: dict[str, Any] = {
    "encoder": CNN((32, 64), (4, 4), (2, 2), "SAME", hidden=(256,)),
    "decoder": TransposedCNN((256,), (64, 32), (4, 4), (2, 2)),
}

# For sprites of 64x64 pixels: the networks, latents and batches of Locatello et al. 2019, table 2.
CONV_64: dict[str, Any] = {
    "latent_size": 10,
    "encoder": CNN((32, 32, 64, 64), (4, 4, 4, 4), (2, 2, 2, 2), "SAME", hidden=(256,)),
    "decoder": TransposedCNN((256,), (64, 64, 32, 32), (4, 4, 4, 4), (2, 2, 2, 2)),
    "batch_size": 64,
}

PRESETS = {
    "reinforce-cartpole": Preset(
        "reinforce",
        env("CartPole-v1"),
        500_000,
        hparams={"learning_rate": Linear(5e-3)},
    ),
    "a2c-cartpole": Preset(
        "a2c",
        env("CartPole-v1"),
        500_000,
        config={"num_envs": 8, "num_steps": 32},
        hparams={"learning_rate": Linear(6e-3), "gae_lambda": 0.95, "entropy_coef": 0.0},
    ),
    "a2c-acrobot": Preset(
        "a2c",
        env("Acrobot-v1"),
        500_000,
        config={"num_steps": 16, "normalize_observations": True},
        hparams={"learning_rate": Linear(6e-3), "gae_lambda": 0.95},
    ),
    "trpo-cartpole": Preset(
        "trpo",
        env("CartPole-v1"),
        300_000,
        config={"num_steps": 128},
        hparams={"discount": 0.98, "gae_lambda": 0.9, "max_kl": Linear(0.01)},
    ),
    "trpo-acrobot": Preset(
        "trpo",
        env("Acrobot-v1"),
        400_000,
        config={"num_steps": 128, "normalize_observations": True},
        hparams={"max_kl": Linear(0.02)},
    ),
    "trpo-pendulum": Preset(
        "trpo",
        env("Pendulum-v1"),
        400_000,
        config={
            "num_steps": 200,  # whole episodes, which all begin together
            "num_epochs": 5,
            "num_minibatches": 16,
            "normalize_observations": True,
            "normalize_rewards": True,
            "eval_greedy": True,
        },
        hparams={"discount": 0.98, "gae_lambda": 0.9, "max_kl": Linear(0.03)},
    ),
    "ppo-cartpole": Preset(
        "ppo",
        env("CartPole-v1"),
        500_000,
        config={"num_envs": 16, "num_steps": 128, "num_minibatches": 8},
        hparams={"learning_rate": Linear(1e-3), "discount": 0.98, "gae_lambda": 0.9},
    ),
    "ppo-kl-cartpole": Preset(
        "ppo",
        env("CartPole-v1"),
        500_000,
        config={"num_envs": 16, "num_steps": 128, "num_minibatches": 8, "surrogate": "kl"},
        hparams={
            "learning_rate": Linear(1e-3),
            "discount": 0.98,
            "gae_lambda": 0.9,
            "target_kl": Linear(0.02),  # small at the end: no seed falls back once it has solved the task
        },
    ),
    "ppo-gru-masked-cartpole": Preset(
        "ppo_recurrent", **MASKED_CARTPOLE, config={**RECURRENT, "network": GRU, "normalize_observations": True}
    ),
    "ppo-lstm-masked-cartpole": Preset(
        "ppo_recurrent", **MASKED_CARTPOLE, config={**RECURRENT, "network": LSTM, "normalize_observations": True}
    ),
    "ppo-gru-memorychain": Preset(
        "ppo_recurrent", **MEMORY_CHAIN, config={**RECURRENT, "num_steps": 64, "network": GRU}
    ),
    "ppo-lstm-memorychain": Preset(
        "ppo_recurrent", **MEMORY_CHAIN, config={**RECURRENT, "num_steps": 64, "network": LSTM}
    ),
    "ppo-acrobot": Preset(
        "ppo",
        env("Acrobot-v1"),
        1_000_000,
        config={"num_envs": 16, "num_steps": 128, "num_minibatches": 8, "normalize_observations": True},
        hparams={"learning_rate": Linear(1e-3), "entropy_coef": 0.0},
    ),
    "ppo-pendulum": Preset(
        "ppo",
        env("Pendulum-v1"),
        1_000_000,
        config={
            "num_envs": 16,
            "num_steps": 128,
            "num_epochs": 8,
            "num_minibatches": 8,
            "normalize_observations": True,
            "normalize_rewards": True,
            "eval_greedy": True,
        },
        hparams={"learning_rate": Linear(3e-4), "discount": 0.98, "gae_lambda": 0.9, "entropy_coef": 0.0},
    ),
    "ppo-mountaincar-continuous": Preset(
        "ppo",
        env("MountainCarContinuous-v0"),
        500_000,
        config={
            "num_envs": 16,
            "num_steps": 256,
            "num_epochs": 8,
            "num_minibatches": 8,
            "normalize_observations": True,
            "normalize_rewards": True,
            "eval_greedy": True,
        },
        hparams={"learning_rate": Linear(1e-3), "discount": 0.999, "gae_lambda": 0.97, "entropy_coef": 0.0},
    ),
    "ppo-breakout": Preset(
        "ppo",
        env("Breakout-MinAtar"),
        10_000_000,
        config={"num_envs": 64, "num_steps": 128, "num_minibatches": 8, "network": MLP(activation="relu")},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    # With the thousand random steps of the warm-up these runs are of 30,000 or 100,000.
    "ddpg-pendulum": Preset("ddpg", env("Pendulum-v1"), 29_000, evaluations=10),
    "td3-pendulum": Preset("td3", env("Pendulum-v1"), 29_000, evaluations=10),
    "sac-pendulum": Preset("sac", env("Pendulum-v1"), 29_000, evaluations=10),
    # Noise that keeps its direction for dozens of steps rocks the car up the hill.
    "ddpg-mountaincar-continuous": Preset(
        "ddpg",
        env("MountainCarContinuous-v0"),
        99_000,
        config={"num_steps": 100, "train_every": 4, "n_step": 5},
        hparams={
            "learning_rate": Linear(1e-3),
            "actor_learning_rate": Linear(3e-4),
            "noise": 0.5,
            "noise_reversion": 0.05,
        },
        evaluations=10,
    ),
    "sac-reacher": Preset(
        "sac",
        env("Reacher-misc"),
        240_000,
        config={"num_envs": 16, "num_steps": 25, "warmup": 3200},
        evaluations=20,
    ),
    # The goal is hidden: where it was found has to be remembered.
    "ppo-gru-pointrobot": Preset(
        "ppo_recurrent",
        env("PointRobot-misc"),
        1_000_000,
        config={**RECURRENT, "num_steps": 100, "network": GRU},
        hparams={"learning_rate": Linear(3e-3), "entropy_coef": 0.0},
    ),
    "pqn-cartpole": Preset(
        "pqn",
        env("CartPole-v1"),
        500_000,
        hparams={"learning_rate": Linear(1e-3), "q_lambda": 0.95, "epsilon": Linear(1.0, 0.05, 0.2)},
    ),
    "pqn-breakout": Preset("pqn", env("Breakout-MinAtar"), 10_000_000, **MINATAR_PQN),
    "pqn-spaceinvaders": Preset("pqn", env("SpaceInvaders-MinAtar"), 10_000_000, **MINATAR_PQN),
    # The thousand steps of warm-up are steps too: with them a run is of 100,000 or 300,000.
    "dqn-cartpole": Preset(
        "dqn",
        env("CartPole-v1"),
        99_000,
        config={"double": True, "n_step": 3, "network": MLP((64, 64), "relu", layer_norm=True)},
        hparams={"learning_rate": Linear(1e-3), "epsilon": Linear(1.0, 0.05, 0.2), "target_every": 100},
    ),
    "dqn-acrobot": Preset(
        "dqn",
        env("Acrobot-v1"),
        99_000,
        config={
            "num_gradient_steps": 2,
            "capacity": 20_000,
            "double": True,
            "n_step": 5,
            "network": MLP((128, 128), "relu", layer_norm=True),
        },
        hparams={"learning_rate": Linear(1e-3), "epsilon": Linear(1.0, 0.02, 0.1), "target_every": 50},
    ),
    "dqn-mountaincar": Preset(
        "dqn",
        env("MountainCar-v0"),
        299_000,
        evaluations=46,
        config={
            "capacity": 100_000,
            "double": True,
            "n_step": 5,
            "network": MLP((64, 64), "relu", layer_norm=True),
        },
        hparams={"learning_rate": Linear(2e-3), "epsilon": Linear(1.0, 0.05, 0.2), "target_every": 50},
    ),
    "dqn-catch": Preset(
        "dqn",
        env("Catch-bsuite"),
        49_000,
        config={"double": True, "n_step": 3},
        hparams={"learning_rate": Linear(1e-3), "epsilon": Linear(1.0, 0.05, 0.3), "target_every": 100},
    ),
    "dqn-breakout": Preset("dqn", env("Breakout-MinAtar"), 10_000_000, **MINATAR_DQN),
    "dqn-asterix": Preset("dqn", env("Asterix-MinAtar"), 10_000_000, **MINATAR_DQN),
    "dqn-freeway": Preset("dqn", env("Freeway-MinAtar"), 10_000_000, **MINATAR_DQN),
    "dqn-spaceinvaders": Preset("dqn", env("SpaceInvaders-MinAtar"), 10_000_000, **MINATAR_DQN),
    "rainbow-cartpole": Preset(
        "dqn",
        env("CartPole-v1"),
        99_000,
        config={**RAINBOW, "n_step": 5, "network": MLP((64, 64), "relu", layer_norm=True)},
        hparams={"learning_rate": Linear(1e-3), "epsilon": 0.0, "target_every": 100},
    ),
    "rainbow-breakout": Preset(
        "dqn",
        env("Breakout-MinAtar"),
        10_000_000,
        config={
            **RAINBOW,
            "num_steps": 100,
            "batch_size": 64,
            "capacity": 100_000,
            "warmup": 5000,
            "v_max": 50.0,
        },
        hparams={"learning_rate": 2.5e-4, "epsilon": 0.0, "target_every": 500},
        evaluations=100,
    ),
    "q-learning-frozenlake": Preset(
        "td_control",
        env("tabular/FrozenLake"),
        500_000,
        config={"eval_episodes": 100},
        hparams={"learning_rate": Linear(0.5, 0.005)},
    ),
    "q-learning-cliffwalking": Preset(
        "td_control",
        env("tabular/CliffWalking"),
        100_000,
        hparams={"learning_rate": 0.5, "discount": 1.0, "exploration": 0.1},
    ),
    "sarsa-cliffwalking": Preset(
        "td_control",
        env("tabular/CliffWalking"),
        100_000,
        config={"target": "sarsa"},
        hparams={"learning_rate": Linear(0.5, 0.01), "discount": 1.0, "exploration": 0.1},
    ),
    "expected-sarsa-cliffwalking": Preset(
        "td_control",
        env("tabular/CliffWalking"),
        100_000,
        config={"target": "expected_sarsa"},
        hparams={"learning_rate": Linear(0.5, 0.01), "discount": 1.0, "exploration": 0.1},
    ),
    "double-q-learning-bias": Preset(
        "td_control",
        env("tabular/MaximizationBias"),
        100_000,
        config={"target": "double_q_learning"},
        hparams={"discount": 1.0, "exploration": 0.1},
    ),
    "sarsa-mountaincar": Preset(
        "td_control",
        env("MountainCar-v0"),
        300_000,
        config={"target": "sarsa", "basis": Fourier((-1.2, -0.07), (0.6, 0.07), order=5)},
        hparams={"learning_rate": Linear(0.005), "discount": 1.0, "trace_lambda": 0.9, "exploration": Linear(0.1, 0.0)},
    ),
    "ucb-bandit": Preset(
        "td_control",
        env("tabular/Bandit"),
        10_000,
        config={"policy": "ucb", "num_steps": 10},
        hparams={"learning_rate": 1.0, "visit_power": 1.0, "exploration": 1.0},
    ),
    "td-randomwalk": Preset(
        "td_prediction",
        env("tabular/RandomWalk"),
        100_000,
        hparams={"learning_rate": Linear(0.1, 0.001), "discount": 1.0},
    ),
    "monte-carlo-randomwalk": Preset(
        "td_prediction",
        env("tabular/RandomWalk"),
        100_000,
        config={"offline": True},
        hparams={"learning_rate": Linear(0.02, 0.0), "discount": 1.0, "trace_lambda": 1.0},
    ),
    "dyna-q-frozenlake": Preset(
        "dyna",
        env("tabular/FrozenLake"),
        200_000,
        config={"eval_episodes": 100},
        hparams={"learning_rate": Linear(0.5, 0.005)},
    ),
    "dyna-q-cliffwalking": Preset(
        "dyna",
        env("tabular/CliffWalking"),
        50_000,
        hparams={"learning_rate": 0.5, "discount": 1.0, "exploration": 0.1},
    ),
    "autoencoder-linear-digits": Preset(
        "autoencoder",
        data("digits"),
        500 * 1297,
        config={"latent_size": 8, "encoder": MLP(()), "decoder": MLP(())},
        hparams={"learning_rate": Linear(1e-2)},
    ),
    "autoencoder-digits": Preset(
        "autoencoder",
        data("digits"),
        100 * 1297,
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "autoencoder-conv-mnist": Preset(
        "autoencoder",
        data("mnist"),
        20 * 50_000,
        config={"error": "cross_entropy", **CONV_28},
        evaluations=20,
    ),
    "vae-digits": Preset(
        "vae",
        data("digits"),
        100 * 1297,
        config={"latent_size": 10, "binarization": "dynamic"},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "vae-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        100 * 60_000,
        config={"binarization": "dynamic"},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "vae-conv-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        100 * 60_000,
        config={"binarization": "dynamic", **CONV_28},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "iwae-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        100 * 60_000,
        config={"binarization": "dynamic", "importance_samples": 5},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "cvae-digits": Preset(
        "vae",
        data("digits"),
        100 * 1297,
        config={"latent_size": 10, "binarization": "dynamic", "conditional": True},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    # Few latents and a beta above 1: codes drawn at random then show the class they should, 74 % of them if not.
    "cvae-mnist": Preset(
        "vae",
        data("mnist", "join_valid=True"),
        50 * 60_000,
        config={"latent_size": 8, "binarization": "dynamic", "conditional": True},
        hparams={"learning_rate": Linear(3e-3), "beta": 2.0},
    ),
    # The protocol of Locatello et al. 2019, for a GPU; `small` is what a CPU can do.
    "beta-vae-sprites": Preset(
        "vae",
        data("sprites", "side=64"),
        300_000 * 64,
        config=CONV_64,
        hparams={"learning_rate": 1e-4, "beta": 4.0},
    ),
    "capacity-vae-sprites": Preset(
        "vae",
        data("sprites", "side=64"),
        300_000 * 64,
        config=CONV_64,
        hparams={"learning_rate": 1e-4, "beta": 1000.0, "capacity": Linear(0.0, 25.0, 0.33)},
    ),
    "beta-vae-sprites-small": Preset(
        "vae",
        data("sprites"),
        30_000 * 16,
        config={
            "latent_size": 10,
            "encoder": CNN((16, 32), (4, 4), (4, 2), "SAME", hidden=(128,)),
            "decoder": TransposedCNN((128,), (32, 16), (4, 4), (2, 4)),
            "batch_size": 16,
        },
        hparams={"learning_rate": Linear(1e-3, 1e-4), "beta": 4.0},
        evaluations=12,
    ),
    "vae-binarized-mnist": Preset(
        "vae",
        data("binarized_mnist"),
        100 * 50_000,
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "made-digits": Preset(
        "made",
        data("digits"),
        50 * 1297,
        config={"hidden": (200,)},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    # The training images are learnt by heart without the decay.
    "made-binarized-mnist": Preset(
        "made",
        data("binarized_mnist"),
        14 * 50_000,
        config={"hidden": (5000,), "optimizer": Optimizer("adamw", weight_decay=0.3)},
        hparams={"learning_rate": Linear(1.5e-3)},
        evaluations=14,
        seeds=3,
        published="88.40 (Germain et al. 2015)",
    ),
    "made-binarized-mnist-32": Preset(
        "made",
        data("binarized_mnist"),
        20 * 50_000,
        config={"hidden": (5000,), "num_masks": 32, "optimizer": Optimizer("adamw", weight_decay=0.1)},
        hparams={"learning_rate": Linear(1.5e-3)},
        evaluations=2,
        seeds=1,
        published="88.04 (Germain et al. 2015)",
    ),
    "nade-digits": Preset(
        "nade",
        data("digits"),
        50 * 1297,
        config={"hidden": (200,)},
        hparams={"learning_rate": Linear(3e-3)},
    ),
    "nade-digits-orders": Preset(
        "nade",
        data("digits"),
        400 * 1297,
        config={"hidden": (200, 200), "activation": "relu", "training": "all_orders", "num_orders": 8},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "nade-binarized-mnist": Preset(
        "nade",
        data("binarized_mnist"),
        50 * 50_000,
        hparams={"learning_rate": Linear(1e-3)},
        evaluations=25,
        seeds=1,
        published="88.33 (Larochelle and Murray 2011)",
    ),
    "pixelcnn-digits": Preset(
        "pixelcnn",
        data("digits"),
        30 * 1297,
        config={"num_blocks": 3},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    # Seen by a first kernel as wide as the digits, the whole image counts from the start: 3 nats after 1000 updates.
    "pixelcnn-binarized-mnist": Preset(
        "pixelcnn",
        data("binarized_mnist"),
        6 * 50_000,
        config={"first_kernel": 27, "kernel": 5, "num_blocks": 5},
        hparams={"learning_rate": Linear(4e-3)},
        evaluations=6,
        seeds=1,
        published="81.30 (van den Oord et al. 2016)",
    ),
    "gated-pixelcnn-digits": Preset(
        "gated_pixelcnn",
        data("digits"),
        30 * 1297,
        config={"num_layers": 4, "conditional": True},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    "gated-pixelcnn-binarized-mnist": Preset(
        "gated_pixelcnn",
        data("binarized_mnist"),
        4 * 50_000,
        config={"first_kernel": 27, "num_layers": 6},
        hparams={"learning_rate": Linear(3e-3)},
        evaluations=4,
        seeds=1,
    ),
    "pixelrnn-row-digits": Preset(
        "pixelrnn",
        data("digits"),
        30 * 1297,
        config={"num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    "pixelrnn-row-binarized-mnist": Preset(
        "pixelrnn",
        data("binarized_mnist"),
        5 * 50_000,
        config={"num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=10,
    ),
    "pixelrnn-diagonal-digits": Preset(
        "pixelrnn",
        data("digits"),
        30 * 1297,
        config={"recurrence": "diagonal", "num_layers": 3},
        hparams={"learning_rate": Linear(2e-3)},
    ),
    "pixelrnn-diagonal-binarized-mnist": Preset(
        "pixelrnn",
        data("binarized_mnist"),
        5 * 50_000,
        config={"recurrence": "diagonal", "features": 32, "num_layers": 1},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=10,
    ),
    "pixelcnnpp-digits": Preset(
        "pixelcnnpp",
        data("digits"),
        30 * 1297,
        config={"num_sizes": 2, "num_layers": 1, "conditional": True},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "pixelcnnpp-sprites": Preset(
        "pixelcnnpp",
        data("sprites", "side=16", "color=True"),
        3000 * 16,
        config={"num_sizes": 2, "num_layers": 1},
        hparams={"learning_rate": Linear(1e-3)},
    ),
    "wavenet-sounds": Preset(
        "wavenet",
        data("sounds"),
        10 * 2000,
        config={"conditional": True},
        hparams={"learning_rate": Linear(2e-3)},
        evaluations=10,
    ),
    "gan-ring": Preset(
        "gan",
        data("ring"),
        20_000 * 64,
        config={"latent_size": 4, **TOY_GAN},
        hparams={
            "learning_rate": Linear(3e-3, 1.5e-4),
            "discriminator_learning_rate": Linear(2e-3, 1e-4),
            "gradient_penalty": Linear(0.01, 0.0005),
            "average_decay": 0.998,
        },
        evaluations=20,
    ),
    "gan-grid": Preset(
        "gan",
        data("grid"),
        25_000 * 64,
        config={"latent_size": 2, **TOY_GAN},
        hparams={
            "learning_rate": Linear(2e-3, 6e-5),
            "discriminator_learning_rate": Linear(2e-3, 6e-4),
            "gradient_penalty": Linear(0.01, 0.0003),
            "average_decay": 0.998,
        },
        evaluations=20,
    ),
    "gan-digits": Preset(
        "gan",
        data("digits"),
        6000 * 64,
        config={"latent_size": 16, "conditional": True, "penalize": True, "batch_size": 64},
        hparams={
            "learning_rate": Linear(1e-3, 5e-5),
            "discriminator_learning_rate": Linear(1e-3, 5e-5),
            "average_decay": 0.998,
        },
        evaluations=20,
    ),
    "dcgan-mnist": Preset(
        "gan",
        data("mnist"),
        30 * 60_000,
        config={"generator": DCGAN(), "discriminator": DCGAN(), "conditional": True, "batch_size": 128},
        evaluations=30,
    ),
    # The 1000 modes: packing against collapse, as Lin et al. 2018 do (their table 3).
    "pacgan-stacked-mnist": Preset(
        "gan",
        data("stacked_mnist"),
        50 * 50_000,
        config={
            "latent_size": 100,
            "generator": DCGAN((64, 128)),
            "discriminator": DCGAN((64, 128)),
            "packing": 2,
            "batch_size": 64,
            "classifier_updates": 3000,
            "eval_samples": 26_000,
        },
        evaluations=25,
    ),
    "wgan-gp-mnist": Preset(
        "wgan_gp",
        data("mnist"),
        60 * 50_000,
        config={"generator": DCGAN(), "critic": DCGAN(norm="none")},
        evaluations=30,
    ),
    "sngan-mnist": Preset(
        "sngan",
        data("mnist"),
        30 * 50_000,
        config={"generator": DCGAN(), "discriminator": DCGAN(norm="none")},
        evaluations=30,
    ),
    "pix2pix-sprites": Preset(
        "pix2pix",
        data("sprites_filled"),
        1500 * 16,
        config={"generator": UNet((16, 32, 32)), "discriminator": Patch((16, 32))},
        hparams={"learning_rate": Linear(1e-3, 5e-5)},
        evaluations=20,
    ),
    # The cycle counts for nothing at first: a generator that changes nothing returns everything, and gets stuck there.
    "cyclegan-digits": Preset(
        "cyclegan",
        data("digits_inverted"),
        3000 * 16,
        config={"generator": ResNet((16,), 0, "none"), "discriminator": Patch((16,), "none")},
        hparams={
            "learning_rate": Linear(2e-3, 1e-4),
            "discriminator_learning_rate": Linear(5e-4, 5e-5),
            "cycle_weight": Linear(0.0, 5.0),
            "identity_weight": 0.0,
        },
        evaluations=20,
    ),
}


def get(name: str) -> Experiment:
    """The experiment of a preset.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    if name not in PRESETS:
        raise ValueError(checks.unknown("preset", name, PRESETS))
    return PRESETS[name].experiment()
