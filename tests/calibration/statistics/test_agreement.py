"""Kappa is that of scikit-learn and statsmodels; a corrected rate finds the true one."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from edge_medgemma.calibration.statistics.agreement import (
    RuleAccuracy,
    cohen_kappa,
    rogan_gladen,
    rogan_gladen_bound,
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kinds", [2, 3])
def test_kappa_and_its_interval(seed: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, kinds, 120)
    second = np.where(rng.random(120) < 0.7, first, rng.integers(0, kinds, 120))
    found = cohen_kappa(first.tolist(), second.tolist())
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    oracle = cohens_kappa(pd.crosstab(first, second).to_numpy())
    assert (found.low, found.high) == pytest.approx((oracle.kappa_low, oracle.kappa_upp))
    assert found.items == 120


def test_kappa_of_one_answer_alone_says_nothing() -> None:
    found = cohen_kappa(["refusal"] * 5, ["refusal"] * 5)
    assert math.isnan(found.value) and found.agreement == 1
    assert math.isnan(cohen_kappa([], []).value)
    with pytest.raises(ValueError, match="same items"):
        cohen_kappa([1], [1, 2])


def test_the_corrected_rate_is_the_true_one() -> None:
    for true in (0.0, 0.2, 0.9, 1.0):
        counted = true * 0.82 + (1 - true) * 0.06
        assert rogan_gladen(counted, 0.82, 0.94) == pytest.approx(true)
    assert rogan_gladen(0.01, 0.82, 0.94) == 0
    assert rogan_gladen(0.99, 0.82, 0.94) == 1
    assert math.isnan(rogan_gladen(0.5, 0.4, 0.5))


def test_the_bound_holds_the_true_rate_more_often_than_95_percent() -> None:
    rng = np.random.default_rng(0)
    sensitivity, specificity, true, inside = 0.8, 0.95, 0.3, 0
    for _ in range(400):
        accuracy = RuleAccuracy(
            rng.binomial(200, sensitivity), 200, rng.binomial(200, specificity), 200
        )
        counted = rng.binomial(150, true * sensitivity + (1 - true) * (1 - specificity))
        low, high = rogan_gladen_bound(int(counted), 150, accuracy)
        inside += low <= true <= high
    assert inside >= 0.97 * 400
