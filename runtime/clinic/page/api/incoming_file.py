"""One file that comes in pieces over HTTP, on its way into the spool."""

import contextlib
import os
from pathlib import Path

from edge_medgemma.runtime.clinic.arrivals.file_intake import take_paths
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.errors import ResourceError, ScanError
from edge_medgemma.runtime.files import write_errors
from edge_medgemma.runtime.slicing.files.discovery import FileKind, UnreadableFileError, sniff

BUFFER_BYTES = 1024 * 1024
SPACE_EVERY_BYTES = 16 * 1024 * 1024
NO_SPACE = "The disk of the box is full: nothing more is received until space is free."


class IncomingFile:
    """A temporary file; deleted unless it was taken. Its functions block: call them in a thread."""

    def __init__(self, intake: Intake, size_bytes: int = 0) -> None:
        """Begin a file of about so many bytes.

        Raises:
            ResourceError: there is no room for it.
        """
        self._intake = intake
        self._space = Space(intake.state, intake.settings.node.reserve_gb)
        self._stack = contextlib.ExitStack()
        self.path: Path = self._stack.enter_context(intake.receive(size_bytes))
        self.received = 0
        """Bytes that are in the file."""
        self._next_look = SPACE_EVERY_BYTES

    def append(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            ResourceError: the disk is full; the file is as it was.
        """
        if self.received + len(data) >= self._next_look:
            self._next_look += SPACE_EVERY_BYTES
            if not self._space.has_room():
                raise ResourceError(NO_SPACE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        with write_errors(self.path), os.fdopen(os.open(self.path, flags, 0o600), "wb") as file:
            file.seek(self.received)
            file.truncate()
            file.write(data)
        self.received += len(data)

    def take(self) -> tuple[int, int]:
        """Hand the whole file over, an archive by what it holds.

        Returns:
            Objects taken, and files that were not: no DICOM, damaged.

        Raises:
            ResourceError: the disk is full.
        """
        try:
            if not self.received:
                return 0, 1
            if sniff(self.path) is FileKind.DICOM:
                self._intake.accept(self.path)
                return 1, 0
            before = _taken(self._intake)
            skipped = take_paths(self._intake, [self.path])
            return _taken(self._intake) - before, skipped.reasons.total()
        except (ScanError, UnreadableFileError):
            return 0, 1
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete what was not taken."""
        self._stack.close()


def _taken(intake: Intake) -> int:
    return sum(one.images + one.aside for one in intake.studies.values())
