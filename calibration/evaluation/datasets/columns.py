"""Columns of a dataset's table that stand for findings, and values that its cells may hold."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from edge_medgemma.calibration.evaluation.datasets.collect import counted
from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, shown
from edge_medgemma.runtime.errors import LabelError

FLAGS: Mapping[str, bool | None] = {"1": True, "1.0": True, "0": False, "0.0": False, "": None}
"""Cells of a column of zeros and ones, which pandas may have written as floats."""


def find_table(path: Path, names: Sequence[str]) -> Path:
    """The table itself, or the first of `names` in a dataset's folder.

    Raises:
        LabelError: the folder holds none of them.
    """
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise LabelError(f"'{path}' holds no {' or '.join(names)}; name the table itself (--labels)")


def flag(
    table: CsvTable,
    line: int,
    column: str,
    text: str,
    values: Mapping[str, bool | None] = FLAGS,
) -> bool | None:
    """What a cell says.

    Raises:
        LabelError: it holds none of `values`.
    """
    if text not in values:
        expected = ", ".join(name or "empty" for name in values)
        raise LabelError(
            f"'{table.path}', line {line}: column '{column}' holds none of {expected}; is this the "
            "table of this dataset (--dataset)?"
        )
    return values[text]


def any_present(values: Iterable[bool | None]) -> bool | None:
    """Present where any is, absent where all are, else not read."""
    every = list(values)
    if True in every:
        return True
    return False if every and None not in every else None


def unmapped_note(columns: Iterable[str], used: Collection[str]) -> list[str]:
    """Which columns stand for no finding of a built-in protocol, as a note where there are any."""
    left = [name for name in columns if name and name not in used]
    if not left:
        return []
    return [f"{counted(len(left), 'column')} without a finding of ours: {shown(left, most=20)}"]


def unread_note(unread: Mapping[str, int], why: str) -> list[str]:
    """How often each finding was not read, as a note where any was not."""
    if not any(unread.values()):
        return []
    listed = ", ".join(f"{code} {count}" for code, count in unread.items() if count)
    return [f"not read, because {why}: {listed}"]
