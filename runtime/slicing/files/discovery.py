"""Walking a scan folder: what each file is by its content, and why the others are left alone."""

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edge_medgemma.runtime.slicing.files.limits import MAX_FILE_BYTES

DICOM_PREAMBLE_BYTES = 128
"""PS3.10 section 7.1: the prefix `DICM` follows a preamble of 128 bytes."""

NIFTI1_HEADER_BYTES, NIFTI2_HEADER_BYTES = 348, 540
"""sizeof_hdr of the two versions, the first field of either header."""

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
"""A local file header, or the end of an archive without any."""

TAR_MAGIC_OFFSET = 257
"""Offset of `ustar` in the first header of a POSIX or GNU archive."""

SNIFF_BYTES = 512


class FileKind(Enum):
    """Kind of a file's content, whatever its name says."""

    DICOM = "dicom"
    NIFTI = "nifti"
    ZIP = "zip"
    TAR = "tar"
    """Plain or gzipped."""


class UnreadableFileError(Exception):
    """A file that gives no slice; its message is the reason, free of any text from the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the scan, by what name it is listed if it is skipped, and why it is at once."""

    path: Path
    shown: str
    reason: str | None = None
    is_unpacked: bool = False
    """It comes from an archive."""


def walk_files(scan: Path) -> Iterator[Entry]:
    """Every entry below `scan` in sorted order.

    Nothing outside the folder is visited: links to folders are not followed, and links to files
    only when they end inside. DICOMDIR is ignored, its references could name any path.
    """
    root = scan.resolve()
    if root.is_file():
        yield Entry(root, root.name)
        return
    for path, reason in _walk(root):
        yield Entry(path, path.relative_to(root).as_posix(), reason)


def _walk(root: Path) -> Iterator[tuple[Path, str | None]]:
    closed: list[OSError] = []
    for folder, subfolders, names in os.walk(root, onerror=closed.append):
        subfolders.sort()
        for name in sorted(subfolders):
            if Path(folder, name).is_symlink():
                yield Path(folder, name), "link to a folder, not followed"
        for name in sorted(names):
            path = Path(folder, name)
            yield path, _reason_to_leave(path, root)
    for error in closed:
        yield Path(error.filename), "folder that cannot be opened; check its permissions"


def _reason_to_leave(path: Path, root: Path) -> str | None:
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "link to a file outside the scan folder, not followed"
    if not path.is_file():
        return "not a regular file"
    if path.name.upper() == "DICOMDIR":
        return "DICOMDIR, not followed: the files themselves are read"
    return None


def sniff(path: Path) -> FileKind:
    """Tell DICOM (with or without its preamble), NIfTI and archives by content.

    Raises:
        UnreadableFileError: empty, too large, unreadable, or none of these.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFileError(f"larger than {MAX_FILE_BYTES // 1024**3} GiB")
        with path.open("rb") as file:
            start = file.read(SNIFF_BYTES)
    except OSError as error:
        raise UnreadableFileError("cannot be opened; check its permissions") from error
    if not start:
        raise UnreadableFileError("empty file")
    if start[DICOM_PREAMBLE_BYTES : DICOM_PREAMBLE_BYTES + 4] == b"DICM":
        return FileKind.DICOM
    if start[:4] in ZIP_MAGICS:
        return FileKind.ZIP
    if start[:2] == b"\x1f\x8b":
        start = _gunzip_start(path)
    if start[TAR_MAGIC_OFFSET:].startswith(b"ustar"):
        return FileKind.TAR
    if _is_nifti(start):
        return FileKind.NIFTI
    if _looks_headerless(start):
        return FileKind.DICOM
    raise UnreadableFileError(_other_kind(start))


def _gunzip_start(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(SNIFF_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError("damaged gzip file") from error


def _is_nifti(start: bytes) -> bool:
    size = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    return (NIFTI1_HEADER_BYTES in size and start[344:348] in (b"n+1\0", b"ni1\0")) or (
        NIFTI2_HEADER_BYTES in size and start[4:8] in (b"n+2\0", b"ni2\0")
    )


def _looks_headerless(start: bytes) -> bool:
    """A data set without preamble begins with an element of group 0002 or 0008."""
    little = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    return little or (start[:2] == b"\x00\x08" and start[2:3] == b"\x00")


def _other_kind(start: bytes) -> str:
    if start[:4] == b"%PDF":
        return "PDF document"
    if start[:4] == b"\x89PNG" or start[:3] == b"\xff\xd8\xff":
        return "PNG or JPEG image, not a scan"
    return "neither DICOM nor NIfTI by its content"
