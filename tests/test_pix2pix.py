"""Pix2Pix: who moves whom, losses by hand, and what it refuses."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from learners import pix2pix_on_pairs

from generative import data
from generative.adversarial import Player
from generative.models import pix2pix


def same_bits(one, two):
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True))


def test_one_player_moves_without_the_other():
    """Parameters and statistics of batch normalisation alike."""
    model, hparams, source, _ = pix2pix_on_pairs()
    hparams, update = hparams._replace(learning_rate=0.01), jax.jit(model.update)
    state = model.init(random.key(0), hparams, source)
    both, _ = update(random.key(1), state, hparams, source)
    still, _ = update(random.key(1), state, hparams._replace(learning_rate=0.0), source)
    assert same_bits(still.generator.fit.params, state.generator.fit.params)
    assert same_bits(still.discriminator, both.discriminator)
    assert not same_bits(still.discriminator.fit.params, state.discriminator.fit.params)
    still, _ = update(random.key(1), state, hparams._replace(discriminator_learning_rate=0.0), source)
    assert same_bits(still.discriminator.fit.params, state.discriminator.fit.params)
    assert same_bits(still.generator.stats, both.generator.stats)  # it moved by the same batch
    assert not same_bits(still.generator.stats, state.generator.stats)
    made = jax.jit(model.translate)(random.key(2), both, source.test.x[:3, 0])
    assert made.shape == (3, 6, 5, 1) and made.min() >= 0 and made.max() <= 1


def test_losses_by_hand():
    """A judge that takes the mean of the translation, a generator that adds its parameter."""
    given, real = jnp.zeros((2, 3, 3, 1)), jnp.full((2, 3, 3, 1), 2.0)

    def judge(params, stats, x):
        return params * x[..., 1].mean((1, 2)), stats + 1

    total, (stats, _) = pix2pix.loss(jnp.float32(1), judge, 0, given, real, given)
    assert total == pytest.approx(0.5 * (np.log1p(np.exp(-2)) + np.log(2)), rel=1e-6)
    assert stats == 2  # each kind is a batch of its own
    translate = lambda params, stats, x: (x + params, stats)  # noqa: E731
    rival = Player(pix2pix.fit.Fit(jnp.float32(3), ()), 0)
    hparams = pix2pix.Hyperparams(l1_weight=10.0)
    total, _ = pix2pix.generator_loss(jnp.float32(0.5), translate, judge, (), rival, given, real, hparams)
    assert total == pytest.approx(np.log1p(np.exp(-1.5)) + 10 * 1.5, rel=1e-6)


def test_what_is_no_pair_is_refused():
    spec, _ = data.from_arrays("mine", np.ones((4, 3, 3, 1)), np.zeros((4, 3, 3, 1)))
    with pytest.raises(ValueError, match="mine holds examples of shape"):
        pix2pix.make(spec, pix2pix.Config())
    spec, _ = data.from_arrays("pairs", np.ones((4, 2, 3, 3, 1)), np.zeros((4, 2, 3, 3, 1)))
    with pytest.raises(ValueError, match="no valid examples"):
        pix2pix.make(spec, pix2pix.Config(eval_split="valid"))
