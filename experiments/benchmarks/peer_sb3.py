"""Stable-Baselines3 as a contestant, in its own environment with PyTorch for CPU (see `protocol.py`).

It trains one seed, and its rounds are parts of one training: its score is that after all rounds so far.
"""

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import protocol
import torch
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.dqn import dqn

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
        shared["policy_kwargs"]["optimizer_kwargs"] = {"eps": 1e-8}
        return PPO(
            **shared,
            n_steps=task["num_steps"],
            n_epochs=task["num_epochs"],
            batch_size=task["num_envs"] * task["num_steps"] // task["num_minibatches"],
            gae_lambda=task["gae_lambda"],
            clip_range=task["clip"],
            vf_coef=task["value_coef"] / 2,  # of an error that the others halve
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
        interval = task["target_every"] * task["num_envs"]
        return DQN(**shared, **replay, target_update_interval=interval, max_grad_norm=math.inf)
    if task["algorithm"] == "sac":
        return SAC(**shared, **replay)
    # Noise as the other contestants have it, here in half widths of the action space.
    size = env.action_space.shape
    noise = {"action_noise": NormalActionNoise(np.zeros(size), np.full(size, 0.15))}
    if task["algorithm"] == "ddpg":
        return DDPG(**shared, **replay, **noise)
    return TD3(**shared, **replay, **noise, target_policy_noise=0.1, target_noise_clip=0.25)


def like_the_others(model: DQN, steps: int) -> None:
    """Give DQN a squared error, and an epsilon that falls over the first tenth of `steps`.

    By itself each call of `learn` takes the steps so far and its own for the whole training.
    """
    dqn.F = SimpleNamespace(smooth_l1_loss=lambda value, target: 0.5 * torch.nn.functional.mse_loss(value, target))
    model.exploration_schedule = lambda _: max(0.05, 1.0 - 0.95 * model.num_timesteps / (0.1 * steps))


def start(task: dict[str, Any]) -> protocol.Ready:
    """Nothing is compiled; a first short stretch fills the buffer and warms caches."""
    model = build(task)
    if task["algorithm"] == "dqn":
        like_the_others(model, task["steps"])
    # Of its own, since an evaluation begins new episodes.
    scored_in = make_vec_env(task["env"], n_envs=EVAL_EPISODES, seed=1)
    greedy = task["algorithm"] != "ppo"
    begin = time.perf_counter()
    model.learn(task.get("warmup", 0) + 10 * task["num_envs"])
    seconds = time.perf_counter() - begin

    def play(number):
        before = model.num_timesteps
        begin = time.perf_counter()
        model.learn(task["torch_steps"], reset_num_timesteps=False)
        elapsed = time.perf_counter() - begin
        score, _ = evaluate_policy(model, scored_in, EVAL_EPISODES, deterministic=greedy)
        return protocol.Round(model.num_timesteps - before, elapsed, float(score), model.num_timesteps)

    return protocol.Ready(play, seconds, "cpu", ("stable-baselines3", "gymnasium", "torch"))


if __name__ == "__main__":
    protocol.serve(start)
