"""Labels in a table of the user's own, as spreadsheets write it and as people spoil it."""

from pathlib import Path

import pytest

from edge_medgemma.calibration.evaluation.datasets.registry import read_labels
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError

PLAIN = "study,patient,sex,intracranial_haemorrhage,mass_effect\na,7,F,1,0\nb,8,M,,1\n"


def _read(folder: Path, content: bytes | str) -> Labels:
    path = folder / "labels.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_labels("table", path)


def test_rows_say_what_stands_in_the_table(tmp_path: Path) -> None:
    labels = _read(tmp_path, PLAIN)
    assert labels.codes == ("intracranial_haemorrhage", "mass_effect")
    first, second = labels.rows
    assert (first.key, first.patient, first.attributes) == ("a", "7", {"sex": "F"})
    assert first.findings == {"intracranial_haemorrhage": True, "mass_effect": False}
    assert second.findings == {"intracranial_haemorrhage": None, "mass_effect": True}
    assert not labels.notes


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(",", ";"),
        "sep=;\r\n" + PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("1,0", "Yes,FALSE").replace("study", "Study"),
        "study,patient,sex,intracranial_haemorrhage,mass_effect,,\na,7,F,1.0,0.0,,\n\nb,8,M,,1,,\n",
    ],
    ids=["semicolons", "hint", "utf-16", "mark and CRLF", "words", "empty columns"],
)
def test_spreadsheets_ways_of_writing_are_read_alike(tmp_path: Path, content: bytes | str) -> None:
    assert _read(tmp_path, content).rows == _read(tmp_path, PLAIN).rows


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("study,mass_effect\n", "has a header but no row"),
        ("scan,mass_effect\na,1\n", "no column 'study'"),
        ("study,mass\na,1\n", "no column of a finding"),
        (
            "study,mass_effect\na,maybe\nb,2\n",
            "2 values other than .* line 2, column 'mass_effect'",
        ),
        ("study,mass_effect\na,1,0\n", "line 2: 3 fields"),
        ("study,mass_effect,skull_fracture\na,1\n", "line 2: 2 fields"),
        ("study,mass_effect,mass_effect\na,1,0\n", "'mass_effect' twice"),
        (b"study,mass_effect\nM\xfcller,1\n", "not text in UTF-8"),
        (b"PK\x03\x04whatever", "workbook"),
        ("study,mass_effect\n,1\n", "names no study"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_one_line(
    tmp_path: Path, content: bytes | str, expected: str
) -> None:
    with pytest.raises(LabelError, match=expected) as error:
        _read(tmp_path, content)
    assert "\n" not in str(error.value)
    assert "maybe" not in str(error.value)


def test_a_missing_table_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="No such file"):
        read_labels("table", tmp_path / "none.csv")
    with pytest.raises(LabelError, match=r"holds no labels\.csv; name the table"):
        read_labels("table", tmp_path)


def test_repeated_and_contradicting_rows_are_counted(tmp_path: Path) -> None:
    labels = _read(
        tmp_path,
        "study,patient,mass_effect,skull_fracture\na,1,1,0\na,1,1,\na,2,0,1\nb,3,,1\nb,3,0,1\n,,1,1\n",
    )
    found = {row.key: row.findings for row in labels.rows}
    assert found["a"] == {"mass_effect": None, "skull_fracture": None}
    assert found["b"] == {"mass_effect": False, "skull_fracture": True}
    assert labels.notes == (
        "1 row without a study left out",
        "3 rows of the table named a study once more",
        "2 findings of 1 study contradicted by a second row: taken as not read",
        "1 row named another patient: the first is kept",
    )


def test_columns_that_say_nothing_here_are_named(tmp_path: Path) -> None:
    labels = _read(tmp_path, "study,mass_effect,mass_efect,doctor\na,1,0,x\n")
    assert labels.notes == ("2 columns not used: 'mass_efect', 'doctor'",)


def test_codes_of_an_own_protocol_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("study,pins\na,1\n")
    assert read_labels("table", path, own_codes=("pins",)).codes == ("pins",)


def test_a_layout_without_readers_takes_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(PLAIN)
    with pytest.raises(LabelError, match="does not tell readers apart"):
        read_labels("table", path, "any")
