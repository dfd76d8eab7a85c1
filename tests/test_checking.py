"""Autoregressive models on the command line: every way of sampling, completions, checks and pictures."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from matplotlib.axes import Axes

from experiments import checking, cli, plots, sampling, sources
from experiments.evaluation import Restored, state_of
from experiments.experiment import Experiment, build
from generative import data
from generative.models import made, vae, wavenet

IMAGES = sources.Data("digits", data_kwargs=("levels=2",))
SOUNDS = sources.Data("sounds", data_kwargs=("length=6", "levels=3"))


def restored(path, algorithm, source, module, config):
    """As a run of two seeds, 5 and 6, that was never trained, but whose parameters are not zero."""
    experiment = Experiment(algorithm, source, config, module.Hyperparams(), seed=5, seeds=2)
    program = build(experiment)
    runs = program.start(program.keys, program.hparams, program.source)
    generator = np.random.default_rng(0)
    move = lambda leaf: leaf + jnp.asarray(0.3 * generator.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    fit = runs.state.fit._replace(params=jax.tree.map(move, runs.state.fit.params))
    return Restored(path, experiment, program, runs._replace(state=runs.state._replace(fit=fit)))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return restored(tmp_path_factory.mktemp("run"), "made", IMAGES, made, made.Config((9,), order="raster"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    config = wavenet.Config(4, 6, num_layers=2, conditional=True)
    return restored(tmp_path_factory.mktemp("run"), "wavenet", SOUNDS, wavenet, config)


def test_methods_and_completions(images):
    """Every method draws the same, and completions are of test images, whose upper half is kept."""
    for complete in (False, True):
        fast, slow = (sampling.draw(images, 9, method=method, complete=complete) for method in made.METHODS)
        np.testing.assert_array_equal(fast, slow)
    x = data.scale(sampling.examples(images, 9)[0], 2)
    np.testing.assert_array_equal(fast[:, :4], x[:, :4])
    assert (fast[:, 4:] != x[:, 4:]).any()
    with pytest.raises(ValueError, match="did you mean naive"):
        sampling.draw(images, 9, method="native")


@pytest.mark.slow
def test_completions_are_of_the_class_asked_for(sounds):
    default, ones = (sampling.draw(sounds, 200, label, complete=True) for label in (None, 1))
    labels = sampling.examples(sounds, 200)[1][0]
    np.testing.assert_array_equal(default[labels == 1], ones[labels == 1])
    assert (default != ones).any()


def test_what_draws_all_at_once_has_no_methods(tmp_path):
    experiment = Experiment("vae", sources.Data(), vae.Config(), vae.Hyperparams())
    whole = Restored(tmp_path, experiment, build(experiment), None)
    for options in ({"method": "naive"}, {"complete": True}):
        with pytest.raises(ValueError, match="draws all values at once: leave out --method and --complete"):
            sampling.draw(whole, 4, **options)
    with pytest.raises(ValueError, match="draws all values at once: check an autoregressive model"):
        checking.reports(whole)


def test_the_commands(sounds, monkeypatch, capsys):
    monkeypatch.setattr(cli.evaluation, "restore", lambda path: sounds)
    target = str(sounds.path / "drawn.npy")
    assert cli.main(["sample", "RUN", "--complete", "--method", "naive", "--count", "3", "--out", target]) == 0
    assert np.load(target).shape == (3, 6)
    assert cli.main(["check", "RUN", "--run-seed", "6"]) == 0
    printed = capsys.readouterr().out
    for line in ("causal      passed", "sampler     passed", "sees 14 of 15 pairs", "normalised  passed"):
        assert line in printed
    assert cli.main(["check", "RUN", "--run-seed", "7"]) == 2
    model = sounds.program.learner
    leaky = model._replace(outputs=lambda params, x, label: model.outputs(params, x, label) + x[..., None])
    wrong = sounds._replace(program=sounds.program._replace(learner=leaky))
    monkeypatch.setattr(cli.evaluation, "restore", lambda path: wrong)
    assert cli.main(["check", "RUN"]) == 1
    assert "causal      FAILED  outputs of (0,) have a derivative by (0,)" in capsys.readouterr().out


def test_pictures_of_images(images, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "_heat", lambda values, target, *_: drawn.update({target.name: values}))
    found = plots.examples(images)
    names = ["samples.png", "completions.png", "nats.png", "receptive.png"]
    assert [path.name for path in found] == names
    assert all((images.path / name).stat().st_size > 1000 for name in names[:2])
    x = images.program.source.test.x  # all 300
    nats = images.program.learner.nats(state_of(images, 0).fit.params, x)
    np.testing.assert_allclose(drawn["nats.png"], nats.mean(0)[..., 0], rtol=1e-4)
    earlier = np.arange(64).reshape(8, 8) < 4 * 8 + 4
    np.testing.assert_array_equal(drawn["receptive.png"] > 0, earlier)


@pytest.mark.slow
def test_pictures_of_sounds(sounds, monkeypatch):
    lines = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, values, **style: lines.append(values) or plot(self, values, **style))
    found = plots.examples(sounds)
    names = {"samples.png", "samples.wav", "completions.png", "nats.png", "receptive.png"}
    assert {path.name for path in found} == names == {path.name for path in Path(sounds.path).iterdir()} - {"drawn.npy"}
    samples, completions, (nats,) = lines[:8], lines[8:20], lines[20:]
    assert np.ptp(samples) > 0 and nats.shape == (6,) and (nats > 0).all()
    for first, second, true in zip(completions[0::3], completions[1::3], completions[2::3], strict=True):
        np.testing.assert_allclose(first[:3], true[:3], atol=1e-6)
        np.testing.assert_allclose(second[:3], true[:3], atol=1e-6)
