"""Members of a tar, read once from its start: POSIX (ustar, pax) and GNU headers, all bounded.

Python's reader keeps in memory what a header asks for: sparse maps, and headers of any length.
"""

import re
from collections.abc import Iterator
from typing import Protocol

from edge_medgemma.runtime.slicing.files.budget import ArchiveBudget, Meter
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import MAX_UNPACKED_BYTES
from edge_medgemma.runtime.slicing.files.members import LINK, Member

BLOCK_BYTES = 512
CHUNK_BYTES = 1024**2

MAX_EXTENDED_BYTES = 1024**2
"""One extended header: a few names and times; a path has at most 4096 bytes."""

HEADER_COST_BYTES, RECORD_COST_BYTES = 4096, 1024
"""Bytes that parsing a header, or one record of an extended one, counts as."""

LONGEST_DIGITS = 9
"""Digits of the length of a record, with the blank behind them."""

_REGULAR, _LINKS, _FOLDER, _SPECIAL, _SPARSE = b"0\0" + b"7", b"12", b"5", b"346", b"S"
_SPARSE_KEY = "sparse"
_SPARSE_REASON = "sparse file in an archive; unpack the archive first"


class TarDamageError(Exception):
    """A header that is none."""


class Stream(Protocol):
    """A file or what a file inflates to."""

    def read(self, size: int, /) -> bytes: ...


def tar_members(stream: Stream, budget: ArchiveBudget, *, is_charged: bool) -> Iterator[Member]:
    """Members in their order; the stream is read to its end, where a gzip has its checksum.

    `is_charged` says that reading the stream charges the budget by itself.

    Raises:
        TarDamageError, EOFError: damaged or truncated, also from a member's content.
        UnreadableFileError: beyond the limits.
    """
    source = _Source(stream, None if is_charged else Meter(budget.take_bytes))
    extended: dict[str, bytes] = {}
    while header := source.header():
        budget.take_bytes(HEADER_COST_BYTES)
        kind, size = header[156:157], _number(header[124:136])
        if kind in b"xLK":
            extended |= _extended(kind, source.all_of(size), budget)
            continue
        size = _number(extended.get("size", b""), 10) or size
        name = _name(header, extended)
        is_sparse = kind == _SPARSE or _SPARSE_KEY in extended
        extended = {}
        if kind == _SPARSE:
            source.skip_sparse_map(header)
        if kind == _FOLDER or (kind == b"\0" and name.endswith("/")):
            yield Member(name)
            continue
        if kind in _LINKS or kind in _SPECIAL:
            yield Member(name, reason=LINK if kind in _LINKS else "not a file")
            continue
        content = source.content(size)
        if kind == b"g":  # defaults for all that follow: a comment in practice
            pass
        elif is_sparse or kind not in _REGULAR:
            yield Member(name, reason=_SPARSE_REASON if is_sparse else "not a file")
        else:
            yield Member(name, content)
        for _ in content:
            pass
    while stream.read(CHUNK_BYTES):
        pass


class _Source:
    """Reads of a stream, charged, that fail where it ends too early."""

    def __init__(self, stream: Stream, meter: Meter | None) -> None:
        self._stream, self._meter = stream, meter

    def header(self) -> bytes:
        """The next header; empty at the end of the archive, which many writers do not mark."""
        block = self._read(BLOCK_BYTES, may_end=True)
        if not any(block):
            return b""
        _check_sum(block)
        return block

    def all_of(self, size: int) -> bytes:
        if size > MAX_EXTENDED_BYTES:
            raise UnreadableFileError("archive whose directory is too large")
        return b"".join(self.content(size))

    def content(self, size: int) -> Iterator[bytes]:
        """Chunks of a member, and past the padding behind it."""
        if size > MAX_UNPACKED_BYTES:
            raise UnreadableFileError("archive with a member of absurd length")
        return self._chunks(size)

    def _chunks(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            chunk = self._read(min(left, CHUNK_BYTES))
            left -= len(chunk)
            yield chunk
        self._read(-size % BLOCK_BYTES)

    def skip_sparse_map(self, header: bytes) -> None:
        """Blocks that continue the map of an old GNU sparse file."""
        is_continued = header[482]
        while is_continued:
            is_continued = self._read(BLOCK_BYTES)[504]

    def _read(self, size: int, *, may_end: bool = False) -> bytes:
        parts, left = [], size
        while left:
            part = self._stream.read(left)
            if not part:
                if may_end and left == size:
                    return b""
                raise EOFError
            left -= len(part)
            parts.append(part)
            if self._meter is not None:
                self._meter.count(read=len(part))
        return b"".join(parts)


def _check_sum(block: bytes) -> None:
    """The sum of a header's bytes, its own field taken for spaces; some writers summed them signed."""
    rest = block[:148] + block[156:]
    unsigned = sum(rest) + 8 * ord(" ")
    signed = unsigned - 256 * sum(byte > 127 for byte in rest)
    if _number(block[148:156]) not in (unsigned, signed):
        raise TarDamageError


def _number(field: bytes, base: int = 8) -> int:
    """A number in digits, or in base 256 where its first bit is set (GNU)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-9]{0,20}", digits):
        raise TarDamageError
    try:
        return int(digits or b"0", base)
    except ValueError as error:
        raise TarDamageError from error


def _name(header: bytes, extended: dict[str, bytes]) -> str:
    name = extended.get("path")
    if name is None:
        name = header[:100].partition(b"\0")[0]
        prefix = header[345:500].partition(b"\0")[0]
        if prefix and header[257:263] == b"ustar\0":  # GNU has times there
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _extended(kind: bytes, content: bytes, budget: ArchiveBudget) -> dict[str, bytes]:
    """What a header says of the member after it: pax records, or a long name (GNU)."""
    if kind != b"x":
        return {"path": content.partition(b"\0")[0]} if kind == b"L" else {}
    kept: dict[str, bytes] = {}
    place = 0
    while place < len(content):
        budget.take_bytes(RECORD_COST_BYTES)
        blank = content.find(b" ", place, place + LONGEST_DIGITS)
        end = place + _number(content[place:blank], 10) if blank > place else 0
        key, equals, value = content[blank + 1 : end].partition(b"=")
        if not blank < end <= len(content) or not equals or not value.endswith(b"\n"):
            raise TarDamageError
        if key in (b"path", b"size"):
            kept[key.decode()] = value[:-1]
        elif key.startswith(b"GNU.sparse"):
            kept[_SPARSE_KEY] = b""
        place = end
    return kept
