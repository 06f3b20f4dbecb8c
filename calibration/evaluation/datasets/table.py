"""Labels in a table of the user's own: one row a study, one column a finding.

Columns: `study` (study instance UID, folder or file name), maybe `patient`, maybe some of ATTRIBUTES,
and finding codes of the protocols. Values: 1, 0, or empty where a finding was not read.
"""

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted, known_codes
from edge_medgemma.calibration.evaluation.datasets.columns import find_table
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table, shown
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError

NAME = "labels.csv"
"""Of the table, where a folder is named."""

STUDY, PATIENT = "study", "patient"

ATTRIBUTES = ("sex", "age", "view", "site", "manufacturer", "thickness", "kernel")
"""Columns of which subgroups may be made."""

VALUES: dict[str, bool | None] = {
    "1": True, "1.0": True, "yes": True, "true": True,
    "0": False, "0.0": False, "no": False, "false": False,
    "": None,
}  # fmt: skip
"""What may stand in a column of a finding, in small letters."""


def read_labels(request: LabelRequest) -> Labels:
    """Read the table.

    Raises:
        LabelError: not a table, without a column `study` or any finding code, or with other values.
    """
    table = open_table(find_table(request.path, (NAME,)))
    columns = {name.lower(): place for place, name in enumerate(table.columns) if name}
    if STUDY not in columns:
        raise LabelError(
            f"'{table.path}' has no column 'study'; expected one with study UIDs, folder or file "
            f"names; its columns are {shown(table.columns)}"
        )
    codes = [name for name in columns if name in known_codes() or name in request.own_codes]
    if not codes:
        expected = [*request.own_codes, *known_codes()]
        raise LabelError(
            f"'{table.path}' has no column of a finding, only {shown(table.columns)}; expected one "
            f"or more of {', '.join(dict.fromkeys(expected))}"
        )
    collector, nameless = _collect(table, columns, codes)
    if not (rows := collector.rows()):
        raise LabelError(f"'{table.path}' names no study: its column 'study' is empty; fill it in")
    used = {STUDY, PATIENT, *ATTRIBUTES, *codes}
    notes = []
    if unused := [table.columns[place] for name, place in columns.items() if name not in used]:
        notes.append(f"{counted(len(unused), 'column')} not used: {shown(unused)}")
    if nameless:
        notes.append(f"{counted(nameless, 'row')} without a study left out")
    return Labels("table", rows, tuple(codes), table.sha256, (*notes, *collector.notes()))


def _collect(
    table: CsvTable, columns: dict[str, int], codes: list[str]
) -> tuple[RowCollector, int]:
    """The rows by study, and how many name none."""
    collector, nameless = RowCollector(), 0
    wrong: list[tuple[int, str]] = []
    for line, fields in table.rows():
        texts = {code: fields[columns[code]].lower() for code in codes}
        wrong += [(line, code) for code, text in texts.items() if text not in VALUES]
        key = fields[columns[STUDY]].replace("\\", "/").strip("/")
        if not key:
            nameless += 1
            continue
        findings = {code: VALUES.get(text) for code, text in texts.items()}
        patient = fields[columns[PATIENT]] if PATIENT in columns else ""
        attributes = {name: fields[columns[name]] for name in ATTRIBUTES if name in columns}
        collector.add(key, findings, patient, attributes)
    if wrong:
        line, code = wrong[0]
        raise LabelError(
            f"'{table.path}': {counted(len(wrong), 'value')} other than 1, 0 or empty, first in line "
            f"{line}, column '{code}'; write 1 (present), 0 (absent) or nothing (not read)"
        )
    return collector, nameless


LAYOUT = DatasetLayout("table", read_labels)
