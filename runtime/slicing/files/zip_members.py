"""Members of a zip: its directory by Python's reader, its contents by bounded decompressors."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, BinaryIO, cast

from edge_medgemma.runtime.slicing.files.budget import ArchiveBudget, Meter
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.inflate import DECOMPRESSORS, inflated
from edge_medgemma.runtime.slicing.files.members import DAMAGED, LINK, Member

MAX_DIRECTORY_BYTES = 8 * 1024**2
"""Directory of a zip: 20,000 members with 400 bytes for each."""

ENTRY_COST_BYTES = 1024
"""Bytes that reading one member's entry in the directory counts as."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, and lengths of the name and of the extra field that follow (APPNOTE 4.3.7)."""

_ENCRYPTED, _PATCH = 0x1 | 0x40 | 0x2000, 0x20
"""Bits of the general purpose flag (APPNOTE 4.4.4)."""

_METHOD_NAMES = {
    1: "shrink", 2: "reduce", 3: "reduce", 4: "reduce", 5: "reduce", 6: "implode", 9: "deflate64",
    10: "PKWARE implode", 16: "IBM z/OS CMPSC", 18: "IBM TERSE", 19: "IBM LZ77", 20: "zstd",
    93: "zstd", 94: "MP3", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd",
}  # fmt: skip
_AES = 99


def zip_members(file: BinaryIO, budget: ArchiveBudget) -> Iterator[Member]:
    """Members in the order of the directory.

    Raises:
        zipfile.BadZipFile and others: damaged, also from a member's content.
        UnreadableFileError: beyond the limits.
    """
    with zipfile.ZipFile(cast(IO[bytes], _BoundedReads(file))) as archive:
        entries = archive.infolist()
    budget.take_bytes(ENTRY_COST_BYTES * len(entries))
    overlapping = _overlapping(entries)
    for number, entry in enumerate(entries):
        if entry.is_dir():
            yield Member(entry.filename)
        elif number in overlapping:
            yield Member(entry.filename, reason=DAMAGED)
        elif reason := _reason_to_leave(entry):
            yield Member(entry.filename, reason=reason)
        else:
            yield Member(entry.filename, _content(file, entry, budget))


def _overlapping(entries: list[zipfile.ZipInfo]) -> set[int]:
    """Entries that reach into the next one: many may be made of the same slow bytes."""
    order = sorted(range(len(entries)), key=lambda number: entries[number].header_offset)
    return {
        number
        for number, following in pairwise(order)
        if entries[number].header_offset + _LOCAL_HEADER.size + entries[number].compress_size
        > entries[following].header_offset
    }


def _reason_to_leave(entry: zipfile.ZipInfo) -> str | None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        return LINK
    if entry.flag_bits & _ENCRYPTED or entry.compress_type == _AES:
        return "encrypted; unpack the archive first"
    if entry.compress_type in DECOMPRESSORS and not entry.flag_bits & _PATCH:
        return None
    number = entry.compress_type
    name = "patch" if entry.flag_bits & _PATCH else _METHOD_NAMES.get(number, f"number {number}")
    return f"compressed by a method that is not supported ({name}); unpack the archive first"


def _content(file: BinaryIO, entry: zipfile.ZipInfo, budget: ArchiveBudget) -> Iterator[bytes]:
    file.seek(entry.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    compressed_left, left, checksum = entry.compress_size, entry.file_size, 0

    def read(size: int) -> bytes:
        nonlocal compressed_left
        data = file.read(min(size, compressed_left))
        compressed_left -= len(data)
        return data

    if left:  # LZMA may have no mark at its end
        for chunk in inflated(
            read, DECOMPRESSORS[entry.compress_type](read), Meter(budget.take_bytes)
        ):
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
            yield chunk
            if left <= 0:
                break
    if left or checksum != entry.CRC:
        raise zipfile.BadZipFile


class _BoundedReads:
    """A file that refuses a read that only a forged length asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seekable, self.seek = file.tell, file.seekable, file.seek

    def read(self, size: int = -1) -> bytes:
        limit = MAX_DIRECTORY_BYTES + 1
        content = self._file.read(min(size, limit) if size >= 0 else limit)
        if len(content) > MAX_DIRECTORY_BYTES:
            raise UnreadableFileError("archive whose directory is too large")
        return content
