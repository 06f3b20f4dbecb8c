"""RSNA 2019 intracranial haemorrhage detection: six rows a slice, slices of all scans in one folder.

`stage_2_train.csv`: ID,Label with ID = ID_<12 letters>_<type>; `stage_2_train/ID_<12 letters>.dcm`.
Flanders et al., Radiology: Artificial Intelligence 2020;2(3):e190211.
"""

from collections.abc import Iterator
from pathlib import Path

from edge_medgemma.calibration.evaluation.datasets.collect import counted
from edge_medgemma.calibration.evaluation.datasets.columns import find_table, flag
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.runtime.errors import LabelError

CODE = "intracranial_haemorrhage"
ANY = "any"
TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", ANY)
"""Of them `any` is the finding; the built-in protocols do not ask for the kind of a bleed."""

TABLES = ("stage_2_train.csv", "stage_1_train.csv")
SCANS = ("stage_2_train", "stage_1_train")


def read_labels(request: LabelRequest) -> Labels:
    """One row a slice; `matching` makes one a study of them.

    Raises:
        LabelError: another table, or a row whose ID is none of this dataset.
    """
    table = open_table(find_table(request.path, TABLES))
    slices, again, disagreeing = _collected(table)
    found = {value: {CODE: value} for value in (True, False, None)}
    nothing: dict[str, str] = {}
    rows, against = [], 0
    for name, (present, absent) in slices.items():
        value, is_contradicted = _any(present, absent)
        against += is_contradicted
        rows.append(LabelRow(name, found[value], attributes=nothing))  # shared: 750,000 slices
    notes = [f"{counted(len(rows), 'slice')}, of which a scan has what any of its slices has"]
    notes.append(f"kinds of bleeding are not asked for: {', '.join(TYPES[:-1])}")
    if again:
        notes.append(f"{counted(again, 'row')} stood there twice with one value")
    if disagreeing or against:
        notes.append(
            f"{counted(disagreeing + against, 'contradiction')} (two values of one row, or a kind "
            "of bleeding without any): these slices are taken as not read"
        )
    return Labels("rsna-ich", tuple(rows), (CODE,), table.sha256, tuple(notes))


def _collected(table: CsvTable) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Slice -> types said to be present and to be absent, as bits; repeated and contradicting rows."""
    slices: dict[str, tuple[int, int]] = {}
    again = disagreeing = 0
    for name, bit, value in _values(table):
        present, absent = slices.get(name, (0, 0))
        agreeing, other = (present, absent) if value else (absent, present)
        again += bool(agreeing & bit)
        disagreeing += bool(other & bit)
        slices[name] = (present | bit, absent) if value else (present, absent | bit)
    return slices, again, disagreeing


def _values(table: CsvTable) -> Iterator[tuple[str, int, bool]]:
    """Slice, bit of the type, and whether it is there, of each row."""
    identifier, label = table.index("ID"), table.index("Label")
    bits = {kind: 1 << place for place, kind in enumerate(TYPES)}
    for line, fields in table.rows():
        name, _, kind = fields[identifier].rpartition("_")
        if kind not in bits or not name:
            raise LabelError(
                f"'{table.path}', line {line}: the ID ends in none of {', '.join(TYPES)}; is this "
                "the table of RSNA's haemorrhage challenge (--dataset)?"
            )
        value = flag(table, line, "Label", fields[label], {"0": False, "1": True})
        yield name, bits[kind], bool(value)


def _any(present: int, absent: int) -> tuple[bool | None, bool]:
    """Whether a slice shows blood, and whether its rows contradict each other on it."""
    any_bit = 1 << TYPES.index(ANY)
    if present & absent:
        return None, False
    if absent & any_bit:
        return (None, True) if present else (False, False)
    return (True if present else None), False


def scan_folder(folder: Path) -> Path:
    """The folder of slices in the dataset's folder."""
    return next((folder / name for name in SCANS if (folder / name).is_dir()), folder)


LAYOUT = DatasetLayout(
    "rsna-ich",
    read_labels,
    protocol="head_ct",
    has_slice_rows=True,
    scan_folder=scan_folder,
)
