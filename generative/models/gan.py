"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).

Losses of both kinds: that of the game, and the one whose gradient does not vanish. With `packing` it is PacGAN (Lin et
al. 2018, arXiv:1712.04086), with `conditional` the conditional GAN (Mirza and Osindero 2014, arXiv:1411.1784).
Axes: B batch, P samples judged together, Z latents, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import Array, lax, random
from jax import numpy as jnp

from generative import adversarial, data, image_networks, scores
from generative.adversarial import Average, Player
from generative.image_networks import DCGAN
from generative.model import Model
from jaxrl.core import checks, fit, networks
from jaxrl.core.loop import Metrics


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    latent_size: int = 64  # number of latents, Z
    generator: networks.MLP | networks.TransposedCNN | DCGAN = networks.MLP((128, 128), "relu")  # latents to examples
    discriminator: networks.MLP | networks.CNN | DCGAN = networks.MLP((128, 128), "leaky_relu")
    loss: Literal["non_saturating", "minimax"] = "non_saturating"  # of the generator; the discriminator's is the same
    penalize: bool = False  # weigh the discriminator's gradient at real examples with `gradient_penalty`
    discriminator_steps: int = 1  # per update
    generator_steps: int = 1  # per update
    packing: int = 1  # samples that the discriminator judges together, P
    conditional: bool = False  # give both players the label of an example
    batch_size: int = 100  # judgements per step, B; each is of `packing` examples
    optimizer: fit.OptimizerFactory = fit.Optimizer(momentum=0.5)  # of both, from learning rate to transformation
    classifier_updates: int = 1000  # of the classifier behind eval/modes of labelled images; 0 leaves it out
    eval_samples: int = 2500  # that an evaluation draws
    eval_features: bool = False  # measure distances in the classifier's hidden layer, not in pixels

    @property
    def steps_per_update(self) -> int:
        return self.batch_size * self.packing * self.discriminator_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 2e-4  # of the generator
    discriminator_learning_rate: Any = 2e-4  # of the discriminator
    gradient_penalty: Any = 0.1  # weight of half the squared gradient, if `penalize`
    average_decay: Any = 0.999  # per update, of the average of the generator that samples come from


class State(NamedTuple):
    """Everything a run carries from update to update."""

    generator: Player
    discriminator: Player
    average: Average  # of the generator
    cursor: data.Cursor
    classifier: Any


Judge = Callable[[Any, Any, Array, Array | None], tuple[Array, Any]]  # (params, stats, x, label) -> (logits, stats)


def loss(
    params: Any,
    judge: Judge,
    config: Config,
    stats: Any,
    real: data.Examples,
    generated: data.Examples,
    hparams: Hyperparams,
) -> tuple[Array, tuple[Any, Metrics]]:
    """The discriminator's loss [], its new statistics and metrics, given as many `real` as `generated` examples.

    Each kind is a batch of its own to batch normalisation.
    """
    real_logits, stats = judge(params, stats, *real)
    generated_logits, stats = judge(params, stats, *generated)
    total = adversarial.LOSSES[config.loss].discriminator(real_logits, generated_logits)
    found = {"discriminator_loss": total, "accuracy": 0.5 * ((real_logits > 0).mean() + (generated_logits < 0).mean())}
    if config.penalize:
        found["penalty"] = adversarial.real_penalty(lambda x: judge(params, stats, x, real.label)[0], real.x)
        total += hparams.gradient_penalty * found["penalty"]
    return total, (stats, found)


def generator_loss(
    params: Any,
    generate: Callable[..., Any],
    judge: Judge,
    config: Config,
    stats: Any,
    discriminator: Player,
    latent: Array,
    label: Array | None,
) -> tuple[Array, tuple[Any, Metrics]]:
    """The generator's loss [], its new statistics and metrics; the `discriminator` stays as it is."""
    x, stats = generate(params, stats, latent, label)
    logits, _ = judge(discriminator.fit.params, discriminator.stats, x, label)
    total = adversarial.LOSSES[config.loss].generator(logits)
    return total, (stats, {"generator_loss": total})


def make(spec: data.Spec, config: Config) -> Model:
    """A GAN.

    Raises:
        ValueError: sizes that cannot work; labels asked for where there are none; a penalty across a batch.
    """
    _check(spec, config)
    num_labels = (spec.num_classes or 0) if config.conditional else 0
    *axes, channels = spec.shape
    generator = image_networks.generator(config.generator, config.latent_size + num_labels, spec.shape)
    discriminator = image_networks.discriminator(
        config.discriminator, (*axes, config.packing * (channels + num_labels))
    )
    measures = scores.make(spec, config.classifier_updates, features=config.eval_features)
    num_examples = config.batch_size * config.packing

    def generate(params: Any, stats: Any, latent: Array, label: Array | None, training: bool = True) -> Any:
        x, stats = generator.apply(params, stats, adversarial.with_label(latent, label, num_labels), training)
        return (x if spec.levels is None else jnp.tanh(x)), stats

    def judge(params: Any, stats: Any, x: Array, label: Array | None) -> tuple[Array, Any]:
        x = adversarial.pack(adversarial.with_label(x, label, num_labels), config.packing)
        return discriminator.apply(params, stats, x)

    def draw(cursor: data.Cursor, source: data.Source) -> tuple[data.Cursor, data.Examples]:
        cursor, batch = data.draw(cursor, source.train, num_examples)
        x = adversarial.normalize(spec, batch.x)
        return cursor, data.Examples(x, batch.label if config.conditional else None)

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        generator_key, discriminator_key, cursor_key, classifier_key = random.split(key, 4)
        player = adversarial.start(config.optimizer, *generator.init(generator_key))
        rival = adversarial.start(config.optimizer, *discriminator.init(discriminator_key))
        classifier = measures.init(classifier_key, source)
        return State(player, rival, adversarial.start_average(player), data.start(cursor_key), classifier)

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        discriminator_key, generator_key = random.split(key)
        optimizer = config.optimizer(hparams.learning_rate)
        discriminator_optimizer = config.optimizer(hparams.discriminator_learning_rate)

        def discriminator_step(carry: tuple[Player, data.Cursor], key: Array) -> Any:
            player, cursor = carry
            cursor, real = draw(cursor, source)
            latent = random.normal(key, (num_examples, config.latent_size))
            x, _ = generate(state.generator.fit.params, state.generator.stats, latent, real.label)
            args = (judge, config, player.stats, real, data.Examples(x, real.label), hparams)
            fitted, (stats, found) = fit.step(discriminator_optimizer, loss, player.fit, *args)
            return (Player(fitted, stats), cursor), found

        carry = state.discriminator, state.cursor
        keys = random.split(discriminator_key, config.discriminator_steps)
        (rival, cursor), found = lax.scan(discriminator_step, carry, keys)

        def generator_step(player: Player, key: Array) -> tuple[Player, Metrics]:
            latent_key, label_key = random.split(key)
            latent = random.normal(latent_key, (num_examples, config.latent_size))
            number = random.randint(label_key, (num_examples,), 0, spec.num_train)
            label = data.take(source.train, number).label if config.conditional else None
            args = (generate, judge, config, player.stats, rival, latent, label)
            fitted, (stats, found) = fit.step(optimizer, generator_loss, player.fit, *args)
            return Player(fitted, stats), found

        keys = random.split(generator_key, config.generator_steps)
        player, generator_found = lax.scan(generator_step, state.generator, keys)
        average = adversarial.follow(state.average, player, hparams.average_decay)
        train_metrics = jax.tree.map(jnp.mean, {**found, **generator_found})
        return State(player, rival, average, cursor, state.classifier), train_metrics

    def sample(key: Array, state: State, count: int, label: Array | None = None) -> Array:
        label = labels(count) if label is None else label
        return decode(state, random.normal(key, (count, config.latent_size)), label)

    def decode(state: State, latent: Array, label: Array | None = None) -> Array:
        label = data.check_label(num_labels or None, label, len(latent))
        x, _ = generate(state.average.params, state.average.stats, latent, label, training=False)
        return adversarial.denormalize(spec, x)

    def labels(count: int) -> Array | None:
        """One class after another, if there is a choice."""
        return jnp.arange(count) % num_labels if config.conditional else None

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        samples = sample(key, state, config.eval_samples)
        return measures.measure(state.classifier, samples, labels(config.eval_samples), source)

    return Model(init, update, evaluate, sample, decode=decode)


def _check(spec: data.Spec, config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(
        latent_size=config.latent_size,
        discriminator_steps=config.discriminator_steps,
        generator_steps=config.generator_steps,
        packing=config.packing,
        batch_size=config.batch_size,
        eval_samples=config.eval_samples,
    )
    if config.penalize and isinstance(config.discriminator, DCGAN) and config.discriminator.norm == "batch":
        raise ValueError(
            "The penalty is on each example's own gradient, which batch normalisation mixes with the others': "
            "use discriminator=DCGAN(norm='none'), or penalize=False."
        )
    if config.conditional and spec.num_classes is None:
        raise ValueError(f"{spec.name} has no labels to be conditional on: use conditional=False.")
