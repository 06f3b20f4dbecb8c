"""What is drawn and laid out as a public dataset is found, matched and read as it was drawn."""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from edge_medgemma.calibration.evaluation.datasets.registry import (
    LAYOUTS,
    layout_of,
    read_labels,
)
from edge_medgemma.calibration.evaluation.language.vqa_layouts import READERS
from edge_medgemma.calibration.evaluation.matching import Match, match_studies, study_names
from edge_medgemma.calibration.evaluation.radiographs import find_pictures, is_picture_folder
from edge_medgemma.calibration.phantoms.anatomy import FRACTURE, HAEMORRHAGE, MASS_EFFECT
from edge_medgemma.calibration.phantoms.dataset import TRUTH, WRITERS, write_dataset
from edge_medgemma.calibration.phantoms.layouts import chest_xray, head_ct
from edge_medgemma.calibration.phantoms.layouts.head_ct import READERS as CQ500_READERS
from edge_medgemma.calibration.phantoms.layouts.head_ct import read_by_three
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies

COUNT = 5
"""The fifth study is a second one of the fourth's patient."""

SEED = EVALUATION_FIRST_SEED + 7


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Each layout once; a head or chest that several show is drawn once."""
    root = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_ct, "draw_phantom", cache(head_ct.draw_phantom))
        patch.setattr(chest_xray, "draw_chest", cache(chest_xray.draw_chest))
        for layout in WRITERS:
            write_dataset(layout, COUNT, SEED, root / layout)
    return {layout: root / layout for layout in WRITERS}


def _truth(folder: Path) -> dict[str, dict[str, bool]]:
    with (folder / TRUTH).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["study"]: {code: value == "1" for code, value in row.items() if code != "study"}
        for row in rows
    }


def _matched(name: str, folder: Path) -> tuple[list[StudyTask], Match]:
    labels, layout = read_labels(name, folder), layout_of(name, folder)
    scans = layout.scan_folder(folder)
    if is_picture_folder(scans):
        listing = find_pictures(scans, layout, labels)
    else:
        listing = find_series(scans, modality=layout.modality)
    tasks = plan_studies(listing)
    return list(tasks), match_studies((study_names(t, scans) for t in tasks), labels, layout)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "none"])
def test_truth_in_is_labels_out(folders: Mapping[str, Path], name: str) -> None:
    tasks, match = _matched(name, folders[name])
    truth = _truth(folders[name])
    assert len(tasks) == len(match.pairs) == COUNT == len(truth)
    left = (match.rows_without_study, match.studies_without_row, match.rows_of_several_studies)
    assert not any(left) and not match.studies_of_several_rows
    by_study = name == "rsna-ich"  # its rows are slices: only the scan has a name in truth.csv
    read = {
        tasks[study].study_uid if by_study else row.key: row.findings
        for study, row in match.pairs.items()
    }
    assert read.keys() == truth.keys()
    unread = 0
    for key, findings in truth.items():
        for code, value in findings.items():
            unread += read[key][code] is None
            assert read[key][code] in (value, None), (key, code)
    assert unread == (0 if name != "chexpert" else _uncertain(folders[name]))
    values = {value for findings in truth.values() for value in findings.values()}
    assert values == {True, False}, "a layout of one class alone would prove nothing"


def _uncertain(folder: Path) -> int:
    """Cells of CheXpert's table that say -1.0, of frontal pictures."""
    with (folder / "valid.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Frontal/Lateral"] == "Frontal"]
    return sum(cell == "-1.0" for row in rows for cell in row.values())


@pytest.mark.parametrize("name", ["table", "ct-rate", "nih", "chexpert"])
def test_two_studies_of_one_patient_share_the_number(
    folders: Mapping[str, Path], name: str
) -> None:
    patients = [row.patient for row in read_labels(name, folders[name]).rows]
    assert patients[3] == patients[4]
    assert len(set(patients)) == COUNT - 1


def test_slices_of_the_rsna_layout_lie_mixed_and_say_no_body_part(
    folders: Mapping[str, Path],
) -> None:
    scans = folders["rsna-ich"] / "stage_2_train"
    assert {path.suffix for path in scans.iterdir()} == {".dcm"}
    listing = find_series(scans)
    assert len(listing.series) == COUNT
    assert {str(one.body_part) for one in listing.series} == {"unknown"}


def test_one_of_three_readers_says_the_other_thing_of_one_finding_in_twenty() -> None:
    findings = {HAEMORRHAGE: True, MASS_EFFECT: False, FRACTURE: True}
    dissent = {"ICH": 0, "MassEffect": 0, "Fracture": 0}
    for seed in range(1000):
        cells = read_by_three(seed, findings, "SDH")
        for word, code in zip(dissent, findings, strict=True):
            said = [cells[f"{reader}:{word}"] == findings[code] for reader in CQ500_READERS]
            assert sum(said) >= 2
            dissent[word] += sum(said) == 2
    assert all(30 < count < 75 for count in dissent.values()), dissent


@pytest.mark.parametrize("layout", READERS)
def test_questions_are_read_as_they_were_written(folders: Mapping[str, Path], layout: str) -> None:
    dataset = READERS[layout](folders[layout], "all")
    assert {question.is_closed for question in dataset.questions} == {True, False}
    assert all(question.picture.is_file() for question in dataset.questions)
    assert len({question.picture for question in dataset.questions}) == COUNT
    answers = {question.reference.lower() for question in dataset.questions}
    assert {"yes", "no", "ct", "x-ray", "brain", "lung"} <= answers
