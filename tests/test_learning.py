"""Presets, as a user runs them, to a named score over seeds: four where a seed takes long. See `make learning`."""

import dataclasses
import time
from typing import NamedTuple

import numpy as np
import pytest
from jax import numpy as jnp

from experiments import presets, registry
from experiments.experiment import Experiment, build
from generative import autoregressive
from jaxrl.core import stats

pytestmark = pytest.mark.learning


class Goal(NamedTuple):
    """What the last evaluation of a preset must reach."""

    preset: str
    seeds: int
    middle: float  # the interquartile mean over seeds
    every: float | None = None  # each seed
    episodes: int = 50  # in each seed's evaluation


GOALS = [
    Goal("reinforce-cartpole", 8, 475),
    Goal("a2c-cartpole", 8, 475),
    Goal("a2c-acrobot", 8, -90),
    Goal("trpo-cartpole", 8, 490),
    Goal("ddpg-pendulum", 4, -170),
    Goal("td3-pendulum", 4, -170),
    Goal("sac-pendulum", 4, -170),
    Goal("pets-pendulum", 4, -170, episodes=8),
    Goal("ppo-kl-cartpole", 8, 490),
    Goal("ppo-gru-masked-cartpole", 4, 475),
    Goal("ppo-cartpole", 16, 495, every=450),
    Goal("ppo-acrobot", 4, -85),
    Goal("ppo-pendulum", 4, -200),
    Goal("ppo-mountaincar-continuous", 8, 90),
    Goal("dqn-cartpole", 16, 495),
    Goal("qr-dqn-cartpole", 4, 490),
    Goal("sac-discrete-cartpole", 4, 475),
    Goal("dqn-acrobot", 4, -85),
    Goal("dqn-mountaincar", 4, -115),
    Goal("dqn-catch", 8, 1, every=1),
]


def scores(goal: Goal, experiment: Experiment) -> np.ndarray:
    """The score [S] of every seed at the end of its run, whatever came before."""
    config = dataclasses.replace(experiment.config, eval_episodes=goal.episodes)
    experiment = dataclasses.replace(experiment, config=config, seeds=goal.seeds, evaluations=1)
    program = build(experiment)
    assert program.num_chunks == 1
    runs = program.start(program.keys, program.hparams, program.source)
    _, metrics = program.advance(runs, program.hparams, program.source)
    assert not metrics["diverged"].any()
    return np.asarray(metrics[registry.get(experiment.algorithm).score])


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.preset)
def test_preset_reaches_its_score(goal: Goal) -> None:
    found = scores(goal, presets.get(goal.preset))
    assert found.shape == (goal.seeds,)
    middle = stats.interquartile_mean(found)
    print(f"{goal.preset}: interquartile mean {middle:.2f}, seeds {np.sort(found).round(1).tolist()}")
    assert middle >= goal.middle, found
    assert goal.every is None or found.min() >= goal.every, found


def test_arithmetic_in_bfloat16_reaches_the_score() -> None:
    goal, experiment = Goal("ppo-cartpole", 8, 490), presets.get("ppo-cartpole")
    network = dataclasses.replace(experiment.config.network, dtype="bfloat16")
    config = dataclasses.replace(experiment.config, network=network)
    found = scores(goal, dataclasses.replace(experiment, config=config, steps=200_000))
    assert stats.interquartile_mean(found) >= goal.middle, found


@pytest.mark.parametrize(("preset", "margin"), [("made-digits", 14.0), ("pixelcnn-digits", 19.0)])
def test_digits_cost_less_than_by_a_table_of_frequencies(preset, margin):
    """Exact test nats, within a minute, against what each pixel's own frequencies of the 17 levels give: 105.03."""
    experiment = dataclasses.replace(presets.get(preset), evaluations=1, seeds=3)
    program = build(experiment)
    spec, source = program.given, program.source
    conditional = autoregressive.categorical(spec.levels)
    table = autoregressive.marginal_outputs(source.train, conditional, spec.levels)
    x = source.test.x.reshape(spec.num_test, -1)
    by_table = -conditional.log_prob(jnp.broadcast_to(table, (*x.shape, spec.levels)), x).sum(-1).mean()
    assert by_table == pytest.approx(105.03, abs=0.01)
    begin = time.perf_counter()
    runs = program.start(program.keys, program.hparams, program.source)
    _, metrics = program.advance(runs, program.hparams, program.source)
    found = np.asarray(metrics["eval/nll"])
    nats = np.sort(found.astype(float)).round(2).tolist()
    print(f"{preset}: nats {nats}, {time.perf_counter() - begin:.0f} s for {len(found)} seeds")
    assert (found < by_table - margin).all(), found
