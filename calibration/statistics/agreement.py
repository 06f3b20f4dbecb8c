"""Agreement of two readers, and what a rate is worth that an imperfect rule has counted."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_medgemma.calibration.statistics.metrics import NORMAL_95, wilson_interval


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement of two readers beyond chance (Cohen 1960)."""

    value: float
    """1 for readers who always agree, 0 for agreement by chance; NaN where both use one and the same
    answer alone, or nothing was read."""
    low: float
    high: float
    """95 % interval by the large-sample error of Fleiss, Cohen and Everitt (1969)."""
    agreement: float
    """Share of items with the same answer."""
    items: int


@dataclass(frozen=True, slots=True)
class RuleAccuracy:
    """Measured accuracy of a rule that says yes or no, against labels."""

    found: int
    """Of the positives, those the rule found."""
    positives: int
    passed: int
    """Of the negatives, those the rule passed."""
    negatives: int

    @property
    def sensitivity(self) -> float:
        """Share of the positives that the rule finds."""
        return self.found / self.positives if self.positives else math.nan

    @property
    def specificity(self) -> float:
        """Share of the negatives that the rule passes."""
        return self.passed / self.negatives if self.negatives else math.nan


def cohen_kappa(first: Sequence[object], second: Sequence[object]) -> Kappa:
    """Kappa of two readers' answers to the same items, in the same order."""
    items = len(first)
    if items != len(second):
        raise ValueError(f"two readers of the same items: got {items} and {len(second)} answers")
    names = sorted({str(one) for one in (*first, *second)})
    table = np.zeros((len(names), len(names)))
    for one, other in zip(first, second, strict=True):
        table[names.index(str(one)), names.index(str(other))] += 1
    if not items:
        return Kappa(math.nan, math.nan, math.nan, math.nan, 0)
    share = table / items
    rows, columns = share.sum(1), share.sum(0)
    agreement, chance = float(np.trace(share)), float(rows @ columns)
    if chance >= 1 - 1e-12:
        return Kappa(math.nan, math.nan, math.nan, agreement, items)
    value = (agreement - chance) / (1 - chance)
    error = math.sqrt(max(_kappa_variance(share, value, chance), 0.0) / items)
    low, high = value - NORMAL_95 * error, value + NORMAL_95 * error
    return Kappa(value, max(low, -1.0), min(high, 1.0), agreement, items)


def _kappa_variance(share: np.ndarray, value: float, chance: float) -> float:
    """Variance of kappa for one item, equation 13 of Fleiss, Cohen and Everitt (1969)."""
    rows, columns = share.sum(1), share.sum(0)
    sums = columns[:, None] + rows[None, :]
    diagonal = np.diag(share)
    agreeing = float(diagonal @ (1 - np.diag(sums) * (1 - value)) ** 2)
    others = share - np.diag(diagonal)
    disagreeing = (1 - value) ** 2 * float((others * sums**2).sum())
    return (agreeing + disagreeing - (value - chance * (1 - value)) ** 2) / (1 - chance) ** 2


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> float:
    """True rate of what a rule with known errors counted so often (Rogan and Gladen 1978).

    Cut to 0 and 1. NaN where the rule is no better than chance.
    """
    skill = sensitivity + specificity - 1
    if not skill > 0 or math.isnan(rate):
        return math.nan
    return min(max((rate + specificity - 1) / skill, 0.0), 1.0)


def rogan_gladen_bound(counted: int, trials: int, accuracy: RuleAccuracy) -> tuple[float, float]:
    """Lowest and highest true rate that agree with the 95 % intervals of all three proportions.

    Wilson intervals of the counted rate, the sensitivity and the specificity; the corrected rate is
    monotonic in each, so its extremes are at their ends. Wider than 95 %: a bound, no interval.
    """
    ends = [
        rogan_gladen(rate, sensitivity, specificity)
        for rate, sensitivity, specificity in itertools.product(
            wilson_interval(counted, trials),
            wilson_interval(accuracy.found, accuracy.positives),
            wilson_interval(accuracy.passed, accuracy.negatives),
        )
    ]
    if any(map(math.isnan, ends)):
        return (math.nan, math.nan)
    return min(ends), max(ends)
