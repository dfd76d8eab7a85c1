"""Scores over seeds: interquartile mean and its bootstrap interval (Agarwal et al. 2021, arXiv:2108.13264).

Axes: S seeds, R resamples, any number of leading axes before S.
"""

import numpy as np


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean over S of the middle half of `scores` [..., S]: the lowest and highest quarter, rounded down, are left out.

    Scores that are not a number must be replaced before (see `worst_for_nan`).
    """
    scores = np.sort(scores, axis=-1)
    size = scores.shape[-1]
    left_out = size // 4
    return scores[..., left_out : size - left_out].mean(axis=-1)


def bootstrap_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval [...] of the interquartile mean of `scores` [..., S] over seeds.

    Always the same for the same scores. With one seed it has no width, which says nothing about the spread.
    """
    size = scores.shape[-1]
    picks = np.random.default_rng(0).integers(size, size=(resamples, size))
    means = interquartile_mean(scores[..., picks])  # [..., R]
    tail = (1 - confidence) / 2
    # Neighbours instead of interpolation: between -inf and a number there is no number.
    low, high = np.quantile(means, [tail, 1 - tail], axis=-1, method="closest_observation")
    return low, high


def worst_for_nan(scores: np.ndarray, higher_is_better: bool = True) -> np.ndarray:
    """`scores` with the worst there is, an infinity, for every one that is not a number."""
    return np.where(np.isnan(scores), -np.inf if higher_is_better else np.inf, scores)
