"""Head CTs in the layouts of RSNA's haemorrhage challenge, CQ500, CT-ICH, the decathlon, and a table."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import (
    FINDINGS,
    FRACTURE,
    HAEMORRHAGE,
    MASS_EFFECT,
    Shell,
    sample_head,
)
from edge_medgemma.calibration.phantoms.dicom import slice_dataset
from edge_medgemma.calibration.phantoms.drawing import Phantom, draw_phantom
from edge_medgemma.calibration.phantoms.layouts.drawn import (
    DrawnStudy,
    Person,
    write_csv,
    write_json,
)

READERS = ("R1", "R2", "R3")
DISAGREEMENT = 0.05
"""Share of findings on which one of three readers says the other thing."""

RSNA_TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")

CQ500_WORDS = (
    "ICH", "IPH", "IVH", "SDH", "EDH", "SAH", "BleedLocation-Left", "BleedLocation-Right",
    "ChronicBleed", "Fracture", "CalvarialFracture", "OtherFracture", "MassEffect", "MidlineShift",
)  # fmt: skip

CT_ICH_COLUMNS = (
    "PatientNumber", "SliceNumber", "Intraventricular", "Intraparenchymal", "Subarachnoid",
    "Epidural", "Subdural", "No_Hemorrhage", "Fracture_Yes_No",
)  # fmt: skip
CT_ICH_FIRST = 49
"""Number of its first published volume."""

MSD_CLASSES = {"0": "background", **{str(i): code for i, code in enumerate(FINDINGS, start=1)}}

MANUFACTURERS = ("GE MEDICAL SYSTEMS", "SIEMENS", "Philips", "TOSHIBA")
KERNELS = ("SOFT", "H30s", "H60s", "BONE")


def write_table_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A folder of DICOM slices and one row of `labels.csv`."""
    phantom, findings = _drawn(seed)
    key = f"study_{place + 1:04}"
    _write_slices(phantom, person, [folder / key / f"{i:03}.dcm" for i in _slices(phantom)])
    row = {"study": key, "patient": person.number, "sex": person.sex, "age": person.age}
    return DrawnStudy(key, person, findings, ({**row, **_flags(findings)},))


def finish_table(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `labels.csv`."""
    columns = ("study", "patient", "sex", "age", *FINDINGS)
    write_csv(folder / "labels.csv", (row for one in studies for row in one.rows), columns)


def write_rsna_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """Slices in the one folder of all scans, six rows of the table each; no body part is stated."""
    phantom, findings = _drawn(seed)
    names = [_rsna_name(seed, index) for index in _slices(phantom)]
    paths = [folder / "stage_2_train" / f"{name}.dcm" for name in names]
    uid = _write_slices(phantom, person, paths, states_body_part=False)
    showing = _showing(phantom, HAEMORRHAGE)
    kind = _bleed_kind(seed, phantom)
    rows = tuple(
        {"ID": f"{name}_{one}", "Label": int(index in showing and one in (kind.lower(), "any"))}
        for index, name in enumerate(names)
        for one in RSNA_TYPES
    )
    return DrawnStudy(uid, person, {HAEMORRHAGE: findings[HAEMORRHAGE]}, rows)


def finish_rsna(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `stage_2_train.csv`, slices of all scans mixed as they are there."""
    every = (row for one in studies for row in one.rows)
    rows = sorted(every, key=lambda row: str(row["ID"]).rpartition("_")[0])
    write_csv(folder / "stage_2_train.csv", rows, ("ID", "Label"))


def write_cq500_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A folder as the dataset names it, and what three readers say of it in one row."""
    phantom, findings = _drawn(seed)
    name = f"CQ500CT{place + 1}"
    series = folder / f"{name} {name}" / "Unknown Study" / f"CT {phantom.spacing_mm[0]:g}mm"
    _write_slices(phantom, person, [series / f"CT{i:06}.dcm" for i in _slices(phantom)])
    key = f"CQ500-CT-{place + 1}"
    kind = "SDH" if _bleed_kind(seed, phantom) == "Subdural" else "IPH"
    row = {"name": key, "Category": "B1", **read_by_three(seed, findings, kind)}
    return DrawnStudy(key, person, findings, (row,))


def read_by_three(seed: int, findings: Mapping[str, bool], kind: str) -> dict[str, int]:
    """Cells of three readers; now and then one of them says the other thing of a finding.

    Args:
        seed: of the study.
        findings: the truth.
        kind: word of CQ500 for the kind of a bleed.
    """
    rng = np.random.default_rng((seed, 3))
    wrong = {
        code: str(rng.choice(READERS)) if rng.random() < DISAGREEMENT else "" for code in FINDINGS
    }
    cells: dict[str, int] = {}
    for reader in READERS:
        said = {code: findings[code] != (wrong[code] == reader) for code in FINDINGS}
        words = _reader_words(said, kind)
        cells |= {f"{reader}:{word}": int(word in words) for word in CQ500_WORDS}
    return cells


def finish_cq500(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `reads.csv`."""
    columns = ["name", "Category", *(f"{r}:{word}" for r in READERS for word in CQ500_WORDS)]
    write_csv(folder / "reads.csv", (row for one in studies for row in one.rows), columns)


def write_ct_ich_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A volume and its mask of blood, and one row of the table for each slice."""
    phantom, findings = _drawn(seed)
    number = CT_ICH_FIRST + place
    blood = phantom.finding_masks.get(HAEMORRHAGE, np.zeros(phantom.hounsfield.shape, np.bool_))
    _write_nifti(folder / "ct_scans" / f"{number:03}.nii", phantom.hounsfield, phantom)
    _write_nifti(folder / "masks" / f"{number:03}.nii", blood.astype(np.uint8) * 255, phantom)
    bleeding, broken = _showing(phantom, HAEMORRHAGE), _showing(phantom, FRACTURE)
    kind = _bleed_kind(seed, phantom)
    rows = tuple(
        {
            **dict.fromkeys(CT_ICH_COLUMNS, 0),
            "PatientNumber": number,
            "SliceNumber": index + 1,
            "No_Hemorrhage": int(index not in bleeding),
            "Fracture_Yes_No": int(index in broken),
            **({kind: 1} if index in bleeding else {}),
        }
        for index in _slices(phantom)
    )
    known = {code: findings[code] for code in (HAEMORRHAGE, FRACTURE)}
    return DrawnStudy(f"{number:03}", person, known, rows)


def finish_ct_ich(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write the table of slices, and that of ages and sexes with its header of two lines."""
    rows = (row for one in studies for row in one.rows)
    write_csv(folder / "hemorrhage_diagnosis_raw_ct.csv", rows, CT_ICH_COLUMNS)
    kinds = ("Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural")
    title = "Hemorrhage type based on the radiologists diagnosis "
    lines = [f'Patient Number,"Age\n(years)",Gender,{title},,,,,Fracture (yes 1/no 0),Note1']
    lines.append(",,," + ",".join(kinds) + ",,")
    for one in studies:
        sex = "Female" if one.person.sex == "F" else "Male"
        shown = ["1" if any(row[kind] for row in one.rows) else "" for kind in kinds]
        broken = "1" if one.findings[FRACTURE] else ""
        lines.append(",".join((one.key.lstrip("0"), str(one.person.age), sex, *shown, broken, "")))
    path = folder / "Patient_demographics.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_msd_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A volume and a mask whose classes are findings."""
    phantom, findings = _drawn(seed)
    name = f"phantom_{place + 1:04}.nii.gz"
    classes = np.zeros(phantom.hounsfield.shape, np.uint8)
    masks = [(code, phantom.finding_masks[code]) for code in FINDINGS if findings[code]]
    for code, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):  # the smallest on top
        classes[mask] = FINDINGS.index(code) + 1
    findings = {code: bool((classes == i).any()) for i, code in enumerate(FINDINGS, start=1)}
    _write_nifti(folder / "imagesTr" / name, phantom.hounsfield, phantom)
    _write_nifti(folder / "labelsTr" / name, classes, phantom)
    row = {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
    return DrawnStudy(name, person, findings, (row,))


def finish_msd(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `dataset.json`."""
    index = {
        "name": "Phantom",
        "description": "Synthetic head CTs; every finding is drawn",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": MSD_CLASSES,
        "numTraining": len(studies),
        "numTest": 0,
        "training": [dict(row) for one in studies for row in one.rows],
        "test": [],
    }
    write_json(folder / "dataset.json", index)


def _drawn(seed: int) -> tuple[Phantom, dict[str, bool]]:
    """A phantom, and which findings have a voxel in it: a thin break may lie between two slices."""
    phantom = draw_phantom(seed)
    masks = phantom.finding_masks
    return phantom, {code: code in masks and bool(masks[code].any()) for code in FINDINGS}


def _slices(phantom: Phantom) -> range:
    return range(len(phantom.hounsfield))


def _showing(phantom: Phantom, code: str) -> frozenset[int]:
    """Slices that show a finding: those of enough area, or the one of most where none has enough."""
    if code not in phantom.finding_masks or not phantom.finding_masks[code].any():
        return frozenset()
    most = int(phantom.finding_masks[code].sum(axis=(1, 2)).argmax())
    return frozenset(phantom.finding_slices[code] or (most,))


def _bleed_kind(seed: int, phantom: Phantom) -> str:
    """Within the brain or under the skull; the head of a seed is drawn the same again."""
    if HAEMORRHAGE not in phantom.findings:
        return ""
    head = sample_head(np.random.default_rng(seed))
    return "Subdural" if isinstance(head.haematoma, Shell) else "Intraparenchymal"


def _reader_words(said: Mapping[str, bool], kind: str) -> set[str]:
    """The words that one reader ticks."""
    words: set[str] = set()
    words.update(("ICH", kind) if said[HAEMORRHAGE] else ())
    words.update(("Fracture", "CalvarialFracture") if said[FRACTURE] else ())
    words.update(("MassEffect", "MidlineShift") if said[MASS_EFFECT] else ())
    return words


def _rsna_name(seed: int, index: int) -> str:
    return "ID_" + hashlib.blake2s(f"{seed} {index}".encode()).hexdigest()[:9]


def _flags(findings: Mapping[str, bool]) -> dict[str, int]:
    return {code: int(value) for code, value in findings.items()}


def _write_slices(
    phantom: Phantom, person: Person, paths: Sequence[Path], *, states_body_part: bool = True
) -> str:
    """Write each slice to its path; the study UID."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((phantom.seed, 4))
    manufacturer, kernel = str(rng.choice(MANUFACTURERS)), str(rng.choice(KERNELS))
    uid = ""
    for index, path in enumerate(paths):
        image = slice_dataset(phantom, index)
        image.PatientID = f"PHANTOM{person.number}"
        image.PatientName = f"PHANTOM{person.number}"
        image.PatientSex, image.PatientAge = person.sex, f"{person.age:03}Y"
        image.Manufacturer, image.ConvolutionKernel = manufacturer, kernel
        if not states_body_part:
            del image.BodyPartExamined
        image.save_as(path, enforce_file_format=True)
        uid = str(image.StudyInstanceUID)
    return uid


def _write_nifti(path: Path, values: NDArray[np.generic], phantom: Phantom) -> None:
    """[slices, rows, columns] as a NIfTI of whole numbers, its axes to the right, front and head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = values if values.dtype == np.uint8 else np.rint(values).astype(np.int16)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.affine_lps_mm[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(stored.transpose(2, 1, 0), to_ras)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
