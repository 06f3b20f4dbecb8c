"""The ROC curve, and how surely the area under it is known when patients are resampled.

Scans of one patient are alike, so that resampling scans would give too narrow an interval.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_medgemma.calibration.statistics.binomial import clopper_pearson
from edge_medgemma.calibration.statistics.metrics import BOOTSTRAP_SAMPLES, area_under_curve


def roc_points(
    scores: ArrayLike, present: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the ROC curve, from none flagged to all.

    Args:
        scores: [N]
        present: [N], bool; both classes must occur.

    Returns:
        Thresholds (flagged at or above; the first is infinite), false positive rates and
        sensitivities, [P] each.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(present, bool)
    thresholds, place = np.unique(-values, return_inverse=True)
    hits = np.cumsum(np.bincount(place, truth, len(thresholds)))
    alarms = np.cumsum(np.bincount(place, ~truth, len(thresholds)))
    hits, alarms = np.concatenate([[0.0], hits]), np.concatenate([[0.0], alarms])
    corner = np.ones(len(hits), bool)
    corner[1:-1] = (
        np.diff(hits)[:-1] * np.diff(alarms)[1:] != np.diff(alarms)[:-1] * np.diff(hits)[1:]
    )
    thresholds = np.concatenate([[math.inf], -thresholds])
    return thresholds[corner], (alarms / alarms[-1])[corner], (hits / hits[-1])[corner]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Scans as the places of their scores among the different ones."""

    place: NDArray[np.int64]
    """[N]"""
    places: int
    present: NDArray[np.bool_]

    def area(self, weights: NDArray[np.float64]) -> float:
        """Area where scan i counts `weights[i]` times; NaN where a class is missing."""
        positive = np.bincount(self.place, weights * self.present, self.places)
        negative = np.bincount(self.place, weights * ~self.present, self.places)
        pairs = positive.sum() * negative.sum()
        if pairs == 0:
            return math.nan
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / pairs)


def _ranked(scores: ArrayLike, present: ArrayLike) -> _Ranked:
    levels, place = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    return _Ranked(place, len(levels), np.asarray(present, bool))


def bootstrap_area(
    scores: ArrayLike, present: ArrayLike, patients: ArrayLike, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the area under the curve, whole patients resampled.

    Samples in which a class is missing are left out; NaN where every one misses it.

    Args:
        scores: [N]
        present: [N], bool
        patients: [N], numbers of the patients; equal for scans of one patient
        seed: of the resampling
    """
    ranked = _ranked(scores, present)
    return interval_95([ranked.area(one) for one in patient_weights(patients, seed)])


def area_interval(
    scores: ArrayLike, present: ArrayLike, patients: ArrayLike, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the area: by `bootstrap_area`, or exactly where the classes never mix.

    No sample of classes that a threshold separates has another area, which would claim certainty.
    There each pair of a positive and a negative patient, no patient in two of them, was in the right
    order, as each is with a chance that is the area: the interval is that of Clopper and Pearson.
    """
    truth, people = np.asarray(present, bool), np.asarray(patients)
    area = area_under_curve(scores, present)
    if area not in (0.0, 1.0):
        return bootstrap_area(scores, present, patients, seed)
    pairs = min(len(np.unique(people[truth])), len(np.unique(people[~truth])))
    return clopper_pearson(round(area * pairs), pairs)


def bootstrap_area_change(
    first: ArrayLike, second: ArrayLike, present: ArrayLike, patients: ArrayLike, seed: int = 0
) -> tuple[float, float]:
    """The same of the second area less the first, both scored on the same patients of a sample."""
    before, after = _ranked(first, present), _ranked(second, present)
    return interval_95(
        [after.area(one) - before.area(one) for one in patient_weights(patients, seed)]
    )


def area_change_interval(
    first: ArrayLike, second: ArrayLike, present: ArrayLike, patients: ArrayLike, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the change, by `bootstrap_area_change`, or exactly where no sample changes.

    There no pair of a positive and a negative patient changed its order, no patient being in two of
    them; the chance that one does, which the change cannot pass, is below that of Clopper and Pearson.
    """
    truth, people = np.asarray(present, bool), np.asarray(patients)
    low, high = bootstrap_area_change(first, second, present, patients, seed)
    if low != high:
        return low, high
    pairs = min(len(np.unique(people[truth])), len(np.unique(people[~truth])))
    bound = clopper_pearson(0, pairs)[1]
    return max(low - bound, -1.0), min(high + bound, 1.0)


def patient_weights(patients: ArrayLike, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """[N] for each sample: how often the scan's patient was drawn."""
    names, place = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    count = len(names)
    for _ in range(BOOTSTRAP_SAMPLES if count else 0):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        yield drawn[place].astype(np.float64)


def interval_95(values: list[float]) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the numbers among the values; NaN without any."""
    found = np.array([value for value in values if math.isfinite(value)])
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
