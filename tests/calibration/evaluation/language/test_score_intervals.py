"""Intervals of means: none where resampling cannot make one."""

import pytest

from edge_medgemma.calibration.evaluation.language.figures import mean_score, mean_words
from edge_medgemma.calibration.evaluation.language.paired_answers import mean_change


@pytest.mark.parametrize(
    ("scores", "groups"), [([0.3], "a"), ([0.2, 0.7], "aa"), ([1.0, 1.0, 1.0], "abc")]
)
def test_what_no_resample_moves_has_no_interval(scores, groups) -> None:
    mean = mean_score(scores, groups)
    assert mean.value == pytest.approx(sum(scores) / len(scores))
    assert (mean.low, mean.high) == (None, None)
    assert mean_words(mean) == f"{mean.value:.3f} of {len(scores)} (no interval)"
    change = mean_change(scores, [0.0] * len(scores), groups)
    assert (change.low, change.high) == (None, None)


def test_scores_that_differ_have_an_interval() -> None:
    mean = mean_score([0.0, 1.0, 1.0, 0.5], "abcd")
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < 0.625 < mean.high
