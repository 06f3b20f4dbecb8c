import math

import numpy as np
import pytest

from edge_medgemma.calibration.statistics.metrics import (
    area_under_curve,
    bootstrap_interval,
    fit_platt,
    wilson_interval,
)


def test_area_counts_pairs_in_order_and_ties_half():
    assert area_under_curve([3, 2, 1, 0], [True, True, False, False]) == 1.0
    assert area_under_curve([0, 1, 2, 3], [True, True, False, False]) == 0.0
    assert area_under_curve([2, 1, 1, 0], [True, True, False, False]) == pytest.approx(3.5 / 4)
    assert math.isnan(area_under_curve([1, 2], [True, True]))


def test_bootstrap_interval_holds_the_area():
    rng = np.random.default_rng(0)
    present = rng.random(120) < 0.5
    scores = rng.normal(size=120) + present * 1.5
    low, high = bootstrap_interval(scores, present)
    assert low < area_under_curve(scores, present) < high
    assert 0.05 < high - low < 0.25


def test_wilson_interval_of_a_textbook_case():
    low, high = wilson_interval(81, 263)  # Newcombe 1998, method 3
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert all(math.isnan(value) for value in wilson_interval(0, 0))


def test_platt_finds_the_logistic_that_made_the_labels():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 4, 20_000)
    present = rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * scores - 1.2)))
    assert fit_platt(scores, present) == pytest.approx((0.7, -1.2), abs=0.06)


def test_platt_stays_finite_on_separable_scores():
    slope, intercept = fit_platt([5.0, 6.0, 7.0, -1.0, -2.0], [True, True, True, False, False])
    assert 0 < slope < 100
    assert math.isfinite(intercept)
