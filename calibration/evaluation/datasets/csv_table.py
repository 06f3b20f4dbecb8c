"""Tables as spreadsheets and datasets write them: one header line, then one row a line."""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edge_medgemma.runtime.errors import LabelError

SEPARATORS = (",", ";", "\t")
"""A comma, and what spreadsheets write where the comma is the decimal sign, or as text."""

_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""Byte order mark at the start -> encoding; without one, UTF-8."""

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""Starts of .xlsx and .xls files."""


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table whose header has been read; its rows are read as they are asked for."""

    path: Path
    columns: tuple[str, ...]
    """Trimmed; of several header lines, those of the last, or of the one before where it is empty."""
    sha256: str
    separator: str
    encoding: str
    header_lines: int

    def index(self, column: str) -> int:
        """Place of a column.

        Raises:
            LabelError: there is none of that name.
        """
        if column not in self.columns:
            raise LabelError(
                f"'{self.path}' has no column '{column}'; its columns are {shown(self.columns)}"
            )
        return self.columns.index(column)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and trimmed fields of each row, as many as there are columns; blank ones are
        left out.

        Raises:
            LabelError: a row of another length, or text that is not of the table's encoding.
        """
        count = 0
        for line, fields in islice(_lines(self), self.header_lines, None):
            fields = [field.strip() for field in fields]
            if not any(fields):
                continue
            width = len(self.columns)
            if len(fields) < width or any(fields[width:]):
                raise LabelError(
                    f"'{self.path}', line {line}: {len(fields)} fields, but the header has {width} "
                    "columns; repair the row, or quote fields that hold the separator"
                )
            count += 1
            yield line, fields[:width]
        if not count:
            raise LabelError(f"'{self.path}' has a header but no row; expected one row a study")


def open_table(path: Path, header_lines: int = 1) -> CsvTable:
    """Read the header of a table in comma, semicolon or tab separated text.

    Args:
        path: of the file.
        header_lines: how many lines name the columns; the lowest name counts.

    Raises:
        LabelError: no such file, empty, no text, or a column named twice.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            start = file.read(4)
    except OSError as error:
        raise LabelError(f"cannot read '{path}': {error.strerror or error}") from error
    if start in _WORKBOOKS:
        raise LabelError(f"'{path}' is a workbook, not text; save it as 'CSV UTF-8' and name that")
    encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
    first = next(iter(_text_lines(path, encoding)), "")
    hint = first.strip().strip('"').lower()
    is_hint = hint.startswith("sep=") and len(hint) <= len("sep=,")
    separator = hint[4:] or "\t" if is_hint else max(SEPARATORS, key=first.count)
    skipped = int(is_hint)
    draft = CsvTable(path, (), sha256, separator, encoding, header_lines + skipped)
    header = [fields for _, fields in islice(_lines(draft), skipped, draft.header_lines)]
    columns = _column_names(header)
    if not any(columns):
        raise LabelError(f"'{path}' is empty; expected a header line and one row a study")
    doubled = [name for name in columns if name and columns.count(name) > 1]
    if doubled:
        raise LabelError(f"'{path}' has {shown(doubled[:1])} twice among its columns; rename one")
    return CsvTable(path, columns, sha256, separator, encoding, draft.header_lines)


def shown(names: Iterable[str], most: int = 12) -> str:
    """Names for a message: quoted, printable, not too many."""
    every = list(names)
    printable = ("".join(c if c.isprintable() else "?" for c in name)[:60] for name in every)
    listed = ", ".join(f"'{name}'" for name in islice(printable, most))
    return f"{listed} and {len(every) - most} more" if len(every) > most else listed


def _column_names(header: list[list[str]]) -> tuple[str, ...]:
    names: list[str] = []
    for line in header:
        lower = [field.strip() for field in line]
        upper = names + [""] * (len(lower) - len(names))
        lower += [""] * (len(upper) - len(lower))
        names = [low or up for low, up in zip(lower, upper, strict=True)]
    while names and not names[-1]:  # spreadsheets write empty columns at the right edge
        names.pop()
    return tuple(names)


def _lines(table: CsvTable) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_text_lines(table.path, table.encoding), delimiter=table.separator)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise LabelError(
                f"'{table.path}', line {reader.line_num}: no table ({error}); save it as CSV"
            ) from error
        yield reader.line_num, fields


def _text_lines(path: Path, encoding: str) -> Iterator[str]:
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield from file
    except UnicodeError as error:
        raise LabelError(
            f"'{path}' is not text in {encoding.removesuffix('-sig').upper()}; save it as 'CSV UTF-8'"
        ) from error
    except OSError as error:
        raise LabelError(f"cannot read '{path}': {error.strerror or error}") from error
