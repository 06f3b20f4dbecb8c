"""What a C-STORE's data set is written to while it comes: a file that takes a full disk calmly.

pynetdicom would end the association when its temporary file cannot be written, and every image that
the sender has left with it. This file swallows the rest, so that the answer is A700 and nothing more.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from edge_medgemma.runtime.clinic.arrivals.incoming import new_path
from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.errors import DependencyError, ResourceError

_BETWEEN_LOOKS_BYTES = 16 * 1024 * 1024
"""Space is looked at again after so much of one object: a hostile one has no end."""

_LARGEST_OBJECT_BYTES = 4 * 1024**3
"""The reader's limit of a file."""


@dataclass(slots=True)
class ReceivedFile:
    """Stands in for the `NamedTemporaryFile` of `pynetdicom.dimse_messages`."""

    path: Path
    space: Space
    is_whole: bool = True
    """False where a part could not be written; the file is of no use then."""
    _descriptor: int = field(default=-1, init=False)
    _size_bytes: int = field(default=0, init=False)
    _looked_at_bytes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Make the file, unless there is no room for it."""
        try:
            if not self.space.has_room():
                self.is_whole = False
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
        except OSError:
            self.is_whole = False

    @property
    def name(self) -> str:
        """Its path, as pynetdicom asks for it."""
        return str(self.path)

    @property
    def file(self) -> "ReceivedFile":
        """Itself: pynetdicom flushes what it takes for the file within."""
        return self

    def write(self, data: bytes) -> int:
        """Take a part of the object; nothing is raised, `is_whole` tells."""
        if self.is_whole:
            try:
                self._write(memoryview(data))
            except OSError:
                self.is_whole = False
                self.close()
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file, which stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: memoryview) -> None:
        self._size_bytes += len(data)
        if self._size_bytes - self._looked_at_bytes > _BETWEEN_LOOKS_BYTES:
            self._looked_at_bytes = self._size_bytes
            if self._size_bytes > _LARGEST_OBJECT_BYTES or not self.space.has_room():
                raise ResourceError("no room for the rest of the object")
        while len(data):
            data = data[os.write(self._descriptor, data) :]


def receive_to(folder: Path, space: Space) -> None:
    """Let this process's DICOM associations receive into `folder`, in parts, and log no identifiers.

    Raises:
        DependencyError: a pynetdicom that does it in another way.
    """
    from pynetdicom import _config, dimse_messages

    if not hasattr(dimse_messages, "NamedTemporaryFile"):
        raise DependencyError(
            "this pynetdicom receives in another way; install edge-medgemma[clinic]"
        )

    def new_file(*, delete: bool, mode: str, suffix: str) -> ReceivedFile:
        return ReceivedFile(new_path(folder, suffix), space)

    setattr(dimse_messages, "NamedTemporaryFile", new_file)  # noqa: B010 mypy knows its own type
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
