"""Convolutional players: shapes for any size of image, statistics, and what normalisation does."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from generative import image_networks as nets
from jaxrl.core import networks


def shapes(network, *inputs):
    """Of the outputs, traced only; the statistics must keep theirs."""

    def run(key):
        params, stats = network.init(key)
        outputs, after = network.apply(params, stats, *map(jnp.zeros, inputs))
        return outputs, stats, after

    outputs, stats, after = jax.eval_shape(run, random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, stats) == jax.tree.map(lambda leaf: leaf.shape, after)
    return outputs.shape


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_dcgan_makes_and_reads_images(norm):
    description = nets.DCGAN((6, 10), norm)
    assert shapes(nets.generator(description, 5, (28, 20, 3)), (4, 5)) == (4, 28, 20, 3)
    assert shapes(nets.discriminator(description, (9, 7, 2)), (4, 9, 7, 2)) == (4,)
    with pytest.raises(ValueError, match="30x28 pixels are no multiple of 4: use fewer channels"):
        nets.generator(description, 5, (30, 28, 1))
    with pytest.raises(ValueError, match="not examples of shape"):
        nets.discriminator(description, (7,))


@pytest.mark.parametrize("kind", [nets.DCGAN, nets.UNet, nets.ResNet, nets.Patch])
def test_no_channels_are_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} of channels=\(\)"):
        kind(())


def test_one_pixel_is_not_normalised_away():
    patch, res_net = nets.Patch((4, 5, 6), "instance"), nets.ResNet((4, 5, 6, 7))
    for make in (lambda shape: nets.patches(patch, shape), lambda shape: nets.translator(res_net, shape, 3)):
        make((9, 8, 2))
        with pytest.raises(ValueError, match=r"8x7 pixels are one after 3 halvings.* fewer channels"):
            make((8, 7, 2))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 3), (33, 17)])
def test_translators_and_patches_take_images_of_any_size(size):
    image = (*size, 2)
    for description in (nets.UNet((4, 5, 6)), nets.UNet((4,), "none"), nets.ResNet((4, 5)), nets.ResNet(norm="batch")):
        assert shapes(nets.translator(description, image, 3), (2, *image)) == (2, *size, 3)
    found = shapes(nets.patches(nets.Patch((4, 5)), image), (2, *image))
    assert found == (2, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.slow
def test_a_patch_is_judged_alone():
    """Two convolutions with stride 2 and one without, kernels of 4: logit 1 of 8 sees no pixel from the 20th on."""
    network = nets.patches(nets.Patch((4, 5), "none"), (32, 32, 1))
    params, stats = network.init(random.key(0))
    x = random.normal(random.key(1), (1, 32, 32, 1))
    judge = jax.jit(lambda x: network.apply(params, stats, x)[0])
    logits, moved = judge(x), judge(x.at[:, 20:].add(1.0))
    np.testing.assert_array_equal(logits[0, :2], moved[0, :2])
    assert (logits[0, 4:] != moved[0, 4:]).all()


@pytest.mark.slow
def test_odd_sizes_are_filled_up_with_their_last_pixels():
    network = nets.translator(nets.UNet((3,), "none"), (6, 5, 1), 1)
    params, stats = network.init(random.key(0))
    x = random.normal(random.key(1), (2, 6, 5, 1))
    filled = jnp.concatenate([x, x[:, :, -1:]], 2)
    translate = jax.jit(lambda x: network.apply(params, stats, x)[0])
    np.testing.assert_allclose(translate(x), translate(filled)[:, :, :5], rtol=1e-5)


def test_batch_norm_by_hand():
    x = jnp.array([[1.0, 10.0], [3.0, 10.0], [8.0, 40.0]])
    stats = {"mean": jnp.zeros(2), "variance": jnp.ones(2)}
    normalized, after = nets.batch_norm(stats, x, True)
    np.testing.assert_allclose(normalized, (x - x.mean(0)) / x.std(0), rtol=1e-4)
    np.testing.assert_allclose(after["mean"], 0.1 * x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(after["variance"], 0.9 + 0.1 * x.var(0), rtol=1e-6)
    later, same = nets.batch_norm(after, x, False)
    np.testing.assert_allclose(later, (x - after["mean"]) / np.sqrt(after["variance"] + nets.EPSILON), rtol=1e-6)
    assert same is after


def test_instance_norm_is_of_each_image_alone():
    x = random.normal(random.key(0), (3, 4, 5, 2)) * 7 + 3
    normalized = nets.instance_norm(x)
    np.testing.assert_allclose(normalized.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std((1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(nets.instance_norm(x[:1]), normalized[:1], atol=1e-5)


@pytest.mark.slow
def test_every_parameter_of_every_network_matters():
    """A gradient of zero would be a layer left out or one that its normalisation makes void."""
    x = random.normal(random.key(1), (3, 9, 7, 2))
    all_networks = {
        "dcgan generator": (nets.generator(nets.DCGAN((4, 6)), 5, (8, 8, 1)), random.normal(random.key(1), (3, 5))),
        "dcgan": (nets.discriminator(nets.DCGAN((4, 6)), (9, 7, 2)), x),
        "patches": (nets.patches(nets.Patch((4, 6)), (9, 7, 2)), x),
        "u-net": (nets.translator(nets.UNet((4, 6, 8), "instance"), (9, 7, 2), 1), x),
        "residual": (nets.translator(nets.ResNet((4, 6)), (9, 7, 2), 1), x),
    }
    for name, (network, inputs) in all_networks.items():
        params, stats = network.init(random.key(0))

        def loss(params, network=network, stats=stats, inputs=inputs):
            return jnp.square(network.apply(params, stats, inputs)[0] - 2).sum()

        gradients = jax.jit(jax.grad(loss))(params)
        for path, leaf in jax.tree.leaves_with_path(gradients):
            assert (jnp.abs(leaf).max() > 1e-6) and jnp.isfinite(leaf).all(), (name, jax.tree_util.keystr(path))


@pytest.mark.slow
def test_spectrally_normalised_networks_carry_their_power_iterations():
    network = nets.spectrally_normalized(nets.discriminator(networks.MLP((6,), "leaky_relu"), (3,)))
    params, stats = network.init(random.key(0))
    x = random.normal(random.key(1), (5, 3))
    for _ in range(50):
        logits, stats = network.apply(params, stats, x)
    doubled, after = network.apply(jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim > 1 else leaf, params), stats, x)
    np.testing.assert_allclose(logits, doubled, rtol=1e-4)  # whatever the size of the weights
    _, same = network.apply(params, stats, x, training=False)
    assert same[1] is stats[1] and len(after[1]) == 2
