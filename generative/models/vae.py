"""Variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114, equation 10).

A weight `beta` other than 1 on the rate makes it the beta-VAE (Higgins et al. 2017, equation 4). The defaults are the
architecture of Burda et al. 2015, arXiv:1509.00519, with one stochastic layer.
Axes: N examples, B batch, D features of an example, Z latents, K importance samples.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jax import Array, lax, nn, random
from jax import numpy as jnp

from generative import data, likelihoods, metrics
from generative.model import Model
from jaxrl.core import fit, networks
from jaxrl.core.loop import Metrics

EVAL_BATCH = 500  # examples evaluated at once
LIKELIHOOD_BATCH = 10  # examples whose importance weights are drawn at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    latent_size: int = 50  # number of latents, Z
    encoder: networks.MLP | networks.CNN = networks.MLP((200, 200))  # its outputs: means and log variances
    decoder: networks.MLP = networks.MLP((200, 200))  # its outputs: logits or means
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"  # of an example given its latents
    learned_scale: bool = False  # learn the Gaussian's standard deviation, one for all features
    binarization: Literal["none", "dynamic"] = "none"  # dynamic: redraw each value as 0 or 1 whenever it is used
    batch_size: int = 100  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated
    eval_samples: int = 0  # importance samples behind eval/nll, K; 0 leaves it out

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser
    beta: Any = 1.0  # weight of the rate in the loss
    scale: Any = 0.1  # standard deviation of the Gaussian likelihood, or where the learned one starts


class Params(NamedTuple):
    """Parameters."""

    encoder: Any
    decoder: Any
    offset: Array  # [D] added to the decoder's outputs; starts at the training mean
    log_scale: Any  # [] of the Gaussian likelihood if it is learned, else None


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: data.Cursor


class Networks(NamedTuple):
    """Both take `apply(params, inputs, key)`, where a key turns dropout on and None off."""

    encoder: networks.Network  # [B, *shape] -> [B, 2 * Z]
    decoder: networks.Network  # [B, Z] -> [B, D], relative to `offset`


def kl_to_standard_normal(mean: Array, log_var: Array) -> Array:
    """Divergence [...] in nats of N(mean, exp(log_var)) [..., Z] from N(0, 1), summed over the latents."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_var) - 1.0 - log_var).sum(-1)


def encode(model: Networks, params: Params, x: Array, key: Array | None = None) -> tuple[Array, Array]:
    """Mean and log variance [B, Z] of the approximate posterior of `x` [B, *shape]."""
    mean, log_var = jnp.split(model.encoder.apply(params.encoder, x, key), 2, axis=-1)
    return mean, log_var


def decode(model: Networks, params: Params, latent: Array, key: Array | None = None) -> Array:
    """Outputs [..., D] for `latent` [..., Z]: logits of a Bernoulli likelihood, means of a Gaussian one."""
    return model.decoder.apply(params.decoder, latent, key) + params.offset


def starting_offset(config: Config, mean: Array) -> Array:
    """What a decoder that says nothing should add up to, given the `mean` [D] of the training examples.

    Learning the mean first costs latents: most are switched off meanwhile and few come back.
    """
    if config.likelihood == "gaussian":
        return mean
    mean = jnp.clip(mean, 0.001, 0.999)  # as in the program of Burda et al.
    return jnp.log(mean) - jnp.log1p(-mean)


def reconstruction(config: Config, params: Params, hparams: Hyperparams, outputs: Array, x: Array) -> Array:
    """Log p(x | z) [...] of `x` [..., D] given the decoder's `outputs` [..., D]."""
    if config.likelihood == "bernoulli":
        return likelihoods.bernoulli(outputs, x)
    return likelihoods.gaussian(outputs, jnp.exp(params.log_scale) if config.learned_scale else hparams.scale, x)


def bound(
    params: Params,
    key: Array,
    model: Networks,
    config: Config,
    x: Array,
    hparams: Hyperparams,
    dropout_key: Array | None = None,
) -> tuple[Array, Array]:
    """Distortion and rate [B] in nats of `x` [B, *shape], from one sample of the latents each.

    The evidence lower bound is minus their sum.
    """
    encoder_key, decoder_key = (None, None) if dropout_key is None else random.split(dropout_key)
    mean, log_var = encode(model, params, x, encoder_key)
    latent = mean + jnp.exp(0.5 * log_var) * random.normal(key, mean.shape)
    outputs = decode(model, params, latent, decoder_key)
    distortion = -reconstruction(config, params, hparams, outputs, x.reshape(outputs.shape))
    return distortion, kl_to_standard_normal(mean, log_var)


def loss(
    params: Params,
    key: Array,
    model: Networks,
    config: Config,
    x: Array,
    hparams: Hyperparams,
    dropout_key: Array | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Distortion plus beta times rate, mean over `x` [B, *shape]. Returns (scalar, metrics)."""
    distortion, rate = (part.mean() for part in bound(params, key, model, config, x, hparams, dropout_key))
    total = distortion + hparams.beta * rate
    return total, {"loss": total, "distortion": distortion, "rate": rate}


def log_weights(
    key: Array, count: int, params: Params, model: Networks, config: Config, x: Array, hparams: Hyperparams
) -> Array:
    """Log p(x, z) - log q(z | x) [K, B] of `count` = K latents drawn for each of `x` [B, *shape]."""
    mean, log_var = encode(model, params, x)
    noise = random.normal(key, (count, *mean.shape))
    latent = mean + jnp.exp(0.5 * log_var) * noise
    outputs = decode(model, params, latent)
    log_joint = reconstruction(config, params, hparams, outputs, x.reshape(outputs.shape[1:]))
    # The normalising constants of prior and posterior cancel.
    return log_joint + 0.5 * (jnp.square(noise) - jnp.square(latent) + log_var).sum(-1)


def make(
    spec: data.Spec, config: Config, encoder: networks.Network | None = None, decoder: networks.Network | None = None
) -> Model:
    """A VAE; `encoder` and `decoder` replace the networks of `config` (see `Networks` for inputs and outputs).

    Raises:
        ValueError: sizes that cannot work; values that the likelihood does not admit; a split without examples.
    """
    _check(spec, config)
    size = math.prod(spec.shape)
    model = Networks(
        networks.build(config.encoder, spec.shape, 2 * config.latent_size, 1.0) if encoder is None else _plain(encoder),
        networks.build(config.decoder, (config.latent_size,), size, 1.0) if decoder is None else _plain(decoder),
    )

    def prepare(key: Array, x: Array) -> Array:
        if config.binarization == "dynamic":
            return data.binarize(key, x, spec.levels)
        return data.scale(x, spec.levels)

    def pixel_means(outputs: Array) -> Array:
        means = nn.sigmoid(outputs) if config.likelihood == "bernoulli" else outputs
        return means.reshape(-1, *spec.shape)

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        encoder_key, decoder_key, cursor_key = random.split(key, 3)
        mean = data.scale(source.train.x.mean(0, dtype=jnp.float32), spec.levels).ravel()
        log_scale = jnp.log(hparams.scale) if config.learned_scale else None
        offset = starting_offset(config, mean)
        params = Params(model.encoder.init(encoder_key), model.decoder.init(decoder_key), offset, log_scale)
        return State(fit.start(config.optimizer, params), data.start(cursor_key))

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        binarize_key, noise_key, dropout_key = random.split(key, 3)
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        x = prepare(binarize_key, batch.x)
        optimizer = config.optimizer(hparams.learning_rate)
        args = (noise_key, model, config, x, hparams, dropout_key)
        fitted, train_metrics = fit.step(optimizer, loss, state.fit, *args)
        return State(fitted, cursor), train_metrics

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        x = getattr(source, config.eval_split).x
        params = state.fit.params
        bound_key, likelihood_key = random.split(key)

        def one(args: tuple[Array, Array]) -> tuple[Array, Array]:
            key, x = args
            binarize_key, noise_key = random.split(key)
            return bound(params, noise_key, model, config, prepare(binarize_key, x)[None], hparams)

        parts = lax.map(one, (random.split(bound_key, len(x)), x), batch_size=EVAL_BATCH)
        distortion, rate = (part.mean() for part in parts)
        scores = {"eval/elbo": -distortion - rate, "eval/distortion": distortion, "eval/rate": rate}
        if config.eval_samples:
            scores["eval/nll"] = -log_likelihood(likelihood_key, state, hparams, x, config.eval_samples).mean()
        return scores

    def sample(key: Array, state: State, count: int) -> Array:
        latent = random.normal(key, (count, config.latent_size))
        return pixel_means(decode(model, state.fit.params, latent))

    def reconstruct(key: Array, state: State, x: Array) -> Array:
        mean, _ = encode(model, state.fit.params, prepare(key, x))
        return pixel_means(decode(model, state.fit.params, mean))

    def log_likelihood(key: Array, state: State, hparams: Hyperparams, x: Array, num_samples: int = 5000) -> Array:
        def one(args: tuple[Array, Array]) -> Array:
            key, x = args
            binarize_key, weights_key = random.split(key)
            x = prepare(binarize_key, x)[None]

            def draw(key: Array, count: int) -> Array:
                return log_weights(key, count, state.fit.params, model, config, x, hparams)[:, 0]

            return metrics.importance_log_likelihood(weights_key, draw, num_samples)

        return lax.map(one, (random.split(key, len(x)), x), batch_size=LIKELIHOOD_BATCH)

    return Model(init, update, evaluate, sample, reconstruct, log_likelihood)


def _plain(network: networks.Network) -> networks.Network:
    """A user's network, which need know nothing of dropout keys."""
    return networks.Network(network.init, lambda params, inputs, key: network.apply(params, inputs))


def _check(spec: data.Spec, config: Config) -> None:
    if config.latent_size < 1 or config.batch_size < 1 or config.eval_samples < 0:
        raise ValueError(
            f"latent_size={config.latent_size} and batch_size={config.batch_size} must be at least 1, "
            f"eval_samples={config.eval_samples} at least 0."
        )
    unit = config.likelihood == "bernoulli" or config.binarization == "dynamic"
    if unit and (spec.low < 0 or spec.high > 1):
        raise ValueError(
            f"{spec.name} holds values from {spec.low} to {spec.high}, but a Bernoulli likelihood and binarisation "
            f"need them in [0, 1]: rescale them, or use likelihood='gaussian' and binarization='none'."
        )
    if not {"valid": spec.num_valid, "test": spec.num_test}[config.eval_split]:
        raise ValueError(
            f"{spec.name} has no {config.eval_split} examples to evaluate: give some, or use eval_split='test'."
        )
