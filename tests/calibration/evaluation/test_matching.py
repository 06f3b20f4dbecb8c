"""Labels find their studies by UID, folder or file name, and nothing is guessed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_medgemma.calibration.evaluation.datasets.registry import LAYOUTS
from edge_medgemma.calibration.evaluation.matching import (
    Match,
    StudyNames,
    match_studies,
    names_of_files,
    study_names,
)
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.triage.worklist import plan_studies

TABLE = LAYOUTS["table"]
CODE = "mass_effect"


def _labels(*keys: str, values: Sequence[bool | None] = ()) -> Labels:
    values = values or [True] * len(keys)
    rows = (LabelRow(key, {CODE: value}) for key, value in zip(keys, values, strict=True))
    return Labels("table", tuple(rows), (CODE,), "")


def _study(*names: str, images: int = 1) -> StudyNames:
    return StudyNames(frozenset(names), images, names[0])


def _keys(match: Match) -> dict[int, str]:
    return {study: row.key for study, row in match.pairs.items()}


def test_a_scan_is_found_by_uid_folder_file_or_path(tmp_path: Path) -> None:
    write_dicom_series(draw_phantom(3_000_001, count=2), tmp_path / "site" / "head 1")
    (task,) = plan_studies(find_series(tmp_path))
    names = study_names(task, tmp_path)
    assert names.images == 2
    for key in (task.study_uid, "head 1", "site", "site/head 1", "slice_000.dcm", "slice_000"):
        assert _keys(match_studies([names], _labels(key), TABLE)) == {0: key}
    assert names.example == "site/head 1/slice_000.dcm"


def test_a_volume_is_found_with_and_without_its_extensions(tmp_path: Path) -> None:
    names = names_of_files([tmp_path / "a" / "one.1.nii.gz"], tmp_path, images=9).names
    assert {"one.1.nii.gz", "one.1.nii", "one.1", "a/one.1", "a"} <= names
    assert "one" not in names


def test_what_is_left_over_is_listed_on_either_side() -> None:
    match = match_studies([_study("a"), _study("x")], _labels("a", "b"), TABLE)
    assert _keys(match) == {0: "a"}
    assert match.rows_without_study == ("b",)
    assert match.studies_without_row == (1,)


def test_a_row_that_fits_two_studies_is_given_to_neither() -> None:
    match = match_studies([_study("a", "site"), _study("b", "site")], _labels("site", "b"), TABLE)
    assert not match.pairs
    assert match.rows_of_several_studies == ("site",)
    assert match.studies_of_several_rows == (1,)


def test_a_study_that_two_rows_fit_gets_none() -> None:
    match = match_studies([_study("1.2.3", "a"), _study("c")], _labels("1.2.3", "a", "c"), TABLE)
    assert _keys(match) == {1: "c"}
    assert match.studies_of_several_rows == (0,)


def test_nothing_matched_shows_both_sides() -> None:
    with pytest.raises(ScanError, match=r"'a'.*'x'.*too deep or too shallow"):
        match_studies([_study("x")], _labels("a"), TABLE)


@pytest.mark.parametrize(
    ("values", "images", "expected"),
    [
        ([False, True], 2, True),
        ([False, True], 3, True),
        ([False, False], 2, False),
        ([False, False], 3, None),
        ([False, None], 2, None),
    ],
)
def test_rows_of_slices_make_one_row_of_their_study(
    values: list[bool | None], images: int, expected: bool | None
) -> None:
    layout = replace(TABLE, has_slice_rows=True)
    study = _study("s1", "s1.dcm", "s2", images=images)
    match = match_studies([study], _labels("s1", "s2", values=values), layout)
    assert match.pairs[0].findings == {CODE: expected}
    assert bool(match.notes) == (images > 2)


def test_names_that_differ_between_table_and_disk_are_brought_into_one_form() -> None:
    layout = replace(TABLE, name_of=lambda name: name.replace("-", "").split(" ")[0])
    match = match_studies([_study("CT1 CT1")], _labels("CT-1"), layout)
    assert _keys(match) == {0: "CT-1"}
