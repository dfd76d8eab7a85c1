"""The Wasserstein GAN: its loss by hand, counts of steps, and what it refuses. The penalty is in `test_adversarial`."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from learners import wgan_gp_on_images

from generative import data
from generative.image_networks import DCGAN
from generative.models import wgan_gp
from jaxrl.core import fit


def test_loss_by_hand():
    """A linear critic of slope (3, 4): distance between the means along it, penalty (5 - 1)^2."""
    real, generated = jnp.array([[1.0, 0.0], [3.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, 1.0]])
    hparams = wgan_gp.Hyperparams(gradient_penalty=0.5)
    critic = lambda slope, x: x @ slope  # noqa: E731
    total, found = wgan_gp.loss(jnp.array([3.0, 4.0]), critic, real, generated, jnp.array([0.2, 0.9]), hparams)
    assert found["distance"] == pytest.approx(3 * 2 - 4)
    assert found["penalty"] == pytest.approx(16)
    assert total == pytest.approx(-2 + 8)


def test_steps_and_mixing_weights(monkeypatch):
    """Two steps of the critic to one of the generator, each with as many weights as examples."""
    model, hparams, source, _ = wgan_gp_on_images("adam")
    original, weights = wgan_gp.loss, []

    def look(params, critic, real, generated, weight, hparams):
        weights.append(weight.shape)
        total, found = original(params, critic, real, generated, weight, hparams)
        return total, {**found, "spread": weight.std()}

    monkeypatch.setattr(wgan_gp, "loss", look)
    hparams = hparams._replace(learning_rate=0.01)
    state = model.init(random.key(0), hparams, source)
    after, metrics = jax.jit(model.update)(random.key(1), state, hparams, source)
    assert after.critic.fit.opt_state[0].count == 2 and after.generator.fit.opt_state[0].count == 1
    assert set(weights) == {(6,)} and 0.1 < metrics["spread"] < 0.5
    assert model.sample(random.key(2), after, 3).shape == (3, 4, 4, 1)


def test_each_player_moves_alone():
    """The critic's steps come first, so that the generator's rate changes nothing of it."""
    model, hparams, source, _ = wgan_gp_on_images("adam")
    hparams = hparams._replace(learning_rate=0.01, critic_learning_rate=0.01)
    update, state = jax.jit(model.update), model.init(random.key(0), hparams, source)
    both, _ = update(random.key(1), state, hparams, source)
    alone, _ = update(random.key(1), state, hparams._replace(learning_rate=0.0), source)
    jax.tree.map(np.testing.assert_array_equal, alone.critic, both.critic)
    jax.tree.map(np.testing.assert_array_equal, alone.generator.fit.params, state.generator.fit.params)
    alone, _ = update(random.key(1), state, hparams._replace(critic_learning_rate=0.0), source)
    jax.tree.map(np.testing.assert_array_equal, alone.critic.fit.params, state.critic.fit.params)
    for moved, still in ((both.critic, state.critic), (alone.generator, state.generator)):
        assert not np.array_equal(
            *(np.concatenate([x.ravel() for x in jax.tree.leaves(p.fit.params)]) for p in (moved, still))
        )


def test_the_default_optimizer_is_the_papers():
    assert wgan_gp.Config().optimizer == fit.Optimizer("adam", momentum=0.0, square_decay=0.9)


def test_a_critic_that_normalises_over_the_batch_is_refused():
    spec, _ = data.from_arrays("images", np.ones((4, 8, 8, 1)), np.zeros((4, 8, 8, 1)))
    with pytest.raises(ValueError, match="norm='none'"):
        wgan_gp.make(spec, wgan_gp.Config(critic=DCGAN((4,))))
    wgan_gp.make(spec, wgan_gp.Config(critic=DCGAN((4,), "none"), generator=DCGAN((4,))))
