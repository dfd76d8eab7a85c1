"""Data sets as arrays on the device, and minibatches drawn from them inside a scan.

`from_arrays` gives a `Spec`, the static facts, and a `Source`, the arrays in their own dtype (bytes stay bytes and are
scaled where they are used); `datasets.load` does so for data sets that have a name.
Axes: N examples, B batch, H height, W width, C channels.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax, random
from jax import numpy as jnp

from generative import sprites
from jaxrl.core import checks, devices, shuffle


class Examples(NamedTuple):
    """One split."""

    x: Any  # [N, *shape] in its own dtype
    label: Any = None  # [N] int32, or None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Rendered:
    """Examples that are functions of their number, made when they are drawn: nothing of them is stored.

    Those of the grid's images that have the places first .. first + count - 1 in one fixed random order.
    """

    grid: sprites.Grid
    first: int
    count: int

    def take(self, place: Array) -> Examples:
        """The examples at `place` [B] in 0 .. count - 1; the shape of a sprite is its label."""
        number = shuffle.elements(random.key(0), self.first + place, self.grid.num_images)
        values = self.grid.values(number)
        return Examples(self.grid.images(values), self.label(values))

    def label(self, values: Array) -> Array:
        """The label [...] of factors `values` [..., F]."""
        return values[..., self.grid.factors.index("shape")]


class Source(NamedTuple):
    """What a model learns from; an absent split has N = 0."""

    train: Examples | Rendered
    valid: Examples
    test: Examples


@dataclass(frozen=True)
class Spec:
    """What is static about a data set."""

    name: str
    shape: tuple[int, ...]  # of one example, [H, W, C] for images
    levels: int | None  # values are the integers 0 .. levels - 1, scaled to [0, 1] by `scale`; None: real numbers
    low: float  # smallest and largest value after scaling
    high: float
    num_classes: int | None  # None without labels
    num_train: int
    num_valid: int  # 0 where they are trained on as well
    num_test: int
    rate: int | None = None  # samples a second, of sounds from a file


class Cursor(NamedTuple):
    """How far the passes through the training set have come."""

    key: Array  # folded with the epoch, it gives that epoch's order
    epoch: Array  # [] int32, passes completed
    position: Array  # [] int32, examples drawn of the present pass


def start(key: Array) -> Cursor:
    """The cursor before the first example."""
    return Cursor(key, jnp.int32(0), jnp.int32(0))


def draw(cursor: Cursor, examples: Any, batch_size: int) -> tuple[Cursor, Any]:
    """The next `batch_size` of `examples`, leaves [N, ...] -> [B, ...], at the cost of the batch alone.

    Every example comes once per pass, each pass in its own random order. A batch may take the last examples of one
    pass and the first of the next, so any batch size will do.
    """
    size = examples.count if isinstance(examples, Rendered) else jax.tree.leaves(examples)[0].shape[0]
    num_epochs = (size + batch_size - 2) // size + 1  # the most that one batch can touch
    epoch, place = jnp.divmod(cursor.position + jnp.arange(batch_size), size)
    keys = jax.vmap(random.fold_in, (None, 0))(cursor.key, cursor.epoch + jnp.arange(num_epochs))
    orders = jax.vmap(lambda key: shuffle.elements(key, place, size))(keys)
    index = jnp.take_along_axis(orders, epoch[None], axis=0)[0]
    end = cursor.position + batch_size
    cursor = Cursor(cursor.key, cursor.epoch + end // size, end % size)
    return cursor, devices.split(take(examples, index))


def check_split(spec: Spec, split: str) -> None:
    """Refuse to evaluate what a data set has not.

    Raises:
        ValueError: a split without examples, or one that is none to evaluate.
    """
    counts = {"valid": spec.num_valid, "test": spec.num_test}
    if split not in counts:
        raise ValueError(checks.unknown("split to evaluate", split, counts))
    if not counts[split]:
        raise ValueError(f"{spec.name} has no {split} examples to evaluate: give some, or use the other eval_split.")


def check_examples(spec: Spec, x: Any) -> None:
    """Refuse examples that are not of the data a model was made for; values only where they are known.

    Raises:
        ValueError: another shape; values that are not integers below the number of levels, where there are levels.
    """
    if tuple(x.shape[1:]) != spec.shape:
        raise ValueError(
            f"Examples of shape {tuple(x.shape[1:])} given to a model of {spec.name}, {spec.shape}: "
            "give an array [N, *shape] of its own shape and channels."
        )
    if spec.levels is None:
        return
    if not (jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool):
        raise ValueError(
            f"{x.dtype} examples given to a model of integers below {spec.levels}: give them as they are, "
            f"and samples x as round(x * {spec.levels - 1})."
        )
    if not isinstance(x, jax.core.Tracer) and x.size:
        values = np.asarray(x)
        low, high = values.min(), values.max()
        if low < 0 or high >= spec.levels:
            raise ValueError(
                f"Values {low} to {high} given to a model of 0 .. {spec.levels - 1}: bring them into this range, or "
                "train a model of as many levels as they have."
            )


def check_label(num_classes: int | None, label: Any, count: int) -> Array | None:
    """`label` as an array [count], None for a model without classes; values are checked only where they are known.

    Where they are not, one that is no class is made `num_classes`, for which `one_hot` and `jnp.take` give NaN: these
    would take a negative one from the end.

    Raises:
        ValueError: labels missing, not wanted, of another number, or outside the classes.
    """
    if num_classes is None:
        if label is not None:
            raise ValueError(
                "Labels given to a model that reads none: leave them out, or use one with conditional=True."
            )
        return None
    if label is None:
        raise ValueError(f"This model is of examples given their class: give labels from 0 to {num_classes - 1}.")
    if not isinstance(label, jax.core.Tracer):
        values = np.asarray(label)
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(
                f"Labels {values.min()} to {values.max()} given to a model of the classes 0 .. {num_classes - 1}: "
                "give one of these for each example."
            )
    label = jnp.asarray(label)
    if label.ndim and len(label) != count:
        raise ValueError(f"{len(label)} labels given for {count} examples: give one for each, or one for all.")
    return jnp.broadcast_to(jnp.where(label < 0, num_classes, label), (count,))


def one_hot(label: Array, num_classes: int) -> Array:
    """[B, Y] with a 1 at each `label` [B]; NaN for one that is no class."""
    return jnp.where(label[:, None] < num_classes, jax.nn.one_hot(label, num_classes), jnp.nan)


def take(examples: Any, index: Array) -> Any:
    """Those of `examples`, leaves [N, ...] or rendered, that `index` [B] names."""
    return examples.take(index) if isinstance(examples, Rendered) else jax.tree.map(lambda leaf: leaf[index], examples)


def mean(spec: Spec, examples: Any) -> Array:
    """Mean [*shape] of all scaled `examples`; of the first 2000, in their random order, if they are rendered."""
    x = take(examples, jnp.arange(min(examples.count, 2000))).x if isinstance(examples, Rendered) else examples.x
    return scale(x.mean(0, dtype=jnp.float32), spec.levels)


def scale(x: Array, levels: int | None) -> Array:
    """`x` [...] as float32, integers 0 .. levels - 1 divided by levels - 1."""
    return x.astype(jnp.float32) if levels is None else x.astype(jnp.float32) / (levels - 1)


def binarize(key: Array, x: Array, levels: int | None) -> Array:
    """Each value of `x` [...] redrawn as 1 with the chance of its brightness in [0, 1], else 0, as float32.

    The chances are right to 2**-24. Values need not each cost a cryptographic hash, a fifth of a training step on a
    CPU: two random words seed a cheap one, of the values' numbers.
    """
    first, second = random.bits(key, (2,), jnp.uint32)
    number = lax.iota(jnp.uint32, x.size).reshape(x.shape) * jnp.uint32(0x9E3779B9)  # 2**32 by the golden ratio, odd
    noise = shuffle.mix(shuffle.mix(number + first) ^ second) >> 8
    return (noise.astype(jnp.float32) * 2**-24 < scale(x, levels)).astype(jnp.float32)


def from_arrays(
    name: str,
    train: Any,
    test: Any,
    valid: Any = None,
    *,
    levels: int | None = None,
    rate: int | None = None,
    join_valid: bool = False,
) -> tuple[Spec, Source]:
    """A data set from splits, each an array [N, *shape] or `Examples(x, label)` with integers from 0 as labels [N].

    Integers and booleans are kept and scaled where they are used: `levels` says how many values they have (256 for
    bytes and 2 for booleans if not given). Real numbers are kept as float32 and never scaled. `rate` is that of sounds.

    Raises:
        ValueError: shapes or dtypes that do not match, no examples, NaN or infinity, a value outside the levels.
    """
    splits = {"train": train, "valid": valid, "test": test}
    given = {split: value if isinstance(value, Examples) else Examples(value) for split, value in splits.items()}
    x = {split: np.asarray(given[split].x) for split in ("train", "test")}
    label = {split: given[split].label for split in splits}
    if valid is None:
        x["valid"] = x["train"][:0]
        label["valid"] = None if label["train"] is None else np.zeros(0, np.int32)
    else:
        x["valid"] = np.asarray(given["valid"].x)
    levels = {np.dtype(bool): 2, np.dtype(np.uint8): 256}.get(x["train"].dtype) if levels is None else levels
    x = {split: _checked(name, split, x[split], x["train"], levels) for split in splits}
    labels = {split: _checked_label(name, split, label[split], x[split], label["train"]) for split in splits}

    filled = [array for array in x.values() if array.size]
    classes = [int(array.max(initial=0)) for array in labels.values() if array is not None]
    if join_valid:
        x["train"] = np.concatenate([x["train"], x["valid"]])
        labels["train"] = np.concatenate([labels["train"], labels["valid"]]) if classes else None
    spec = Spec(
        name=name,
        shape=x["train"].shape[1:],
        levels=levels,
        low=min(float(array.min()) for array in filled) if levels is None else 0.0,
        high=max(float(array.max()) for array in filled) if levels is None else 1.0,
        num_classes=1 + max(classes) if classes else None,
        num_train=len(x["train"]),
        num_valid=0 if join_valid else len(x["valid"]),
        num_test=len(x["test"]),
        rate=rate,
    )
    on_device = {split: jax.tree.map(jnp.asarray, Examples(x[split], labels[split])) for split in splits}
    return spec, Source(**on_device)


def _checked(name: str, split: str, x: np.ndarray, train: np.ndarray, levels: int | None) -> np.ndarray:
    """One split's array in the dtype that goes to the device."""
    if x.ndim < 2 or (not len(x) and split != "valid"):
        raise ValueError(f"{name}: {split} must hold examples [N, ...], got an array of shape {x.shape}.")
    if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
        raise ValueError(
            f"{name}: {split} holds {x.dtype} examples of shape {x.shape[1:]}, but train {train.dtype} ones of shape "
            f"{train.shape[1:]}: give both the same."
        )
    if np.issubdtype(x.dtype, np.floating) and levels is None:
        bad = int((~np.isfinite(x)).sum())
        if bad:
            raise ValueError(f"{name}: {split} holds {bad} values that are NaN or infinite: remove or mend them.")
        return x.astype(np.float32)
    if levels is not None and levels < 2:
        raise ValueError(f"{name}: levels={levels} must be at least 2, 0 and 1.")
    if levels is None or not (np.issubdtype(x.dtype, np.integer) or x.dtype == bool):
        raise ValueError(
            f"{name}: {split} holds {x.dtype} values with levels={levels}: give integers with their number of levels, "
            f"or real numbers without."
        )
    if x.size and (x.min() < 0 or x.max() >= levels):
        raise ValueError(f"{name}: {split} holds values {x.min()} to {x.max()}, outside 0 .. {levels - 1}.")
    return x.astype(np.uint8 if levels <= 256 else np.int32)


def _checked_label(name: str, split: str, label: Any, x: np.ndarray, train: Any) -> np.ndarray | None:
    """One split's labels, or None if there are none."""
    if (label is None) != (train is None):
        raise ValueError(f"{name}: either all splits have labels or none, but only one of train and {split} has.")
    if label is None:
        return None
    label = np.asarray(label)
    if label.shape != (len(x),) or not np.issubdtype(label.dtype, np.integer) or (label.size and label.min() < 0):
        raise ValueError(
            f"{name}: the labels of {split} must be {len(x)} integers from 0, got {label.dtype} of shape {label.shape}."
        )
    return label.astype(np.int32)
