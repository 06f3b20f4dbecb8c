"""Opening one DICOM file without trusting it."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edge_medgemma.runtime.slicing.discovery import DICOM_PREAMBLE_BYTES, UnreadableFileError
from edge_medgemma.runtime.slicing.limits import MAX_INFLATED_BYTES
from edge_medgemma.runtime.slicing.quiet import silenced

PIXEL_DATA_TAG = (0x7FE0, 0x0010)
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
        except RecursionError as error:
            raise UnreadableFileError("sequences nested too deeply") from error
        except Exception as error:
            raise UnreadableFileError(failure) from error


def read_header(path: Path, keywords: list[str]) -> tuple[Dataset, int | None]:
    """Read the named attributes and the bytes of pixel data the file holds, without the pixels.

    Returns the data set and the number of bytes (None: there is no pixel data element). Call it
    inside `parse_guarded`.
    """
    with path.open("rb") as file:
        source = _inflate(path, file)
        dataset = pydicom.dcmread(
            source, force=True, stop_before_pixels=True, specific_tags=list(keywords)
        )
        return dataset, _pixel_bytes(source, dataset)


def read_whole(path: Path) -> Dataset:
    """Read the file with its pixel data. Call it inside `parse_guarded`."""
    with path.open("rb") as file:
        dataset = pydicom.dcmread(_inflate(path, file), force=True)
    dataset.file_meta.setdefault("TransferSyntaxUID", ImplicitVRLittleEndian)
    return dataset


def is_compressed(path: Path) -> bool:
    """Whether a codec is needed for the pixels. Call it inside `parse_guarded`."""
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    except pydicom.errors.InvalidDicomError:
        return False  # no preamble: Implicit VR Little Endian
    return syntax is not None and bool(UID(syntax).is_encapsulated)


def _inflate(path: Path, file: BinaryIO) -> BinaryIO:
    """The file itself, or a deflated one as the same file in Explicit VR Little Endian.

    pydicom inflates without a bound: one megabyte may become a gigabyte.
    """
    head = file.read(DICOM_PREAMBLE_BYTES + 4 + 1024)
    file.seek(0)
    deflated = DeflatedExplicitVRLittleEndian.encode()
    if deflated not in head:
        return file
    meta = pydicom.filereader.read_file_meta_info(path)
    # (0002,0000) takes 12 bytes and counts what follows it (PS3.10 section 7.1).
    end = DICOM_PREAMBLE_BYTES + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    start = file.read(end)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(file.read(), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        limit = MAX_INFLATED_BYTES // 1024**2
        raise UnreadableFileError(f"inflates to more than {limit} MiB")
    plain = ExplicitVRLittleEndian.encode().ljust(len(deflated), b"\0")
    return BytesIO(start.replace(deflated, plain) + content)


def _pixel_bytes(source: BinaryIO, dataset: Dataset) -> int | None:
    """Bytes of pixel data present, the reading position being at its tag."""
    is_implicit, is_little = dataset.original_encoding
    order = "<" if is_little else ">"
    header = source.read(8 if is_implicit else 12)
    if len(header) < 8 or struct.unpack(order + "HH", header[:4]) != PIXEL_DATA_TAG:
        return None
    (length,) = struct.unpack(order + "I", header[-4:])
    begin = source.tell()
    present = source.seek(0, 2) - begin
    return present if length == UNDEFINED_LENGTH else min(int(length), present)
