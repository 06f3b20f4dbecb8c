"""Chest CTs in the layout of CT-RATE: volumes in folders of patients and scans."""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from edge_medgemma.calibration.phantoms.chest import (
    CARDIOMEGALY,
    CONSOLIDATION,
    EFFUSION,
    NODULE,
    PERICARDIAL,
    affine_lps_mm,
    draw_chest,
)
from edge_medgemma.calibration.phantoms.layouts.drawn import DrawnStudy, Person, write_csv

SPACING_MM = (5.0, 2.5, 2.5)

COLUMNS = {
    "Medical material": "", "Arterial wall calcification": "", "Cardiomegaly": CARDIOMEGALY,
    "Pericardial effusion": PERICARDIAL, "Coronary artery wall calcification": "",
    "Hiatal hernia": "", "Lymphadenopathy": "", "Emphysema": "", "Atelectasis": "",
    "Lung nodule": NODULE, "Lung opacity": CONSOLIDATION, "Pulmonary fibrotic sequela": "",
    "Pleural effusion": EFFUSION, "Mosaic attenuation pattern": "", "Peribronchial thickening": "",
    "Consolidation": CONSOLIDATION, "Bronchiectasis": "", "Interlobular septal thickening": "",
}  # fmt: skip
"""Columns of the table -> what is drawn for it; empty where nothing is."""


def write_ct_rate_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """One volume; the second scan of a patient is `b`."""
    chest = draw_chest(seed, SPACING_MM, is_upright=False)
    scan = "b" if place + 1 > person.number else "a"
    patient = f"valid_{person.number}"
    name = f"{patient}_{scan}_1.nii.gz"
    path = folder / "dataset" / "valid" / patient / f"{patient}_{scan}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps_mm(chest)[:, [2, 1, 0, 3]]
    stored = np.rint(chest.hounsfield).astype(np.int16).transpose(2, 1, 0)
    image = nibabel.Nifti1Image(stored, to_ras)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    cells = {column: int(code in chest.findings) for column, code in COLUMNS.items()}
    known = (CARDIOMEGALY, PERICARDIAL, NODULE, EFFUSION, CONSOLIDATION)
    findings = {code: code in chest.findings for code in known}
    return DrawnStudy(name, person, findings, ({"VolumeName": name, **cells},))


def finish_ct_rate(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `valid_predicted_labels.csv`."""
    tables = folder / "dataset" / "multi_abnormality_labels"
    tables.mkdir(parents=True, exist_ok=True)
    rows = (row for one in studies for row in one.rows)
    write_csv(tables / "valid_predicted_labels.csv", rows, ("VolumeName", *COLUMNS))
