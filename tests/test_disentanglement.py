"""Scores of codes that are known: each latent a factor, factors rotated into each other, and noise."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from scipy.stats import special_ortho_group

from experiments import cli, disentangling, evaluation, lanes, sources, sweeping
from experiments.experiment import Experiment
from generative import disentanglement
from generative.models import vae
from jaxrl.core import networks

SIZES = 3, 4, 5, 6
ROTATION = special_ortho_group.rvs(4, random_state=0)


def standardized(value):
    return (value - (jnp.array(SIZES) - 1) / 2) / jnp.array(SIZES)


def perfect(value):
    """Also two latents that say nothing, one of them of a large scale."""
    tail = (*value.shape[:-1], 2)
    noise = jnp.sin(1e4 * (value @ jnp.array([0.3, 0.7, 0.11, 0.017]))[..., None])  # of all factors, smooth in none
    return jnp.concatenate([10 * standardized(value), jnp.broadcast_to(noise * jnp.array([5.0, 1e-3]), tail)], -1)


def rotated(value):
    return 10 * standardized(value) @ jnp.array(ROTATION, jnp.float32)


def silent(value):
    return jnp.zeros((*value.shape[:-1], 3)) + 1e-4 * jnp.sin(1e4 * value[..., :1])


@pytest.fixture(scope="module")
def drawn():
    """Codes and votes of each representation, for training and for testing."""

    def draw(represent):
        keys = random.split(random.key(0), 6)
        votes = {"num_votes": 400, "batch_size": 16}
        return {
            "codes": [disentanglement.draw_codes(key, represent, SIZES, 1000) for key in keys[:2]],
            "variances": [disentanglement.draw_variances(key, represent, SIZES, **votes) for key in keys[2:4]],
            "differences": [disentanglement.draw_differences(key, represent, SIZES, **votes) for key in keys[4:]],
        }

    representations = perfect, rotated, silent
    return jax.jit(lambda: {represent.__name__: draw(represent) for represent in representations})()


@pytest.mark.slow
def test_votes_share_one_factor():
    """With codes that are the factors, the shared one does not vary, within a batch or within a pair."""
    identity = lambda value: value.astype(jnp.float32)  # noqa: E731
    for draw in (disentanglement.draw_variances, disentanglement.draw_differences):
        votes = jax.jit(lambda draw=draw: draw(random.key(1), identity, SIZES, 208, 12))()
        own = votes.evidence[np.arange(208), votes.factor]
        others = votes.evidence[votes.factor == 0][:, 1:]
        assert not own.any() and (others > 0).all()
        np.testing.assert_allclose(np.bincount(votes.factor), 52, atol=25)


def test_mutual_information_gap(drawn):
    perfect_score = disentanglement.mutual_information_gap(drawn["perfect"]["codes"][0])
    assert perfect_score > 0.85
    assert disentanglement.mutual_information_gap(drawn["rotated"]["codes"][0]) < 0.3
    # By hand: a factor of two values read without error by one latent and by another in 3 of 4 cases.
    value = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    code = np.stack([value, [0, 0, 0, 1, 1, 1, 1, 0]], -1).astype(float)
    entropy = np.log(2)
    mutual = entropy + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    score = disentanglement.mutual_information_gap(disentanglement.Codes(code, value[:, None]))
    assert score == pytest.approx((entropy - mutual) / entropy)


def test_factor_vae_score(drawn):
    score = lambda case: disentanglement.factor_vae_score(case["codes"][0], *case["variances"])  # noqa: E731
    assert score(drawn["perfect"]) > 0.97
    assert score(drawn["rotated"]) < 0.8
    assert score(drawn["silent"]) < 0.4  # all latents are collapsed: one factor in four


def test_collapsed_latents_have_no_vote():
    """One that never varies would win every time."""
    represent = lambda value: jnp.concatenate([0 * value[:, :1], 3.0 * value], -1)  # noqa: E731
    draw = jax.jit(lambda seed: disentanglement.draw_variances(random.key(seed), represent, SIZES, 208, 16))
    values = disentanglement.draw_values(random.key(0), SIZES, 200)
    codes = disentanglement.Codes(represent(values), values)
    assert disentanglement.factor_vae_score(codes, draw(1), draw(2)) > 0.97


def test_beta_vae_score(drawn):
    assert disentanglement.beta_vae_score(*drawn["perfect"]["differences"]) > 0.97
    assert disentanglement.beta_vae_score(*drawn["silent"]["differences"]) < 0.6


def test_collapsed_latents_tell_no_shared_factor():
    """Each a factor, but hardly any of it."""
    represent = lambda value: 1e-4 * standardized(value)  # noqa: E731
    draw = jax.jit(lambda seed: disentanglement.draw_differences(random.key(seed), represent, SIZES, 208, 16))
    assert disentanglement.beta_vae_score(draw(1), draw(2)) < 0.6


def test_one_latent_has_all_there_is_to_know():
    value = np.arange(1000)[:, None] % 4
    code = (value + 0.1 * np.sin(np.arange(1000.0))[:, None]).astype(np.float32)
    codes = disentanglement.Codes(code, value)
    assert disentanglement.mutual_information_gap(codes) == pytest.approx(1)
    assert disentanglement.separated_attribute_predictability(codes, codes) > 0.9
    assert disentanglement.separated_attribute_predictability(codes, codes, categorical=(0,)) > 0.5


@pytest.mark.slow
def test_dci(drawn):
    """Few values, so that the trees are few."""
    disentangled, complete, informative = disentanglement.dci(*drawn["perfect"]["codes"])
    assert min(disentangled, complete, informative) > 0.95
    disentangled, complete, _ = disentanglement.dci(*drawn["rotated"]["codes"])
    assert max(disentangled, complete) < 0.6


def test_disentanglement_and_completeness_by_hand():
    score = disentanglement.disentanglement_and_completeness
    assert score(np.eye(3)) == pytest.approx((1, 1))
    assert score(np.ones((3, 4))) == pytest.approx((0, 0), abs=1e-9)
    # One factor shared out between two latents that know nothing else, and a latent that knows nothing.
    split = np.array([[0.5, 0.5, 0, 0], [0, 0, 1, 0]])
    assert score(np.zeros((3, 4))) == (0, 0)
    assert score(np.ones((1, 2))) == pytest.approx((1, 0), abs=1e-9)  # one factor; one latent
    assert score(np.ones((2, 1))) == pytest.approx((0, 1), abs=1e-9)
    entropy = np.log(2) / np.log(4)
    assert score(split) == pytest.approx((1, (1 - entropy + 1) / 2))


def test_separated_attribute_predictability(drawn):
    score = disentanglement.separated_attribute_predictability
    assert score(*drawn["perfect"]["codes"]) > 0.95
    assert score(*drawn["rotated"]["codes"]) < 0.5
    assert score(*drawn["silent"]["codes"]) < 0.1
    # A linear classifier of a latent that tells two values apart, and one that tells nothing: 1 against 1/2.
    value = np.arange(200)[:, None] % 2
    code = np.concatenate([value * 20.0 - 10, 0 * value], -1)
    codes = disentanglement.Codes(code, value)
    assert score(codes, codes, categorical=(0,)) == pytest.approx(0.5)


# Trained models


@pytest.mark.slow
def test_a_study_over_beta_is_scored(tmp_path, monkeypatch, capsys):
    """Each lane of a sweep, from the command line, as its run taken out alone."""
    monkeypatch.setattr(disentangling, "scores", partial(disentangling.scores, num_votes=40))
    monkeypatch.setattr(disentangling, "NUM_TREE_EXAMPLES", 20)
    monkeypatch.setattr(disentanglement, "draw_codes", partial(disentanglement.draw_codes, count=1000))
    small = networks.MLP((16,), "relu")
    config = vae.Config(latent_size=3, encoder=small, decoder=small, batch_size=8)
    asked = Experiment(
        "vae", sources.Data("sprites", data_kwargs=("side=16",)), config, vae.Hyperparams(), steps=32, evaluations=1
    )
    sweeping.sweep(asked, run_dir=str(tmp_path / "study"), beta=[1.0, 4.0])
    scored = lanes.evaluate(tmp_path / "study", disentanglement=True)
    assert 0 < scored["mig"].squeeze()[0] < 1
    assert cli.main(["evaluate", str(tmp_path / "study"), "--disentanglement"]) == 0
    assert {"beta", *disentangling.SCORES} <= set(capsys.readouterr().out.split())

    cli.main(["extract", str(tmp_path / "study"), "--point", "1", "--run-dir", str(tmp_path / "lane")])
    alone = evaluation.restore(tmp_path / "lane")
    found = disentangling.scores(alone.program, alone.runs.state)
    np.testing.assert_allclose(found["mig"], scored["mig"].squeeze()[1], atol=1e-4)
