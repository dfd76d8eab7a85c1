"""Translation of images learned from pairs (Isola et al. 2017, arXiv:1611.07004, equation 4).

The generator is deterministic: noise in its inputs is ignored, and that of the paper's dropout changes little (their
section 3.1). Axes: N examples, B batch, H height, W width, C channels; h, w patches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jax import Array, lax, random
from jax import numpy as jnp

from generative import adversarial, data, image_networks
from generative.adversarial import Player
from generative.model import Model
from jaxrl.core import checks, fit
from jaxrl.core.loop import Metrics

EVAL_BATCH = 100  # images translated at once


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    generator: image_networks.UNet | image_networks.ResNet = image_networks.UNet()  # from image to image
    discriminator: image_networks.Patch = image_networks.Patch()  # of an image beside its translation
    batch_size: int = 16  # pairs per update, B
    optimizer: fit.OptimizerFactory = fit.Optimizer(momentum=0.5)  # of both, from learning rate to transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 2e-4  # of the generator
    discriminator_learning_rate: Any = 2e-4  # of the discriminator
    l1_weight: Any = 100.0  # of the mean absolute error in the generator's loss, lambda


class State(NamedTuple):
    """Everything a run carries from update to update."""

    generator: Player
    discriminator: Player
    cursor: data.Cursor


Apply = Callable[..., tuple[Array, Any]]  # (params, stats, inputs, training=True) -> (outputs, stats)


def beside(given: Array, made: Array) -> Array:
    """What the discriminator sees: an image [B, H, W, C] and its translation, one behind the other."""
    return jnp.concatenate([given, made], -1)


def loss(
    params: Any, judge: Apply, stats: Any, given: Array, real: Array, made: Array
) -> tuple[Array, tuple[Any, Metrics]]:
    """The discriminator's loss [], its new statistics and metrics, for images, true translations and made ones.

    All are [B, H, W, C]; half of the logistic loss, "to slow down the discriminator" (section 3.3).
    """
    real_logits, stats = judge(params, stats, beside(given, real))
    made_logits, stats = judge(params, stats, beside(given, made))
    total = 0.5 * adversarial.logistic_discriminator(real_logits, made_logits)
    accuracy = 0.5 * ((real_logits > 0).mean() + (made_logits < 0).mean())
    return total, (stats, {"discriminator_loss": total, "accuracy": accuracy})


def generator_loss(
    params: Any,
    translate: Apply,
    judge: Apply,
    stats: Any,
    discriminator: Player,
    given: Array,
    real: Array,
    hparams: Hyperparams,
) -> tuple[Array, tuple[Any, Metrics]]:
    """Equation 4 with the non-saturating loss: scalar, the generator's new statistics and metrics."""
    made, stats = translate(params, stats, given)
    logits, _ = judge(discriminator.fit.params, discriminator.stats, beside(given, made))
    deceit, error = adversarial.non_saturating_generator(logits), jnp.abs(made - real).mean()
    total = deceit + hparams.l1_weight * error
    return total, (stats, {"generator_loss": deceit, "l1": error})


def make(spec: data.Spec, config: Config) -> Model:
    """Translation from x[:, 0] to x[:, 1] of examples [N, 2, H, W, C].

    Raises:
        ValueError: sizes that cannot work; examples that are no pairs of images.
    """
    _check(spec, config)
    image = spec.shape[1:]
    generator = image_networks.translator(config.generator, image, image[-1])
    discriminator = image_networks.patches(config.discriminator, (*image[:2], 2 * image[-1]))

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        generator_key, discriminator_key, cursor_key = random.split(key, 3)
        player = adversarial.start(config.optimizer, *generator.init(generator_key))
        rival = adversarial.start(config.optimizer, *discriminator.init(discriminator_key))
        return State(player, rival, data.start(cursor_key))

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        del key  # the cursor has its own, and nothing else is drawn
        cursor, batch = data.draw(state.cursor, source.train, config.batch_size)
        x = adversarial.normalize(spec, batch.x)
        given, real = x[:, 0], x[:, 1]
        player, rival = state.generator, state.discriminator

        made, _ = generator.apply(player.fit.params, player.stats, given)
        optimizer = config.optimizer(hparams.discriminator_learning_rate)
        args = (discriminator.apply, rival.stats, given, real, made)
        fitted, (stats, found) = fit.step(optimizer, loss, rival.fit, *args)
        rival = Player(fitted, stats)

        optimizer = config.optimizer(hparams.learning_rate)
        generator_args = (generator.apply, discriminator.apply, player.stats, rival, given, real, hparams)
        fitted, (stats, generator_found) = fit.step(optimizer, generator_loss, player.fit, *generator_args)
        return State(Player(fitted, stats), rival, cursor), {**found, **generator_found}

    def translate(key: Array, state: State, x: Array) -> Array:
        del key

        def one(x: Array) -> Array:
            given = adversarial.normalize(spec, x)[None]
            made, _ = generator.apply(state.generator.fit.params, state.generator.stats, given, training=False)
            return adversarial.denormalize(spec, made[0])

        return lax.map(one, x, batch_size=EVAL_BATCH)

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        x = getattr(source, config.eval_split).x
        given, real = (data.scale(x[:, i], spec.levels) for i in range(2))
        made = translate(key, state, x[:, 0])
        return {"eval/l1": jnp.abs(made - real).mean(), "eval/copy_l1": jnp.abs(given - real).mean()}

    return Model(init, update, evaluate, translate=translate)


def _check(spec: data.Spec, config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(batch_size=config.batch_size)
    if len(spec.shape) != 4 or spec.shape[0] != 2:
        raise ValueError(
            f"{spec.name} holds examples of shape {spec.shape}, not pairs of images [2, height, width, channels]: "
            f"use one of the data sets for translation, such as digits_inverted."
        )
    data.check_split(spec, config.eval_split)
