"""What the archives of a scan may cost together, charged as it is spent, also by those refused."""

from collections.abc import Callable
from dataclasses import dataclass

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import (
    MAX_FILES,
    MAX_INFLATE_RATIO,
    MAX_UNPACKED_BYTES,
)

LEAST_ARCHIVE_BYTES = 1024**2
"""Size that a smaller archive counts as, so that a few slices of nothing but air may be in one."""

FILE_COST_BYTES = 32 * 1024
"""Bytes that writing and deleting a file counts as, since an empty one takes its time too."""


@dataclass(slots=True)
class UnpackBudget:
    """Files and bytes that all archives of a scan together may still unpack to."""

    files_left: int
    bytes_left: int = MAX_UNPACKED_BYTES


class ArchiveBudget:
    """The part of the common budget that one archive may spend."""

    def __init__(self, common: UnpackBudget, archive_bytes: int) -> None:
        """
        Raises:
            UnreadableFileError: other archives have spent everything.
        """
        self.files = 0
        self._common = common
        self._bytes_left = max(LEAST_ARCHIVE_BYTES, archive_bytes) * MAX_INFLATE_RATIO
        self.take_bytes(0)

    def take_file(self) -> None:
        """One more member, whatever it is."""
        self.files += 1
        self.take_bytes(FILE_COST_BYTES)
        if self.files > self._common.files_left:
            raise UnreadableFileError(f"archive that brings the scan to over {MAX_FILES} files")

    def take_bytes(self, count: int) -> None:
        """Bytes written, or inflated and thrown away, or read where they give nothing."""
        self._bytes_left -= count
        self._common.bytes_left -= count
        if self._bytes_left < 0:
            raise UnreadableFileError(
                f"archive that unpacks to more than {MAX_INFLATE_RATIO} times its size"
            )
        if self._common.bytes_left < 0:
            limit = MAX_UNPACKED_BYTES // 1024**3
            raise UnreadableFileError(
                f"archives that together unpack to more than {limit} GiB; unpack this one first"
            )

    def keep_files(self) -> None:
        """Count the members as files of the scan: those of a refused archive are gone."""
        self._common.files_left -= self.files


class Meter:
    """Charges one stream: what it gives, or what it reads if that is more."""

    def __init__(self, take_bytes: Callable[[int], None]) -> None:
        self._take_bytes = take_bytes
        self._read = self._given = self._charged = 0

    def count(self, *, read: int = 0, given: int = 0) -> None:
        """Bytes more that were read of a file, and that came of them."""
        self._read += read
        self._given += given
        due = max(self._read, self._given) - self._charged
        self._charged += due
        self._take_bytes(due)
