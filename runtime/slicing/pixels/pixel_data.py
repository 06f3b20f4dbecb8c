"""Stored pixels of a DICOM slice turned into physical values."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import JPEGExtended12Bit

from edge_medgemma.runtime.slicing.dicom.dicom_file import opened_at_pixels, parse_guarded
from edge_medgemma.runtime.slicing.dicom.frames import Frame, as_numbers
from edge_medgemma.runtime.slicing.dicom.mosaic import is_mosaic, read_mosaic
from edge_medgemma.runtime.slicing.dicom.transfer_syntax import is_native, syntax_name
from edge_medgemma.runtime.slicing.dicom.voi import display_values
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import MAX_PIXELS, MAX_ROWS_COLUMNS
from edge_medgemma.runtime.slicing.volume import Modality

AIR_HU = -1024.0
"""Value of padding in CT, and the floor of all values: scanners mark the corners outside the
field of view with -1500 to -3024, which is no attenuation of anything."""


def decode_slices(
    path: Path, frames: Sequence[int], modality: Modality
) -> list[NDArray[np.float32]]:
    """Decode some frames of one file: [rows, columns] each, in the units of `Volume.array`.

    Raises:
        UnreadableFileError: the pixels cannot be decoded; the message says why.
    """
    with opened_at_pixels(path) as (dataset, source):
        return _decode_guarded(dataset, source, frames, modality)


def decode_native(
    path: Path, frames: Sequence[int], modality: Modality
) -> list[NDArray[np.float32]] | None:
    """`decode_slices` of a file that needs no codec; None if it needs one.

    The file is parsed once: the transfer syntax that tells is the one that would choose the codec.
    """
    with opened_at_pixels(path) as (dataset, source):
        if not parse_guarded(lambda: is_native(dataset.file_meta.TransferSyntaxUID)):
            return None
        return _decode_guarded(dataset, source, frames, modality)


def _decode_guarded(
    dataset: Dataset, source: BinaryIO, frames: Sequence[int], modality: Modality
) -> list[NDArray[np.float32]]:
    syntax = parse_guarded(lambda: syntax_name(dataset.file_meta.TransferSyntaxUID))
    return parse_guarded(
        lambda: _decode(dataset, source, frames, modality),
        failure=f"pixels cannot be decoded ({syntax})",
    )


def _decode(
    dataset: Dataset, source: BinaryIO, frames: Sequence[int], modality: Modality
) -> list[NDArray[np.float32]]:
    if is_mosaic(dataset):
        mosaic = read_mosaic(dataset)
        image = _physical(Frame(dataset, 0), decode_stored(dataset, source, 0), modality)
        return [mosaic.cut(image, tile) for tile in frames]
    return [
        _physical(Frame(dataset, frame), decode_stored(dataset, source, frame), modality)
        for frame in frames
    ]


def decode_stored(dataset: Dataset, source: BinaryIO, frame: int) -> NDArray[np.int32]:
    """Stored values [rows, columns] of one frame, unused high bits removed, signs extended.

    `dataset` and `source` are those of `opened_at_pixels`; only this frame is read from the file.

    Raises:
        UnreadableFileError: no permissively licensed decoder takes the transfer syntax.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if max(rows, columns) > MAX_ROWS_COLUMNS or rows * columns > MAX_PIXELS:
        raise UnreadableFileError(f"{rows} × {columns} pixels are too many")
    syntax = dataset.file_meta.TransferSyntaxUID
    begin = source.tell()
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        # here alone, so that a process that decodes nothing needs no codec
        from edge_medgemma.runtime.slicing.pixels.jpeg12 import decode_jpeg12

        values = decode_jpeg12(dataset, source, frame)
        source.seek(begin)
        return values.astype(np.int32)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableFileError(f"unsupported transfer syntax ({syntax_name(syntax)})") from error
    options = as_pixel_options(
        dataset,
        transfer_syntax_uid=syntax,
        pixel_keyword="PixelData",
        pixel_vr="OB" if int(dataset.BitsAllocated) <= 8 else "OW",
    )
    stored, _ = decoder.as_array(source, index=frame, raw=True, **options)
    source.seek(begin)
    return cast(NDArray[np.int32], stored.astype(np.int32))


def _physical(frame: Frame, stored: NDArray[np.int32], modality: Modality) -> NDArray[np.float32]:
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
    values = stored.astype(np.float32)
    values *= np.float32(slope if slope else 1.0)
    values += np.float32(intercept or 0.0)
    return values


def padding_mask(dataset: Dataset, stored: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mask of the stored values that are padding: pixel padding value (0028,0120) up to its range limit.

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
