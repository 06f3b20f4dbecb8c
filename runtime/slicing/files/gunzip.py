"""Gzipped files inflated in bounded steps, their checksums believed."""

import io
import zlib
from collections.abc import Callable
from typing import BinaryIO

from edge_medgemma.runtime.slicing.files.budget import Meter
from edge_medgemma.runtime.slicing.files.discovery import GZIP_MAGIC, UnreadableFileError
from edge_medgemma.runtime.slicing.files.inflate import CHUNK_BYTES, INPUT_BYTES, Inflater

MEMBER_COST_BYTES = 4096
"""Bytes that beginning one more gzip stream counts as; blocked gzip has one for every 64 KiB."""


class Gunzip:
    """A gzipped file read once from its start: all its streams, one after the other.

    A wrong checksum or code says that what came before may be wrong as well, so it is no damage
    that ends a list but a reason to refuse everything.
    """

    def __init__(self, file: BinaryIO, take_bytes: Callable[[int], None]) -> None:
        """`take_bytes` is charged with what is read or given, and may refuse it."""
        self._file, self._take_bytes, self._meter = file, take_bytes, Meter(take_bytes)
        self._inflater = Inflater(16 + zlib.MAX_WBITS)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            EOFError: truncated.
            UnreadableFileError: damaged, or beyond the budget.
        """
        while size > 0:
            if self._inflater.eof and not self._begin_next():
                return b""
            data, self._rest = self._rest, b""
            if self._inflater.needs_input and not data:
                data = self._file.read(INPUT_BYTES)
                self._meter.count(read=len(data))
                if not data:
                    raise EOFError
            try:
                given = self._inflater.decompress(data, min(size, CHUNK_BYTES))
            except zlib.error as error:
                raise UnreadableFileError("damaged gzip file") from error
            self._meter.count(given=len(given))
            if given:
                return given
        return b""

    def _begin_next(self) -> bool:
        """Whether another stream follows; what else follows is no part of the file."""
        data = self._inflater.unused_data
        if len(data) < len(GZIP_MAGIC):
            data += self._file.read(INPUT_BYTES)
        if not data.startswith(GZIP_MAGIC):
            return False
        self._take_bytes(MEMBER_COST_BYTES)
        self._inflater, self._rest = Inflater(16 + zlib.MAX_WBITS), data
        return True


class _BeyondLimitError(UnreadableFileError):
    """More than one reading may inflate."""


class GunzippedFile(io.RawIOBase):
    """A gzipped file to read at any place, backwards by inflating it again.

    Python's reader takes minutes for a header of gigabytes or a million empty streams.
    """

    def __init__(self, file: BinaryIO, limit_bytes: int) -> None:
        """`limit_bytes` bounds all that is inflated, again and again too."""
        self._file, self._bytes_left, self._limit_bytes = file, limit_bytes, limit_bytes
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._position, self._stream = 0, Gunzip(self._file, self._take_bytes)

    def _take_bytes(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            limit = self._limit_bytes / 1024**3
            raise _BeyondLimitError(f"gzip file that inflates to more than {limit:g} GiB")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """From the start or from here; the end is not known."""
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or target < 0:
            raise io.UnsupportedOperation
        if target < self._position:
            self._restart()
        while self._position < target and self._next(target - self._position):
            pass
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self._next(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _next(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._position += len(chunk)
        return chunk

    def check_rest(self) -> None:
        """Inflate what follows, for the checksum at the end, unless that is missing or too far.

        Raises:
            UnreadableFileError: the checksum is wrong, so what was read may be as well.
        """
        try:
            while self._next(CHUNK_BYTES):
                pass
        except (EOFError, _BeyondLimitError):
            return
