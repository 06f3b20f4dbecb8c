"""Zip and tar archives unpacked into a private folder, bounded, before their files are read.

Members get numbers for names, so that no name of an archive is ever a path here. The folder can be
read by its owner alone and goes when the process ends, also by Ctrl-C.
"""

import atexit
import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.slicing.files.discovery import Entry, FileKind, UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_INFLATE_RATIO,
    MAX_UNPACKED_BYTES,
)

MAX_READ_BYTES = 16 * 1024**2
"""Most bytes of one read: the directory of a zip of 20,000 members has 2 MB, a copied chunk one."""

CHUNK_BYTES = 1024**2

_LINK = "link in an archive, not followed"


@dataclass(slots=True)
class UnpackBudget:
    """Bytes that all archives of a scan together may still unpack to."""

    files_left: int
    bytes_left: int = MAX_UNPACKED_BYTES

    def take_file(self) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise UnreadableFileError(f"archive that brings the scan to over {MAX_FILES} files")

    def take_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            limit = MAX_UNPACKED_BYTES // 1024**3
            raise UnreadableFileError(
                f"archive that unpacks to more than {limit} GiB or {MAX_INFLATE_RATIO} times its size"
            )


def unpack(path: Path, kind: FileKind, shown: str, budget: UnpackBudget) -> list[Entry]:
    """Unpack the regular files of an archive; entries for them and for what was left out.

    `shown` is the archive's own name in lists of skipped files.

    Raises:
        UnreadableFileError: not an archive, or beyond the limits; nothing of it stays.
        ResourceError: no room for the files.
    """
    folder = _private_folder()
    members = _zip_members if kind is FileKind.ZIP else _tar_members
    ratio_bytes = max(CHUNK_BYTES, path.stat().st_size) * MAX_INFLATE_RATIO
    own_budget = UnpackBudget(budget.files_left, min(budget.bytes_left, ratio_bytes))
    entries: list[Entry] = []
    try:
        with path.open("rb") as file:
            for number, (name, content, reason) in enumerate(members(file)):
                own_budget.take_file()
                if content is None and reason is None:
                    continue
                target = folder / f"{number:06d}"
                if content is not None:
                    reason = _copy(content, target, own_budget)
                entries.append(Entry(target, f"{shown}/{name}", reason, is_unpacked=True))
    except (UnreadableFileError, ResourceError):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except _DAMAGE as error:
        if not entries:
            raise UnreadableFileError("damaged archive") from error
        entries.append(Entry(path, shown, "damaged archive: only what stands before the damage"))
    budget.files_left = own_budget.files_left
    budget.bytes_left -= sum(entry.path.stat().st_size for entry in entries if not entry.reason)
    return entries


def _private_folder() -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="edge-medgemma-"))
    except OSError as error:
        raise _no_room(error) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _no_room(error: OSError) -> ResourceError:
    return ResourceError(
        f"could not unpack an archive: {error.strerror or error}; free some space or set TMPDIR to "
        "a folder with more"
    )


_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, LookupError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
"""Exceptions of the two readers when they meet damage."""

Member = tuple[str, IO[bytes] | None, str | None]
"""Name, content, or else the reason why it is left out; a folder has neither."""


def _zip_members(file: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(cast(IO[bytes], _Bounded(file))) as archive:
        for info in archive.infolist():
            if info.is_dir():
                yield info.filename, None, None
            elif stat.S_ISLNK(info.external_attr >> 16):
                yield info.filename, None, _LINK
            elif info.flag_bits & 1:
                yield info.filename, None, "encrypted; unpack the archive first"
            else:
                with archive.open(info) as content:
                    yield info.filename, content, None


def _tar_members(file: BinaryIO) -> Iterator[Member]:
    plain = cast(IO[bytes], _Bounded(_gunzipped(file)))
    with tarfile.open(fileobj=plain, mode="r:") as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isreg() else None
            if content is not None:
                yield info.name, content, None
            elif info.isdir():
                yield info.name, None, None
            else:
                yield info.name, None, _LINK if info.issym() or info.islnk() else "not a file"


def _gunzipped(file: BinaryIO) -> IO[bytes]:
    is_gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_gzipped else file


class _Bounded:
    """A file that refuses a read that only a forged length asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell, self.seekable = file.tell, file.seekable

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > MAX_UNPACKED_BYTES:
            raise UnreadableFileError("archive with a member of absurd length")
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(
            min(size, MAX_READ_BYTES + 1) if size >= 0 else MAX_READ_BYTES + 1
        )
        if len(content) > MAX_READ_BYTES:
            raise UnreadableFileError("archive whose directory is too large")
        return content


def _copy(content: IO[bytes], target: Path, budget: UnpackBudget) -> str | None:
    """Write one member; the reason if it is damaged.

    Raises:
        ResourceError: the disk is full.
    """
    size = 0
    try:
        with target.open("wb") as file:
            while chunk := _next_chunk(content):
                size += len(chunk)
                budget.take_bytes(len(chunk))
                if size > MAX_FILE_BYTES:
                    return f"larger than {MAX_FILE_BYTES // 1024**3} GiB"
                file.write(chunk)
    except OSError as error:
        raise _no_room(error) from error
    return None if chunk is not None else "damaged in its archive"


def _next_chunk(content: IO[bytes]) -> bytes | None:
    """None where the archive is damaged."""
    try:
        return content.read(CHUNK_BYTES)
    except _DAMAGE:
        return None
