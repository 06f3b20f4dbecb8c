"""Radiographs of the chest in the layouts of NIH ChestX-ray14, CheXpert and Open-I."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_medgemma.calibration.phantoms.chest import (
    CARDIOMEGALY,
    CONSOLIDATION,
    EFFUSION,
    HALF_MM,
    NODULE,
    OEDEMA,
    PNEUMOTHORAX,
    Chest,
    draw_chest,
    project,
)
from edge_medgemma.calibration.phantoms.layouts.drawn import DrawnStudy, Person, write_csv

SPACING_MM = (1.6, 4.0, 1.6)
PIXELS = 512
"""Sides of a picture; the detector's had four times as many."""

CODES = (PNEUMOTHORAX, EFFUSION, CONSOLIDATION, OEDEMA, CARDIOMEGALY, NODULE)

NIH_WORDS = {
    CARDIOMEGALY: "Cardiomegaly", CONSOLIDATION: "Consolidation", OEDEMA: "Edema",
    EFFUSION: "Effusion", NODULE: "Nodule", PNEUMOTHORAX: "Pneumothorax",
}  # fmt: skip
NIH_FIXED = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age")
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)

CHEXPERT_COLUMNS = {
    "No Finding": "", "Enlarged Cardiomediastinum": "", "Cardiomegaly": CARDIOMEGALY,
    "Lung Opacity": "", "Lung Lesion": NODULE, "Edema": OEDEMA, "Consolidation": CONSOLIDATION,
    "Pneumonia": "", "Atelectasis": "", "Pneumothorax": PNEUMOTHORAX, "Pleural Effusion": EFFUSION,
    "Pleural Other": "", "Fracture": "", "Support Devices": "",
}  # fmt: skip
CHEXPERT_FIXED = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
UNCERTAIN = 0.05
"""Share of CheXpert's cells that say -1.0."""

OPEN_I_HEADINGS = {
    CARDIOMEGALY: "Cardiomegaly", CONSOLIDATION: "Consolidation/lung", OEDEMA: "Pulmonary Edema",
    EFFUSION: "Pleural Effusion", NODULE: "Nodule/lung", PNEUMOTHORAX: "Pneumothorax",
}  # fmt: skip
SENTENCES = {
    CARDIOMEGALY: "cardiomegaly", CONSOLIDATION: "focal consolidation", OEDEMA: "pulmonary edema",
    EFFUSION: "pleural effusion", NODULE: "lung nodule", PNEUMOTHORAX: "pneumothorax",
}  # fmt: skip


def write_nih_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """One picture and one row of `Data_Entry_2017_v2020.csv`."""
    chest = _chest(seed)
    follow_up = place + 1 - person.number
    name = f"{person.number:08}_{follow_up:03}.png"
    _save(project(chest), folder / "images" / name)
    words = sorted(NIH_WORDS[code] for code in CODES if code in chest.findings)
    spacing_mm = [2 * half / (4 * PIXELS) for half in (HALF_MM[0], HALF_MM[2])]
    cells = [
        name, "|".join(words) or "No Finding", follow_up, person.number, person.age, person.sex,
        "PA" if seed % 3 else "AP", 4 * PIXELS, 4 * PIXELS, *(f"{mm:.5f}" for mm in spacing_mm),
    ]  # fmt: skip
    return DrawnStudy(
        name, person, _findings(chest), (dict(zip(_NIH_COLUMNS, cells, strict=True)),)
    )


_NIH_COLUMNS = tuple(NIH_HEADER.split(","))


def finish_nih(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `Data_Entry_2017_v2020.csv`; the brackets of its header hold commas, as they do there."""
    lines = [NIH_HEADER]
    lines += [",".join(map(str, row.values())) for one in studies for row in one.rows]
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_chexpert_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A frontal picture, of each fourth examination a lateral one too, and a row for each."""
    chest = _chest(seed)
    rng = np.random.default_rng((seed, 3))
    key = f"patient{person.number:05}/study{place + 2 - person.number}"
    views = ["frontal", "lateral"] if seed % 4 == 0 else ["frontal"]
    cells = {column: _chexpert_cell(chest, code, rng) for column, code in CHEXPERT_COLUMNS.items()}
    rows = []
    for number, view in enumerate(views, start=1):
        name = f"{key}/view{number}_{view}.jpg"
        _save(project(chest, is_lateral=view == "lateral"), folder / "valid" / name)
        fixed = (
            f"CheXpert-v1.0-small/valid/{name}",
            "Female" if person.sex == "F" else "Male",
            person.age,
            view.capitalize(),
            ("PA" if seed % 3 else "AP") if view == "frontal" else "",
        )
        rows.append({**dict(zip(CHEXPERT_FIXED, fixed, strict=True)), **cells})
    return DrawnStudy(key, person, _findings(chest), tuple(rows))


def finish_chexpert(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Write `valid.csv`."""
    rows = (row for one in studies for row in one.rows)
    write_csv(folder / "valid.csv", rows, (*CHEXPERT_FIXED, *CHEXPERT_COLUMNS))


def write_open_i_study(seed: int, place: int, person: Person, folder: Path) -> DrawnStudy:
    """A report with the coders' headings, and its one or two pictures."""
    chest = _chest(seed)
    number = place + 1
    views = {"1001": False, "2001": True} if seed % 2 else {"1001": False}
    names = {f"CXR{number}_IM-{number:04}-{end}": lateral for end, lateral in views.items()}
    for name, is_lateral in names.items():
        _save(project(chest, is_lateral=is_lateral), folder / "NLMCXR_png" / f"{name}.png")
    reports = folder / "ecgen-radiology"
    reports.mkdir(parents=True, exist_ok=True)
    report = _report(number, chest, list(names))
    (reports / f"{number}.xml").write_text(report, encoding="utf-8")
    return DrawnStudy(f"CXR{number}", person, _findings(chest), ())


def finish_open_i(folder: Path, studies: Sequence[DrawnStudy]) -> None:
    """Nothing: each report is a file of its own."""


def _chest(seed: int) -> Chest:
    return draw_chest(seed, SPACING_MM, is_upright=True)


def _findings(chest: Chest) -> Mapping[str, bool]:
    return {code: code in chest.findings for code in CODES}


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (PIXELS, PIXELS)
    Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR).save(path, quality=90)


def _chexpert_cell(chest: Chest, code: str, rng: np.random.Generator) -> str:
    if not code or rng.random() < UNCERTAIN:
        return "-1.0" if code else ""
    return "1.0" if code in chest.findings else "0.0"


def _report(number: int, chest: Chest, pictures: Sequence[str]) -> str:
    """The parts of a report that the dataset's own have and that anything reads."""
    present = [code for code in CODES if code in chest.findings]
    said = [f"There is {SENTENCES[code]}." for code in present]
    said += [f"No {SENTENCES[code]}." for code in CODES if code not in present]
    impression = "; ".join(SENTENCES[code] for code in present) or "No acute abnormality"
    headings = [OPEN_I_HEADINGS[code] for code in present] or ["normal"]
    return "\n".join(
        (
            '<?xml version="1.0" encoding="utf-8"?>',
            "<eCitation>",
            f'<uId id="CXR{number}"/>',
            "<MedlineCitation><Article><Abstract>",
            '<AbstractText Label="COMPARISON">None.</AbstractText>',
            '<AbstractText Label="INDICATION">Phantom</AbstractText>',
            f'<AbstractText Label="FINDINGS">{escape(" ".join(said))}</AbstractText>',
            f'<AbstractText Label="IMPRESSION">{escape(impression)}.</AbstractText>',
            "</Abstract></Article></MedlineCitation>",
            "<MeSH>",
            *(f"<major>{heading}</major>" for heading in headings),
            "</MeSH>",
            *(f'<parentImage id="{name}"/>' for name in pictures),
            "</eCitation>",
            "",
        )
    )
