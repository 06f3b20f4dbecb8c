"""Tables of public datasets as they are, with what stands against itself in them, and spoilt ones."""

import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest

from edge_medgemma.calibration.evaluation.datasets.registry import (
    LAYOUTS,
    layout_of,
    read_labels,
)
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError
from edge_medgemma.runtime.slicing.volume import Modality, View
from edge_medgemma.runtime.triage.protocol import builtin_names, builtin_protocols

BLEED, SHIFT, FRACTURE = "intracranial_haemorrhage", "mass_effect", "skull_fracture"


def _written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _by_key(labels: Labels) -> dict[str, Mapping[str, bool | None]]:
    return {row.key: row.findings for row in labels.rows}


def test_every_layout_speaks_of_findings_that_a_protocol_asks_for() -> None:
    assert list(LAYOUTS) == [
        "table", "rsna-ich", "cq500", "ct-ich", "ct-rate", "nih", "chexpert", "msd", "open-i",
        "none",
    ]  # fmt: skip
    assert {layout.protocol for layout in LAYOUTS.values()} <= {"", *builtin_names()}


RSNA_KINDS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")


def _rsna(name: str, any_label: str, *kinds: str) -> list[str]:
    rows = [f"{name}_{kind},{int(kind in kinds)}" for kind in RSNA_KINDS]
    return [*rows, f"{name}_any,{any_label}"]


def test_rsna_slices_have_blood_of_any_kind(tmp_path: Path) -> None:
    rows = [*_rsna("ID_a", "1", "subdural"), *_rsna("ID_b", "0"), *_rsna("ID_c", "0", "epidural")]
    rows += ["ID_b_any,0", "ID_d_any,1", "ID_d_any,0", "ID_e_epidural,1", "ID_f_epidural,0"]
    _written(tmp_path / "stage_2_train.csv", "ID,Label", *rows)
    labels = read_labels("rsna-ich", tmp_path)
    found = {key: findings[BLEED] for key, findings in _by_key(labels).items()}
    assert found == {
        "ID_a": True, "ID_b": False, "ID_c": None, "ID_d": None, "ID_e": True, "ID_f": None,
    }  # fmt: skip
    assert "1 row stood there twice" in "\n".join(labels.notes)
    assert "2 contradictions" in "\n".join(labels.notes)


CQ500_WORDS = (
    "ICH", "IPH", "IVH", "SDH", "EDH", "SAH", "BleedLocation-Left", "BleedLocation-Right",
    "ChronicBleed", "Fracture", "CalvarialFracture", "OtherFracture", "MassEffect", "MidlineShift",
)  # fmt: skip
CQ500_HEADER = ",".join(
    (
        "name",
        "Category",
        *(f"{reader}:{word}" for reader in ("R1", "R2", "R3") for word in CQ500_WORDS),
    )
)


def _cq500(name: str, *readers: str) -> str:
    """One row; a reader's words are given by their names, `-` for one who left all cells empty."""
    cells = []
    for words in readers:
        cells += ["" if words == "-" else str(int(word in words.split())) for word in CQ500_WORDS]
    return ",".join((name, "B1", *cells))


@pytest.fixture
def cq500(tmp_path: Path) -> Path:
    """Four studies: agreed, one against two, a tie, and shift without mass effect."""
    return _written(
        tmp_path / "reads.csv",
        CQ500_HEADER,
        _cq500("CQ500-CT-1", "ICH SDH", "ICH", "ICH"),
        _cq500("CQ500-CT-20", "ICH", "", ""),
        _cq500("CQ500-CT-3", "Fracture", "", "-"),
        _cq500("CQ500-CT-4", "MidlineShift", "MassEffect", "MidlineShift MassEffect"),
    )


@pytest.mark.parametrize(
    ("reference", "bleeds", "fracture"),
    [
        ("majority", [True, False, False, False], None),
        ("any", [True, True, False, False], True),
        ("reader:R1", [True, True, False, False], True),
        ("reader:R3", [True, False, None, False], None),
    ],
)
def test_cq500_takes_the_readers_that_are_asked_for(
    cq500: Path, reference: str, bleeds: list[bool | None], fracture: bool | None
) -> None:
    labels = read_labels("cq500", cq500, reference)
    assert [row.findings[BLEED] for row in labels.rows] == bleeds
    assert labels.rows[2].findings[FRACTURE] is fracture
    assert labels.rows[3].findings[SHIFT] is True
    assert f"{BLEED} 1, {SHIFT} 0, {FRACTURE} 1; reference: {reference}" in labels.notes[0]


def test_cq500_names_of_folders_are_those_of_the_table() -> None:
    name_of = LAYOUTS["cq500"].name_of
    for name in ("CQ500CT427 CQ500CT427", "CQ500-CT-427", "CQ500CT427 CQ500CT427/Unknown Study"):
        assert name_of(name) == "CQ500-CT-427"
    assert name_of("CT000001.dcm") == "CT000001.dcm"


def test_cq500_knows_its_three_readers(cq500: Path) -> None:
    with pytest.raises(LabelError, match="expected one of majority, any, reader:R1, reader:R2"):
        read_labels("cq500", cq500, "reader:R4")


def _ct_ich(folder: Path, *rows: str) -> Path:
    return _written(
        folder / "hemorrhage_diagnosis_raw_ct.csv",
        "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,"
        "Subdural,No_Hemorrhage,Fracture_Yes_No",
        *rows,
    )


def test_ct_ich_makes_one_row_of_a_volumes_slices(tmp_path: Path) -> None:
    _ct_ich(
        tmp_path,
        "49,1,0,0,0,0,0,1,0",
        "49,2,0,1,0,0,0,0,0",
        "50,1,0,0,0,0,0,1,1",
        "51,1,0,0,0,1,0,1,0",
        ",,,,,,,1,",
    )
    _written(
        tmp_path / "Patient_demographics.csv",
        'Patient Number,"Age',
        '(years)",Gender,Hemorrhage type based on the radiologists diagnosis ,,',
        ",,,Intraventricular,Intraparenchymal,Note1",
        "49,35,Male,,1,",
        "50,0.5,Female,,,x",
    )
    labels = read_labels("ct-ich", tmp_path)
    assert _by_key(labels) == {
        "049": {BLEED: True, FRACTURE: False},
        "050": {BLEED: False, FRACTURE: True},
        "051": {BLEED: None, FRACTURE: False},
    }
    assert labels.rows[1].attributes == {"age": "0.5", "sex": "Female"}
    notes = "\n".join(labels.notes)
    assert "1 row without a patient's number" in notes
    assert "1 slice said to show a bleed and none" in notes
    assert LAYOUTS["ct-ich"].name_of("49") == "049"


def test_ct_rate_tells_patients_from_volumes(tmp_path: Path) -> None:
    columns = (
        "Cardiomegaly,Pericardial effusion,Lung nodule,Pleural effusion,Consolidation,Emphysema"
    )
    _written(
        tmp_path / "valid_predicted_labels.csv",
        f"VolumeName,{columns}",
        "valid_1_a_1.nii.gz,0,0,1.0,0.0,0,1",
        "valid_1_a_2.nii.gz,0,0,1.0,0.0,0,1",
    )
    labels = read_labels("ct-rate", tmp_path)
    assert [row.patient for row in labels.rows] == ["valid_1", "valid_1"]
    assert labels.rows[0].findings["lung_nodule_or_mass"] is True
    assert labels.rows[0].findings["pleural_effusion"] is False
    assert "2 volumes of 1 patient" in labels.notes[0]
    assert "1 column without a finding of ours: 'Emphysema'" in labels.notes


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def test_nih_words_are_findings_and_others_are_absent(tmp_path: Path) -> None:
    _written(
        tmp_path / "Data_Entry_2017_v2020.csv",
        NIH_HEADER,
        "00000001_000.png,Effusion|Mass,0,1,57,M,PA,2000,1000,0.2,0.1",
        "00000001_001.png,Pneumonia,1,1,57,M,AP,2000,1000,x,0.1",
        "00000002_000.png,Consolidation|Infiltration,0,2,57,F,PA,2000,1000,0.2,0.1",
    )
    first, second, third = read_labels("nih", tmp_path).rows
    assert first.findings == {
        "pneumothorax": False, "pleural_effusion": True, "consolidation": False,
        "pulmonary_oedema": False, "cardiomegaly": False, "lung_nodule_or_mass": True,
    }  # fmt: skip
    assert first.attributes == {
        "view": "PA", "age": "57", "sex": "M", "width_mm": "400", "height_mm": "100",
    }  # fmt: skip
    assert (second.findings["consolidation"], third.findings["consolidation"]) == (None, True)
    assert "width_mm" not in second.attributes


def test_nih_reads_of_radiologists_go_before_words(tmp_path: Path) -> None:
    path = _written(
        tmp_path / "google.csv",
        f"{NIH_HEADER},Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id",
        "00000013_008.png,No Finding,8,13,60,M,AP,3056,2544,0.139,0.139,NO,YES,YES,NO,test",
    )
    labels = read_labels("nih", path)
    assert labels.rows[0].findings["pneumothorax"] is True
    assert "by radiologists' reads: pneumothorax, lung_nodule_or_mass" in labels.notes


CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def test_chexpert_uncertain_is_not_read(tmp_path: Path) -> None:
    study = "CheXpert-v1.0-small/valid/patient64541/study1"
    _written(
        tmp_path / "valid.csv",
        CHEXPERT_HEADER,
        f"{study}/view1_frontal.jpg,Male,73,Frontal,AP,0.0,,1.0,,,-1.0,0.0,,,,,,,",
        f"{study}/view2_lateral.jpg,Male,73,Lateral,,0.0,,1.0,,,-1.0,0.0,,,,,,,",
        "x/patient2/study3/view1_frontal.jpg,Female,20,Frontal,PA,1.0,,,,,,,,,,,,,1.0",
    )
    labels = read_labels("chexpert", tmp_path)
    first, second = labels.rows
    assert (first.key, first.patient) == ("patient64541/study1", "patient64541")
    assert first.findings == {
        "pneumothorax": None, "pleural_effusion": None, "consolidation": False,
        "pulmonary_oedema": None, "cardiomegaly": True, "lung_nodule_or_mass": None,
    }  # fmt: skip
    assert set(second.findings.values()) == {False}
    assert "3 pictures of 2 examinations of 2 patients" in labels.notes
    layout = LAYOUTS["chexpert"]
    assert layout.view_of("a/view2_lateral.jpg", first.attributes) is View.LATERAL
    assert layout.view_of("a/view1_frontal.jpg", first.attributes) is View.AP
    assert layout.view_of("a/view1_frontal.jpg", {}) is View.FRONTAL
    assert layout.name_of(f"{study}/view1_frontal") == first.key


def _report(folder: Path, number: int, *headings: str, start: str = "") -> None:
    majors = "".join(f"<major>{heading}</major>" for heading in headings)
    _written(
        folder / f"{number}.xml",
        f'{start}<eCitation><uId id="CXR{number}"/><MeSH>{majors}</MeSH>'
        f'<parentImage id="CXR{number}_IM-0001-1001"/></eCitation>',
    )


def test_open_i_reads_the_coders_headings(tmp_path: Path) -> None:
    _report(tmp_path, 1, "normal")
    _report(tmp_path, 2, "Cardiomegaly/borderline", "Pleural Effusion/left/small")
    _report(tmp_path, 3, "No Indexing")
    _report(tmp_path, 4, "Opacity/lung/base/left", "Nodule/breast", "Hydropneumothorax/left")
    _report(tmp_path, 5, "Pneumonia", "Consolidation/lung/right", "Mass/lung/hilum")
    found = _by_key(read_labels("open-i", tmp_path))
    assert set(found["CXR1"].values()) == {False}
    assert found["CXR2"]["cardiomegaly"] is None
    assert found["CXR2"]["pleural_effusion"] is True
    assert set(found["CXR3"].values()) == {None}
    assert found["CXR4"]["consolidation"] is None
    assert found["CXR4"]["lung_nodule_or_mass"] is False
    assert found["CXR4"]["pneumothorax"] is found["CXR4"]["pleural_effusion"] is True
    assert found["CXR5"]["consolidation"] is found["CXR5"]["lung_nodule_or_mass"] is True
    assert LAYOUTS["open-i"].name_of("CXR2_1_IM-0652-1001.png") == "CXR2"


def _msd(folder: Path, labels: Mapping[str, object], *masks: np.ndarray) -> Path:
    pairs = []
    for number, mask in enumerate(masks):
        pairs.append(
            {"image": f"./imagesTr/a_{number}.nii.gz", "label": f"./labelsTr/a_{number}.nii.gz"}
        )
        (folder / "labelsTr").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / pairs[-1]["label"])
    index = {"modality": {"0": "CT"}, "labels": labels, "training": pairs, "test": []}
    _written(folder / "dataset.json", json.dumps(index))
    return folder


def test_msd_findings_are_where_the_mask_has_voxels(tmp_path: Path) -> None:
    liver, lesion = np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3, 3), np.float32)
    liver[0], lesion[1, 1, 1] = 1, 2
    _msd(tmp_path, {"0": "background", "1": "liver", "2": "cancer"}, liver, lesion)
    labels = read_labels("msd", tmp_path)
    assert _by_key(labels) == {
        "a_0.nii.gz": {"liver_lesion": False},
        "a_1.nii.gz": {"liver_lesion": True},
    }
    assert "classes without a finding of ours: 'liver'" in labels.notes
    layout = layout_of("msd", tmp_path)
    assert (layout.protocol, layout.modality) == ("abdomen_ct", Modality.CT)


def test_msd_classes_may_be_codes_and_written_the_other_way_round(tmp_path: Path) -> None:
    mask = np.ones((2, 2, 2), np.int16)
    _msd(tmp_path, {"background": 0, BLEED: 1, SHIFT: 2}, mask)
    assert read_labels("msd", tmp_path).rows[0].findings == {BLEED: True, SHIFT: False}
    assert layout_of("msd", tmp_path).protocol == ""


def test_msd_masks_stay_within_the_folder(tmp_path: Path) -> None:
    _msd(tmp_path, {"1": BLEED}, np.zeros((2, 2, 2), np.uint8))
    index = json.loads((tmp_path / "dataset.json").read_text())
    index["training"][0]["label"] = "../elsewhere.nii.gz"
    (tmp_path / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(LabelError, match="outside its folder"):
        read_labels("msd", tmp_path)


def _packed() -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as out:
        out.write(b"no volume")
    return file.getvalue()


@pytest.mark.parametrize(
    ("dataset", "name", "content", "expected"),
    [
        ("rsna-ich", "stage_2_train.csv", b"ID,Label\nID_a_any,2\n", "holds none of 0, 1"),
        ("rsna-ich", "stage_2_train.csv", b"ID,Label\nID_a,1\n", "ends in none of"),
        ("rsna-ich", "labels.csv", b"ID,Label\n", "holds no stage_2_train.csv or"),
        ("cq500", "reads.csv", b"name,R1:ICH\nx,1\n", "no column 'R2:ICH'"),
        ("ct-ich", "hemorrhage_diagnosis_raw_ct.csv", b"a,b\n1,2\n", "no column"),
        ("ct-rate", "valid_predicted_labels.csv", b"VolumeName\nx\n", "no column"),
        ("nih", "Data_Entry_2017.csv", NIH_HEADER.encode() + b"\na,Cold,0,1,1,M,PA,1,1,1,1\n", "word"),
        ("chexpert", "valid.csv", CHEXPERT_HEADER.encode() + b"\nx.jpg" + b"," * 18 + b"\n", "patientN"),
        ("open-i", "1.xml", b"<eCitation>", "is no XML"),
        ("open-i", "1.xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "defines entities"),
        ("open-i", "1.xml", b"<a/>", "no uId"),
        ("open-i", "1.txt", b"", "holds no XML report"),
        ("msd", "dataset.json", b"{", "is no JSON"),
        ("msd", "dataset.json", b"[]", "no JSON object"),
        ("msd", "dataset.json", b'{"labels": 3}', "names no class"),
        ("msd", "dataset.json", b'{"labels": {"1": "pancreas"}}', "none of which stands"),
        ("msd", "dataset.json", b'{"labels": {"1": "mass_effect"}}', "lists no pairs"),
        (
            "msd",
            "dataset.json",
            b'{"labels": {"1": "mass_effect"}, "training": [{"image": "a", "label": "b.nii.gz"}]}',
            "cannot be read as NIfTI",
        ),
        ("msd", "other.json", b"{}", "No such file"),
    ],
)  # fmt: skip
def test_a_table_of_another_form_is_refused_with_one_line(
    tmp_path: Path, dataset: str, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "b.nii.gz").write_bytes(_packed())
    with pytest.raises(LabelError, match=expected) as error:
        read_labels(dataset, tmp_path)
    assert "\n" not in str(error.value)


def test_codes_of_all_adapters_are_codes_of_protocols(cq500: Path) -> None:
    codes = {finding.code for protocol in builtin_protocols() for finding in protocol.findings}
    assert set(read_labels("cq500", cq500).codes) <= codes
