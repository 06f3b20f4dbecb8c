"""Threshold and percentage of one finding, fitted on some patients and measured on others.

The patient is the unit: of several studies with the finding the lowest log-odds count, of several
without it the highest, so that the trials of every interval are independent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.statistics.metrics import fit_platt, wilson_interval
from edge_medgemma.calibration.statistics.operating_point import (
    largest_threshold,
    positives_needed,
)
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.triage.scoring.operating_points import (
    OperatingPoint,
    Rate,
    Sample,
    Split,
    Target,
)

FOLDS = 5
SEED = 0
"""Of the one order in which patients are dealt to halves and folds."""


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """Log-odds of one finding in studies that are labelled and could be assessed."""

    patients: NDArray[np.int64]
    """[studies]"""
    log_odds: NDArray[np.float64]
    """[studies], finite"""
    present: NDArray[np.bool_]
    """[studies]"""

    def of(self, patients: frozenset[int]) -> "LabelledScores":
        """The studies of some patients."""
        chosen = np.isin(self.patients, list(patients))
        return LabelledScores(self.patients[chosen], self.log_odds[chosen], self.present[chosen])

    @property
    def sample(self) -> Sample:
        """How many these are."""
        positives, negatives = (len(self.patients_where(one)) for one in (True, False))
        patients = len(set(self.patients.tolist()))
        return Sample(len(self.patients), patients, positives, negatives)

    def patients_where(self, present: bool) -> list[int]:
        """Those with at least one study that has the finding, or that has it not; ascending."""
        return sorted(set(self.patients[self.present == present].tolist()))

    def by_patient(self, present: bool) -> NDArray[np.float64]:
        """[patients]: the log-odds that speak most against the engine, of each patient."""
        chosen = self.present == present
        patients, places = np.unique(self.patients[chosen], return_inverse=True)
        worst = np.full(len(patients), np.inf if present else -np.inf)
        (np.minimum if present else np.maximum).at(worst, places, self.log_odds[chosen])
        return worst


@dataclass(frozen=True, slots=True)
class FittedPoint:
    """A threshold and a percentage, and whom they were fitted on."""

    threshold: float
    slope: float
    intercept: float
    patients: frozenset[int]


def fit_point(scores: LabelledScores, target: Target) -> FittedPoint:
    """The largest threshold that keeps the target, and Platt's map.

    Raises:
        ThresholdError: too few patients with the finding, none without it, or log-odds that do not
            rise with it; the message begins with what is needed.
    """
    positives = scores.by_patient(True)
    threshold = largest_threshold(positives, target.sensitivity, target.confidence)
    if threshold is None:
        needed = positives_needed(target.sensitivity, target.confidence)
        raise ThresholdError(f"needs {needed} positives, has {len(positives)}")
    if scores.present.all():
        raise ThresholdError("needs scans without the finding, has 0")
    slope, intercept = fit_platt(scores.log_odds, scores.present)
    if slope <= 0:
        raise ThresholdError("needs log-odds that rise with the finding, and these fall")
    return FittedPoint(threshold, slope, intercept, frozenset(scores.patients.tolist()))


def measure(
    parts: Sequence[tuple[FittedPoint, LabelledScores]],
) -> tuple[Sample, Rate, Rate]:
    """Sample, sensitivity and specificity of points on patients that they were not fitted on.

    Args:
        parts: each point with the scores that it is to judge.

    Raises:
        ValueError: a patient is among those that the point was fitted on.
        ThresholdError: nobody with the finding, or nobody without it.
    """
    hits: list[bool] = []
    passes: list[bool] = []
    for point, scores in parts:
        both = point.patients.intersection(scores.patients.tolist())
        if both:
            raise ValueError(f"{len(both)} patients are among those the threshold was fitted on")
        hits += (scores.by_patient(True) >= point.threshold).tolist()
        passes += (scores.by_patient(False) < point.threshold).tolist()
    everyone = LabelledScores(
        *(
            np.concatenate([getattr(scores, name) for _, scores in parts])
            for name in ("patients", "log_odds", "present")
        )
    )
    return everyone.sample, rate(sum(hits), len(hits)), rate(sum(passes), len(passes))


def rate(successes: int, trials: int) -> Rate:
    """A share with Wilson's interval, whose rounding never leaves 0 to 1.

    Raises:
        ThresholdError: no trials.
    """
    if not trials:
        raise ThresholdError("needs scans with and without the finding to report on, has none")
    low, high = wilson_interval(successes, trials)
    return Rate(successes, trials, max(low, 0.0), min(high, 1.0))


def fit_held_out(code: str, scores: LabelledScores, target: Target) -> OperatingPoint:
    """Fitted on one half of the patients, measured on the other; raises as `fit_point`."""
    first, second = _dealt(scores, 2)
    fitted, reported = scores.of(first), scores.of(second)
    point = fit_point(fitted, target)
    return _operating_point(
        code, point, target, fitted.sample, Split.HELD_OUT, measure([(point, reported)])
    )


def fit_cross(code: str, scores: LabelledScores, target: Target) -> OperatingPoint:
    """Fitted on all patients, measured on each fold of them by a fit on the others.

    Raises:
        ThresholdError: as `fit_point`; or enough positives to fit on, and none to report on.
    """
    point = fit_point(scores, target)
    needed = positives_needed(target.sensitivity, target.confidence)
    positives = len(scores.patients_where(True))
    if positives == needed:
        raise ThresholdError(
            f"needs {needed + 1} positives, one of them to report on, has {needed}"
        )
    negatives = len(scores.patients_where(False))
    if negatives < 2:
        raise ThresholdError(f"needs 2 patients without the finding, has {negatives}")
    parts = []
    for fold in _dealt(scores, _folds(positives, needed)):
        if fold:
            others = frozenset(scores.patients.tolist()) - fold
            parts.append((fit_point(scores.of(others), target), scores.of(fold)))
    return _operating_point(code, point, target, scores.sample, Split.CROSS_FITTED, measure(parts))


FITS: dict[str, Callable[[str, LabelledScores, Target], OperatingPoint]] = {
    "cross": fit_cross,
    "half": fit_held_out,
}
"""By what the user calls the split."""


def _folds(positives: int, needed: int) -> int:
    """Fewest folds, of at least FOLDS, that leave enough positives outside the largest of them."""
    return max(FOLDS, -(-positives // (positives - needed)))


def _dealt(scores: LabelledScores, hands: int) -> list[frozenset[int]]:
    """The patients in so many parts, those with the finding as evenly as those who never have it."""
    positive = scores.patients_where(True)
    others = sorted(set(scores.patients_where(False)) - set(positive))
    rng = np.random.default_rng(SEED)
    shuffled = [*rng.permutation(positive).tolist(), *rng.permutation(others).tolist()]
    return [frozenset(map(int, shuffled[place::hands])) for place in range(hands)]


def _operating_point(
    code: str,
    point: FittedPoint,
    target: Target,
    fitted_on: Sample,
    split: Split,
    measured: tuple[Sample, Rate, Rate],
) -> OperatingPoint:
    measured_on, sensitivity, specificity = measured
    return OperatingPoint(
        finding=code,
        threshold=point.threshold,
        slope=point.slope,
        intercept=point.intercept,
        target=target,
        fitted_on=fitted_on,
        measured_on=measured_on,
        split=split,
        sensitivity=sensitivity,
        specificity=specificity,
    )
