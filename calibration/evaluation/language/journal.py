"""A file of results that grows by one line each and outlives a kill: `answers.jsonl`."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Self, TypeVar

import msgspec

from edge_medgemma.calibration.evaluation.synced_lines import (
    append_line,
    lock_alone,
    whole_lines,
)
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import write_errors

Row = TypeVar("Row")


class Journal(Generic[Row]):
    """Rows of one run, in the order they were made; each is on the disk before the next is begun.

    The first line names what the run depends on. A last line that a kill has torn is dropped.
    """

    def __init__(self, path: Path, depends_on: Mapping[str, object], kind: type[Row]) -> None:
        """Open, or go on with, the journal of a run.

        Args:
            path: of the file; its folder is made where it is missing
            depends_on: name -> value that JSON knows, all that another run may not share
            kind: dataclass of a row

        Raises:
            ResourceError: the file is of another run, damaged, in use, or cannot be written.
        """
        self._path = path
        self.rows: list[Row] = []
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab")
            try:
                self._go_on(kind, depends_on)
            except BaseException:
                self._file.close()
                raise

    def _go_on(self, kind: type[Row], depends_on: Mapping[str, object]) -> None:
        if not lock_alone(self._file):
            raise ResourceError(
                f"another run is writing '{self._path}'; wait for it, or choose another --out"
            )
        lines, whole_bytes = whole_lines(self._path.read_bytes())
        if lines:
            self._require_same(lines[0], depends_on)
            self.rows = [self._row(line, kind) for line in lines[1:]]
        self._file.truncate(whole_bytes)
        if not lines:
            append_line(self._file, json.dumps(depends_on, sort_keys=True).encode())

    def append(self, row: Row) -> None:
        """Add a row; it is on the disk when this returns."""
        with write_errors(self._path):
            append_line(self._file, msgspec.json.encode(row))
        self.rows.append(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _require_same(self, line: bytes, depends_on: Mapping[str, object]) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ResourceError(f"'{self._path}' is no file of such a run; choose another --out")
        changed = sorted(
            name
            for name in {*found, *depends_on}
            if found.get(name) != json.loads(json.dumps(depends_on.get(name)))
        )
        if changed:
            raise ResourceError(
                f"'{self._path}' holds answers of a run with another {', '.join(changed)}; choose "
                "another --out or delete the file"
            )

    def _row(self, line: bytes, kind: type[Row]) -> Row:
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.DecodeError, ValueError) as error:
            raise ResourceError(
                f"'{self._path}' is damaged ({error}); delete it to begin again"
            ) from None
