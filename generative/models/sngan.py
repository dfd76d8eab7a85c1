"""GAN with spectral normalisation and the hinge loss (Miyato et al. 2018, arXiv:1802.05957, algorithm 1).

Dividing each of the discriminator's weights by its largest singular value bounds how steep it can be, at the cost of a
power iteration. Axes: B batch, Z latents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    discriminator: networks.MLP | networks.CNN | DCGAN = networks.MLP((128, 128), "leaky_relu")  # normalised spectrally
    discriminator_steps: int = 1  # per step of the generator
    batch_size: int = 64  # examples of each kind per step, B
    optimizer: fit.OptimizerFactory = fit.Optimizer(momentum=0.5)  # of both, from learning rate to transformation
    classifier_updates: int = 1000  # of the classifier behind eval/modes of labelled images; 0 leaves it out
    eval_samples: int = 2500  # that an evaluation draws
    eval_features: bool = False  # measure distances in the classifier's hidden layer, not in pixels

    @property
    def steps_per_update(self) -> int:
        return self.batch_size * self.discriminator_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 2e-4  # of the generator
    discriminator_learning_rate: Any = 2e-4  # of the discriminator
    average_decay: Any = 0.999  # per update, of the average of the generator that samples come from


class State(NamedTuple):
    """Everything a run carries from update to update."""

    generator: Player
    discriminator: Player  # its statistics hold one vector for each weight matrix
    average: Average  # of the generator
    cursor: data.Cursor
    classifier: Any


Judge = Callable[[Any, Any, Array], tuple[Array, Any]]  # (params, stats, x [B, ...]) -> (outputs [B], stats)


def loss(params: Any, judge: Judge, stats: Any, real: Array, generated: Array) -> tuple[Array, tuple[Any, Metrics]]:
    """The discriminator's loss [], its new statistics and metrics, for `real` and `generated` [B, ...].

    They are judged at once, and so by the same normalised weights.
    """
    outputs, stats = judge(params, stats, jnp.concatenate([real, generated]))
    real_outputs, generated_outputs = jnp.split(outputs, 2)
    total = adversarial.hinge_discriminator(real_outputs, generated_outputs)
    accuracy = 0.5 * ((real_outputs > 0).mean() + (generated_outputs < 0).mean())
    return total, (stats, {"discriminator_loss": total, "accuracy": accuracy})


def make(spec: data.Spec, config: Config) -> Model:
    """A spectrally normalised GAN.

    Raises:
        ValueError: sizes that cannot work; a discriminator that normalises over the batch too.
    """
    _check(config)
    generator = image_networks.generator(config.generator, config.latent_size, spec.shape)
    discriminator = image_networks.spectrally_normalized(image_networks.discriminator(config.discriminator, spec.shape))
    measures = scores.make(spec, config.classifier_updates, features=config.eval_features)

    def generate(params: Any, stats: Any, latent: Array, training: bool = True) -> Any:
        x, stats = generator.apply(params, stats, latent, training)
        return (x if spec.levels is None else jnp.tanh(x)), stats

    def generator_loss(params: Any, stats: Any, rival: Player, latent: Array) -> Any:
        x, stats = generate(params, stats, latent)
        outputs, _ = discriminator.apply(rival.fit.params, rival.stats, x)
        total = adversarial.critic_generator(outputs)
        return total, (stats, {"generator_loss": total})

    def draw_latent(key: Array) -> Array:
        return random.normal(key, (config.batch_size, config.latent_size))

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        generator_key, discriminator_key, cursor_key, classifier_key = random.split(key, 4)
        player = adversarial.start(config.optimizer, *generator.init(generator_key))
        rival = adversarial.start(config.optimizer, *discriminator.init(discriminator_key))
        classifier = measures.init(classifier_key, source)
        return State(player, rival, adversarial.start_average(player), data.start(cursor_key), classifier)

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        discriminator_key, generator_key = random.split(key)
        player = state.generator

        def discriminator_step(carry: tuple[Player, data.Cursor], key: Array) -> Any:
            rival, cursor = carry
            cursor, batch = data.draw(cursor, source.train, config.batch_size)
            generated, _ = generate(player.fit.params, player.stats, draw_latent(key))
            optimizer = config.optimizer(hparams.discriminator_learning_rate)
            args = (discriminator.apply, rival.stats, adversarial.normalize(spec, batch.x), generated)
            fitted, (stats, found) = fit.step(optimizer, loss, rival.fit, *args)
            return (Player(fitted, stats), cursor), found

        carry = state.discriminator, state.cursor
        keys = random.split(discriminator_key, config.discriminator_steps)
        (rival, cursor), found = lax.scan(discriminator_step, carry, keys)
        args = (player.stats, rival, draw_latent(generator_key))
        optimizer = config.optimizer(hparams.learning_rate)
        fitted, (stats, generator_found) = fit.step(optimizer, generator_loss, player.fit, *args)
        player = Player(fitted, stats)
        average = adversarial.follow(state.average, player, hparams.average_decay)
        train_metrics = jax.tree.map(jnp.mean, {**found, **generator_found})
        return State(player, rival, average, cursor, state.classifier), train_metrics

    def sample(key: Array, state: State, count: int) -> Array:
        return decode(state, random.normal(key, (count, config.latent_size)))

    def decode(state: State, latent: Array) -> Array:
        x, _ = generate(state.average.params, state.average.stats, latent, training=False)
        return adversarial.denormalize(spec, x)

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        return measures.measure(state.classifier, sample(key, state, config.eval_samples), None, source)

    return Model(init, update, evaluate, sample, decode=decode)


def _check(config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(
        latent_size=config.latent_size,
        discriminator_steps=config.discriminator_steps,
        batch_size=config.batch_size,
        eval_samples=config.eval_samples,
    )
    if isinstance(config.discriminator, DCGAN) and config.discriminator.norm == "batch":
        raise ValueError(
            "Batch normalisation would undo the bound that spectral normalisation sets: "
            "use discriminator=DCGAN(norm='none')."
        )
