"""CycleGAN: cycles that close, the history, images without their translations, and who moves whom."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random
from learners import cyclegan_on_pairs, pairs_of_images

from generative import adversarial, data, image_networks
from generative.adversarial import Player
from generative.models import cyclegan
from generative.models.cyclegan import Directions, History
from jaxrl.core import fit


def test_inverse_generators_close_the_cycle():
    """There is 2 x + 1, back its inverse; the identity term sees what each would change in its own kind."""
    x = Directions(*random.normal(random.key(0), (2, 3, 4, 4, 1)))
    translate = lambda params, stats, x: (params[0] * x + params[1], stats)  # noqa: E731
    judge = lambda params, stats, x: (jnp.ones(len(x)), stats)  # noqa: E731
    rivals = Player(fit.Fit(Directions((), ()), ()), Directions((), ()))
    args = (translate, judge, Directions((), ()), rivals, x, cyclegan.Hyperparams())
    total, (_, (found, made)) = cyclegan.generator_loss(Directions((2.0, 1.0), (0.5, -0.5)), *args)
    assert found["cycle_loss"] == pytest.approx(0, abs=1e-6) and found["generator_loss"] == 0
    expected = np.abs(x.there + 1).mean() + np.abs(0.5 * x.back + 0.5).mean()
    assert found["identity_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert total == pytest.approx(5 * float(expected), rel=1e-5)
    np.testing.assert_allclose(made.there, 2 * x.back + 1, rtol=1e-6)
    _, (_, (found, _)) = cyclegan.generator_loss(Directions((2.0, 1.0), (1.0, -0.5)), *args)
    assert found["cycle_loss"] > 0.1


def test_history_is_filled_then_swapped_half_of_the_time():
    """Images are numbered: while the history fills, each is shown itself; later about half are older ones."""

    def step(history, key_and_first):
        key, first = key_and_first
        images = (first + jnp.arange(4.0)).reshape(4, 1, 1, 1)
        history, shown = cyclegan.remember(key, history, images)
        return history, (shown.ravel(), images.ravel(), jnp.sort(history.images.ravel()))

    start = History(jnp.full((8, 1, 1, 1), -1.0), jnp.int32(0))
    keys = random.split(random.key(0), 1000)
    history, (shown, images, held) = jax.lax.scan(step, start, (keys, 4.0 * jnp.arange(1000)))
    np.testing.assert_array_equal(shown[:2], images[:2])
    np.testing.assert_array_equal(held[1], np.arange(8))
    assert history.held == 8
    old = np.asarray(shown[2:] != images[2:])
    assert old.mean() == pytest.approx(0.5, abs=0.03)
    for k in range(3, 40):  # who is shown leaves, who is not stays: nothing is doubled or lost
        before, after = np.asarray(held[k - 1]), np.asarray(held[k])
        replaced = np.asarray(shown[k])[old[k - 2]]
        np.testing.assert_array_equal(
            after, np.sort([*np.setdiff1d(before, replaced), *np.asarray(images[k])[old[k - 2]]])
        )
    age = (np.asarray(images[100:]) - np.asarray(shown[100:]))[old[98:]] / 4
    assert age.mean() == pytest.approx(4, abs=0.3)  # of 8 held, 2 leave at each step


def test_no_image_is_seen_with_its_translation(monkeypatch):
    """Number 12 pairs: images of the first kind come from the first half, those of the second from the second."""
    x = np.tile(np.arange(12.0)[:, None, None, None, None], (1, 2, 6, 5, 1))
    spec, source = data.from_arrays("numbered", x, x)
    seen = {}

    def look(params, translate, judge, stats, discriminators, x, hparams):
        seen["x"] = x
        first, second = (adversarial.denormalize(spec, part[:, 0, 0, 0]) for part in (x.back, x.there))
        metrics = {"first": first.max(), "second": second.min()}
        return jnp.float32(0), (stats, (metrics, x))

    monkeypatch.setattr(cyclegan, "generator_loss", look)
    networks = image_networks.ResNet((3,), 0), image_networks.Patch((4,), "none")
    model = cyclegan.make(spec, cyclegan.Config(*networks, batch_size=6, history_size=6))
    hparams = cyclegan.Hyperparams()
    _, metrics = jax.jit(model.update)(random.key(0), model.init(random.key(1), hparams, source), hparams, source)
    assert metrics["first"] == pytest.approx(5, abs=1e-4) and metrics["second"] == pytest.approx(6, abs=1e-4)


@pytest.mark.slow
def test_one_player_moves_without_the_other():
    model, hparams, source, _ = cyclegan_on_pairs()
    hparams, update = hparams._replace(learning_rate=0.01), jax.jit(model.update)
    state = model.init(random.key(0), hparams, source)
    still, _ = update(random.key(1), state, hparams._replace(learning_rate=0.0), source)
    jax.tree.map(np.testing.assert_array_equal, still.generators.fit.params, state.generators.fit.params)
    both, _ = update(random.key(1), state, hparams, source)
    jax.tree.map(np.testing.assert_array_equal, still.discriminators, both.discriminators)
    still, _ = update(random.key(1), state, hparams._replace(discriminator_learning_rate=0.0), source)
    jax.tree.map(np.testing.assert_array_equal, still.discriminators.fit.params, state.discriminators.fit.params)
    jax.tree.map(np.testing.assert_array_equal, still.generators, both.generators)


def test_what_cannot_work_is_refused():
    spec, _ = pairs_of_images()
    with pytest.raises(ValueError, match="batch_size=5 does not divide history_size=48"):
        cyclegan.make(spec, cyclegan.Config(batch_size=5))
    spec, _ = data.from_arrays("mine", np.ones((4, 3, 3, 1)), np.zeros((4, 3, 3, 1)))
    with pytest.raises(ValueError, match="not pairs of images"):
        cyclegan.make(spec, cyclegan.Config())
