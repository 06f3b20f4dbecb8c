"""CQ500: head CTs read by three radiologists, one row a study in `reads.csv`.

Columns name, Category, and R1:, R2:, R3: before each of 14 words. The table says `CQ500-CT-427`, the
folder `CQ500CT427 CQ500CT427`. Chilamkurthy et al., Lancet 2018;392:2388-2396.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted
from edge_medgemma.calibration.evaluation.datasets.columns import (
    any_present,
    find_table,
    flag,
    unmapped_note,
)
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels

READERS = ("R1", "R2", "R3")

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "intracranial_haemorrhage": ("ICH",),
    "mass_effect": ("MassEffect", "MidlineShift"),
    "skull_fracture": ("Fracture",),
}
"""Finding -> words of a reader of which any makes it present. The question on mass effect asks for a
midline shift as well; `Fracture` stands for calvarial and other fractures."""

TABLES = ("reads.csv",)

_NAME = re.compile(r"CQ500-?CT-?(\d+)(?!\d)", re.IGNORECASE)


def name_of(name: str) -> str:
    """A study's name as the table writes it, from that of a folder or file."""
    found = _NAME.match(name)
    return f"CQ500-CT-{int(found[1])}" if found else name


def read_labels(request: LabelRequest) -> Labels:
    """One row a study, by the reference that is asked for.

    Raises:
        LabelError: another table.
    """
    table = open_table(find_table(request.path, TABLES))
    collector = RowCollector()
    disagreed: Counter[str] = Counter()
    name = table.index("name")
    columns = {
        code: {reader: [table.index(f"{reader}:{word}") for word in words] for reader in READERS}
        for code, words in FINDINGS.items()
    }
    for line, fields in table.rows():
        findings = {}
        for code, of_reader in columns.items():
            reads = {
                reader: any_present(_cell(table, line, fields, place) for place in places)
                for reader, places in of_reader.items()
            }
            disagreed[code] += len({value for value in reads.values() if value is not None}) > 1
            findings[code] = by_reference(reads, request.reference)
        collector.add(name_of(fields[name]), findings)
    rows = collector.rows()
    listed = ", ".join(f"{code} {disagreed[code]}" for code in FINDINGS)
    notes = [
        (
            f"three readers disagreed, of {counted(len(rows), 'study', 'studies')}, on: {listed}; "
            f"reference: {request.reference}"
        ),
        *unmapped_note(_words(table), {word for words in FINDINGS.values() for word in words}),
        *collector.notes(),
    ]
    return Labels("cq500", rows, tuple(FINDINGS), table.sha256, tuple(notes))


def by_reference(reads: Mapping[str, bool | None], reference: str) -> bool | None:
    """One value of several readers'.

    Args:
        reads: reader -> what he says.
        reference: `majority` of those who say something, a tie being none; `any` of them; or
            `reader:NAME`.
    """
    if reference.startswith("reader:"):
        return reads[reference.removeprefix("reader:")]
    said = [value for value in reads.values() if value is not None]
    if reference == "any":
        return any_present(said)
    votes = Counter(said)
    return None if votes[True] == votes[False] else votes[True] > votes[False]


def _cell(table: CsvTable, line: int, fields: Sequence[str], place: int) -> bool | None:
    return flag(table, line, table.columns[place], fields[place])


def _words(table: CsvTable) -> list[str]:
    """Words of the first reader, without his name, and other columns."""
    prefix = f"{READERS[0]}:"
    words = [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]
    return words + [name for name in table.columns if name != "name" and ":" not in name]


LAYOUT = DatasetLayout("cq500", read_labels, protocol="head_ct", readers=READERS, name_of=name_of)
