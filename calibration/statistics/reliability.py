"""How far stated probabilities agree with what was observed."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_BINS = 10
SCANS_PER_BIN = 5
"""Fewer scans make fewer bins: a bin of one says nothing."""

SMALLEST = 1e-12
"""Probabilities are kept so far from 0 and 1, for their logits."""

STEEPEST = 1e3
"""A slope beyond this is that of classes which no threshold mixes: it has no estimate."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Scans of similar probability."""

    scans: int
    mean_probability: float
    positives: int


def equal_mass_bins(probabilities: ArrayLike, present: ArrayLike) -> tuple[Bin, ...]:
    """Bins of as many scans each, within one, in order of the probability; equal ones share a bin."""
    values, truth = np.asarray(probabilities, np.float64), np.asarray(present, bool)
    order = np.argsort(values, kind="stable")
    values, truth = values[order], truth[order]
    count = len(values)
    bins = max(1, min(NUM_BINS, count // SCANS_PER_BIN))
    cuts = [int(np.searchsorted(values, values[i * count // bins])) for i in range(bins)]
    edges = [*sorted(set(cuts)), count]
    return tuple(
        Bin(end - begin, float(values[begin:end].mean()), int(truth[begin:end].sum()))
        for begin, end in pairwise(edges)
        if end > begin
    )


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """Mean distance between stated and observed share, by scans (Naeini, AAAI 2015); NaN without any."""
    scans = sum(one.scans for one in bins)
    if not scans:
        return math.nan
    return sum(abs(one.positives - one.scans * one.mean_probability) for one in bins) / scans


def brier_score(probabilities: ArrayLike, present: ArrayLike) -> float:
    """Mean squared distance of the probability from what was observed; NaN without scans."""
    values, truth = np.asarray(probabilities, np.float64), np.asarray(present, np.float64)
    return float(((values - truth) ** 2).mean()) if len(values) else math.nan


def calibration_line(probabilities: ArrayLike, present: ArrayLike) -> tuple[float, float]:
    """Slope and intercept of the observed on the stated logit (Cox, Biometrika 1958).

    1 and 0 where well calibrated; NaN where there is no estimate: one class, or classes that a
    threshold separates.
    """
    stated = np.clip(np.asarray(probabilities, np.float64), SMALLEST, 1 - SMALLEST)
    truth = np.asarray(present, np.float64)
    logits = np.log(stated) - np.log1p(-stated)
    if not len(truth) or truth.min() == truth.max() or np.ptp(logits) == 0:
        return math.nan, math.nan
    weights = _logistic(np.stack([logits, np.ones_like(logits)], 1), truth)
    slope, intercept = map(float, weights)
    is_estimate = math.isfinite(slope) and abs(slope) < STEEPEST and math.isfinite(intercept)
    return (slope, intercept) if is_estimate else (math.nan, math.nan)


def _logistic(design: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maximum likelihood of a logistic regression by Newton's method, halved where it overshoots."""

    def loss(weights: NDArray[np.float64]) -> float:
        line = design @ weights
        return float((np.logaddexp(0, line) - truth * line).sum())

    weights = np.zeros(design.shape[1])
    for _ in range(200):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -40, 40)))
        curvature = design.T @ (design * (chance * (1 - chance))[:, None])
        if np.linalg.cond(curvature) > 1e14:
            return np.full(design.shape[1], math.nan)
        step = np.linalg.solve(curvature, design.T @ (chance - truth))
        size = 1.0
        while size > 1e-6 and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
        if float(np.abs(step).max()) < 1e-10:
            return weights
    return np.full(design.shape[1], math.nan)
