"""Translation of images learned without pairs (Zhu et al. 2017, arXiv:1703.10593, equation 3).

The first half of the training set shows images of the one kind, the second half those of the other, so that no image
is ever seen with its translation. Axes: N examples, B batch, S history, H height, W width, C channels.
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


class Directions(NamedTuple):
    """One of each for translations to the second kind, `there`, and to the first, `back`."""

    there: Any
    back: Any


class History(NamedTuple):
    """Translations of the past, so that a discriminator does not forget what it once saw through."""

    images: Array  # [S, H, W, C]
    held: Array  # [] int32, how many there are so far


@dataclass(frozen=True)
class Config:
    """What fixes shapes and program."""

    generator: image_networks.ResNet | image_networks.UNet = image_networks.ResNet()  # both, from image to image
    discriminator: image_networks.Patch = image_networks.Patch((32, 64), "instance")  # both, each of one kind
    batch_size: int = 16  # images of each kind per update, B
    history_size: int = 48  # translations kept for each discriminator, S; a multiple of the batch
    optimizer: fit.OptimizerFactory = fit.Optimizer(momentum=0.5)  # of all, from learning rate to transformation
    eval_split: Literal["valid", "test"] = "test"  # what is evaluated, on its pairs

    @property
    def steps_per_update(self) -> int:
        return self.batch_size


class Hyperparams(NamedTuple):
    """Traced numbers: any of them may carry a vmap axis or be a schedule."""

    learning_rate: Any = 2e-4  # of the generators
    discriminator_learning_rate: Any = 2e-4  # of the discriminators
    cycle_weight: Any = 10.0  # of what is lost there and back, lambda
    identity_weight: Any = 5.0  # of what a generator changes in images that are of its kind already


class State(NamedTuple):
    """Everything a run carries from update to update."""

    generators: Player  # parameters and statistics are Directions
    discriminators: Player  # likewise: `there` judges the second kind, `back` the first
    history: Directions
    cursor: Directions


Apply = Callable[..., tuple[Array, Any]]  # (params, stats, inputs, training=True) -> (outputs, stats)


def remember(key: Array, history: History, images: Array) -> tuple[History, Array]:
    """The history with some of `images` [B, H, W, C] in it, and as many to show to the discriminator.

    Shrivastava et al. 2017, arXiv:1612.07828, section 2.3, as Zhu et al. use it: until the history is full all are kept
    and shown; then each with the chance of one half is shown, or takes the place of an older one that is.
    """
    slot_key, swap_key = random.split(key)
    size, batch = len(history.images), len(images)
    filling = history.held < size
    slots = jnp.where(filling, history.held + jnp.arange(batch), random.permutation(slot_key, size)[:batch])
    swap = random.bernoulli(swap_key, 0.5, (batch,)).reshape(-1, 1, 1, 1)
    old = history.images[slots]
    shown = jnp.where(swap & ~filling, old, images)
    kept = history.images.at[slots].set(jnp.where(swap | filling, images, old))
    return History(kept, jnp.minimum(history.held + batch, size)), shown


def cycle_loss(x: Directions, returned: Directions) -> Array:
    """Mean absolute difference [] between images and what returns of them, both kinds added: equation 2."""
    return sum((jnp.abs(a - b).mean() for a, b in zip(x, returned, strict=True)), jnp.float32(0))


def loss(
    params: Directions, judge: Apply, stats: Directions, real: Directions, made: Directions
) -> tuple[Array, tuple[Directions, Metrics]]:
    """Both discriminators' loss [], their new statistics and metrics; `made[i]` [B, H, W, C] imitates `real[i]`.

    Least squares in place of the logistic loss, halved for the discriminators alone (section 4 and appendix 7.1).
    """
    total, after = jnp.float32(0), []
    for i in range(2):
        real_outputs, new = judge(params[i], stats[i], real[i])
        made_outputs, new = judge(params[i], new, made[i])
        total += adversarial.least_squares_discriminator(real_outputs, made_outputs)
        after.append(new)
    return total, (Directions(*after), {"discriminator_loss": total})


def generator_loss(
    params: Directions,
    translate: Apply,
    judge: Apply,
    stats: Directions,
    discriminators: Player,
    x: Directions,
    hparams: Hyperparams,
) -> tuple[Array, tuple[Directions, Any]]:
    """Both generators' loss [], their new statistics, and (metrics, translations); `x.there` is of the second kind."""
    outputs_there, there = translate(params.there, stats.there, jnp.concatenate([x.back, x.there]))
    outputs_back, back = translate(params.back, stats.back, jnp.concatenate([x.there, x.back]))
    (made_there, same_there), (made_back, same_back) = jnp.split(outputs_there, 2), jnp.split(outputs_back, 2)
    returned_back, back = translate(params.back, back, made_there)
    returned_there, there = translate(params.there, there, made_back)
    made = Directions(made_there, made_back)
    deceit = jnp.float32(0)
    for i in range(2):
        outputs, _ = judge(discriminators.fit.params[i], discriminators.stats[i], made[i])
        deceit += adversarial.least_squares_generator(outputs)
    cycle = cycle_loss(x, Directions(returned_there, returned_back))
    identity = cycle_loss(x, Directions(same_there, same_back))
    total = deceit + hparams.cycle_weight * cycle + hparams.identity_weight * identity
    found = {"generator_loss": deceit, "cycle_loss": cycle, "identity_loss": identity}
    return total, (Directions(there, back), (found, made))


def make(spec: data.Spec, config: Config) -> Model:
    """Translation between x[:, 0] and x[:, 1] of examples [N, 2, H, W, C].

    Raises:
        ValueError: sizes that cannot work; examples that are no pairs of images.
    """
    _check(spec, config)
    image = spec.shape[1:]
    generator = image_networks.translator(config.generator, image, image[-1])
    discriminator = image_networks.patches(config.discriminator, image)
    middle = spec.num_train // 2

    def both(key: Array, init: Callable[..., Any]) -> Player:
        there, back = map(init, random.split(key))
        return adversarial.start(config.optimizer, Directions(there[0], back[0]), Directions(there[1], back[1]))

    def draw(cursor: Directions, source: data.Source) -> tuple[Directions, Directions]:
        """Cursors, and images of each kind in [-1, 1]."""
        examples: Any = source.train
        there, second = data.draw(cursor.there, examples.x[middle:, 1], config.batch_size)
        back, first = data.draw(cursor.back, examples.x[:middle, 0], config.batch_size)
        return Directions(there, back), Directions(
            adversarial.normalize(spec, second), adversarial.normalize(spec, first)
        )

    def init(key: Array, hparams: Hyperparams, source: data.Source) -> State:
        generator_key, discriminator_key, there_key, back_key = random.split(key, 4)
        history = History(jnp.zeros((config.history_size, *image)), jnp.int32(0))
        cursor = Directions(data.start(there_key), data.start(back_key))
        generators, discriminators = both(generator_key, generator.init), both(discriminator_key, discriminator.init)
        return State(generators, discriminators, Directions(history, history), cursor)

    def update(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> tuple[State, Metrics]:
        cursor, x = draw(state.cursor, source)
        players, rivals = state.generators, state.discriminators

        optimizer = config.optimizer(hparams.learning_rate)
        args = (generator.apply, discriminator.apply, players.stats, rivals, x, hparams)
        fitted, (stats, (found, made)) = fit.step(optimizer, generator_loss, players.fit, *args)
        players = Player(fitted, stats)

        pairs = [remember(*each) for each in zip(random.split(key), state.history, made, strict=True)]
        history, shown = (Directions(*each) for each in zip(*pairs, strict=True))
        optimizer = config.optimizer(hparams.discriminator_learning_rate)
        rival_args = (discriminator.apply, rivals.stats, x, shown)
        fitted, (stats, rival_found) = fit.step(optimizer, loss, rivals.fit, *rival_args)
        return State(players, Player(fitted, stats), history, cursor), {**found, **rival_found}

    def translated(state: State, x: Array, direction: int) -> Array:
        """`x` [N, H, W, C] in [-1, 1] as images of the other kind."""
        params, stats = state.generators.fit.params[direction], state.generators.stats[direction]
        return lax.map(lambda x: generator.apply(params, stats, x[None], False)[0][0], x, batch_size=EVAL_BATCH)

    def translate(key: Array, state: State, x: Array) -> Array:
        del key
        return adversarial.denormalize(spec, translated(state, adversarial.normalize(spec, x), 0))

    def evaluate(key: Array, state: State, hparams: Hyperparams, source: data.Source) -> Metrics:
        x = adversarial.normalize(spec, getattr(source, config.eval_split).x)
        first, second = x[:, 0], x[:, 1]
        made = translated(state, first, 0)
        errors = {
            "l1": made - second,
            "back_l1": translated(state, second, 1) - first,
            "cycle_l1": translated(state, made, 1) - first,
            "copy_l1": first - second,
        }
        half = 0.5 * (spec.high - spec.low)
        return {f"eval/{name}": half * jnp.abs(error).mean() for name, error in errors.items()}

    return Model(init, update, evaluate, translate=translate)


def _check(spec: data.Spec, config: Config) -> None:
    checks.choices(config)
    checks.at_least_one(batch_size=config.batch_size, history_size=config.history_size)
    checks.divides(config.batch_size, config.history_size, "batch_size", "history_size")
    if len(spec.shape) != 4 or spec.shape[0] != 2:
        raise ValueError(
            f"{spec.name} holds examples of shape {spec.shape}, not pairs of images [2, height, width, channels]: "
            f"use one of the data sets for translation, such as digits_inverted."
        )
    if spec.num_train < 2:
        raise ValueError(f"{spec.name} has {spec.num_train} training example: its two halves need one each.")
    data.check_split(spec, config.eval_split)
