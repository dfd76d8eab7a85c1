"""Rejax 0.1.3 as a contestant, in its own environment with gymnax 0.0.9 (see `protocol.py`)."""

import math
import time
from typing import Any

import jax
import protocol
import rejax
from jax import numpy as jnp
from rejax.evaluate import evaluate

NAMES = {"ppo": "ppo", "dqn": "dqn", "td3": "td3", "sac": "sac", "ddpg": "td3"}


def configure(task: dict[str, Any]) -> dict[str, Any]:
    """Rejax's own names for the numbers of a task."""
    shared = {
        "env": task["env"],
        "num_envs": task["num_envs"],
        "total_timesteps": task["steps"],
        "eval_freq": task["steps"],
        "skip_initial_evaluation": True,
        "learning_rate": task["learning_rate"],
        "gamma": task["discount"],
    }
    if task["algorithm"] == "ppo":
        return {
            **shared,
            "agent_kwargs": {"activation": task["activation"], "hidden_layer_sizes": tuple(task["hidden"])},
            "num_steps": task["num_steps"],
            "num_epochs": task["num_epochs"],
            "num_minibatches": task["num_minibatches"],
            "gae_lambda": task["gae_lambda"],
            "clip_eps": task["clip"],
            "vf_coef": task["value_coef"],
            "ent_coef": task["entropy_coef"],
            "max_grad_norm": task["max_grad_norm"],
        }
    # Theirs begins to learn when more than `fill_buffer` steps were taken: before the latest for DQN, after it for SAC.
    # TD3 looks at both moments, and may not be told less: its actor would then learn from a batch that was never drawn.
    replay = {
        **shared,
        "buffer_size": task["capacity"],
        "fill_buffer": task["warmup"] - (task["algorithm"] == "dqn"),
        "batch_size": task["batch_size"],
        "num_epochs": 1,
        "target_update_freq": task["target_every"] * task["num_envs"],
        "polyak": 1 - task["target_rate"],
    }
    # Their networks of actor, critic and action values are two layers of 64, whatever is asked for.
    assert tuple(task["hidden"]) == (64, 64)
    activation = {"activation": task["activation"]}
    if task["algorithm"] == "dqn":
        return {**replay, "agent_kwargs": activation, "ddqn": False}
    if task["algorithm"] == "sac":
        return {**replay, "agent_kwargs": activation}
    networks = {"actor_kwargs": dict(activation), "critic_kwargs": dict(activation)}
    if task["algorithm"] == "ddpg":  # which they do not have: TD3 without delay and noise, with its two critics
        return {**replay, **networks, "policy_delay": 1, "target_noise": 0.0}
    return {**replay, **networks}


def build(task: dict[str, Any]) -> Any:
    """The algorithm of a task, not evaluated in training."""
    algorithm = rejax.get_algo(NAMES[task["algorithm"]]).create(**configure(task))
    return algorithm.replace(eval_callback=lambda *_: ())


def act_of(algorithm: Any, state: Any) -> Any:
    """The policy that is scored, (observation, key) -> action; of SAC the middle of its distribution, as of others."""
    if not isinstance(algorithm, rejax.SAC):
        return algorithm.make_act(state)

    def act(obs, _):
        actor = algorithm.actor
        mean = actor.apply(state.actor_ts.params, obs[None], method="_action_dist").mean()
        return (actor.action_loc + actor.action_scale * jnp.tanh(mean)).squeeze()

    return act


def start(task: dict[str, Any]) -> protocol.Ready:
    """Compile a task. A round trains every seed from its start; evaluation is left out of its seconds."""
    algorithm = build(task)
    seeds = task["seeds"]

    def train(key):
        return algorithm.train(rng=key)[0]

    def keys(number):
        root = jax.random.fold_in(jax.random.PRNGKey(0), number)
        return jax.random.split(root, seeds) if seeds > 1 else root

    begin = time.perf_counter()
    program = jax.jit(jax.vmap(train) if seeds > 1 else train).lower(keys(0)).compile()
    compile_seconds = time.perf_counter() - begin

    @jax.jit
    def scores(states):
        def one(state):
            act, params = act_of(algorithm, state), algorithm.env_params
            limit = getattr(params, "max_steps_in_episode", 1000)
            return evaluate(act, jax.random.PRNGKey(1), algorithm.env, params, task["eval_episodes"], limit)[1].mean()

        return jax.vmap(one)(states) if seeds > 1 else one(states)

    per_iteration = task["num_envs"] * task.get("num_steps", 1)
    steps = math.ceil(task["steps"] / per_iteration) * per_iteration

    def play(number):
        key = jax.block_until_ready(keys(number))
        begin = time.perf_counter()
        states = jax.block_until_ready(program(key))
        seconds = time.perf_counter() - begin
        return protocol.Round(steps * seeds, seconds, float(scores(states).mean()), steps)

    return protocol.Ready(play, compile_seconds, jax.devices()[0].device_kind, ("rejax", "gymnax", "jax", "jaxlib"))


if __name__ == "__main__":
    protocol.serve(start)
