"""Settings that are known to work of what learns in an environment, by name."""

from typing import Any

from experiments.presets.preset import Preset, env
from jaxrl.core.networks import CNN, MLP
from jaxrl.core.recurrent import Recurrent
from jaxrl.core.schedule import Linear
from jaxrl.features import Fourier

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
        published="500 (gymnax's PPO, 150,000 steps)",
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
    # With an LSTM it takes twice as many steps as with a GRU.
    "ppo-lstm-masked-cartpole": Preset(
        "ppo_recurrent",
        MASKED_CARTPOLE["source"],
        1_000_000,
        config={**RECURRENT, "network": LSTM, "normalize_observations": True},
        hparams={"learning_rate": Linear(5e-3), "entropy_coef": 0.0},
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
        published="-80 (gymnax's PPO, 500,000 steps)",
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
        published="-130 (gymnax's PPO, 1,000,000 steps)",
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
        seeds=8,
        published="28 (gymnax's PPO, 10,000,000 steps)",
    ),
    # With the thousand random steps of the warm-up these runs are of 30,000 or 100,000.
    "ddpg-pendulum": Preset(
        "ddpg", env("Pendulum-v1"), 29_000, evaluations=10, published="-152 (RL Zoo, 20,000 steps)"
    ),
    "td3-pendulum": Preset("td3", env("Pendulum-v1"), 29_000, evaluations=10, published="-152 (RL Zoo, 20,000 steps)"),
    "sac-pendulum": Preset("sac", env("Pendulum-v1"), 29_000, evaluations=10, published="-157 (RL Zoo, 20,000 steps)"),
    # With 200 random steps 2000, a fifteenth of the others'; but each is planned anew, which takes milliseconds.
    "pets-pendulum": Preset("pets", env("Pendulum-v1"), 1_800, evaluations=4, published="-157 (SAC, RL Zoo)"),
    "sac-discrete-cartpole": Preset("sac_discrete", env("CartPole-v1"), 49_000, evaluations=10, seeds=8),
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
    "pqn-breakout": Preset(
        "pqn", env("Breakout-MinAtar"), 10_000_000, **MINATAR_PQN, published="28 (gymnax's PPO, 10,000,000 steps)"
    ),
    "pqn-spaceinvaders": Preset(
        "pqn", env("SpaceInvaders-MinAtar"), 10_000_000, **MINATAR_PQN, published="131 (gymnax's PPO, 10,000,000 steps)"
    ),
    # The thousand steps of warm-up are steps too: with them a run is of 100,000 or 300,000.
    "dqn-cartpole": Preset(
        "dqn",
        env("CartPole-v1"),
        99_000,
        config={"double": True, "n_step": 3, "network": MLP((64, 64), "relu", layer_norm=True)},
        hparams={"learning_rate": Linear(1e-3), "epsilon": Linear(1.0, 0.05, 0.2), "target_every": 100},
        published="500 (RL Zoo, 50,000 steps)",
    ),
    "qr-dqn-cartpole": Preset(
        "dqn",
        env("CartPole-v1"),
        99_000,
        config={
            "double": True,
            "n_step": 3,
            "distribution": "quantile",
            "num_atoms": 32,
            "network": MLP((64, 64), "relu", layer_norm=True),
        },
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
        published="-77 (RL Zoo, 100,000 steps)",
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
        published="-101 (RL Zoo, 120,000 steps)",
    ),
    "dqn-catch": Preset(
        "dqn",
        env("Catch-bsuite"),
        49_000,
        config={"double": True, "n_step": 3},
        hparams={"learning_rate": Linear(1e-3), "epsilon": Linear(1.0, 0.05, 0.3), "target_every": 100},
    ),
    "dqn-breakout": Preset(
        "dqn", env("Breakout-MinAtar"), 10_000_000, **MINATAR_DQN, published="28 (gymnax's PPO, 10,000,000 steps)"
    ),
    "dqn-asterix": Preset(
        "dqn", env("Asterix-MinAtar"), 10_000_000, **MINATAR_DQN, published="15 (gymnax's PPO, 10,000,000 steps)"
    ),
    "dqn-freeway": Preset(
        "dqn", env("Freeway-MinAtar"), 10_000_000, **MINATAR_DQN, published="58 (gymnax's PPO, 10,000,000 steps)"
    ),
    "dqn-spaceinvaders": Preset(
        "dqn", env("SpaceInvaders-MinAtar"), 10_000_000, **MINATAR_DQN, published="131 (gymnax's PPO, 10,000,000 steps)"
    ),
    "rainbow-cartpole": Preset(
        "dqn",
        env("CartPole-v1"),
        99_000,
        config={**RAINBOW, "n_step": 5, "network": MLP((64, 64), "relu", layer_norm=True)},
        hparams={"learning_rate": Linear(1e-3), "epsilon": 0.0, "target_every": 50},
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
        seeds=1,
        published="28 (gymnax's PPO, 10,000,000 steps)",
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
        config={"target": "sarsa", "basis": Fourier((-1.2, -0.07), (0.6, 0.07), order=7)},
        hparams={
            "learning_rate": Linear(0.005),
            "discount": 1.0,
            "trace_lambda": 0.95,
            "exploration": Linear(0.1, 0.0),
        },
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
}
