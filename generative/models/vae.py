"""Variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114, equation 10).

A weight `beta` other than 1 on the rate makes it the beta-VAE (Higgins et al. 2017, equation 4), and a `capacity` that
grows over the run the one of Burgess et al. 2018, arXiv:1804.03599, equation 8. With `conditional` both networks read
the label (Sohn et al. 2015, section 4.1, with a prior that does not). With `importance_samples` the objective is the
importance-weighted bound of Burda et al. 2015, arXiv:1509.00519, equation 8, whose architecture with one stochastic
layer the defaults are.
Axes: N examples, B batch, D features of an example, Z latents, K importance samples, Y classes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp
from jax.scipy.special import logsumexp

from generative import coding, data, likelihoods, metrics, scores
from generative.model import Model
from generative.residual import Residual
from jaxrl.core import checks, fit, networks
from jaxrl.core.loop import Metrics

EVAL_BATCH = 500  # examples evaluated at once
LIKELIHOOD_BATCH = 10  # examples whose importance weights are drawn at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    latent_size: int = 50  # number of latents, Z
    encoder: networks.MLP | networks.CNN | Residual = networks.MLP((200, 200))  # its outputs: means and log variances
    decoder: networks.MLP | networks.TransposedCNN | Residual = networks.MLP((200, 200))  # its outputs: logits or means
    likelihood: likelihoods.Likelihood = "bernoulli"  # of an example given its latents; logistic is for integers
    learned_scale: bool = False  # learn the scale of a Gaussian or logistic likelihood, one for all features
    binarization: Literal["none", "dynamic"] = "none"  # dynamic: redraw each value as 0 or 1 whenever it is used
    conditional: bool = False  # both networks read the label too
    importance_samples: int = 0  # of the importance-weighted bound as objective, K; 0 takes the usual bound, and beta
    batch_size: int = 100  # examples per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer()  # from learning rate to optax transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated
    eval_samples: int = 0  # importance samples behind eval/nll and the bounds of fewer, K; 0 leaves them out
    eval_draws: int = 0  # samples, means of the likelihood, measured as those of a GAN are; 0 leaves them out
    eval_classifier_updates: int = 1000  # of the classifier of labelled images that these need; 0 leaves it out
    eval_features: bool = False  # measure distances in that classifier's hidden layer, not in pixels

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-3  # of the optimiser
    beta: Any = 1.0  # weight of the rate in the loss, or of its distance from `capacity`
    capacity: Any = 0.0  # rate in nats that is asked for; 0 asks for as little as possible
    scale: Any = 0.1  # of a Gaussian or logistic likelihood, or where the learned one starts


class Params(NamedTuple):
    """Parameters."""

    encoder: Any
    decoder: Any
    offset: Array  # [D] added to the decoder's outputs; starts at the training mean
    log_scale: Any  # [] of the likelihood if it is learned, else None


class State(NamedTuple):
    """Everything a run carries from update to update."""

    fit: fit.Fit
    cursor: data.Cursor


def kl_to_standard_normal(mean: Array, log_var: Array) -> Array:
    """Divergence [...] in nats of N(mean, exp(log_var)) [..., Z] from N(0, 1), summed over the latents."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_var) - 1.0 - log_var).sum(-1)


def encode(
    model: coding.Networks, params: Params, inputs: coding.Inputs, key: Array | None = None
) -> tuple[Array, Array]:
    """Mean and log variance [B, Z] of the approximate posterior."""
    mean, log_var = jnp.split(model.encoder.apply(params.encoder, *inputs, key), 2, axis=-1)
    return mean, log_var


def decode(
    model: coding.Networks, params: Params, latent: Array, label: Array | None = None, key: Array | None = None
) -> Array:
    """Outputs [..., B, D] for `latent` [..., B, Z]: logits of a Bernoulli likelihood, means of another."""
    return model.decoder.apply(params.decoder, latent, label, key) + params.offset


def reconstruction(
    spec: data.Spec, config: Config, params: Params, hparams: Hyperparams, outputs: Array, x: Array
) -> Array:
    """Log p(x | z) [..., B] of `x` [B, *shape] given the decoder's `outputs` [..., B, D]."""
    scale = jnp.exp(params.log_scale) if config.learned_scale else hparams.scale
    return likelihoods.log_prob(config.likelihood, outputs, scale, x.reshape(len(x), -1), spec.levels)


def bound(
    params: Params,
    key: Array,
    model: coding.Networks,
    spec: data.Spec,
    config: Config,
    inputs: coding.Inputs,
    hparams: Hyperparams,
    dropout_key: Array | None = None,
) -> tuple[Array, Array]:
    """Distortion and rate [B] in nats, from one sample of the latents each.

    The evidence lower bound is minus their sum.
    """
    encoder_key, decoder_key = (None, None) if dropout_key is None else random.split(dropout_key)
    mean, log_var = encode(model, params, inputs, encoder_key)
    latent = mean + jnp.exp(0.5 * log_var) * random.normal(key, mean.shape)
    outputs = decode(model, params, latent, inputs.label, decoder_key)
    distortion = -reconstruction(spec, config, params, hparams, outputs, inputs.x)
    return distortion, kl_to_standard_normal(mean, log_var)


def log_weights(
    params: Params,
    key: Array,
    count: int,
    model: coding.Networks,
    spec: data.Spec,
    config: Config,
    inputs: coding.Inputs,
    hparams: Hyperparams,
    dropout_key: Array | None = None,
) -> Array:
    """Log p(x, z) - log q(z | x) [K, B] of `count` = K latents drawn for each example."""
    encoder_key, decoder_key = (None, None) if dropout_key is None else random.split(dropout_key)
    mean, log_var = encode(model, params, inputs, encoder_key)
    noise = random.normal(key, (count, *mean.shape))
    latent = mean + jnp.exp(0.5 * log_var) * noise
    outputs = decode(model, params, latent, inputs.label, decoder_key)
    log_joint = reconstruction(spec, config, params, hparams, outputs, inputs.x)
    # The normalising constants of prior and posterior cancel.
    return log_joint + 0.5 * (jnp.square(noise) - jnp.square(latent) + log_var).sum(-1)


def loss(
    params: Params,
    key: Array,
    model: coding.Networks,
    spec: data.Spec,
    config: Config,
    inputs: coding.Inputs,
    hparams: Hyperparams,
    dropout_key: Array | None = None,
) -> tuple[Array, Metrics]:
    """Distortion plus beta times |rate - capacity|, both means over the batch. Returns (scalar, metrics)."""
    parts = bound(params, key, model, spec, config, inputs, hparams, dropout_key)
    distortion, rate = (part.mean() for part in parts)
    total = distortion + hparams.beta * jnp.abs(rate - hparams.capacity)
    return total, {"loss": total, "distortion": distortion, "rate": rate}


def importance_weighted_loss(
    params: Params,
    key: Array,
    model: coding.Networks,
    spec: data.Spec,
    config: Config,
    inputs: coding.Inputs,
    hparams: Hyperparams,
    dropout_key: Array | None = None,
) -> tuple[Array, Metrics]:
    """Minus the log of the mean weight of K samples, mean over the batch. Returns (scalar, metrics).

    Its gradient is that of the log weights, each weighted with its share of all weights: equation 14 of Burda et al.
    """
    count = config.importance_samples
    drawn = log_weights(params, key, count, model, spec, config, inputs, hparams, dropout_key)
    total = -(logsumexp(drawn, axis=0) - math.log(count)).mean()
    return total, {"loss": total}


def make(
    spec: data.Spec, config: Config, encoder: networks.Network | None = None, decoder: networks.Network | None = None
) -> Model:
    """A VAE; `encoder` and `decoder` replace the networks of `config`.

    They map [B, *shape] to means and log variances [B, 2 * Z], and [..., Z] to what is added to the offset, [..., D].

    Raises:
        ValueError: sizes that cannot work; values that the likelihood does not admit; a split without examples; labels
            asked for where there are none.
    """
    _check(spec, config)
    num_labels = (spec.num_classes or 0) if config.conditional else 0
    size = config.latent_size
    model = coding.build(spec, encoder or config.encoder, decoder or config.decoder, 2 * size, size, num_labels)
    measures = scores.make(spec, config.eval_classifier_updates, features=config.eval_features, split=config.eval_split)
    objective = importance_weighted_loss if config.importance_samples else loss

    def prepare(key: Array, examples: data.Examples) -> coding.Inputs:
        x, label = examples
        x = data.binarize(key, x, spec.levels) if config.binarization == "dynamic" else data.scale(x, spec.levels)
        return coding.Inputs(x, one_hot(label))

    def one_hot(label: Array | None) -> Array | None:
        return None if label is None or not num_labels else data.one_hot(label, num_labels)

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        encoder_key, decoder_key, cursor_key = random.split(key, 3)
        # Learning the mean first costs latents: most are switched off meanwhile and few come back.
        offset = likelihoods.outputs_of(config.likelihood, data.mean(spec, source.train).ravel())
        log_scale = jnp.log(hparams.scale) if config.learned_scale else None
        params = Params(model.encoder.init(encoder_key), model.decoder.init(decoder_key), offset, log_scale)
        return State(fit.start(config.optimizer, params), data.start(cursor_key))

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        binarize_key, noise_key, dropout_key = random.split(key, 3)
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        optimizer = config.optimizer(hparams.learning_rate)
        args = (noise_key, model, spec, config, prepare(binarize_key, batch), hparams, dropout_key)
        fitted, train_metrics = fit.step(optimizer, objective, state.fit, *args)
        return State(fitted, cursor), train_metrics

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        examples = getattr(source, config.eval_split)
        bound_key, likelihood_key, sample_key, classifier_key = random.split(key, 4)

        def one(key: Array, inputs: coding.Inputs) -> tuple[Array, Array]:
            return bound(state.fit.params, key, model, spec, config, inputs, hparams)

        distortion, rate = (part.mean() for part in each(bound_key, examples, one, EVAL_BATCH))
        found = {"eval/elbo": -distortion - rate, "eval/distortion": distortion, "eval/rate": rate}
        if config.eval_samples:
            counts = metrics.importance_counts(config.eval_samples)
            bounds = importance_bounds(likelihood_key, state, hparams, examples, config.eval_samples, counts).mean(0)
            found |= {f"eval/bound_{count}": bounds[i] for i, count in enumerate(counts)} | {"eval/nll": -bounds[-1]}
        if config.eval_draws:
            drawn = sample(sample_key, state, config.eval_draws)
            classifier = measures.init(classifier_key, source)
            found |= measures.measure(classifier, drawn, labels(config.eval_draws), source)
        return found

    def each(key: Array, examples: data.Examples, function: Any, batch_size: int) -> Any:
        """`function(key, inputs of one example)` of each of N `examples`, leaves [1] -> [N]."""
        x, label = examples if config.conditional else data.Examples(examples.x)

        def one(args: Any) -> Any:
            key, x, label = args
            binarize_key, key = random.split(key)
            inputs = prepare(binarize_key, data.Examples(x[None], None if label is None else label[None]))
            return jax.tree.map(lambda leaf: leaf[0], function(key, inputs))

        return lax.map(one, (random.split(key, len(x)), x, label), batch_size=batch_size)

    def encode_mean(key: Array, state: State, x: Array, label: Array | None = None) -> Array:
        data.check_examples(spec, x)
        label = data.check_label(num_labels or None, label, len(x))
        return encode(model, state.fit.params, prepare(key, data.Examples(x, label)))[0]

    def decode_mean(state: State, latent: Array, label: Array | None = None) -> Array:
        """The mean of the likelihood, without its noise."""
        label = data.check_label(num_labels or None, label, len(latent))
        outputs = decode(model, state.fit.params, latent, one_hot(label))
        made = likelihoods.mean(config.likelihood, outputs).reshape(-1, *spec.shape)
        return made if spec.levels is None else jnp.clip(made, 0.0, 1.0)  # a mean may lie outside, no pixel does

    def sample(key: Array, state: State, count: int, label: Array | None = None) -> Array:
        label = labels(count) if label is None else label
        return decode_mean(state, random.normal(key, (count, config.latent_size)), label)

    def labels(count: int) -> Array | None:
        """One class after another, if there is a choice."""
        return jnp.arange(count) % num_labels if num_labels else None

    def reconstruct(key: Array, state: State, x: Array, label: Array | None = None) -> Array:
        return decode_mean(state, encode_mean(key, state, x, label), label)

    def log_likelihood(
        key: Array,
        state: State,
        hparams: Hyperparams,
        x: Array,
        num_samples: int = 5000,
        label: Array | None = None,
    ) -> Array:
        data.check_examples(spec, x)
        examples = data.Examples(x, data.check_label(num_labels or None, label, len(x)))
        return importance_bounds(key, state, hparams, examples, num_samples, (num_samples,))[:, 0]

    def importance_bounds(
        key: Array,
        state: State,
        hparams: Hyperparams,
        examples: data.Examples,
        num_samples: int,
        counts: tuple[int, ...],
    ) -> Array:
        """Bounds [N, len(counts)] with K = each of `counts`, all from the same `num_samples` of each example."""

        def one(key: Array, inputs: coding.Inputs) -> Array:
            def draw(key: Array, count: int) -> Array:
                return log_weights(state.fit.params, key, count, model, spec, config, inputs, hparams)

            return metrics.importance_curve(metrics.draw_log_weights(key, draw, num_samples), counts).T

        return each(key, examples, one, LIKELIHOOD_BATCH)

    return Model(init, update, evaluate, sample, reconstruct, log_likelihood, encode=encode_mean, decode=decode_mean)


def _check(spec: data.Spec, config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(latent_size=config.latent_size, batch_size=config.batch_size)
    for name in ("importance_samples", "eval_samples", "eval_draws", "eval_classifier_updates"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 0.")
    unit = config.likelihood == "bernoulli" or config.binarization == "dynamic"
    if unit and (spec.low < 0 or spec.high > 1):
        raise ValueError(
            f"{spec.name} holds values from {spec.low} to {spec.high}, but a Bernoulli likelihood and binarisation "
            f"need them in [0, 1]: rescale them, or use likelihood='gaussian' and binarization='none'."
        )
    if config.likelihood == "logistic" and (spec.levels is None or config.binarization != "none"):
        raise ValueError(
            f"A logistic likelihood is of integers as they are, not of real numbers or bits ({spec.name} has "
            f"levels={spec.levels}, binarization={config.binarization!r}): use likelihood='gaussian' or 'bernoulli'."
        )
    if config.conditional and spec.num_classes is None:
        raise ValueError(f"{spec.name} has no labels to be conditional on: use conditional=False.")
    data.check_split(spec, config.eval_split)
