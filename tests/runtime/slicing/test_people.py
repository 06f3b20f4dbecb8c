import logging
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.slicing.dicom.patient import Patient, number_people
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Series
from edge_medgemma.runtime.triage.worklist import plan_studies

ANNA = {"PatientID": "17", "PatientName": "Alder^Anna", "PatientBirthDate": "19700101"}


def write_two(write_slice, first: dict, second: dict, **both) -> Path:
    """Six slices of each of two people, at the same positions, the second's 5 HU brighter."""
    for index in range(6):
        write_slice(index, f"a{index}", **{**both, **first})
        changed = {"SOPInstanceUID": f"1.2.99.{index}", "RescaleIntercept": -1019}
        path = write_slice(index, f"b{index}", **{**both, **changed, **second})
    return path.parent


def people(series: tuple[Series, ...]) -> list[int]:
    return sorted(one.person for one in series)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ANNA, {**ANNA, "PatientID": "18"}),
        (ANNA, {**ANNA, "PatientName": "Birch^Bea"}),
        (ANNA, {**ANNA, "PatientBirthDate": "19900101"}),
        ({**ANNA, "IssuerOfPatientID": "A"}, {**ANNA, "IssuerOfPatientID": "B"}),
        ({"PatientID": "17"}, {"PatientID": "18"}),
        ({"PatientName": "Alder^Anna"}, {"PatientName": "Alder^Anni"}),
        ({**ANNA, "PatientSex": "F"}, {**ANNA, "PatientSex": "M"}),
        (
            {"PatientName": "=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
            {"PatientName": "=佐藤^花子", "SpecificCharacterSet": "ISO_IR 192"},
        ),
    ],
    ids=[
        "number",
        "name",
        "birth date",
        "issuer",
        "number alone",
        "name alone",
        "sex",
        "ideographic name",
    ],
)
@pytest.mark.parametrize("offset_mm", [0.0, 1.25], ids=["same positions", "interleaved"])
def test_two_people_are_never_one_reading(write_slice, first, second, offset_mm) -> None:
    for index in range(6):
        write_slice(index, f"a{index}", **first)
        position = [-30.0, -20.0, 2.5 * index + offset_mm]
        uid = f"1.2.99.{index}"
        path = write_slice(
            index, f"b{index}", SOPInstanceUID=uid, ImagePositionPatient=position, **second
        )
    listing = find_series(path.parent)
    assert [one.shape[0] for one in listing.series] == [6, 6]
    assert people(listing.series) == [0, 1]
    assert all("several_patients" in {p.name for p in one.problems} for one in listing.series)
    tasks = plan_studies(listing)
    assert [task.study_name for task in tasks] == ["Study 1", "Study 2"]
    assert len({task.series.sources[0].sop_instance_uid for task in tasks}) == 2


@pytest.mark.parametrize("study", [None, "", "1.2.3.1"])
def test_people_in_series_of_their_own_are_studies_of_their_own(write_slice, study) -> None:
    second = {"PatientID": "18", "SeriesInstanceUID": "1.2.3.40"}
    folder = write_two(write_slice, ANNA, second, StudyInstanceUID=study)
    assert len(plan_studies(find_series(folder))) == 2


def test_an_empty_study_uid_merges_nobody_whom_nothing_identifies(write_slice) -> None:
    folder = write_two(write_slice, {}, {"SeriesInstanceUID": "1.2.3.40"}, StudyInstanceUID="")
    assert len(plan_studies(find_series(folder))) == 2


@pytest.mark.parametrize(
    "same",
    [
        {"PatientName": "ALDER^ANNA^^^"},
        {"PatientName": "Alder^Anna=", "PatientID": " 17"},
        {"PatientName": None},
        {"PatientID": None, "PatientBirthDate": None},
    ],
)
def test_one_person_written_in_two_ways_is_one(write_slice, same) -> None:
    for index in range(8):
        path = write_slice(index, **{**ANNA, **(same if index % 2 else {})})
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 8
    assert "several_patients" not in {problem.name for problem in series.problems}


def test_who_fits_several_people_is_nobody_of_them() -> None:
    anna, bea = Patient((b"1", b"", b"a", b"")), Patient((b"2", b"", b"b", b""))
    nameless = Patient((b"", b"", b"", b"x"))
    numbers = number_people([anna, bea, nameless])
    assert len(set(numbers.values())) == 3
    assert number_people([anna, nameless]) == {anna: 0, nameless: 0}


def test_nothing_of_a_name_is_in_what_a_scan_gives(write_slice, caplog) -> None:
    with caplog.at_level(logging.DEBUG):
        folder = write_two(write_slice, ANNA, {**ANNA, "PatientName": "Birch^Bea"})
        listing = find_series(folder)
        volume = read_volume(listing.series[0])
    for text in (repr(listing), repr(volume.problems), caplog.text):
        assert not any(word in text for word in ("Alder", "Birch", "19700101"))
    assert np.isfinite(volume.array).all()
