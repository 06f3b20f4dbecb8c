"""Decompression in bounded steps: no input, however small, asks for more memory than a chunk."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from edge_medgemma.runtime.slicing.files.budget import Meter
from edge_medgemma.runtime.slicing.files.members import MemberError

CHUNK_BYTES = 1024**2
"""Most bytes that one step gives."""

INPUT_BYTES = 16 * 1024
"""Bytes of a file that one step takes."""

MAX_DICTIONARY_BYTES = 64 * 1024**2
"""Largest window of LZMA, the default of the strongest preset; the format allows 4 GiB."""


class Decompressor(Protocol):
    """One that takes a limit for its output, as those of bz2 and lzma do."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class Inflater:
    """zlib's decompressor with the interface of the other two."""

    def __init__(self, window_bits: int) -> None:
        self._inflater = zlib.decompressobj(window_bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int = CHUNK_BYTES) -> bytes:
        given = self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)
        # a full step may leave output inside without any input
        self.needs_input = not self._inflater.unconsumed_tail and len(given) < max_length
        return given


class _Stored:
    """What was not compressed."""

    eof, needs_input = False, True

    def decompress(self, data: bytes, max_length: int = CHUNK_BYTES) -> bytes:
        return data


def _lzma_of_zip(read: Callable[[int], bytes]) -> Decompressor:
    """LZMA as in a zip: two bytes of version, two of length, then the properties (APPNOTE 5.8.8)."""
    header = read(9)
    if len(header) < 9 or header[2:4] != b"\x05\x00" or header[4] >= 9 * 5 * 5:
        raise EOFError
    dictionary = int.from_bytes(header[5:], "little")
    if dictionary > MAX_DICTIONARY_BYTES:
        limit = MAX_DICTIONARY_BYTES // 1024**2
        raise MemberError(
            f"compressed with a dictionary of more than {limit} MiB; unpack the archive first"
        )
    lzma1 = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": max(dictionary, 4096),
        "lc": header[4] % 9,
        "lp": header[4] // 9 % 5,
        "pb": header[4] // 45,
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma1])


DECOMPRESSORS: dict[int, Callable[[Callable[[int], bytes]], Decompressor]] = {
    0: lambda read: _Stored(),
    8: lambda read: Inflater(-zlib.MAX_WBITS),
    12: lambda read: bz2.BZ2Decompressor(),
    14: _lzma_of_zip,
}
"""Compression method of a zip -> the decompressor, which may read a header (APPNOTE 4.4.5)."""


def inflated(
    read: Callable[[int], bytes], decompressor: Decompressor, meter: Meter
) -> Iterator[bytes]:
    """Chunks of at most CHUNK_BYTES until the stream ends or, stored, the input.

    Raises:
        EOFError: the input ends before the stream.
        UnreadableFileError: beyond the budget.
        zlib.error, lzma.LZMAError, OSError: damaged.
    """
    while not decompressor.eof:
        data = read(INPUT_BYTES) if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            if isinstance(decompressor, _Stored):
                return
            raise EOFError
        chunk = decompressor.decompress(data, CHUNK_BYTES)
        meter.count(read=len(data), given=len(chunk))
        if chunk:
            yield chunk
