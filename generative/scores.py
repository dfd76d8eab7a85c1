"""What is measured of a model's samples at each evaluation, by what is known of the data. Axes: M samples."""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jax import numpy as jnp

from generative import classifier, data, quality, toys
from jaxrl.core.loop import Metrics

MOST_POINTS = 1000  # of each set between which distances are measured
STACKED = 3  # digits in an image of stacked digits, one in each colour


class Scores(NamedTuple):
    """Measures of samples."""

    init: Callable[..., Any]  # (key, source) -> params of the classifier, () if none is needed
    measure: Callable[..., Metrics]  # (params, samples [M, *shape] as data.scale gives them, label [M] or None, source)


def make(spec: data.Spec, classifier_updates: int, *, features: bool = False, split: str = "test") -> Scores:
    """Measures for samples of the data set `spec`; each is a mean over samples unless said otherwise.

    - always `eval/mmd`: squared maximum mean discrepancy from examples of the `split`.
    - mixtures: `eval/modes` found, `eval/quality`, the share within 3 standard deviations, `eval/reverse_kl` in nats.
    - images: `eval/precision`, `eval/recall`, `eval/density`, `eval/coverage`.
    - images with labels, if `classifier_updates` is not 0: a classifier gives `eval/modes`, the classes that occur
      (of 1000 for stacked digits), `eval/reverse_kl`, `eval/agreement` with the labels asked for, and, since all of
      these rest on it, its own `eval/classifier_accuracy` on examples of the `split`.

    Distances are between pixels, or with `features` in the classifier's hidden layer.

    Raises:
        ValueError: features asked for where there is no classifier.
    """
    mixture = toys.MIXTURES.get(spec.name)
    images = len(spec.shape) == 3
    stacked = spec.name.startswith("stacked_")
    num_modes = spec.num_classes or 0
    num_classes = round(num_modes ** (1 / STACKED)) if stacked else num_modes
    classifies = images and num_classes > 0 and classifier_updates > 0
    if features and not classifies:
        raise ValueError(
            f"Features are those of a classifier of labelled images, and there is none: {spec.name} has examples of "
            f"shape {spec.shape} in {num_classes} classes, and it gets {classifier_updates} updates: use "
            f"eval_features=False."
        )

    def init(key: Array, source: data.Source) -> Any:
        if not classifies:
            return ()
        examples: Any = source.train
        if stacked:
            examples = data.Examples(examples.x[..., :1], examples.label // num_classes ** (STACKED - 1))
        shape = (*spec.shape[:2], 1) if stacked else spec.shape
        return classifier.train(key, examples, shape, spec.levels, num_classes, classifier_updates)

    def parts(x: Array) -> list[Array]:
        """What the classifier reads of images [M, *shape]: the colours of stacked digits one by one."""
        return [x[..., i : i + 1] for i in range(STACKED)] if stacked else [x]

    def classify(params: Any, x: Array) -> Array:
        found = [classifier.logits(params, part, num_classes).argmax(-1) for part in parts(x)]
        return reduce(lambda label, digit: label * num_classes + digit, found)

    def points(params: Any, x: Array) -> Array:
        """What distances are measured between, [M, D]."""
        found = [classifier.features(params, part) for part in parts(x)] if features else [x.reshape(len(x), -1)]
        return jnp.concatenate(found, -1)

    def measure(params: Any, samples: Array, label: Array | None, source: data.Source) -> Metrics:
        held_out = getattr(source, split)
        # At random: the first ones of a split may all be of one class.
        places = np.random.default_rng(0).permutation(len(held_out.x))[:MOST_POINTS]
        real = points(params, data.scale(held_out.x[places], spec.levels))
        some = points(params, samples[:MOST_POINTS])
        found = {"mmd": quality.squared_mmd(real, some)}
        if mixture is not None:
            modes = quality.modes(mixture, samples)
            found |= {"modes": modes.covered, "quality": modes.quality, "reverse_kl": modes.reverse_kl}
        if images:
            found |= quality.neighbours(real, some)._asdict()
        if classifies:
            seen = classify(params, samples)
            found["modes"], found["reverse_kl"] = quality.modes_of_labels(seen, num_modes)
            if label is not None:
                found["agreement"] = (seen == label).mean()
            known = classify(params, data.scale(held_out.x, spec.levels))
            found["classifier_accuracy"] = (known == held_out.label).mean()
        return {f"eval/{name}": jnp.float32(value) for name, value in found.items()}

    return Scores(init, measure)
