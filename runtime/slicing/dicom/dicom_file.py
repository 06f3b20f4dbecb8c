"""Opening one DICOM file without trusting it."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edge_medgemma.runtime.slicing.files.discovery import (
    DICOM_PREAMBLE_BYTES,
    UnreadableFileError,
    open_regular,
)
from edge_medgemma.runtime.slicing.files.limits import (
    MAX_HEADER_BYTES,
    MAX_HEADER_READS,
    MAX_INFLATED_BYTES,
    MAX_SEQUENCE_ITEMS,
)
from edge_medgemma.runtime.slicing.silence import silenced

PIXEL_KEYWORDS = {
    (0x7FE0, 0x0010): "PixelData",
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
}
"""The three elements that hold pixels, PS3.3 C.7.6.3."""

ITEM_TAG_LITTLE, ITEM_TAG_BIG = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"
"""(FFFE,E000), which begins every item of a sequence."""

GROUP_LENGTH_START = b"\x02\0\0\0UL\x04\0"
"""Tag, value representation and length of (0002,0000), always in Explicit VR Little Endian."""

UNDEFINED_LENGTH = 0xFFFFFFFF
"""PS3.5 section 7.1.1: the length of encapsulated pixel data."""

_Result = TypeVar("_Result")


def parse_guarded(
    parse: Callable[[], _Result], failure: str = "damaged: not readable as DICOM"
) -> _Result:
    """Run `parse` over a file's content, turning every failure into an `UnreadableFileError`.

    pydicom raises errors of any type on a damaged file (RecursionError on nested sequences,
    struct.error, KeyError...), and its warnings quote values from the file: neither gets out.
    """
    with silenced("pydicom"), pydicom.config.disable_value_validation():
        try:
            return parse()
        except UnreadableFileError:
            raise
        except Exception as error:
            raise _reason(error, failure) from error


def _reason(error: Exception, failure: str) -> UnreadableFileError:
    """The reason at the root of an error: pydicom covers any error inside a sequence by its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UnreadableFileError):
            return cause
        if isinstance(cause, RecursionError):
            return UnreadableFileError("sequences nested too deeply")
        if isinstance(cause, MemoryError):
            return UnreadableFileError("takes more memory to read than is allowed")
        cause = cause.__context__
    return UnreadableFileError(failure)


def read_header(path: Path, keywords: list[str] | None = None) -> tuple[Dataset, int | None]:
    """Read the named attributes (None: all) and the bytes of pixel data the file holds.

    Returns the data set without pixels and the number of bytes (None: there is no pixel data
    element). Call it inside `parse_guarded`.
    """
    with open_regular(path) as file:
        source = _HeaderReader(_inflate(file))
        dataset = pydicom.dcmread(
            source, force=True, stop_before_pixels=True, specific_tags=keywords
        )
        length = _to_pixels(source.file, dataset)
        if length is None:
            return dataset, None
        begin = source.file.tell()
        present = source.file.seek(0, os.SEEK_END) - begin
        return dataset, present if length == UNDEFINED_LENGTH else min(length, present)


@contextmanager
def opened_at_pixels(path: Path) -> Iterator[tuple[Dataset, BinaryIO]]:
    """The data set without its pixels, and the file at the first byte of them.

    The element that holds them is there and empty: its keyword says which of the three it is.

    Raises:
        UnreadableFileError: damaged, beyond the limits, or without pixel data.
    """
    with open_regular(path) as file:
        yield parse_guarded(lambda: _read_to_pixels(file))


def _read_to_pixels(file: BinaryIO) -> tuple[Dataset, BinaryIO]:
    source = _HeaderReader(_inflate(file))
    dataset = pydicom.dcmread(source, force=True, stop_before_pixels=True)
    dataset.file_meta.setdefault("TransferSyntaxUID", ImplicitVRLittleEndian)
    if _to_pixels(source.file, dataset) is None:
        raise UnreadableFileError("no pixel data; the file may be truncated")
    return dataset, source.file


class _HeaderReader:
    """A file for pydicom to parse that ends the parse before it takes too much memory or time."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._bytes_left = MAX_HEADER_BYTES
        self._items_left = MAX_SEQUENCE_ITEMS
        self._reads_left = MAX_HEADER_READS
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        wanted = min(size, self._bytes_left + 1) if size >= 0 else self._bytes_left + 1
        content = self.file.read(wanted)
        self._bytes_left -= len(content)
        self._items_left -= content.count(ITEM_TAG_LITTLE) + content.count(ITEM_TAG_BIG)
        self._reads_left -= 1
        if self._reads_left < 0:
            raise UnreadableFileError(f"header of more than {MAX_HEADER_READS:,} parts")
        if self._bytes_left < 0:
            raise UnreadableFileError(f"header of more than {MAX_HEADER_BYTES // 1024**2} MiB")
        if self._items_left < 0:
            raise UnreadableFileError(f"header of more than {MAX_SEQUENCE_ITEMS:,} sequence items")
        return content


def _inflate(file: BinaryIO) -> BinaryIO:
    """The file itself, or a deflated one as the same file in Explicit VR Little Endian.

    pydicom inflates without a bound: one megabyte may become a gigabyte.
    """
    head = file.read(DICOM_PREAMBLE_BYTES + 4 + 1024)
    file.seek(0)
    deflated = DeflatedExplicitVRLittleEndian.encode()
    if deflated not in head:
        return file
    # (0002,0000) takes 12 bytes and counts what follows it (PS3.10 section 7.1).
    begin = DICOM_PREAMBLE_BYTES + 4
    if head[begin : begin + 8] != GROUP_LENGTH_START:
        raise UnreadableFileError("damaged: deflated, and without the length of its header")
    length = int.from_bytes(head[begin + 8 : begin + 12], "little")
    if length > MAX_HEADER_BYTES:
        raise UnreadableFileError("damaged: not readable as DICOM")
    start = file.read(begin + 12 + length)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(file.read(MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail or file.read(1):
        limit = MAX_INFLATED_BYTES // 1024**2
        raise UnreadableFileError(f"inflates to more than {limit} MiB")
    plain = ExplicitVRLittleEndian.encode().ljust(len(deflated), b"\0")
    return BytesIO(start.replace(deflated, plain) + content)


def _to_pixels(file: BinaryIO, dataset: Dataset) -> int | None:
    """Move from the tag of the pixel data to its first byte; its length, None without that tag."""
    _, is_little = dataset.original_encoding
    order = "<" if is_little else ">"
    header = file.read(12)
    keyword = PIXEL_KEYWORDS.get(struct.unpack(order + "HH", header[:4])) if header[11:] else None
    if keyword is None:
        return None
    # what the data set is written in, not what its header says
    is_implicit = not (header[4:6].isalpha() and header[6:8] == b"\0\0")
    if is_implicit:
        file.seek(-4, os.SEEK_CUR)
    (length,) = struct.unpack(order + "I", header[4:8] if is_implicit else header[8:])
    setattr(dataset, keyword, b"")
    if length == UNDEFINED_LENGTH:
        _check_fragments(file)
    return int(length)


def _check_fragments(file: BinaryIO) -> None:
    """See that no fragment of compressed pixels ends beyond the file; codecs may hang on those.

    A missing delimiter at the very end is let pass, as many writers forget it.
    """
    begin = file.tell()
    end = file.seek(0, os.SEEK_END)
    position = begin
    for _ in range(MAX_SEQUENCE_ITEMS):
        file.seek(position)
        start = file.read(8)
        if len(start) < 8 or start[:4] != ITEM_TAG_LITTLE:
            break
        position += 8 + int.from_bytes(start[4:], "little")
        if position > end:
            raise UnreadableFileError("truncated: the compressed pixels end in mid-air")
    file.seek(begin)
