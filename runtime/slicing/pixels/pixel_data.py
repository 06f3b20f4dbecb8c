"""Stored pixels of a DICOM slice turned into physical values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, JPEGExtended12Bit

from edge_medgemma.runtime.slicing.dicom.dicom_file import opened_at_pixels, parse_guarded
from edge_medgemma.runtime.slicing.dicom.frames import Frame, as_numbers
from edge_medgemma.runtime.slicing.dicom.mosaic import is_mosaic, read_mosaic
from edge_medgemma.runtime.slicing.dicom.transfer_syntax import is_native, syntax_name
from edge_medgemma.runtime.slicing.dicom.voi import display_values
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import MAX_PIXELS, MAX_ROWS_COLUMNS
from edge_medgemma.runtime.slicing.volume import Modality, Problem

Stored = NDArray[np.int64] | NDArray[np.float64]
"""Values [rows, columns] before any rescale."""

FLOAT_KEYWORDS = ("FloatPixelData", "DoubleFloatPixelData")

MAX_JUMP_FRACTION = 0.02
"""Share of neighbours that differ by half of all values there are. Collimators and markers of a
radiograph reach 0.5 %; values that have wrapped around, 3 % and more."""

BITS_BEYOND_STORED = Problem(
    "bits_beyond_stored",
    "the values have more bits than the header states, so the picture is cut to pieces; export it again",
)

WRAPPED_VALUES = Problem(
    "wrapped_values", "bright and dark jump into each other: the values have wrapped around"
)

AIR_HU = -1024.0
"""Value of padding in CT, and the floor of all values: scanners mark the corners outside the
field of view with -1500 to -3024, which is no attenuation of anything."""


MAX_PADDING_HU = -300.0
"""Padding lies at air or below; a padding value above this would cut holes into the body."""

PADDING_IN_TISSUE = Problem(
    "padding_in_tissue",
    "the header calls a value of tissue padding; such voxels are left as they are",
)


@dataclass(frozen=True, slots=True)
class DecodedSlices:
    """Slices of one file as they are stored, not yet turned."""

    values: NDArray[np.float32]
    """[N, rows, columns], in the units of `Volume.array`."""
    problems: tuple[Problem, ...] = ()
    """What the values show that the header does not say."""


def decode_slices(path: Path, frames: Sequence[int], modality: Modality) -> DecodedSlices:
    """Decode some frames of one file.

    Raises:
        UnreadableFileError: the pixels cannot be decoded; the message says why.
    """
    with opened_at_pixels(path) as (dataset, source):
        return _decode_guarded(dataset, source, frames, modality)


def decode_native(path: Path, frames: Sequence[int], modality: Modality) -> DecodedSlices | None:
    """`decode_slices` of a file that needs no codec; None if it needs one.

    The file is parsed once: the transfer syntax that tells is the one that would choose the codec.
    """
    with opened_at_pixels(path) as (dataset, source):
        if not parse_guarded(lambda: is_native(dataset.file_meta.TransferSyntaxUID)):
            return None
        return _decode_guarded(dataset, source, frames, modality)


def _decode_guarded(
    dataset: Dataset, source: BinaryIO, frames: Sequence[int], modality: Modality
) -> DecodedSlices:
    syntax = parse_guarded(lambda: syntax_name(dataset.file_meta.TransferSyntaxUID))
    return parse_guarded(
        lambda: _decode(dataset, source, frames, modality),
        failure=f"pixels cannot be decoded ({syntax})",
    )


def _decode(
    dataset: Dataset, source: BinaryIO, frames: Sequence[int], modality: Modality
) -> DecodedSlices:
    problems: list[Problem] = []
    if is_mosaic(dataset):
        mosaic = read_mosaic(dataset)
        image = _decode_frame(dataset, source, 0, modality, problems)
        slices = [mosaic.cut(image, tile) for tile in frames]
    else:
        slices = [_decode_frame(dataset, source, frame, modality, problems) for frame in frames]
    return DecodedSlices(np.stack(slices), tuple(dict.fromkeys(problems)))


def _decode_frame(
    dataset: Dataset, source: BinaryIO, frame: int, modality: Modality, problems: list[Problem]
) -> NDArray[np.float32]:
    stored = decode_stored(dataset, source, frame)
    if stored.dtype.kind == "i":
        words = cast(NDArray[np.int64], stored)
        problems.extend(stored_problems(dataset, source, frame, words))
    values, display_problems = _physical(Frame(dataset, frame), stored, modality)
    problems.extend(display_problems)
    return values


def decode_stored(dataset: Dataset, source: BinaryIO, frame: int) -> Stored:
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
        return values.astype(np.int64)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableFileError(f"unsupported transfer syntax ({syntax_name(syntax)})") from error
    keyword = next((name for name in FLOAT_KEYWORDS if name in dataset), "PixelData")
    options = as_pixel_options(
        dataset,
        transfer_syntax_uid=syntax,
        pixel_keyword=keyword,
        pixel_vr="OB" if int(dataset.BitsAllocated) <= 8 else "OW",
    )
    stored, _ = decoder.as_array(source, index=frame, raw=True, **options)
    source.seek(begin)
    if stored.dtype.kind != "f":
        return cast(Stored, stored.astype(np.int64))
    if not np.isfinite(stored).all():
        raise UnreadableFileError("float pixels that are not all numbers")
    return cast(Stored, stored.astype(np.float64))


def _raw_words(dataset: Dataset, source: BinaryIO, frame: int) -> NDArray[np.int64] | None:
    """All 16 bits [rows, columns] of uncompressed pixels, unsigned; None where there are no others."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not is_native(syntax) or int(dataset.BitsAllocated) != 16 or "PixelData" not in dataset:
        return None
    rows, columns, begin = int(dataset.Rows), int(dataset.Columns), source.tell()
    source.seek(begin + 2 * rows * columns * frame)
    content = source.read(2 * rows * columns)
    source.seek(begin)
    words = np.frombuffer(content, "<u2" if syntax.is_little_endian else ">u2")
    return words.astype(np.int64).reshape(rows, columns)


def stored_problems(
    dataset: Dataset, source: BinaryIO, frame: int, stored: NDArray[np.int64]
) -> list[Problem]:
    """Whether the number of bits that the header states cuts the values off.

    Bits above high bit (0028,0102) may be overlays, copies of the sign, or the values' own: with the
    last, neighbours differ less with these bits than without them.
    """
    bits = int(dataset.BitsStored)
    raw = _raw_words(dataset, source, frame)
    if raw is not None and bits < 16 and np.any(raw >> bits):
        signed = int(dataset.PixelRepresentation) == 1
        is_sign = signed and np.array_equal(raw, stored & 0xFFFF)
        if not is_sign and _roughness(raw) < _roughness(stored):
            return [BITS_BEYOND_STORED]
    half = 1 << (bits - 1)
    jumps = sum(int((np.abs(np.diff(stored, axis=axis)) > half).sum()) for axis in (0, 1))
    return [WRAPPED_VALUES] if jumps > MAX_JUMP_FRACTION * 2 * stored.size else []


def _roughness(image: NDArray[np.int64]) -> float:
    """Mean difference of neighbours."""
    return sum(
        float(np.abs(np.diff(image, axis=axis)).mean()) for axis in (0, 1) if image.shape[axis] > 1
    )


def _physical(
    frame: Frame, stored: Stored, modality: Modality
) -> tuple[NDArray[np.float32], tuple[Problem, ...]]:
    is_padding = padding_mask(frame.dataset, stored)
    is_inverted = frame.term("PhotometricInterpretation") == "MONOCHROME1"
    if modality is Modality.MR and is_inverted:
        stored = _inverted(frame.dataset, stored)
    values = rescale(frame, stored, modality)
    if modality is Modality.CT:
        is_tissue = is_padding.any() and float(values[is_padding].max()) > MAX_PADDING_HU
        if not is_tissue:
            values[is_padding] = AIR_HU
        floored = np.maximum(values, np.float32(AIR_HU))
        return floored, (PADDING_IN_TISSUE,) if is_tissue else ()
    if is_padding.all():
        return np.zeros_like(values), ()
    values[is_padding] = values[~is_padding].min()
    if modality not in (Modality.CR, Modality.DX):
        return values, ()
    shown, problems = display_values(frame, values)
    shown[is_padding] = 0
    return shown, problems


def _inverted(dataset: Dataset, stored: Stored) -> Stored:
    """Values for which the lowest is black, of those for which it is white (PS3.3 C.7.6.3.1.2)."""
    if stored.dtype.kind == "f":
        return -stored
    is_signed = int(dataset.get("PixelRepresentation") or 0) == 1
    return (-1 if is_signed else (1 << int(dataset.BitsStored)) - 1) - stored


def rescale(frame: Frame, stored: Stored, modality: Modality) -> NDArray[np.float32]:
    """Modality values of stored ones: the frame's functional groups, then the top level.

    A modality LUT (0028,3000) is applied only to other kinds than CT, where it cannot give
    Hounsfield units; nothing at all leaves values as they are.
    """
    transformation = frame.group("PixelValueTransformationSequence")
    if transformation is None and frame.dataset.get("ModalityLUTSequence"):
        if modality is not Modality.CT:
            return cast(
                NDArray[np.float32],
                apply_modality_lut(stored.astype(np.int32), frame.dataset).astype(np.float32),
            )
        return stored.astype(np.float32)
    slope = frame.number("RescaleSlope", "PixelValueTransformationSequence")
    intercept = frame.number("RescaleIntercept", "PixelValueTransformationSequence")
    values = stored.astype(np.float32)
    values *= np.float32(slope if slope else 1.0)
    values += np.float32(intercept or 0.0)
    return values


def padding_mask(dataset: Dataset, stored: Stored) -> NDArray[np.bool_]:
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
