"""Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1).

Minus the critic's loss without its penalty estimates how far the generated distribution is from the real one.
Axes: B batch, Z latents.
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
    critic: networks.MLP | networks.CNN | DCGAN = networks.MLP((128, 128), "leaky_relu")  # without batch normalisation
    critic_steps: int = 5  # per step of the generator
    batch_size: int = 64  # examples of each kind per step, B
    optimizer: fit.OptimizerFactory = fit.Optimizer(momentum=0.0, square_decay=0.9)  # of both, from a learning rate
    classifier_updates: int = 1000  # of the classifier behind eval/modes of labelled images; 0 leaves it out
    eval_samples: int = 2500  # that an evaluation draws
    eval_features: bool = False  # measure distances in the classifier's hidden layer, not in pixels

    @property
    def steps_per_update(self) -> int:
        return self.batch_size * self.critic_steps


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 1e-4  # of the generator
    critic_learning_rate: Any = 1e-4  # of the critic
    gradient_penalty: Any = 10.0  # weight of the penalty, lambda
    average_decay: Any = 0.999  # per update, of the average of the generator that samples come from


class State(NamedTuple):
    """Everything a run carries from update to update."""

    generator: Player
    critic: Player
    average: Average  # of the generator
    cursor: data.Cursor
    classifier: Any


def loss(
    params: Any,
    critic: Callable[[Any, Array], Array],
    real: Array,
    generated: Array,
    weight: Array,
    hparams: Hyperparams,
) -> tuple[Array, Metrics]:
    """The critic's loss, equation 3, for `real` and `generated` [B, ...]; `weight` [B] says where between them.

    Returns (scalar, metrics).
    """
    distance = -adversarial.wasserstein_critic(critic(params, real), critic(params, generated))
    penalty = adversarial.gradient_penalty(lambda x: critic(params, x), real, generated, weight)
    total = -distance + hparams.gradient_penalty * penalty
    return total, {"critic_loss": total, "distance": distance, "penalty": penalty}


def make(spec: data.Spec, config: Config) -> Model:
    """A Wasserstein GAN.

    Raises:
        ValueError: sizes that cannot work; a critic that normalises over the batch.
    """
    _check(config)
    generator = image_networks.generator(config.generator, config.latent_size, spec.shape)
    critic = image_networks.discriminator(config.critic, spec.shape)
    measures = scores.make(spec, config.classifier_updates, features=config.eval_features)

    def generate(params: Any, stats: Any, latent: Array, training: bool = True) -> Any:
        x, stats = generator.apply(params, stats, latent, training)
        return (x if spec.levels is None else jnp.tanh(x)), stats

    def generator_loss(params: Any, stats: Any, rival: Player, latent: Array) -> Any:
        x, stats = generate(params, stats, latent)
        outputs, _ = critic.apply(rival.fit.params, rival.stats, x)
        total = adversarial.critic_generator(outputs)
        return total, (stats, {"generator_loss": total})

    def draw_latent(key: Array) -> Array:
        return random.normal(key, (config.batch_size, config.latent_size))

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        generator_key, critic_key, cursor_key, classifier_key = random.split(key, 4)
        player = adversarial.start(config.optimizer, *generator.init(generator_key))
        rival = adversarial.start(config.optimizer, *critic.init(critic_key))
        classifier = measures.init(classifier_key, source)
        return State(player, rival, adversarial.start_average(player), data.start(cursor_key), classifier)

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        critic_key, generator_key = random.split(key)
        player = state.generator

        def judge(params: Any, x: Array) -> Array:
            return critic.apply(params, state.critic.stats, x)[0]  # they hold no numbers, and so never change

        def critic_step(carry: tuple[fit.Fit, data.Cursor], key: Array) -> Any:
            fitted, cursor = carry
            latent_key, weight_key = random.split(key)
            cursor, batch = data.draw(cursor, source.train, config.batch_size)
            generated, _ = generate(player.fit.params, player.stats, draw_latent(latent_key))
            weight = random.uniform(weight_key, (config.batch_size,))
            optimizer = config.optimizer(hparams.critic_learning_rate)
            args = (judge, adversarial.normalize(spec, batch.x), generated, weight, hparams)
            fitted, found = fit.step(optimizer, loss, fitted, *args)
            return (fitted, cursor), found

        carry = state.critic.fit, state.cursor
        (fitted, cursor), found = lax.scan(critic_step, carry, random.split(critic_key, config.critic_steps))
        rival = Player(fitted, state.critic.stats)
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
        critic_steps=config.critic_steps,
        batch_size=config.batch_size,
        eval_samples=config.eval_samples,
    )
    if isinstance(config.critic, DCGAN) and config.critic.norm == "batch":
        raise ValueError(
            "The penalty is on each example's own gradient, which batch normalisation mixes with the others': "
            "use critic=DCGAN(norm='none')."
        )
