"""NIH ChestX-ray14: PNG radiographs, one row each in `Data_Entry_2017_v2020.csv`.

Finding Labels are words joined by `|`, mined from reports. Wang et al., CVPR 2017. Of 4,376 pictures
radiologists' reads of four findings exist in the same columns and four more, YES or NO: Majkowska et
al., Radiology 2020;294:421-431.
"""

import math
from collections import Counter
from collections.abc import Mapping

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted
from edge_medgemma.calibration.evaluation.datasets.columns import find_table, flag, unread_note
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table, shown
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError

IMAGE, FOUND = "Image Index", "Finding Labels"
NO_FINDING = "No Finding"

FINDINGS: Mapping[str, str] = {
    "Pneumothorax": "pneumothorax",
    "Effusion": "pleural_effusion",
    "Consolidation": "consolidation",
    "Edema": "pulmonary_oedema",
    "Cardiomegaly": "cardiomegaly",
    "Nodule": "lung_nodule_or_mass",
    "Mass": "lung_nodule_or_mass",
}
"""Word -> finding."""

UNCLEAR: Mapping[str, str] = {"Pneumonia": "consolidation", "Infiltration": "consolidation"}
"""Word that may mean a finding -> that finding, not read where no other word says it is there."""

OTHER = ("Atelectasis", "Emphysema", "Fibrosis", "Hernia", "Pleural_Thickening")
"""Words without a finding of the built-in protocols."""

READ: Mapping[str, str] = {
    "Pneumothorax": "pneumothorax",
    "Nodule or mass": "lung_nodule_or_mass",
}
"""Column of radiologists' reads -> finding."""

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")

_YES_NO: Mapping[str, bool | None] = {"YES": True, "NO": False, "": None}


def read_labels(request: LabelRequest) -> Labels:
    """One row a picture, with patient, age, sex and view.

    Raises:
        LabelError: another table, or a word that is none of this dataset.
    """
    table = open_table(find_table(request.path, TABLES))
    image, words = table.index(IMAGE), table.index(FOUND)
    others = {name: table.index(name) for name in _ATTRIBUTES}
    patient = table.index("Patient ID")
    read = {name: table.columns.index(name) for name in READ if name in table.columns}
    known = {*FINDINGS, *UNCLEAR, *OTHER, NO_FINDING}
    collector = RowCollector()
    unclear: Counter[str] = Counter()
    for line, fields in table.rows():
        found = set(fields[words].split("|"))
        if not found <= known:
            raise LabelError(
                f"'{table.path}', line {line}: column '{FOUND}' holds a word that is none of this "
                "dataset; is this its table (--dataset)?"
            )
        findings = findings_of(found)
        unclear.update(code for code, value in findings.items() if value is None)
        for name, place in read.items():
            findings[READ[name]] = flag(table, line, name, fields[place], _YES_NO)
        attributes = {own: fields[others[name]] for name, own in _ATTRIBUTES.items()}
        collector.add(
            fields[image], findings, fields[patient], {**attributes, **_size_mm(table, fields)}
        )
    rows = collector.rows()
    codes = tuple(dict.fromkeys(FINDINGS.values()))
    notes = [
        (
            f"{counted(len(rows), 'picture')} of "
            f"{counted(len({row.patient for row in rows}), 'patient')}; labels mined from reports"
        ),
        f"words without a finding of ours: {shown(OTHER)}",
        *unread_note(unclear, "Pneumonia or Infiltration may mean it"),
        *([f"by radiologists' reads: {', '.join(READ[name] for name in read)}"] if read else []),
        *collector.notes(),
    ]
    return Labels("nih", rows, codes, table.sha256, tuple(notes))


def findings_of(words: set[str]) -> dict[str, bool | None]:
    """What the words of one picture say of each finding."""
    found: dict[str, bool | None] = dict.fromkeys(FINDINGS.values(), False)
    found.update({code: None for word, code in UNCLEAR.items() if word in words})
    found.update({code: True for word, code in FINDINGS.items() if word in words})
    return found


_ATTRIBUTES = {"View Position": "view", "Patient Age": "age", "Patient Gender": "sex"}

_SIZES = (  # brackets of the header's last two columns hold a comma each
    ("width_mm", "OriginalImage[Width", "OriginalImagePixelSpacing[x"),
    ("height_mm", "Height]", "y]"),
)


def _size_mm(table: CsvTable, fields: list[str]) -> dict[str, str]:
    """Sides of the picture on the detector, which its reduction to 1024 pixels leaves as they are."""
    sizes = {}
    for name, pixels, spacing in _SIZES:
        if pixels in table.columns and spacing in table.columns:
            try:
                side = float(fields[table.index(pixels)]) * float(fields[table.index(spacing)])
            except ValueError:
                continue
            if math.isfinite(side) and side > 0:
                sizes[name] = f"{side:g}"
    return sizes


LAYOUT = DatasetLayout("nih", read_labels, protocol="chest_xray", has_pictures=True)
