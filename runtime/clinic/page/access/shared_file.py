"""A small file of records that the page reads and the command line changes."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from edge_medgemma.runtime.documents import dump_json, parse_json
from edge_medgemma.runtime.errors import AccessError
from edge_medgemma.runtime.files import new_file, write_errors

Document = TypeVar("Document")


class SharedFile(Generic[Document]):
    """One JSON document, read again whenever it has changed."""

    def __init__(self, path: Path, kind: type[Document], empty: Document) -> None:
        """Of a file that need not be there."""
        self._path = path
        self._kind = kind
        self._empty = empty
        self._seen: tuple[int, int, int] | None = None
        self._document = empty

    def read(self) -> Document:
        """The document as it is now.

        Raises:
            AccessError: the file is damaged. Nobody is let in by a damaged file.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen = None
            return self._empty
        except OSError as error:
            raise AccessError(f"could not read '{self._path}': {error.strerror}") from error
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            try:
                self._document = parse_json(self._path.read_bytes(), self._kind)
            except (OSError, ValueError):
                raise AccessError(
                    f"'{self._path}' cannot be read or is damaged; restore it from a copy, or delete it "
                    "and begin anew"
                ) from None
            self._seen = seen
        return self._document

    def change(self, change: Callable[[Document], Document]) -> None:
        """Replace the document by what `change` makes of it, one process at a time.

        Raises:
            AccessError: the file is damaged, or `change` refuses.
            ResourceError: the disk is full or the folder cannot be written.
        """
        lock_path = self._path.with_name(f".{self._path.name}.lock")
        with write_errors(self._path):
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            document = change(self.read())
            with new_file(self._path, mode=0o600) as file:
                file.write(dump_json(document).encode())
        finally:
            os.close(lock)
