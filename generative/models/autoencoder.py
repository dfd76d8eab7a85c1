"""Autoencoder: examples squeezed through a few latents and restored (Hinton and Salakhutdinov 2006).

Without hidden layers it is linear, and of all its minima each spans the subspace of the principal components (Baldi and
Hornik 1989). It has no distribution to sample from.
Axes: N examples, B batch, D features of an example, Z latents.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jax import Array, lax, random
from jax import numpy as jnp

from generative import coding, data, likelihoods
from generative.model import Model
from jaxrl.core import checks, fit, networks
from jaxrl.core.loop import Metrics

EVAL_BATCH = 500  # examples evaluated at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    latent_size: int = 10  # number of latents, Z
    encoder: networks.MLP | networks.CNN = networks.MLP((128, 128), "relu")  # no hidden layers: linear
    decoder: networks.MLP | networks.TransposedCNN = networks.MLP((128, 128), "relu")  # no hidden layers: linear
    error: Literal["squared", "cross_entropy"] = "squared"  # of a reconstruction; cross_entropy is for values in [0, 1]
    batch_size: int = 100  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser


class Params(NamedTuple):
    """Parameters."""

    encoder: Any
    decoder: Any
    offset: Array  # [D] added to the decoder's outputs; starts at the training mean


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: data.Cursor


def outputs(model: coding.Networks, params: Params, x: Array, key: Array | None = None) -> Array:
    """Outputs [B, D] for `x` [B, *shape]: the reconstruction, or its logits. A key turns dropout on."""
    encoder_key, decoder_key = (None, None) if key is None else random.split(key)
    latent = model.encoder.apply(params.encoder, x, None, encoder_key)
    return model.decoder.apply(params.decoder, latent, None, decoder_key) + params.offset


def loss(params: Params, key: Array | None, model: coding.Networks, config: Config, x: Array) -> tuple[Array, Metrics]:
    """Error of the reconstruction, summed over features, mean over `x` [B, *shape]. Returns (scalar, metrics)."""
    made, x = outputs(model, params, x, key), x.reshape(len(x), -1)
    cross_entropy = config.error == "cross_entropy"
    errors = -likelihoods.bernoulli(made, x) if cross_entropy else jnp.square(made - x).sum(-1)
    return errors.mean(), {"loss": errors.mean()}


def make(
    spec: data.Spec, config: Config, encoder: networks.Network | None = None, decoder: networks.Network | None = None
) -> Model:
    """An autoencoder; `encoder` and `decoder` replace the networks of `config`.

    They map [B, *shape] to codes [B, Z], and [B, Z] to what is added to the offset, [B, D].

    Raises:
        ValueError: sizes that cannot work; values that the error does not admit; a split without examples.
    """
    _check(spec, config)
    size = config.latent_size
    model = coding.build(spec, encoder or config.encoder, decoder or config.decoder, size, size)
    likelihood: likelihoods.Likelihood = "bernoulli" if config.error == "cross_entropy" else "gaussian"

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        encoder_key, decoder_key, cursor_key = random.split(key, 3)
        offset = likelihoods.outputs_of(likelihood, data.mean(spec, source.train).ravel())
        params = Params(model.encoder.init(encoder_key), model.decoder.init(decoder_key), offset)
        return State(fit.start(config.optimizer, params), data.start(cursor_key))

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        optimizer = config.optimizer(hparams.learning_rate)
        fitted, metrics = fit.step(optimizer, loss, state.fit, key, model, config, data.scale(batch.x, spec.levels))
        return State(fitted, cursor), metrics

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        def error(x: Array) -> Array:
            return loss(state.fit.params, None, model, config, data.scale(x[None], spec.levels))[0]

        return {"eval/error": lax.map(error, getattr(source, config.eval_split).x, batch_size=EVAL_BATCH).mean()}

    def encode(key: Array, state: State, x: Array) -> Array:
        data.check_examples(spec, x)
        return model.encoder.apply(state.fit.params.encoder, data.scale(x, spec.levels), None, None)

    def decode(state: State, latent: Array) -> Array:
        made = model.decoder.apply(state.fit.params.decoder, latent, None, None) + state.fit.params.offset
        return likelihoods.mean(likelihood, made).reshape(-1, *spec.shape)

    def reconstruct(key: Array, state: State, x: Array) -> Array:
        return decode(state, encode(key, state, x))

    return Model(init, update, evaluate, None, reconstruct, encode=encode, decode=decode)


def _check(spec: data.Spec, config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(latent_size=config.latent_size, batch_size=config.batch_size)
    if config.error == "cross_entropy" and (spec.low < 0 or spec.high > 1):
        raise ValueError(
            f"{spec.name} holds values from {spec.low} to {spec.high}, but error='cross_entropy' needs them in "
            f"[0, 1]: rescale them, or use error='squared'."
        )
    data.check_split(spec, config.eval_split)
