"""How well single latents stand for single factors: five scores in [0, 1], as defined in their papers.

The `draw_...` functions are programs to compile, the scores plain numpy. Numbers of examples, votes and bins
are those of Locatello et al. 2019, arXiv:1811.12359, and codes the means of the approximate posterior, as there.
Axes: N examples, F factors, Z latents, V votes, B examples behind a vote.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array, lax, random
from jax import numpy as jnp

Represent = Callable[[Array], Array]  # from the factors [B, F] of examples to their codes [B, Z]

NUM_BINS = 20  # of a latent's values
COLLAPSED = 0.05  # variance below which a latent says nothing: Kim and Mnih 2018


class Codes(NamedTuple):
    """Examples drawn evenly over all factors."""

    code: Any  # [N, Z]
    value: Any  # [N, F] integers from 0


class Votes(NamedTuple):
    """Each from B examples, or pairs of them, that share the value of one factor."""

    factor: Any  # [V] the one they share
    evidence: Any  # [V, Z] what their codes say


def draw_values(key: Array, sizes: Sequence[int], count: int) -> Array:
    """Factors [count, F] int32, all values of each, `sizes` [F] of them, equally likely."""
    return random.randint(key, (count, len(sizes)), 0, jnp.array(sizes))


def draw_codes(key: Array, represent: Represent, sizes: Sequence[int], count: int = 10_000) -> Codes:
    """`count` examples and their codes."""
    value = draw_values(key, sizes, count)
    code = lax.map(lambda value: represent(value[None])[0], value, batch_size=min(count, 1000))
    return Codes(code, value)


def draw_variances(
    key: Array, represent: Represent, sizes: Sequence[int], num_votes: int = 10_000, batch_size: int = 64
) -> Votes:
    """Variances of the codes of B = `batch_size` examples that share the value of one factor."""

    def one(key: Array) -> tuple[Array, Array]:
        factor_key, value_key = random.split(key)
        factor = random.randint(factor_key, (), 0, len(sizes))
        value = draw_values(value_key, sizes, batch_size)
        shared = jnp.arange(len(sizes)) == factor
        return factor, represent(jnp.where(shared, value[0], value)).var(0, ddof=1)

    return _votes(key, one, num_votes)


def draw_differences(
    key: Array, represent: Represent, sizes: Sequence[int], num_votes: int = 10_000, batch_size: int = 64
) -> Votes:
    """Mean distances, latent by latent, of the codes of B = `batch_size` pairs that agree in one factor."""

    def one(key: Array) -> tuple[Array, Array]:
        factor_key, first_key, second_key = random.split(key, 3)
        factor = random.randint(factor_key, (), 0, len(sizes))
        first, second = (draw_values(key, sizes, batch_size) for key in (first_key, second_key))
        shared = jnp.arange(len(sizes)) == factor
        return factor, jnp.abs(represent(first) - represent(jnp.where(shared, first, second))).mean(0)

    return _votes(key, one, num_votes)


def _votes(key: Array, one: Callable[[Array], tuple[Array, Array]], count: int) -> Votes:
    return Votes(*lax.map(one, random.split(key, count), batch_size=16))


def mutual_information_gap(codes: Codes) -> float:
    """MIG (Chen et al. 2018, arXiv:1802.04942, equation 6).

    Over factors, the mean gap between the two latents that know most of it, in parts of the factor's entropy. With one
    latent it is all that this one knows.
    """
    codes = Codes(*map(np.asarray, codes))
    codes = codes._replace(code=codes.code.astype(float))  # of an almost constant latent, float32 cannot tell edges
    bins = [np.digitize(latent, np.histogram_bin_edges(latent, NUM_BINS)[1:-1]) for latent in codes.code.T]
    known = np.array([[mutual_information(latent, factor) for latent in bins] for factor in codes.value.T])  # [F, Z]
    entropy = np.array([mutual_information(factor, factor) for factor in codes.value.T])
    return float((gaps(known) / entropy).mean())


def gaps(table: np.ndarray) -> np.ndarray:
    """Between the two largest values [F] of each row of `table` [F, Z], none below 0; of one value, to 0."""
    second, first = np.sort(np.pad(table, [(0, 0), (1, 0)]), axis=1)[:, -2:].T
    return first - second


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """In nats, of the joint frequencies of two arrays [N] of integers from 0; of an array and itself, its entropy."""
    joint = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(joint, (one, other), 1 / len(one))
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def factor_vae_score(codes: Codes, train: Votes, test: Votes) -> float:
    """Accuracy of a majority vote (Kim and Mnih 2018, arXiv:1802.05983, section 2): which factor did they share?

    It is told only which latent varies least among them, in parts of its variance over all `codes`. Collapsed latents
    have no say; without any other, the score is that of guessing one factor.
    """
    codes, train, test = Codes(*map(np.asarray, codes)), Votes(*map(np.asarray, train)), Votes(*map(np.asarray, test))
    variance = codes.code.var(0, ddof=1)
    active = variance >= COLLAPSED

    def least(votes: Votes) -> np.ndarray:
        relative = np.where(active, votes.evidence / np.maximum(variance, 1e-12), np.inf)
        return np.argmin(relative, axis=1)

    counts = np.zeros((codes.code.shape[1], codes.value.shape[1]), int)
    np.add.at(counts, (least(train), train.factor), 1)
    return float((counts.argmax(1)[least(test)] == test.factor).mean())


def beta_vae_score(train: Votes, test: Votes) -> float:
    """Accuracy of a linear classifier (Higgins et al. 2017, section 3): which factor did the pairs agree in?

    It is given the distances as they are: in proportion, collapsed latents would tell as much as others.
    """
    from sklearn import linear_model

    classifier = linear_model.LogisticRegression(max_iter=1000)
    return float(classifier.fit(train.evidence, train.factor).score(test.evidence, test.factor))


def dci(train: Codes, test: Codes) -> tuple[float, float, float]:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018, section 2).

    Importances are those of gradient boosted trees, one ensemble for each factor, and informativeness is their accuracy
    on `test`. Trees for many values of a factor take long: a few thousand examples will do.
    """
    from sklearn import ensemble

    train, test = Codes(*map(np.asarray, train)), Codes(*map(np.asarray, test))
    importances, accuracies = [], []
    for factor in range(train.value.shape[1]):
        trees = ensemble.GradientBoostingClassifier(random_state=0).fit(train.code, train.value[:, factor])
        importances.append(trees.feature_importances_)
        accuracies.append(trees.score(test.code, test.value[:, factor]))
    return *disentanglement_and_completeness(np.array(importances)), float(np.mean(accuracies))


def disentanglement_and_completeness(importance: np.ndarray) -> tuple[float, float]:
    """Of `importance` [F, Z]: 1 minus the entropy of each latent's factors, of each factor's latents, weighted means.

    A latent of no importance for any factor does not count; where nothing is important both are 0, as of even shares.
    Where there is one factor all latents are disentangled, and one latent is complete.
    """
    if importance.sum() == 0:
        return 0.0, 0.0

    def concentration(rows: np.ndarray) -> float:
        share = rows / np.maximum(rows.sum(1, keepdims=True), 1e-12)
        entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(1) / np.log(max(rows.shape[1], 2))
        return float(((1.0 - entropy) * rows.sum(1)).sum() / rows.sum())

    return concentration(importance.T), concentration(importance)


def separated_attribute_predictability(train: Codes, test: Codes, categorical: Sequence[int] = ()) -> float:
    """SAP (Kumar et al. 2018, arXiv:1711.00848, section 3).

    Over factors, the mean gap between the two latents that predict it best: by a linear classifier's accuracy for the
    `categorical` ones, given by number, and by the square of the correlation for the rest. With one latent it is all
    that this one predicts.
    """
    from sklearn import metrics, svm

    train, test = Codes(*map(np.asarray, train)), Codes(*map(np.asarray, test))

    def predictability(latent: int, factor: int) -> float:
        code, value = train.code[:, latent], train.value[:, factor]
        if factor not in categorical:
            return float(np.corrcoef(code, value)[0, 1] ** 2) if code.var() > 1e-12 else 0.0
        classifier = svm.LinearSVC(C=0.01, class_weight="balanced").fit(code[:, None], value)
        predicted = classifier.predict(test.code[:, latent, None])
        return float(metrics.balanced_accuracy_score(test.value[:, factor], predicted))

    num_latents, num_factors = train.code.shape[1], train.value.shape[1]
    table = [[predictability(latent, factor) for latent in range(num_latents)] for factor in range(num_factors)]
    return float(gaps(np.array(table)).mean())
