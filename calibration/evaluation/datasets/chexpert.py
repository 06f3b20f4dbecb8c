"""CheXpert: JPEG radiographs, one row each in `train.csv` and `valid.csv`, several to an examination.

Path (`CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg`), Sex, Age, Frontal/Lateral,
AP/PA, then 14 columns: 1.0 mentioned as present, 0.0 as absent, -1.0 as uncertain, empty not mentioned.
Irvin et al., AAAI 2019.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted
from edge_medgemma.calibration.evaluation.datasets.columns import (
    find_table,
    flag,
    unmapped_note,
    unread_note,
)
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table
from edge_medgemma.calibration.evaluation.datasets.layout import (
    DatasetLayout,
    LabelRequest,
    stated_view,
)
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError
from edge_medgemma.runtime.slicing.volume import View

PATH, SEX, AGE, VIEW, DIRECTION = "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"
NO_FINDING = "No Finding"

FINDINGS: Mapping[str, str] = {
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "pleural_effusion",
    "Consolidation": "consolidation",
    "Edema": "pulmonary_oedema",
    "Cardiomegaly": "cardiomegaly",
    "Lung Lesion": "lung_nodule_or_mass",
}
"""Column -> finding. `Lung Lesion` is the dataset's word for nodules and masses."""

TABLES = ("valid.csv", "train.csv", "test.csv")

VALUES: Mapping[str, bool | None] = {
    "1.0": True, "1": True, "0.0": False, "0": False, "-1.0": None, "-1": None, "": None,
}  # fmt: skip

_STUDY = re.compile(r"(?:^|/)(patient\d+)/(study\d+)(?:/|$)")


def name_of(name: str) -> str:
    """`patient64541/study1` of any path in that folder."""
    found = _STUDY.search(name)
    return f"{found[1]}/{found[2]}" if found else name


def view_of(name: str, attributes: Mapping[str, str]) -> View:
    """By the picture's name, and for a frontal one by the table."""
    stem = PurePosixPath(name).stem
    if stem.endswith("lateral"):
        return View.LATERAL
    stated = stated_view(name, attributes)
    return View.FRONTAL if stated is View.UNKNOWN and stem.endswith("frontal") else stated


def read_labels(request: LabelRequest) -> Labels:
    """One row an examination, of the rows of its pictures.

    Raises:
        LabelError: another table.
    """
    table = open_table(find_table(request.path, TABLES))
    path = table.index(PATH)
    places = {name: table.index(name) for name in (*FINDINGS, NO_FINDING)}
    collector = RowCollector()
    uncertain: Counter[str] = Counter()
    pictures = 0
    for line, fields in table.rows():
        key = name_of(fields[path])
        if _STUDY.search(key) is None:
            raise LabelError(
                f"'{table.path}', line {line}: Path names no patientN/studyN; is this the table of "
                "this dataset (--dataset)?"
            )
        texts = {name: fields[place] for name, place in places.items()}
        values = {name: flag(table, line, name, text, VALUES) for name, text in texts.items()}
        pictures += 1
        uncertain.update(FINDINGS[n] for n in FINDINGS if texts[n].startswith("-1"))
        collector.add(key, _findings(texts, values), key.split("/")[0], _attributes(table, fields))
    rows = collector.rows()
    notes = [
        (
            f"{counted(pictures, 'picture')} of {counted(len(rows), 'examination')} of "
            f"{counted(len({row.patient for row in rows}), 'patient')}"
        ),
        *unread_note(uncertain, "it is called uncertain"),
        "a finding that is not mentioned is not read, or absent where the table says No Finding",
        *unmapped_note(table.columns, {PATH, SEX, AGE, VIEW, DIRECTION, *places}),
        *collector.notes(repeats_are_faults=False),
    ]
    return Labels("chexpert", rows, tuple(FINDINGS.values()), table.sha256, tuple(notes))


def _findings(
    texts: Mapping[str, str], values: Mapping[str, bool | None]
) -> dict[str, bool | None]:
    is_normal = values[NO_FINDING] is True
    return {
        code: False if is_normal and not texts[name] else values[name]
        for name, code in FINDINGS.items()
    }


def _attributes(table: CsvTable, fields: list[str]) -> dict[str, str]:
    """Age and sex; the direction, of a frontal picture."""
    names = {"sex": SEX, "age": AGE, "view": DIRECTION}
    return {own: fields[table.index(name)] for own, name in names.items()}


LAYOUT = DatasetLayout(
    "chexpert",
    read_labels,
    protocol="chest_xray",
    has_pictures=True,
    name_of=name_of,
    study_of=name_of,
    view_of=view_of,
)
