from dataclasses import replace

import pytest

from edge_medgemma.calibration.evaluation.predictions import (
    dump_predictions,
    read_predictions,
    write_predictions,
)
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction
from edge_medgemma.runtime.errors import EvaluationError

ROW = Prediction(
    study='a, "quoted"\nname',
    patient=3,
    study_uid="1.2.3",
    case="0123456789abcdef01234567",
    protocol="head_ct",
    finding="skull_fracture",
    present=True,
    outcome=Outcome.NOT_FLAGGED,
    is_assessable=True,
    reason="",
    log_odds=0.1 + 0.2,
    baseline_log_odds=None,
    score=-1e-17,
    threshold=0.0,
    slices=24,
)


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = (ROW, replace(ROW, study="b", present=None, outcome=Outcome.FLAGGED, log_odds=-3.5))
    path = tmp_path / "predictions.csv"
    write_predictions(path, rows)
    assert read_predictions(path) == rows
    assert (
        path.read_text().splitlines()[0].startswith("study,patient,study_uid,case,protocol,finding")
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("study,patient", "study,person", "other columns"),
        (",not_flagged,", ",passed,", "row 2"),
        (",3,1.2.3", ",three,1.2.3", "row 2"),
        ("0.30000000000000004", "nan", "row 2"),
        ("0.30000000000000004", "", ""),
        (",24", "", "row 2"),
        ("head_ct,skull_fracture,1,", "head_ct,skull_fracture,yes,", "neither 0 nor 1"),
    ],
)
def test_an_altered_table_is_refused(tmp_path, old, new, reason):
    path = tmp_path / "predictions.csv"
    text = dump_predictions([ROW])
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if not reason:
        assert read_predictions(path)[0].log_odds is None
        return
    with pytest.raises(EvaluationError, match=reason):
        read_predictions(path)


def test_a_row_twice_is_refused(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(dump_predictions([ROW, ROW]))
    with pytest.raises(EvaluationError, match="twice"):
        read_predictions(path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_predictions(tmp_path / "none.csv")
