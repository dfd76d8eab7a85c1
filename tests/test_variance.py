"""The measurement of what baselines do to REINFORCE's gradient: on a task of known variances, its table and picture."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from experiments import cli, plots, presets, variance
from jaxrl import envs_tabular
from jaxrl.algorithms import reinforce
from jaxrl.core import networks


def test_variances_of_a_bandit():
    """One step, one of two actions, reward 3 or 2, an even policy with a score of length 1 for either, opposite signs.

    With a baseline b an estimate is 3 - b or b - 2, which are 5 - 2b apart: its variance is a quarter of the square.
    """
    env, env_params = envs_tabular.make("Bandit", means=(3.0, 2.0), deviation=0.0)
    config = reinforce.Config(network=networks.MLP(hidden=()))
    hparams, num_episodes = reinforce.Hyperparams(), 4000
    state = reinforce.make(env, config).init(random.key(0), hparams, env_params)
    params = jax.tree.map(jnp.zeros_like, state.fit.params)
    params["critic"] = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5 if leaf.ndim == 1 else 0.3), params["critic"])
    state = state._replace(fit=state.fit._replace(params=params), mean_return=jnp.float32(2.0))
    measure = jax.jit(partial(variance.gradient_variances, env, config, num_episodes))
    found = measure(random.key(1), state, hparams, env_params)
    expected = {name: (5 - 2 * baseline) ** 2 / 4 for name, baseline in (("none", 0), ("constant", 2), ("value", 0.8))}
    for name in variance.BASELINES:
        np.testing.assert_allclose(found[name], expected[name], rtol=0.01)


def test_table_and_picture(tmp_path):
    rows = {name: np.full((6, 3), 10.0**place) for place, name in enumerate(variance.BASELINES)}
    base = presets.get("reinforce-cartpole")
    measured = variance.Measured(base, 1000 * np.arange(1, 7), rows, {name: 5 * row for name, row in rows.items()})
    lines = variance.table(measured).splitlines()
    assert lines[0].split()[-3:] == ["6,000", "last", "return"] and len(lines) == 4
    assert lines[2].split() == ["constant", *["10"] * 5, "50.0"]
    plots.variances(measured, tmp_path / "variance.png")
    assert (tmp_path / "variance.png").stat().st_size > 10_000


@pytest.fixture(autouse=True)
def no_programs_are_kept(monkeypatch):
    monkeypatch.setattr(cli, "cache_programs", lambda: None)


@pytest.mark.slow
def test_the_command_measures_and_draws(tmp_path, monkeypatch, capsys):
    base = presets.get("reinforce-cartpole")
    monkeypatch.setattr(presets, "get", lambda name: dataclasses.replace(base, steps=100_000))
    options = ["--seeds", "2", "--evaluations", "1", "--episodes", "4"]
    assert cli.main(["variance", *options, "--out", str(tmp_path / "out.png")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(tmp_path / "out.png") and (tmp_path / "out.png").exists()
    figures = {line.split()[0]: float(line.split()[1]) for line in printed[1:4]}
    assert figures["none"] > figures["constant"] > figures["value"] > 0


def test_only_reinforce_has_baselines(capsys):
    assert cli.main(["variance", "--preset", "ppo-cartpole"]) == 2
    assert "for ppo: give one for reinforce" in capsys.readouterr().err
