"""A threshold is never reported on patients that it was fitted on."""

from dataclasses import replace

import numpy as np
import pytest

from edge_medgemma.calibration.evaluation.fitting import (
    FITS,
    LabelledScores,
    _dealt,
    fit_cross,
    fit_held_out,
    fit_point,
    measure,
)
from edge_medgemma.calibration.statistics.operating_point import largest_threshold
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.triage.scoring.operating_points import Split, Target

TARGET = Target(sensitivity=0.9, confidence=0.95)


def drawn(positives: int, negatives: int, seed: int = 0, apart: float = 3.0) -> LabelledScores:
    """One study each of so many patients."""
    rng = np.random.default_rng(seed)
    present = rng.permutation(np.repeat([True, False], [positives, negatives]))
    scores = rng.standard_normal(len(present)) + apart * present
    return LabelledScores(np.arange(len(present)), scores, present)


def test_reporting_on_whom_it_was_fitted_on_is_impossible() -> None:
    scores = drawn(60, 60)
    point = fit_point(scores, TARGET)
    with pytest.raises(ValueError, match="120 patients are among those"):
        measure([(point, scores)])
    half = scores.of(frozenset(range(60)))
    other = scores.of(frozenset(range(59, 120)))
    with pytest.raises(ValueError, match="1 patients are among those"):
        measure([(fit_point(half, replace(TARGET, sensitivity=0.8)), other)])


def test_scores_of_the_reported_half_have_no_part_in_the_threshold() -> None:
    scores = drawn(100, 140)
    point = fit_held_out("bleed", scores, TARGET)
    fitted = _dealt(scores, 2)[0]
    assert fit_point(scores.of(fitted), TARGET).threshold == point.threshold
    reported = ~np.isin(scores.patients, list(fitted))
    moved = replace(scores, log_odds=scores.log_odds - 50.0 * (reported & scores.present))
    again = fit_held_out("bleed", moved, TARGET)
    assert (again.threshold, again.slope) == (point.threshold, point.slope)
    assert again.sensitivity.successes == 0 and point.sensitivity.successes > 40


def test_the_half_that_is_reported_is_the_half_that_was_not_fitted_on() -> None:
    scores = drawn(100, 140)
    point = fit_held_out("bleed", scores, TARGET)
    assert point.split is Split.HELD_OUT
    assert (point.fitted_on.positives, point.measured_on.positives) == (50, 50)
    assert point.fitted_on.patients + point.measured_on.patients == 240
    assert point.sensitivity.trials == 50 and point.specificity.trials == 70
    assert 0.8 < point.sensitivity.low < 0.95 < point.sensitivity.high


def test_cross_fitting_takes_the_threshold_of_all_and_reports_folds() -> None:
    scores = drawn(100, 140)
    point = fit_cross("bleed", scores, TARGET)
    assert point.split is Split.CROSS_FITTED
    assert point.threshold == largest_threshold(scores.log_odds[scores.present], 0.9, 0.95)
    assert point.sensitivity.trials == 100 and point.specificity.trials == 140
    assert 0.9 < point.probability(9.0) <= 1 and point.probability(-9.0) < 0.1


def test_studies_of_one_patient_count_once_and_stay_together() -> None:
    scores = drawn(40, 40)
    twice = LabelledScores(
        np.tile(scores.patients, 3),
        np.concatenate([scores.log_odds, scores.log_odds - 1, scores.log_odds + 1]),
        np.tile(scores.present, 3),
    )
    sample = twice.sample
    assert (sample.studies, sample.patients, sample.positives, sample.negatives) == (
        240,
        80,
        40,
        40,
    )
    lowest = scores.log_odds[scores.present] - 1
    assert fit_point(twice, TARGET).threshold == largest_threshold(lowest, 0.9, 0.95)
    for fit in (fit_cross, fit_held_out):
        point = fit("bleed", twice, replace(TARGET, sensitivity=0.8))
        assert point.sensitivity.trials <= 40 and point.specificity.trials <= 40


def test_a_patient_may_be_ill_in_one_study_and_well_in_another() -> None:
    scores = drawn(40, 40)
    same = LabelledScores(np.concatenate([np.arange(40)] * 2),
                          np.concatenate([scores.log_odds[scores.present],
                                          scores.log_odds[~scores.present]]),
                          np.repeat([True, False], 40))  # fmt: skip
    point = fit_cross("bleed", same, TARGET)
    assert point.measured_on.patients == 40
    assert (point.sensitivity.trials, point.specificity.trials) == (40, 40)


@pytest.mark.parametrize(
    ("scores", "split", "words"),
    [
        (drawn(12, 40), "cross", "^needs 29 positives, has 12$"),
        (drawn(29, 40), "cross", "^needs 30 positives, one of them to report on, has 29$"),
        (drawn(57, 40), "half", None),
        (drawn(56, 40), "half", "^needs 29 positives, has 28$"),
        (drawn(40, 0), "cross", "without the finding, has 0"),
        (drawn(40, 1), "cross", "2 patients without the finding, has 1"),
        (drawn(40, 40, apart=-3.0), "cross", "rise with the finding"),
        (drawn(0, 40), "cross", "^needs 29 positives, has 0$"),
    ],
)
def test_too_little_is_refused_with_what_it_needs(scores, split, words) -> None:
    if words is None:
        assert FITS[split]("bleed", scores, TARGET).sensitivity.trials == 28
        return
    with pytest.raises(ThresholdError, match=words):
        FITS[split]("bleed", scores, TARGET)


def test_with_one_positive_to_spare_each_is_reported_by_a_fit_on_all_others() -> None:
    """No miss is allowed, so each threshold is the lowest score but that of the one it judges."""
    scores = drawn(30, 40)
    point = fit_cross("bleed", scores, TARGET)
    assert point.threshold == scores.log_odds[scores.present].min()
    assert (point.sensitivity.successes, point.sensitivity.trials) == (29, 30)
