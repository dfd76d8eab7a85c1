"""What successive halving and population-based training find against random search, in as many environment steps.

The task is PPO on CartPole-v1, briefly, with four hyperparameters to be found in wide ranges. Each repetition has a
seed and points of its own; random search takes the first of the points that halving begins with, and they are where a
population begins. What a method ends with is chosen by its own evaluations and scored by others.

Axes: R repetitions, N points, E evaluations.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax import random

from jaxrl import envs
from jaxrl.algorithms import ppo
from jaxrl.core import loop, population, search, stats, sweep

RANGES: dict[str, Any] = {
    "learning_rate": sweep.LogUniform(1e-5, 1e-1),
    "discount": sweep.Uniform(0.9, 0.999),
    "gae_lambda": sweep.Uniform(0.5, 1.0),
    "entropy_coef": sweep.LogUniform(1e-4, 0.3),
}
CONFIG = ppo.Config(num_envs=16, num_steps=128, num_minibatches=8, eval_episodes=8)
EVALUATIONS = 16  # of a run, one after each update
MEMBERS = 8  # of a population, and points of random search
HALVING, POINTS = search.Halving(factor=2, stages=4), 27  # the steps of 8 runs from beginning to end
FRESH_EPISODES = 64  # of the final score


class Row(NamedTuple):
    """A method over all repetitions. Intervals are 95 % bootstrap intervals of interquartile means."""

    method: str
    whole_runs: float  # steps spent, in runs from beginning to end
    score: float  # interquartile mean of the return of what was found
    low: float
    high: float
    over_random: float | None = None  # interquartile mean of the difference within a repetition
    over_random_low: float | None = None
    over_random_high: float | None = None


class Trained(NamedTuple):
    """Runs from their beginning to their end."""

    scores: np.ndarray  # [R, N, E] as their own evaluations had them
    found: np.ndarray  # [R, N] scored anew at the end


def run(repetitions: int = 10, **sizes: Any) -> Iterator[Row]:
    """Every method. `sizes` are of the learner's Config."""
    config = replace(CONFIG, **sizes)
    alone = trained(repetitions, POINTS, config)
    together = trained(repetitions, MEMBERS, config, population.Population())
    halved = [halve(scores) for scores in alone.scores]
    randomly = best(alone.scores[:, :MEMBERS], alone.found)
    found = {
        "random search": (MEMBERS, randomly),
        "successive halving": (halved[0][1], alone.found[np.arange(repetitions), [point for point, _ in halved]]),
        "population-based training": (MEMBERS, best(together.scores, together.found)),
        "every point to the end": (POINTS, best(alone.scores, alone.found)),
    }
    for method, (whole_runs, scores) in found.items():
        more = (None, None, None) if scores is randomly else interval(scores - randomly)
        yield Row(method, float(whole_runs), *interval(scores), *more)


def trained(repetitions: int, points: int, config: ppo.Config, spend: population.Population | None = None) -> Trained:
    """`points` runs in each repetition, all by themselves or as the population that `spend` describes."""
    env, env_params = envs.make("CartPole-v1")
    learner, judge = (ppo.make(env, each) for each in (config, replace(config, eval_episodes=FRESH_EPISODES)))
    # One draw for all methods: fewer points are the first of more.
    drawn = [sweep.sample(ppo.Hyperparams(), points=POINTS, draw=each, **RANGES) for each in range(repetitions)]
    chosen = [point for plan in drawn for point in plan.points[:points]]
    values: dict[str, Any] = dict(zip(RANGES, zip(*chosen, strict=True), strict=True))
    (group,) = sweep.zipped(ppo.Hyperparams(), source=env_params, **values).groups
    _, hparams, source = group.arguments()
    keys = jax.vmap(random.key)(jnp.repeat(jnp.arange(repetitions), points))

    if spend is None:
        start = group.map(partial(loop.start, learner, num_updates=EVALUATIONS))
        advance = group.map(partial(loop.chunk, learner, 1))
    else:
        searched = tuple(map(population.Searched, drawn[0].swept, RANGES.values()))
        start = population.start(learner, EVALUATIONS, searched, group.axes)
        advance = population.chunk(learner, 1, spend, searched, group.axes, "eval/return")
        start, advance = (population.over_seeds(function, group.axes, points) for function in (start, advance))
    advance, carried, scores = jax.jit(advance), jax.jit(start)(keys, hparams, source), []
    for _ in range(EVALUATIONS):
        carried, metrics = advance(carried, hparams, source)
        scores.append(np.nan_to_num(metrics["eval/return"], nan=-np.inf))
    runs = carried if spend is None else carried.runs
    fresh = random.split(random.key(2**31 - 1), len(keys))
    # It reads no hyperparameter, so that those of a population need not be looked up.
    evaluate = jax.vmap(judge.evaluate, (0, 0, None, None))
    found = jax.jit(evaluate)(fresh, runs.state, ppo.Hyperparams(), source)["eval/return"]
    shape = repetitions, points
    return Trained(np.stack(scores, -1).reshape(*shape, EVALUATIONS), np.nan_to_num(found).reshape(shape))


def halve(scores: np.ndarray) -> tuple[int, float]:
    """The point that successive halving of `scores` [N, E] ends with, and the steps that it takes, in whole runs.

    A run that is not dropped goes on as if alone, so nothing need be run again.
    """
    points, steps, done = np.arange(len(scores)), 0, 0
    for stop in HALVING.stops(scores.shape[1]):
        steps += len(points) * (stop - done)
        ranked = points[np.argsort(-scores[points, stop - 1], kind="stable")]
        points, done = ranked[: HALVING.kept(len(points))], stop
    return int(ranked[0]), steps / scores.shape[1]


def best(scores: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What is `found` [R, N] of the point with the best last of `scores` [R, N, E]."""
    return found[np.arange(len(scores)), scores[:, :, -1].argmax(1)]


def interval(scores: np.ndarray) -> tuple[float, float, float]:
    """Interquartile mean of `scores` [R] and its 95 % interval."""
    low, high = stats.bootstrap_interval(scores)
    return float(stats.interquartile_mean(scores)), float(low), float(high)
