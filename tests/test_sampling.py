"""Samples and latents of a trained model on the command line: what is asked for comes, what cannot be is refused."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from experiments import cli, disentangling, plots, sampling, sources
from experiments.evaluation import Restored
from experiments.experiment import Experiment, build
from generative import data
from generative.models import autoencoder, gan, vae
from jaxrl.core import networks

SMALL = networks.MLP((9,))


def restored(path, algorithm, module, **options):
    """As a run of two seeds, 5 and 6, that was never trained."""
    config = module.Config(latent_size=3, encoder=SMALL, decoder=SMALL, **options)
    experiment = Experiment(algorithm, sources.Data(), config, module.Hyperparams(), seed=5, seeds=2)
    program = build(experiment)
    return Restored(path, experiment, program, program.start(program.keys, program.hparams, program.source))


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return restored(tmp_path_factory.mktemp("run"), "vae", vae, conditional=True)


def test_labels_and_seeds_are_those_asked_for(conditional):
    default = sampling.draw(conditional, 12)
    assert default.shape == (12, 8, 8, 1)
    threes = sampling.draw(conditional, 12, label=3)
    np.testing.assert_allclose(threes[3], default[3], atol=1e-6)  # one class after another if none is asked for
    assert abs(threes[4] - default[4]).max() > 1e-3
    assert (sampling.draw(conditional, 12, lane=1) != default).any()
    assert (sampling.draw(conditional, 12, seed=1) != default).any()


def test_what_cannot_be_drawn_is_refused(conditional, tmp_path):
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        sampling.draw(conditional, 0)
    with pytest.raises(ValueError, match=r"Label 10 .* classes 0 to 9"):
        sampling.draw(conditional, 4, label=10)
    with pytest.raises(ValueError, match="Seed 7 was not trained, seeds 5 to 6"):
        sampling.draw(conditional, 4, lane=2)
    with pytest.raises(ValueError, match=r"test examples to make something of: use --count"):
        sampling.draw(restored(tmp_path, "autoencoder", autoencoder), 4000)
    with pytest.raises(ValueError, match=r"--out samples\.npy"):
        plots.samples(np.zeros((4, 7)), tmp_path / "samples.png")


def test_what_has_no_distribution_makes_something_of_test_images(tmp_path):
    coded = restored(tmp_path, "autoencoder", autoencoder)
    state = jax.tree.map(lambda leaf: leaf[1], coded.runs.state)
    x, _ = sampling.examples(coded, 4)
    expected = coded.program.learner.reconstruct(random.key(0), state, x)
    np.testing.assert_allclose(sampling.draw(coded, 4, lane=1), expected, atol=1e-5)
    learner = coded.program.learner._replace(translate=lambda key, state, x: 1.0 - x)
    pairs = np.stack([np.zeros((6, 4, 4, 1)), np.ones((6, 4, 4, 1))], 1).astype(np.float32)
    given, source = data.from_arrays("pairs", pairs, pairs)
    translating = coded._replace(program=coded.program._replace(given=given, source=source, learner=learner))
    np.testing.assert_array_equal(sampling.draw(translating, 5), np.ones((5, 4, 4, 1)))


def test_models_without_codes_go_from_sample_to_sample(tmp_path):
    config = gan.Config(latent_size=3, generator=SMALL, discriminator=SMALL, conditional=True, classifier_updates=0)
    experiment = Experiment("gan", sources.Data(), config, gan.Hyperparams())
    program = build(experiment)
    runs = program.start(program.keys, program.hparams, program.source)
    between = sampling.interpolations(Restored(tmp_path, experiment, program, runs))
    assert between.shape == (10, 9, 8, 8, 1)
    np.testing.assert_allclose(between[0::2, [0, -1]], between[1::2, [0, -1]], atol=1e-5)
    assert (np.ptp(between, axis=1).max((1, 2, 3)) > 1e-3).all()
    middle = abs(between[0::2, 4] - between[1::2, 4]).max((1, 2, 3))
    assert (middle > 1e-4).all()  # the line cuts the corner


def test_traversals_and_interpolations(conditional):
    """The middle of a traversal's row depends on its latent alone; both ends of a path are reconstructions."""
    _, _, program, runs = conditional
    state = jax.tree.map(lambda leaf: leaf[0], runs.state)
    x, (label,) = sampling.examples(conditional, 10)
    np.testing.assert_array_equal(x[jnp.array([0, -1])], program.source.test.x[jnp.array([0, -1])])
    np.testing.assert_array_equal(label[-1], program.source.test.label[-1])
    between = sampling.interpolations(conditional)
    assert between.shape == (10, 9, 8, 8, 1)
    made = program.learner.reconstruct(random.key(0), state, x, label)
    for row in (0, 1):  # straight, then along an arc
        np.testing.assert_allclose(between[row::2, 0], made[0::2], atol=1e-4)
        ends = program.learner.decode(state, program.learner.encode(random.key(0), state, x, label)[1::2], label[0::2])
        np.testing.assert_allclose(between[row::2, -1], ends, atol=1e-4)
    rows = sampling.traversals(conditional)
    assert rows.shape == (3, 9, 8, 8, 1)
    assert (np.ptp(rows, axis=1).max((1, 2, 3)) > 1e-3).all()


def test_an_arc_keeps_its_distance_from_the_origin():
    start, end = random.normal(random.key(0), (2, 6, 5))
    end = end / jnp.linalg.norm(end, axis=-1, keepdims=True) * jnp.linalg.norm(start, axis=-1, keepdims=True)
    for place in (0.0, 0.3, 1.0):
        point = sampling.spherical(start, end, jnp.float32(place))
        np.testing.assert_allclose(jnp.linalg.norm(point, axis=-1), jnp.linalg.norm(start, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(sampling.spherical(start, end, jnp.float32(1.0)), end, atol=1e-5)
    np.testing.assert_allclose(sampling.spherical(start, start, jnp.float32(0.4)), start, rtol=1e-3)


def test_between_opposite_vectors_lies_a_line():
    start = random.normal(random.key(0), (6, 5))
    for end in (-start, -2 * start):
        found = sampling.spherical(start, end, jnp.float32(0.3))
        np.testing.assert_allclose(found, 0.7 * start + 0.3 * end, atol=1e-5)


def test_the_command_writes_pictures_and_numbers(conditional, monkeypatch, capsys):
    monkeypatch.setattr(cli.evaluation, "restore", lambda path: conditional)
    assert cli.main(["sample", "RUN", "--count", "11"]) == 0
    assert (conditional.path / "samples.png").stat().st_size > 1000
    assert cli.main(["sample", "RUN", "--run-seed", "6", "--out", str(conditional.path / "six.npy")]) == 0
    assert np.load(conditional.path / "six.npy").shape == (64, 8, 8, 1)
    assert capsys.readouterr().out.split() == [str(conditional.path / name) for name in ("samples.png", "six.npy")]
    assert cli.main(["sample", "RUN", "--run-seed", "9"]) == 2
    assert "Seed 9" in capsys.readouterr().err


def test_bounds_are_reported_and_drawn(conditional, monkeypatch, capsys):
    config = vae.Config(latent_size=3, encoder=SMALL, decoder=SMALL, conditional=True, eval_samples=20)
    closer = Experiment("vae", sources.Data(), config, vae.Hyperparams(), seed=5, seeds=2)
    program = build(closer)
    monkeypatch.setattr(cli.folder, "open_run", lambda path: (path, {}, conditional.experiment))
    given = conditional._replace(experiment=closer, program=program)
    monkeypatch.setattr(cli.evaluation, "restore", lambda path, **changes: given)
    monkeypatch.setattr(cli.sweeping, "is_sweep", lambda path: False)
    assert cli.main(["evaluate", "RUN", "--eval-samples", "20"]) == 0
    printed = capsys.readouterr().out.split()
    assert {"eval/bound_1", "eval/bound_10", "eval/bound_20", "eval/nll"} <= set(printed)
    assert printed[-1] == str(conditional.path / "bounds.png")
    assert (conditional.path / "bounds.png").stat().st_size > 1000


def test_latents_without_known_factors_are_not_scored(conditional):
    with pytest.raises(ValueError, match=r"no latents to score .* --data sprites"):
        disentangling.scores(conditional.program, conditional.runs.state)


@pytest.mark.slow
def test_latents_of_sprites_are_scored():
    """An untrained encoder knows positions from each other no better than any random projection does."""
    config = vae.Config(latent_size=4, encoder=SMALL, decoder=SMALL, batch_size=4, conditional=True)
    experiment = Experiment("vae", sources.Data("sprites", data_kwargs=("side=16",)), config, vae.Hyperparams())
    program = build(experiment)
    runs = program.start(program.keys, program.hparams, program.source)
    scores = disentangling.scores(program, runs.state, num_votes=200, conditional=True)
    assert set(scores) == set(disentangling.SCORES)
    assert all(leaf.shape == (1,) and 0 <= leaf[0] <= 1 for leaf in scores.values())
    assert scores["mig"] < 0.2
