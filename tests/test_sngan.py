"""Spectral normalisation in training: the discriminator's power iterations are its own and go on from step to step."""

import jax
import numpy as np
import pytest
from jax import random
from learners import sngan_on_images

from generative import adversarial, data
from generative.image_networks import DCGAN
from generative.models import sngan


def test_power_iterations_follow_the_weights_and_the_generator_leaves_them():
    model, hparams, source, _ = sngan_on_images()
    hparams = hparams._replace(learning_rate=0.01)
    update = jax.jit(model.update)
    state = model.init(random.key(0), hparams, source)
    faster, _ = update(random.key(1), state, hparams._replace(learning_rate=0.1), source)
    for step in range(60):
        before = state
        state, _ = update(random.key(1 + step), state, hparams._replace(discriminator_learning_rate=0.001), source)
        if step == 0:  # the generator's rate changes nothing in the discriminator or its vectors
            other, _ = update(random.key(1), before, hparams._replace(discriminator_learning_rate=0.001), source)
            jax.tree.map(np.testing.assert_array_equal, state.discriminator, other.discriminator)
            slow = update(random.key(1), before, hparams, source)[0].discriminator
            jax.tree.map(np.testing.assert_array_equal, slow, faster.discriminator)
    _, vectors = state.discriminator.stats
    kernels = [leaf for leaf in jax.tree.leaves(state.discriminator.fit.params) if leaf.ndim > 1]
    for kernel, vector in zip(kernels, vectors, strict=True):
        right = np.linalg.svd(kernel)[2][0]
        assert abs(right @ vector) == pytest.approx(1, abs=1e-3)


def test_one_power_iteration_per_step_of_the_discriminator():
    """Two steps at rest: real and generated examples are judged by the same weights."""
    model, hparams, source, _ = sngan_on_images()
    hparams = hparams._replace(learning_rate=0.0, discriminator_learning_rate=0.0)
    state = jax.jit(model.init)(random.key(0), hparams, source)
    after, _ = jax.jit(model.update)(random.key(1), state, hparams, source)
    params, (_, vectors) = state.discriminator.fit.params, state.discriminator.stats
    for _ in range(2):
        _, vectors = adversarial.spectrally_normalized(params, vectors)
    for found, expected in zip(after.discriminator.stats[1], vectors, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batch_normalisation_is_refused():
    spec, _ = data.from_arrays("images", np.ones((4, 8, 8, 1)), np.zeros((4, 8, 8, 1)))
    with pytest.raises(ValueError, match="norm='none'"):
        sngan.make(spec, sngan.Config(discriminator=DCGAN((4,))))
