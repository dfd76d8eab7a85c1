"""What baselines do to the variance of REINFORCE's gradient and to its learning. Axes: E evaluations, S seeds."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from jax import Array, lax, random

from experiments import experiment
from experiments.experiment import Experiment
from jaxrl import policies, rollout
from jaxrl.algorithms import reinforce
from jaxrl.core import schedule, stats
from jaxrl.envs import Env

BASELINES = get_args(reinforce.Baseline)


class Measured(NamedTuple):
    """Each of the arrays for every baseline, by its name."""

    experiment: Experiment
    steps: np.ndarray  # [E] per seed
    variances: dict[str, np.ndarray]  # [E, S] of a gradient from one episode, all at the policies trained with values
    returns: dict[str, np.ndarray]  # [E, S] of runs with that baseline


def gradient_variances(
    env: Env, config: reinforce.Config, num_episodes: int, key: Array, state: Any, hparams: Any, env_params: Any
) -> dict[str, Array]:
    """Of the expected return's gradient as one episode estimates it: summed over parameters, [] for each baseline.

    All from the same `num_episodes` and at the same policy, whose `state` must have a learned value.
    """
    head = policies.head(env.spec.action, config.distribution)
    network = policies.actor_critic(env.spec, head, config.network)
    max_steps = env.spec.max_steps

    def explore(key, obs):
        outputs, _ = network.apply(state.fit.params, obs)
        action = head.distribution(*outputs).sample(seed=key)
        return head.to_env(action), action

    def variance(baseline):
        settings = dataclasses.replace(config, baseline=baseline)

        def gradient(episode):
            batch = reinforce.make_batch(episode, state, network, settings, max_steps, hparams)
            per_step, _ = jax.grad(reinforce.loss, has_aux=True)(state.fit.params, network, head, batch)
            return jax.tree.map(lambda leaf: max_steps * leaf, per_step)

        gradients = jax.vmap(gradient, in_axes=2)(jax.tree.map(lambda leaf: leaf[:, None], path))
        return sum(leaf.var(0, ddof=1).sum() for leaf in jax.tree.leaves(gradients))

    start_key, collect_key = random.split(key)
    cursor = rollout.start(env, start_key, num_episodes, env_params)
    _, path = rollout.collect(env, explore, cursor, env_params, collect_key, max_steps)
    return {baseline: variance(baseline) for baseline in BASELINES}


def _of_runs(
    env: Env, config: reinforce.Config, num_episodes: int, runs: Any, hparams: Any, env_params: Any
) -> dict[str, Array]:
    """`gradient_variances` [S] of `runs` [S]."""

    def one(run):
        numbers = schedule.at(hparams, run.step / run.num_updates)
        key = random.fold_in(random.key(0), run.step)
        return gradient_variances(env, config, num_episodes, key, run.state, numbers, env_params)

    return lax.map(one, runs)  # one after the other: a gradient for each episode takes memory


def measure(base: Experiment, num_episodes: int) -> Measured:
    """Train `base`, of REINFORCE, with each baseline, and measure the variances along the training with values."""
    returns: dict[str, Any] = {}
    found = []
    for baseline in BASELINES:
        config = dataclasses.replace(base.config, baseline=baseline)
        program = experiment.build(dataclasses.replace(base, config=config))

        variances = jax.jit(partial(_of_runs, program.given, config, num_episodes))
        runs, scores = program.start(program.keys, program.hparams, program.source), []
        for _ in range(program.num_chunks):
            runs, metrics = program.advance(runs, program.hparams, program.source)
            scores.append(metrics["eval/return"])
            if baseline == "value":
                found.append(variances(runs, program.hparams, program.source))
        returns[baseline] = np.array(scores)
    steps = program.steps_per_update * program.eval_every * np.arange(1, program.num_chunks + 1)
    return Measured(base, steps, {name: np.array([each[name] for each in found]) for name in BASELINES}, returns)


def table(measured: Measured) -> str:
    """Variances at a few of the evaluations, medians over seeds, and the last returns."""
    picked = np.unique(np.linspace(0, len(measured.steps) - 1, 5).astype(int))
    lines = ["variance at steps " + "".join(f"{measured.steps[at]:>12,}" for at in picked) + f"{'last return':>14}"]
    for name in BASELINES:
        figures = np.median(measured.variances[name], -1)[picked]
        last = stats.interquartile_mean(stats.worst_for_nan(measured.returns[name][-1]))
        lines.append(f"{name:18}" + "".join(f"{figure:12.3g}" for figure in figures) + f"{last:14.1f}")
    return "\n".join(lines)
