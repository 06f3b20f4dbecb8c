"""Stored pixels of a DICOM slice turned into physical values."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import UID

from edge_medgemma.runtime.slicing.dicom_file import parse_guarded, read_whole
from edge_medgemma.runtime.slicing.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.frames import Frame, as_numbers
from edge_medgemma.runtime.slicing.limits import MAX_ROWS_COLUMNS
from edge_medgemma.runtime.slicing.voi import display_values
from edge_medgemma.runtime.slicing.volume import Modality

AIR_HU = -1024.0
"""What padding becomes in CT, and the floor of all values: scanners mark the corners outside the
field of view with -1500 to -3024, which is no attenuation of anything."""


def decode_slices(
    path: Path, frames: Sequence[int], modality: Modality
) -> list[NDArray[np.float32]]:
    """Decode some frames of one file: [rows, columns] each, in the units of `Volume.array`.

    Raises:
        UnreadableFileError: the pixels cannot be decoded; the message says why.
    """
    dataset = parse_guarded(lambda: read_whole(path))
    syntax = parse_guarded(lambda: _syntax_name(dataset))
    return parse_guarded(
        lambda: [_physical(Frame(dataset, frame), modality) for frame in frames],
        failure=f"pixels cannot be decoded ({syntax})",
    )


def decode_stored(dataset: Dataset, frame: int) -> NDArray[np.int32]:
    """Stored values [rows, columns] of one frame, unused high bits removed, signs extended.

    Raises:
        UnreadableFileError: no permissively licensed decoder takes the transfer syntax.
    """
    if max(int(dataset.Rows), int(dataset.Columns)) > MAX_ROWS_COLUMNS:
        raise UnreadableFileError(f"more than {MAX_ROWS_COLUMNS} rows or columns")
    try:
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    except NotImplementedError as error:
        syntax = _syntax_name(dataset)
        raise UnreadableFileError(f"unsupported transfer syntax ({syntax})") from error
    stored, _ = decoder.as_array(dataset, index=frame, raw=True)
    return cast(NDArray[np.int32], stored.astype(np.int32))


def _syntax_name(dataset: Dataset) -> str:
    """The name of the transfer syntax in the standard's list, never text from the file."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    return str(syntax.name) if syntax.name != str(syntax) else "not in the standard"


def _physical(frame: Frame, modality: Modality) -> NDArray[np.float32]:
    stored = decode_stored(frame.dataset, frame.index)
    is_padding = padding_mask(frame.dataset, stored)
    values = rescale(frame, stored, modality)
    if modality is Modality.CT:
        values[is_padding] = AIR_HU
        return np.maximum(values, np.float32(AIR_HU))
    if is_padding.all():
        return np.zeros_like(values)
    values[is_padding] = values[~is_padding].min()
    if modality in (Modality.CR, Modality.DX):
        values = display_values(frame, values)
        values[is_padding] = 0
    return values


def rescale(frame: Frame, stored: NDArray[np.int32], modality: Modality) -> NDArray[np.float32]:
    """Modality values of stored ones: the frame's functional groups, then the top level.

    A modality LUT (0028,3000) is applied only to other kinds than CT, where it cannot give
    Hounsfield units; nothing at all leaves values as they are.
    """
    transformation = frame.group("PixelValueTransformationSequence")
    if transformation is None and frame.dataset.get("ModalityLUTSequence"):
        if modality is not Modality.CT:
            return cast(
                NDArray[np.float32], apply_modality_lut(stored, frame.dataset).astype(np.float32)
            )
        return stored.astype(np.float32)
    slope = frame.number("RescaleSlope", "PixelValueTransformationSequence")
    intercept = frame.number("RescaleIntercept", "PixelValueTransformationSequence")
    values = stored * (slope if slope else 1.0) + (intercept or 0.0)
    return values.astype(np.float32)


def padding_mask(dataset: Dataset, stored: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where stored values are padding: pixel padding value (0028,0120) up to its range limit.

    Compared modulo the stored width, since the tag is often written with the other sign
    (63536 as US for -2000 in signed pixels).
    """
    padding = as_numbers(dataset.get("PixelPaddingValue"))
    if not padding:
        return np.zeros(stored.shape, dtype=bool)
    limit = as_numbers(dataset.get("PixelPaddingRangeLimit")) or padding
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    bits = int(dataset.BitsAllocated)
    ends = sorted(_as_stored(int(value), bits, signed) for value in (padding[0], limit[0]))
    return (stored >= ends[0]) & (stored <= ends[1])


def _as_stored(value: int, bits: int, signed: bool) -> int:
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value
