"""Stable-Baselines3 as a contestant, in its own environment with PyTorch for CPU (see `protocol.py`).

It trains one seed, and its rounds are parts of one training: its score is that after all rounds so far.
"""

import time
from collections.abc import Callable
from typing import Any

import protocol
import torch
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
EVAL_EPISODES = 10  # an episode of theirs takes as long as a hundred of a compiled library's


def build(task: dict[str, Any]) -> Any:
    """The model of a task."""
    env = make_vec_env(task["env"], n_envs=task["num_envs"], seed=0)
    shared = {
        "policy": "MlpPolicy",
        "env": env,
        "learning_rate": task["learning_rate"],
        "gamma": task["discount"],
        "policy_kwargs": {"net_arch": list(task["hidden"]), "activation_fn": ACTIVATIONS[task["activation"]]},
        "seed": 0,
        "device": "cpu",
    }
    if task["algorithm"] == "ppo":
        return PPO(
            **shared,
            n_steps=task["num_steps"],
            n_epochs=task["num_epochs"],
            batch_size=task["num_envs"] * task["num_steps"] // task["num_minibatches"],
            gae_lambda=task["gae_lambda"],
            clip_range=task["clip"],
            vf_coef=task["value_coef"],
            ent_coef=task["entropy_coef"],
            max_grad_norm=task["max_grad_norm"],
        )
    replay = {
        "buffer_size": task["capacity"],
        "learning_starts": task["warmup"],
        "batch_size": task["batch_size"],
        "train_freq": 1,
        "gradient_steps": 1,
        "tau": task["target_rate"],
    }
    if task["algorithm"] == "dqn":
        # Theirs counts environment steps of all copies.
        return DQN(**shared, **replay, target_update_interval=task["target_every"] * task["num_envs"])
    return {"ddpg": DDPG, "td3": TD3, "sac": SAC}[task["algorithm"]](**shared, **replay)


def start(task: dict[str, Any]) -> tuple[Callable[[int], protocol.Round], float]:
    """Nothing is compiled; a first short stretch fills the buffer and warms caches."""
    model = build(task)
    begin = time.perf_counter()
    model.learn(task.get("warmup", 0) + 10 * task["num_envs"])
    seconds = time.perf_counter() - begin

    def play(number):
        before = model.num_timesteps
        begin = time.perf_counter()
        model.learn(task["torch_steps"], reset_num_timesteps=False)
        elapsed = time.perf_counter() - begin
        score, _ = evaluate_policy(model, model.get_env(), EVAL_EPISODES, warn=False)
        return protocol.Round(model.num_timesteps - before, elapsed, float(score))

    return play, seconds


if __name__ == "__main__":
    protocol.serve(start)
