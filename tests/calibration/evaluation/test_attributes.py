import pytest
from support.labelled_phantoms import draw_labelled

from edge_medgemma.calibration.evaluation.attributes import band, merged, scan_attributes
from edge_medgemma.runtime.slicing.scan import find_series


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("age", "063Y", "60 to 79"), ("age", "18", "18 to 39"), ("age", "17.9", "under 18"),
        ("age", "080Y", "80 and over"), ("age", "011M", "under 18"), ("age", "old", "not stated"),
        ("age", "-1", "not stated"), ("sex", "F", "female"), ("sex", "Male", "male"),
        ("sex", "?", "not stated"), ("thickness", "1.5", "up to 1.5 mm"),
        ("thickness", "5 mm", "over 3 to 5 mm"), ("thickness", "0", "not stated"),
        ("thickness", "7.5", "over 5 mm"), ("manufacturer", "GE MEDICAL SYSTEMS", "ge"),
        ("manufacturer", "Mr Smith's", "other"), ("site", "North", "North"), ("site", " ", "not stated"),
    ],
)  # fmt: skip
def test_values_fall_into_bands(attribute, value, expected):
    assert band(attribute, value) == expected


def test_labels_are_believed_before_the_header():
    scan = {"sex": "male", "manufacturer": "ge"}
    assert merged(scan, {"sex": "F", "age": "30", "remark": "x"}) == {
        "sex": "female", "age": "18 to 39", "manufacturer": "ge",
    }  # fmt: skip
    assert merged(scan, {"sex": ""}) == scan


def test_a_header_that_says_little_gives_little(tmp_path):
    draw_labelled(tmp_path, [[]])
    (series,) = find_series(tmp_path / "scans").series
    found = scan_attributes(series)
    assert set(found) == {"thickness", "kernel"}
