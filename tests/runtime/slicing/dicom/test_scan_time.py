import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.slicing.dicom.accession import read_accession_numbers
from edge_medgemma.runtime.slicing.dicom.scan_time import scan_time
from edge_medgemma.runtime.slicing.scan import find_series


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, ""),
        ({"StudyDate": "20240305"}, "2024-03-05"),
        ({"StudyDate": "20240305", "StudyTime": "142210.123"}, "2024-03-05T14:22"),
        ({"StudyDate": "2024.03.05", "StudyTime": "14:22:10"}, "2024-03-05T14:22"),
        ({"StudyDate": "20240305", "AcquisitionDate": "20240306"}, "2024-03-06"),
        ({"SeriesDate": "20240304", "StudyDate": "20240305"}, "2024-03-04"),
        ({"AcquisitionDateTime": "20240305142210.5+0300"}, "2024-03-05T14:22+03:00"),
        (
            {"StudyDate": "20240305", "StudyTime": "0930", "TimezoneOffsetFromUTC": "-0500"},
            "2024-03-05T09:30-05:00",
        ),
        ({"StudyDate": "20240305", "TimezoneOffsetFromUTC": "-0500"}, "2024-03-05"),
        ({"StudyDate": "20241399"}, ""),
        ({"StudyDate": "20240305", "StudyTime": "9999"}, ""),
        ({"StudyDate": "JANE DOE"}, ""),
    ],
)
def test_the_time_is_that_of_the_acquisition_or_else_of_series_or_study(stated, expected) -> None:
    dataset = Dataset()
    with disable_value_validation():
        for keyword, value in stated.items():
            setattr(dataset, keyword, value)
    assert scan_time(dataset) == expected


def test_a_series_has_the_time_of_its_first_slice(tmp_path) -> None:
    write_head_ct(tmp_path / "a", StudyDate="20240305", StudyTime="142210")
    write_head_ct(tmp_path / "b", study="2", StudyDate="JANE DOE")
    times = {one.study_uid: one.scanned_at for one in find_series(tmp_path).series}
    assert times == {"1.2.3.1": "2024-03-05T14:22", "1.2.3.2": ""}


def test_accession_numbers_are_read_only_where_they_are_asked_for(tmp_path) -> None:
    write_head_ct(tmp_path / "a", AccessionNumber="A-4711")
    write_head_ct(tmp_path / "b", study="2", AccessionNumber=None)
    listing = find_series(tmp_path)
    assert "A-4711" not in repr(listing)
    assert read_accession_numbers(listing.series) == {"1.2.3.1": "A-4711"}
