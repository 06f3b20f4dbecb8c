"""The threshold that keeps a sensitivity, against scipy and against many drawn samples."""

import numpy as np
import pytest
from scipy.stats import binom

from edge_medgemma.calibration.statistics.operating_point import (
    allowed_misses,
    binomial_cdf,
    largest_threshold,
    positives_needed,
)

NEEDED = {0.80: (14, 22, 30, 37), 0.90: (29, 46, 61, 76), 0.95: (59, 93, 124, 153),
          0.99: (299, 473, 628, 773)}  # fmt: skip
"""Sensitivity -> positives from which 0, 1, 2 and 3 misses are allowed, at a confidence of 0.95."""


@pytest.mark.parametrize("trials", [1, 7, 29, 500, 5000])
@pytest.mark.parametrize("chance", [0.001, 0.1, 0.5, 0.97])
def test_the_distribution_is_scipys(trials: int, chance: float) -> None:
    for successes in {0, 1, trials // 10, trials // 2, trials}:
        expected = binom.cdf(successes, trials, chance)
        assert binomial_cdf(successes, trials, chance) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sensitivity", NEEDED)
def test_positives_needed_and_misses_allowed(sensitivity: float) -> None:
    for misses, needed in enumerate(NEEDED[sensitivity]):
        assert positives_needed(sensitivity, 0.95, misses) == needed
        assert allowed_misses(needed, sensitivity, 0.95) == misses
        assert allowed_misses(needed - 1, sensitivity, 0.95) == (misses - 1 if misses else None)


@pytest.mark.parametrize(("sensitivity", "confidence"), [(0.5, 0.52), (0.9, 0.8), (0.97, 0.99)])
def test_misses_allowed_are_the_quantile_of_scipy(sensitivity: float, confidence: float) -> None:
    for positives in range(1, 400, 7):
        counts = np.arange(positives)
        fitting = counts[binom.cdf(counts, positives, 1 - sensitivity) <= 1 - confidence]
        expected = int(fitting.max()) if len(fitting) else None
        assert allowed_misses(positives, sensitivity, confidence) == expected


def test_the_threshold_is_the_first_score_that_is_not_missed() -> None:
    scores = np.random.default_rng(0).permutation(76) / 10
    assert largest_threshold(scores, 0.9, 0.95) == pytest.approx(0.3)
    assert largest_threshold(scores[:28], 0.9, 0.95) is None
    tied = np.repeat([1.0, 2.0], [40, 36])
    assert largest_threshold(tied, 0.9, 0.95) == 1.0, "a tie is flagged whole"


def test_it_keeps_the_sensitivity_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    draws = 4000
    sure = sum(
        largest_threshold(rng.standard_exponential(61), 0.9, 0.95) <= -np.log(0.9)
        for _ in range(draws)
    )
    assert 0.945 <= sure / draws <= 0.965, "0.9506 is exact for 61 positives and 2 misses"
