"""Our statistics give the numbers of scikit-learn and statsmodels on the same predictions."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from edge_medgemma.calibration.statistics.binomial import binomial_cdf, clopper_pearson
from edge_medgemma.calibration.statistics.metrics import area_under_curve, wilson_interval
from edge_medgemma.calibration.statistics.paired import mcnemar_exact
from edge_medgemma.calibration.statistics.reliability import (
    brier_score,
    calibration_line,
    equal_mass_bins,
    expected_calibration_error,
)
from edge_medgemma.calibration.statistics.roc import (
    area_change_interval,
    area_interval,
    bootstrap_area,
    bootstrap_area_change,
    roc_points,
)

COUNTS = [(0, 1), (0, 29), (1, 29), (14, 29), (29, 29), (81, 263), (9990, 10_000)]


@pytest.fixture(params=[0, 1, 2])
def predictions(request):
    """Scores with many ties, and labels that they predict a little."""
    rng = np.random.default_rng(request.param)
    present = rng.random(300) < 0.3
    return np.round(rng.normal(size=300) + present, 1), present


@pytest.mark.parametrize(("successes", "trials"), COUNTS)
def test_intervals_of_proportions(successes, trials):
    wilson = proportion_confint(successes, trials, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx(wilson, abs=1e-12)
    for confidence in (0.9, 0.95, 0.99):
        exact = proportion_confint(successes, trials, 1 - confidence, method="beta")
        assert clopper_pearson(successes, trials, confidence) == pytest.approx(exact, abs=1e-9)


def test_nothing_is_known_without_trials():
    assert all(math.isnan(one) for one in clopper_pearson(0, 0))


def test_binomial_sums_at_their_ends():
    assert binomial_cdf(-1, 5, 0.5) == 0
    assert binomial_cdf(5, 5, 0.5) == 1
    assert binomial_cdf(0, 5, 1.0) == 0
    assert binomial_cdf(2, 5, 0.0) == 1


def test_area_and_curve(predictions):
    scores, present = predictions
    assert area_under_curve(scores, present) == pytest.approx(roc_auc_score(present, scores))
    thresholds, alarms, hits = roc_points(scores, present)
    expected = roc_curve(present, scores)
    assert np.trapezoid(hits, alarms) == pytest.approx(roc_auc_score(present, scores))
    on_curve = {(round(x, 12), round(y, 12), t) for x, y, t in zip(*expected, strict=True)}
    found = {
        (round(x, 12), round(y, 12), t) for x, y, t in zip(alarms, hits, thresholds, strict=True)
    }
    assert found <= on_curve


@pytest.mark.parametrize("pair", [(0, 0), (0, 5), (5, 0), (3, 3), (2, 17), (60, 31)])
def test_mcnemar(pair):
    table = [[10, pair[0]], [pair[1], 10]]
    expected = 1.0 if pair == (0, 0) else mcnemar(table, exact=True).pvalue
    assert mcnemar_exact(*pair) == pytest.approx(expected)


def test_reliability(predictions):
    scores, present = predictions
    chance = 1 / (1 + np.exp(-(0.5 * scores - 1)))
    assert brier_score(chance, present) == pytest.approx(brier_score_loss(present, chance))
    logits = sm.add_constant(0.5 * scores - 1)
    intercept, slope = sm.GLM(present.astype(float), logits, sm.families.Binomial()).fit().params
    assert calibration_line(chance, present) == pytest.approx((slope, intercept), rel=1e-6)
    bins = equal_mass_bins(chance, present)
    assert sum(one.scans for one in bins) == 300
    assert sum(one.positives for one in bins) == present.sum()
    means = [one.mean_probability for one in bins]
    assert means == sorted(means)
    assert len(bins) == 10


def test_calibration_error_of_a_known_case():
    chance = np.repeat([0.1, 0.9], 50)
    present = np.concatenate([np.arange(50) < 10, np.arange(50) < 45])
    bins = equal_mass_bins(chance, present)
    assert [(one.scans, one.positives) for one in bins] == [(50, 10), (50, 45)]
    assert expected_calibration_error(bins) == pytest.approx(0.05)


def test_classes_that_never_mix_have_no_calibration_line():
    assert all(map(math.isnan, calibration_line([0.1, 0.2, 0.8, 0.9], [False, False, True, True])))
    assert all(map(math.isnan, calibration_line([0.1, 0.9], [True, True])))


def test_the_interval_of_the_area_covers_it_as_often_as_it_says():
    """60 draws of a problem whose area is known: 95 % of the intervals hold it, give or take 4 errors."""
    truth = 0.7602499389065233  # of normals one standard deviation apart: Phi(1 / sqrt 2)
    held = 0
    for draw in range(60):
        rng = np.random.default_rng(draw)
        present = np.arange(100) < 40
        scores = rng.normal(size=100) + present
        low, high = bootstrap_area(scores, present, np.arange(100), seed=draw)
        held += low <= truth <= high
    assert held >= 0.95 * 60 - 4 * math.sqrt(60 * 0.95 * 0.05)


def test_scans_of_one_patient_widen_the_interval():
    rng = np.random.default_rng(5)
    present = np.repeat(rng.random(40) < 0.5, 5)
    scores = np.repeat(rng.normal(size=40), 5) + present
    narrow = bootstrap_area(scores, present, np.arange(200))
    wide = bootstrap_area(scores, present, np.repeat(np.arange(40), 5))
    assert wide[1] - wide[0] > 1.7 * (narrow[1] - narrow[0])
    assert bootstrap_area(scores, present, np.zeros(200)) == pytest.approx(
        [area_under_curve(scores, present)] * 2
    )


def test_separated_classes_are_not_certain():
    present = np.arange(12) < 5
    low, high = area_interval(present.astype(float), present, np.arange(12))
    assert (low, high) == pytest.approx(proportion_confint(5, 5, method="beta"))
    low, high = area_interval(-present.astype(float), present, np.arange(12))
    assert (low, high) == pytest.approx(proportion_confint(0, 5, method="beta"))
    one_patient = np.where(present, 0, np.arange(12))
    assert area_interval(present.astype(float), present, one_patient)[0] == pytest.approx(0.025)


def test_the_change_of_the_area_is_paired(predictions):
    scores, present = predictions
    patients = np.arange(300)
    assert bootstrap_area_change(scores, scores, present, patients) == (0, 0)
    bound = proportion_confint(0, min(present.sum(), (~present).sum()), method="beta")[1]
    same = area_change_interval(scores, scores, present, patients)
    assert same == pytest.approx((-bound, bound))
    low, high = bootstrap_area_change(scores, scores + 0.01 * present, present, patients)
    assert 0 <= low <= high < 0.03
    alone = bootstrap_area(scores, present, patients)
    assert high - low < (alone[1] - alone[0]) / 4
