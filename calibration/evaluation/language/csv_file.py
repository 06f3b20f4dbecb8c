"""Tables of results as CSV for a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.files import write_atomically

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; an empty field is a value that is not there.

    Text is the model's or a dataset's: control characters are spelled out, and what a spreadsheet would
    run as a formula gets an apostrophe.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(value) for value in row] for row in rows)
    write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _field(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, str):
        return str(value)
    shown = printable(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
