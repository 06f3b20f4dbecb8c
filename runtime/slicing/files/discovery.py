"""What each file is by its content, and how one is opened that may be anything."""

import os
import stat
import zlib
from dataclasses import dataclass
from enum import Enum
from io import BufferedReader
from pathlib import Path

from edge_medgemma.runtime.slicing.files.kinds import (
    ISO_MAGIC_OFFSET,
    NIFTI_PAIR,
    SNIFF_BYTES,
    UNKNOWN,
    is_nifti_pair,
    other_kind,
)
from edge_medgemma.runtime.slicing.files.limits import MAX_FILE_BYTES

DICOM_PREAMBLE_BYTES = 128
"""PS3.10 section 7.1: the prefix `DICM` follows a preamble of 128 bytes."""

NIFTI1_HEADER_BYTES, NIFTI2_HEADER_BYTES = 348, 540
"""sizeof_hdr of the two versions, the first field of either header."""

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
"""A local file header, or the end of an archive without any."""

GZIP_MAGIC = b"\x1f\x8b"

TAR_MAGIC_OFFSET = 257
"""Offset of `ustar` in the first header of a POSIX or GNU archive."""

MORE_BYTES = 64 * 1024
"""Read of what SNIFF_BYTES do not tell. Within these a gzip must come to its content, as its header
may hold a name of any length."""


class FileKind(Enum):
    """Kind of a file's content, whatever its name says."""

    DICOM = "dicom"
    NIFTI = "nifti"
    """Plain or gzipped."""
    ZIP = "zip"
    TAR = "tar"
    """Plain or gzipped."""
    GZIP = "gzip"
    """One DICOM file."""


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


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read it, and nothing that could block, as a named pipe in its place would.

    Raises:
        UnreadableFileError: no regular file, or it cannot be opened.
    """
    # Windows has neither flag; what it opens here is a file
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return os.fdopen(handle, "rb")
    except (OSError, ValueError) as error:
        raise UnreadableFileError("cannot be opened; check its permissions") from error
    os.close(handle)
    raise UnreadableFileError("not a regular file")


def sniff(path: Path) -> FileKind:
    """Tell DICOM (with or without its preamble), NIfTI and archives by content.

    Raises:
        UnreadableFileError: empty, too large, unreadable, or none of these.
    """
    with open_regular(path) as file:
        try:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise UnreadableFileError(f"larger than {MAX_FILE_BYTES // 1024**3} GiB")
            start = file.read(SNIFF_BYTES)
            kind = FileKind.ZIP if start[:4] in ZIP_MAGICS else _plain_kind(start)
            if kind is None:
                start += file.read(MORE_BYTES)
        except OSError as error:
            raise UnreadableFileError("cannot be read; copy the scan to another disk") from error
    if not start:
        raise UnreadableFileError("empty file")
    if kind is None and start[:2] == GZIP_MAGIC:
        return _kind_within_gzip(_gunzip_start(start))
    if kind is None:
        raise UnreadableFileError(_reason(path, start))
    return kind


def _plain_kind(start: bytes) -> FileKind | None:
    if start[DICOM_PREAMBLE_BYTES : DICOM_PREAMBLE_BYTES + 4] == b"DICM":
        return FileKind.DICOM
    if start[TAR_MAGIC_OFFSET:].startswith(b"ustar"):
        return FileKind.TAR
    if _is_nifti(start):
        return FileKind.NIFTI
    return FileKind.DICOM if _looks_headerless(start) else None


def _kind_within_gzip(start: bytes) -> FileKind:
    kind = _plain_kind(start)
    if kind is FileKind.DICOM:
        return FileKind.GZIP
    if kind is None:
        inner = NIFTI_PAIR if is_nifti_pair(start) else other_kind(start[:SNIFF_BYTES])
        raise UnreadableFileError(f"gzip file; within it: {inner}")
    return kind


def _gunzip_start(start: bytes) -> bytes:
    try:
        content = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, SNIFF_BYTES)
    except zlib.error as error:
        raise UnreadableFileError("damaged gzip file") from error
    if not content:
        raise UnreadableFileError("damaged or empty gzip file")
    return content


def _is_nifti(start: bytes) -> bool:
    size = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    return (NIFTI1_HEADER_BYTES in size and start[344:348] == b"n+1\0") or (
        NIFTI2_HEADER_BYTES in size and start[4:8] == b"n+2\0"
    )


def _looks_headerless(start: bytes) -> bool:
    """A data set without preamble begins with an element of group 0002 or 0008."""
    little = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    return little or (start[:2] == b"\x00\x08" and start[2:3] == b"\x00")


def _reason(path: Path, start: bytes) -> str:
    """Why a file gives no slice: its kind, told by its start or by a file beside it."""
    if is_nifti_pair(start):
        return NIFTI_PAIR
    if start[ISO_MAGIC_OFFSET:].startswith(b"CD001"):
        return "image of a disc (ISO 9660); mount or unpack it first"
    reason = other_kind(start[:SNIFF_BYTES])
    if reason is UNKNOWN and path.suffix.lower() == ".img" and _has_nifti_header(path):
        return NIFTI_PAIR
    return reason


def _has_nifti_header(path: Path) -> bool:
    for suffix in (".hdr", ".HDR"):
        try:
            with open_regular(path.with_suffix(suffix)) as file:
                return is_nifti_pair(file.read(NIFTI2_HEADER_BYTES))
        except (UnreadableFileError, OSError):
            continue
    return False
