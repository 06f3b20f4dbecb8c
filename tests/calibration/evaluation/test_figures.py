from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from edge_medgemma.calibration.evaluation.comparison import compare
from edge_medgemma.calibration.evaluation.document import EngineProvenance
from edge_medgemma.calibration.evaluation.figures import (
    area,
    curve,
    predictive_values,
    primary_table,
    secondary_table,
    subgroup_figures,
)
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction

FLAGGED, PASSED, WITHHELD = Outcome.FLAGGED, Outcome.NOT_FLAGGED, Outcome.NOT_ASSESSABLE
ENGINE = EngineProvenance("second", "0" * 64, {}, None, False)


def predictions(*groups):
    """(present, outcome, log-odds, how many) of each group."""
    rows = [
        (present, outcome, log_odds)
        for present, outcome, log_odds, count in groups
        for _ in range(count)
    ]
    return [
        Prediction(
            study=f"s{place}", patient=place, study_uid="", case="c", protocol="head_ct", finding="bleed",
            present=present, outcome=outcome, is_assessable=outcome is not WITHHELD, reason="",
            log_odds=log_odds, baseline_log_odds=None, score=log_odds, threshold=0.0, slices=4,
        )
        for place, (present, outcome, log_odds) in enumerate(rows)
    ]  # fmt: skip


SCANS = predictions(
    (True, FLAGGED, 2.0, 7), (True, PASSED, -1.0, 2), (True, WITHHELD, None, 1),
    (False, FLAGGED, 1.0, 3), (False, PASSED, -2.0, 15), (False, WITHHELD, -3.0, 2),
    (None, FLAGGED, 9.0, 5),
)  # fmt: skip


def test_what_was_not_assessable_counts_against_the_engine_and_is_left_out_once():
    table = primary_table(SCANS)
    assert (table.true_positives, table.false_negatives) == (7, 3)
    assert (table.true_negatives, table.false_positives) == (15, 5)
    assert (table.sensitivity.rate, table.specificity.rate) == (0.7, 0.75)
    table = secondary_table(SCANS)
    assert (table.true_positives, table.false_negatives) == (7, 2)
    assert (table.true_negatives, table.false_positives) == (15, 3)


def test_the_curve_is_of_labelled_scans_with_log_odds_and_holds_the_own_point():
    separation = area(SCANS)
    assert (separation.positives, separation.negatives) == (9, 20)
    points, own = curve(SCANS)
    assert (points[0].false_positive_rate, points[-1].sensitivity) == (0, 1)
    assert points[0].threshold is None
    assert own in [replace(one, threshold=own.threshold) for one in points]
    assert own.threshold == 1.0
    assert (own.sensitivity, own.false_positive_rate) == pytest.approx((7 / 9, 3 / 20))


def test_a_point_that_no_threshold_makes_has_none():
    mixed = predictions(
        (True, FLAGGED, 1.0, 3), (True, PASSED, 2.0, 1), (False, PASSED, 0.0, 4), (False, FLAGGED, 0.5, 1)
    )  # fmt: skip
    assert curve(mixed)[1].threshold is None


@pytest.mark.parametrize(("positives", "has_figure"), [(19, False), (20, True)])
def test_a_subgroup_below_twenty_has_counts_alone(positives, has_figure):
    scans = predictions((True, FLAGGED, 1.0, positives), (False, PASSED, -1.0, 30))
    table, separation = subgroup_figures(scans)
    assert table.true_positives == table.sensitivity.successes == positives
    assert (table.sensitivity.rate is not None) is has_figure
    assert (separation.value is not None) is has_figure
    assert table.specificity.rate == 1


def test_predictive_values_are_bayes_rule():
    values = predictive_values(primary_table(SCANS), 0.02)
    assert values.positive == pytest.approx(0.7 * 0.02 / (0.7 * 0.02 + 0.25 * 0.98))
    assert values.negative == pytest.approx(0.75 * 0.98 / (0.75 * 0.98 + 0.3 * 0.02))
    assert values.positive_low < values.positive < values.positive_high


def test_engines_are_compared_scan_by_scan():
    rng = np.random.default_rng(0)
    first = predictions(
        (True, FLAGGED, 1.0, 40), (False, PASSED, -1.0, 60), (None, PASSED, -1.0, 10)
    )
    other = []
    for one in first:
        change = float(rng.normal(0, 1))
        log_odds = one.log_odds + change
        outcome = FLAGGED if log_odds >= 0 else PASSED
        other.append(replace(one, log_odds=log_odds, outcome=outcome))
    other.append(replace(other[0], study="only the second was asked"))
    comparison = compare(first, other, ENGINE, {"bleed": "Bleed"})
    (finding,) = comparison.findings
    changed = [(a, b) for a, b in zip(first, other, strict=False) if a.outcome is not b.outcome]
    assert [(one.study, one.first, one.second) for one in comparison.flips] == [
        (a.study, a.outcome, b.outcome) for a, b in changed
    ]
    assert finding.all.scans == 110
    assert finding.all.first_only == sum(a.outcome is FLAGGED for a, _ in changed)
    assert finding.all.second_only == sum(b.outcome is FLAGGED for _, b in changed)
    table = [
        [finding.all.both, finding.all.first_only],
        [finding.all.second_only, finding.all.neither],
    ]
    assert finding.all.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (finding.positives.scans, finding.negatives.scans) == (40, 60)
    assert finding.changed_outcomes == len(changed)
    assert finding.area.value < 0
    assert finding.area.low <= finding.area.value <= finding.area.high
    changes = [b.log_odds - a.log_odds for a, b in zip(first, other, strict=False)]
    assert finding.median_absolute_change == pytest.approx(np.median(np.abs(changes)))
