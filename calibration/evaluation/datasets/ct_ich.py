"""CT-ICH of PhysioNet: head CTs as NIfTI, one row a slice in `hemorrhage_diagnosis_raw_ct.csv`.

Volumes are `ct_scans/049.nii`; ages and sexes stand in `Patient_demographics.csv`, whose header has
two lines. Hssayeni et al., Data 2020;5(1):14.
"""

from collections.abc import Mapping
from pathlib import Path

from edge_medgemma.calibration.evaluation.datasets.collect import counted
from edge_medgemma.calibration.evaluation.datasets.columns import (
    any_present,
    find_table,
    flag,
    unmapped_note,
)
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.runtime.errors import LabelError
from edge_medgemma.runtime.slicing.volume import Modality

PATIENT, SLICE, NONE = "PatientNumber", "SliceNumber", "No_Hemorrhage"

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "intracranial_haemorrhage": (
        "Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural",
    ),
    "skull_fracture": ("Fracture_Yes_No",),
}  # fmt: skip
"""Finding -> columns of which any makes it present in a slice."""

TABLES = ("hemorrhage_diagnosis_raw_ct.csv",)
DEMOGRAPHICS = "Patient_demographics.csv"
SCANS = "ct_scans"


def read_labels(request: LabelRequest) -> Labels:
    """One row a volume: a finding is present where any slice shows it.

    Raises:
        LabelError: another table.
    """
    table = open_table(find_table(request.path, TABLES))
    slices, blank, against = _slices(table)
    attributes, notes = _demographics(table.path.with_name(DEMOGRAPHICS))
    rows = tuple(
        LabelRow(
            f"{patient:03d}",
            {code: any_present(values) for code, values in found.items()},
            str(patient),
            attributes.get(patient, {}),
        )
        for patient, found in slices.items()
    )
    used = {PATIENT, SLICE, NONE, *(name for names in FINDINGS.values() for name in names)}
    notes += unmapped_note(table.columns, used)
    if blank:
        notes.append(f"{counted(blank, 'row')} without a patient's number left out")
    if against:
        notes.append(
            f"{counted(against, 'slice')} said to show a bleed and none, or neither: taken as not read"
        )
    return Labels("ct-ich", rows, tuple(FINDINGS), table.sha256, tuple(notes))


def _slices(
    table: CsvTable,
) -> tuple[dict[int, dict[str, list[bool | None]]], int, int]:
    """Patient -> finding -> value in each slice; rows without a patient; contradicting rows."""
    columns = {code: [table.index(name) for name in names] for code, names in FINDINGS.items()}
    none = table.index(NONE)
    slices: dict[int, dict[str, list[bool | None]]] = {}
    blank = against = 0
    for line, fields in table.rows():
        number = fields[table.index(PATIENT)].removesuffix(".0")
        if not number:
            blank += 1
            continue
        found = {
            code: any_present(flag(table, line, table.columns[i], fields[i]) for i in places)
            for code, places in columns.items()
        }
        if found["intracranial_haemorrhage"] is flag(table, line, NONE, fields[none]):
            found["intracranial_haemorrhage"] = None
            against += 1
        of_patient = slices.setdefault(_number(table, line, number), {code: [] for code in found})
        for code, value in found.items():
            of_patient[code].append(value)
    return slices, blank, against


def _number(table: CsvTable, line: int, text: str) -> int:
    if not text.isdecimal():
        raise LabelError(
            f"'{table.path}', line {line}: column '{PATIENT}' holds no whole number; is this the "
            "table of this dataset (--dataset)?"
        )
    return int(text)


def _demographics(path: Path) -> tuple[dict[int, dict[str, str]], list[str]]:
    """Patient -> age and sex, where the table lies beside the other."""
    if not path.is_file():
        return {}, [f"no {DEMOGRAPHICS} beside the table: ages and sexes are not known"]
    table = open_table(path, header_lines=2)
    places = {
        word: next((i for i, name in enumerate(table.columns) if name.startswith(word)), None)
        for word in ("Patient Number", "Age", "Gender")
    }
    if None in places.values():
        return {}, [f"{DEMOGRAPHICS} is of another form: ages and sexes are not known"]
    number, age, sex = (place for place in places.values() if place is not None)
    found = {}
    for _, fields in table.rows():
        patient = fields[number].removesuffix(".0")
        if patient.isdecimal():
            found[int(patient)] = {"age": fields[age], "sex": fields[sex]}
    return found, []


def name_of(name: str) -> str:
    """A volume's number as the table's rows carry it: of three digits."""
    return name.zfill(3) if name.isdecimal() else name


def scan_folder(folder: Path) -> Path:
    """The folder of scans in the dataset's folder; masks lie beside it."""
    return folder / SCANS if (folder / SCANS).is_dir() else folder


LAYOUT = DatasetLayout(
    "ct-ich",
    read_labels,
    protocol="head_ct",
    modality=Modality.CT,
    name_of=name_of,
    scan_folder=scan_folder,
)
