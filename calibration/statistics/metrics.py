"""Separation of scans with a finding from scans without, and how surely it is known."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

NORMAL_95 = 1.959963984540054
"""0.975 quantile of the normal distribution."""
BOOTSTRAP_SAMPLES = 2000


def area_under_curve(scores: ArrayLike, present: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half.

    NaN where there is no positive or no negative.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(present, bool)
    positive, negative = np.sort(values[truth]), np.sort(values[~truth])
    if not len(positive) or not len(negative):
        return math.nan
    below = np.searchsorted(negative, positive, "left")
    up_to = np.searchsorted(negative, positive, "right")
    return float((below + up_to).mean() / 2 / len(negative))


def bootstrap_interval(scores: ArrayLike, present: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the area, positives and negatives resampled apart."""
    values, truth = np.asarray(scores, np.float64), np.asarray(present, bool)
    positive, negative = values[truth], values[~truth]
    if not len(positive) or not len(negative):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    labels = np.repeat([True, False], [len(positive), len(negative)])
    areas = [
        area_under_curve(
            np.concatenate(
                [rng.choice(positive, len(positive)), rng.choice(negative, len(negative))]
            ),
            labels,
        )
        for _ in range(BOOTSTRAP_SAMPLES)
    ]
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, JASA 1927); NaN without trials."""
    if not trials:
        return math.nan, math.nan
    rate, square = successes / trials, NORMAL_95**2
    centre = rate + square / (2 * trials)
    spread = NORMAL_95 * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials**2))
    scale = 1 + square / trials
    return (centre - spread) / scale, (centre + spread) / scale


def fit_platt(scores: ArrayLike, present: ArrayLike) -> tuple[float, float]:
    """Slope and intercept that turn log-odds into calibrated logits.

    Logistic regression on Platt's smoothed targets (Platt 1999; Lin, Lin and Weng 2007), which
    keep the slope finite where the scores separate the classes.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(present, bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(values.std()) or 1.0
    design: NDArray[np.float64] = np.stack([values / scale, np.ones_like(values)], 1)
    weights = np.zeros(2)
    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -40, 40)))
        gradient = design.T @ (chance - targets)
        curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= np.clip(step, -1, 1)
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(weights[0] / scale), float(weights[1])
