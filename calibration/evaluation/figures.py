"""Figures of one finding from its predictions: tables, area, curve, reliability, predictive values."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edge_medgemma.calibration.evaluation.figure_entries import (
    SUBGROUP_MINIMUM,
    Area,
    PredictiveValues,
    Proportion,
    Reliability,
    ReliabilityBin,
    RocPoint,
    TwoByTwo,
)
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction
from edge_medgemma.calibration.statistics.metrics import area_under_curve, wilson_interval
from edge_medgemma.calibration.statistics.reliability import (
    brier_score,
    calibration_line,
    equal_mass_bins,
    expected_calibration_error,
)
from edge_medgemma.calibration.statistics.roc import area_interval, roc_points


def proportion(successes: int, trials: int, minimum: int = 1) -> Proportion:
    """A share and its interval; counts alone below `minimum` trials."""
    if trials < max(minimum, 1):
        return Proportion(successes, trials, None, None, None)
    low, high = wilson_interval(successes, trials)
    return Proportion(successes, trials, successes / trials, max(low, 0.0), min(high, 1.0))


def primary_table(predictions: Sequence[Prediction], minimum: int = 1) -> TwoByTwo:
    """Labelled predictions by outcome; not assessable counts against the engine on either side."""
    counts = _counts(predictions)
    flagged, passed = Outcome.FLAGGED, Outcome.NOT_FLAGGED
    positives = sum(count for (present, _), count in counts.items() if present)
    negatives = sum(count for (present, _), count in counts.items() if not present)
    return _table(counts[True, flagged], positives, counts[False, passed], negatives, minimum)


def secondary_table(predictions: Sequence[Prediction], minimum: int = 1) -> TwoByTwo:
    """Labelled predictions by outcome, without those that were not assessable."""
    assessed = [one for one in predictions if one.outcome is not Outcome.NOT_ASSESSABLE]
    return primary_table(assessed, minimum)


def area(predictions: Sequence[Prediction], minimum: int = 1) -> Area:
    """Area under the curve of the labelled predictions with log-odds; a figure needs `minimum` of each
    class."""
    scored = with_log_odds(predictions)
    scores = [one.log_odds for one in scored]
    present = [bool(one.present) for one in scored]
    patients = [one.patient for one in scored]
    positives = sum(present)
    counts = (positives, len(present) - positives, len(set(patients)))
    if min(counts[:2]) < max(minimum, 1):
        return Area(None, None, None, *counts)
    low, high = area_interval(np.array(scores), present, patients)
    return Area(area_under_curve(np.array(scores), present), number(low), number(high), *counts)


def with_log_odds(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Those that have a label and log-odds."""
    return [one for one in predictions if one.present is not None and one.log_odds is not None]


def curve(predictions: Sequence[Prediction]) -> tuple[tuple[RocPoint, ...], RocPoint | None]:
    """The ROC curve and the point at which the engine flags; nothing where a class is missing."""
    scored = with_log_odds(predictions)
    scores = np.array([one.log_odds for one in scored])
    present = np.array([bool(one.present) for one in scored], bool)
    if not len(scored) or present.all() or not present.any():
        return (), None
    corners = zip(*(one.tolist() for one in roc_points(scores, present)), strict=True)
    points = tuple(RocPoint(number(at), alarms, hits) for at, alarms, hits in corners)
    flagged = np.array([one.outcome is Outcome.FLAGGED for one in scored], bool)
    least = scores[flagged].min() if flagged.any() else math.inf
    is_threshold = flagged.any() and not (scores[~flagged] >= least).any()
    own = RocPoint(
        float(least) if is_threshold else None,
        float(flagged[~present].mean()),
        float(flagged[present].mean()),
    )
    return points, own


def reliability(probabilities: Sequence[float], present: Sequence[bool]) -> Reliability | None:
    """Agreement of stated probabilities with the labels; None where none is stated."""
    if not probabilities:
        return None
    stated, truth = np.array(probabilities), np.array(present, bool)
    bins = equal_mass_bins(stated, truth)
    slope, intercept = calibration_line(stated, truth)
    return Reliability(
        scans=len(stated),
        positives=int(truth.sum()),
        bins=tuple(
            ReliabilityBin(
                one.scans, one.mean_probability, one.positives, proportion(one.positives, one.scans)
            )
            for one in bins
        ),
        expected_calibration_error=expected_calibration_error(bins),
        brier_score=brier_score(stated, truth),
        slope=number(slope),
        intercept=number(intercept),
    )


def predictive_values(table: TwoByTwo, prevalence: float) -> PredictiveValues:
    """What a flag and none are worth at a prevalence, by Bayes' rule."""
    hits, passes = table.sensitivity, table.specificity

    def positive(sensitivity: float | None, specificity: float | None) -> float | None:
        if sensitivity is None or specificity is None:
            return None
        right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        return right / (right + wrong) if right + wrong > 0 else None

    def negative(sensitivity: float | None, specificity: float | None) -> float | None:
        if sensitivity is None or specificity is None:
            return None
        right, wrong = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
        return right / (right + wrong) if right + wrong > 0 else None

    return PredictiveValues(
        prevalence,
        positive(hits.rate, passes.rate),
        positive(hits.low, passes.low),
        positive(hits.high, passes.high),
        negative(hits.rate, passes.rate),
        negative(hits.low, passes.low),
        negative(hits.high, passes.high),
    )


def number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def subgroup_figures(predictions: Sequence[Prediction]) -> tuple[TwoByTwo, Area]:
    """Primary table and area of a subgroup: each figure needs enough of the scans that make it."""
    return primary_table(predictions, SUBGROUP_MINIMUM), area(predictions, SUBGROUP_MINIMUM)


def _counts(predictions: Sequence[Prediction]) -> Counter[tuple[bool, Outcome]]:
    labelled = (one for one in predictions if one.present is not None)
    return Counter((bool(one.present), one.outcome) for one in labelled)


def _table(hits: int, positives: int, passes: int, negatives: int, minimum: int) -> TwoByTwo:
    return TwoByTwo(
        true_positives=hits,
        false_negatives=positives - hits,
        true_negatives=passes,
        false_positives=negatives - passes,
        sensitivity=proportion(hits, positives, minimum),
        specificity=proportion(passes, negatives, minimum),
    )
