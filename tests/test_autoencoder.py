"""The autoencoder against principal components, in closed form, and what its options do."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax import random

from generative import data, datasets
from generative.models import autoencoder
from jaxrl.core import loop, networks
from jaxrl.core.schedule import Linear

LINEAR = networks.MLP(hidden=())


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def test_linear_autoencoder_spans_the_principal_components(digits):
    """Its decoder's columns and PCA's first 8 directions differ by no angle, its loss is the discarded variance."""
    spec, source = digits
    size, count = 8, spec.num_train
    model = autoencoder.make(spec, autoencoder.Config(size, LINEAR, LINEAR, batch_size=count))
    train = jax.jit(partial(loop.train, model, num_updates=1500, eval_every=1500))
    run, metrics = train(random.key(0), autoencoder.Hyperparams(Linear(1e-2)), source)

    x = np.asarray(source.train.x, np.float64).reshape(count, -1) / 16
    variances, directions = np.linalg.eigh(np.cov(x.T, bias=True))  # ascending
    discarded, kept = variances[:-size], directions[:, -size:]
    columns, _ = np.linalg.qr(np.asarray(run.state.fit.params.decoder["Dense_0"]["kernel"], np.float64).T)
    outside = columns - kept @ (kept.T @ columns)
    assert np.arcsin(np.linalg.norm(outside, 2)) < 1e-3  # the largest angle between the subspaces
    made = np.asarray(jax.jit(model.reconstruct)(random.key(1), run.state, source.train.x)).reshape(count, -1)
    assert np.square(made - x).sum(-1).mean() == pytest.approx(discarded.sum(), rel=1e-5)

    test = np.asarray(source.test.x, np.float64).reshape(len(source.test.x), -1) / 16 - x.mean(0)
    error = np.square(test - test @ kept @ kept.T).sum(-1).mean()
    assert metrics["eval/error"][-1] == pytest.approx(error, rel=1e-4)


def test_errors_by_hand(digits):
    """A network that says nothing leaves the mean of the training images."""
    spec, source = digits
    silent = networks.Network(lambda key: jnp.zeros(1), lambda params, x: jnp.zeros((*x.shape[:-1], 64)))
    encoder = networks.Network(lambda key: jnp.zeros(1), lambda params, x: jnp.zeros((len(x), 2)))
    x, mean = (np.asarray(leaf).reshape(-1, 64) / 16 for leaf in (source.test.x, source.train.x.mean(0)))
    p = np.clip(mean, 0.001, 0.999)
    expected = {
        "squared": np.square(x - mean).sum(-1).mean(),
        "cross_entropy": -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1).mean(),
    }
    for error, value in expected.items():
        model = autoencoder.make(spec, autoencoder.Config(2, error=error), encoder, silent)
        state = model.init(random.key(0), autoencoder.Hyperparams(), source)
        scores = model.evaluate(random.key(1), state, autoencoder.Hyperparams(), source)
        assert scores["eval/error"] == pytest.approx(float(value), rel=1e-5)


def test_convolutional_autoencoder_learns(digits):
    """Half of the variance around the mean is explained within 150 updates; codes and pictures have their shapes."""
    spec, source = digits
    config = autoencoder.Config(
        latent_size=6,
        encoder=networks.CNN((8, 16), (3, 3), (2, 2), "SAME", hidden=()),
        decoder=networks.TransposedCNN((), (16, 8), (4, 4), (2, 2)),
        eval_split="valid",
    )
    model = autoencoder.make(spec, config)
    train = jax.jit(partial(loop.train, model, num_updates=150, eval_every=150))
    run, metrics = train(random.key(0), autoencoder.Hyperparams(Linear(1e-2)), source)
    x = np.asarray(source.valid.x).reshape(-1, 64) / 16
    assert metrics["eval/error"][-1] < 0.5 * x.var(0).sum()
    codes = model.encode(random.key(1), run.state, source.test.x[:3])
    assert codes.shape == (3, 6) and model.decode(run.state, codes).shape == (3, 8, 8, 1)
    assert model.sample is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_size": 0}, "latent_size=0"),
        ({"error": "cross_entropy"}, r"from -2.0 to 1.0, but error='cross_entropy'"),
        ({"eval_split": "valid"}, "no valid examples"),
        ({"encoder": networks.CNN()}, "use an MLP"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    spec, _ = data.from_arrays("mine", np.ones((4, 3)), np.full((4, 3), -2.0))
    with pytest.raises(ValueError, match=said):
        autoencoder.make(spec, autoencoder.Config(**changes))
