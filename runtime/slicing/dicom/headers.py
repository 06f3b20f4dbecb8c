"""Headers of one DICOM file, for each slice in it."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom.uid
from pydicom.dataset import Dataset

from edge_medgemma.runtime.slicing.dicom import (
    body_parts,
    dicom_terms,
    patient,
    radiograph,
    scan_time,
)
from edge_medgemma.runtime.slicing.dicom.body_parts import body_parts_of
from edge_medgemma.runtime.slicing.dicom.dicom_file import parse_guarded, read_header
from edge_medgemma.runtime.slicing.dicom.dicom_terms import has_contrast_agent, is_sharp_kernel
from edge_medgemma.runtime.slicing.dicom.frames import Frame
from edge_medgemma.runtime.slicing.dicom.mosaic import is_mosaic, read_mosaic
from edge_medgemma.runtime.slicing.dicom.patient import Patient, patient_of
from edge_medgemma.runtime.slicing.dicom.radiograph import hanging, is_for_processing, view_of
from edge_medgemma.runtime.slicing.dicom.transfer_syntax import is_native
from edge_medgemma.runtime.slicing.display import AS_STORED, Turn
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.limits import MAX_FRAMES, MAX_PIXELS, MAX_ROWS_COLUMNS
from edge_medgemma.runtime.slicing.geometry import MAX_POSITION_MM, is_orientation, stack_normal
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem, SliceSource, View

IMAGE_CLASSES = {
    pydicom.uid.CTImageStorage: Modality.CT,
    pydicom.uid.EnhancedCTImageStorage: Modality.CT,
    pydicom.uid.LegacyConvertedEnhancedCTImageStorage: Modality.CT,
    pydicom.uid.MRImageStorage: Modality.MR,
    pydicom.uid.EnhancedMRImageStorage: Modality.MR,
    pydicom.uid.LegacyConvertedEnhancedMRImageStorage: Modality.MR,
    pydicom.uid.ComputedRadiographyImageStorage: Modality.CR,
    pydicom.uid.DigitalXRayImageStorageForPresentation: Modality.DX,
    pydicom.uid.DigitalXRayImageStorageForProcessing: Modality.DX,
}
"""SOP classes that are read; every other object is skipped by the name of its class."""

HOUNSFIELD_TYPES = ("", "HU", "US")
"""Rescale types (0028,1054) of CT that may be Hounsfield: absent means HU (PS3.3 C.8.2.1.1.2), and
`US`, unspecified, is what enhanced CTs with Hounsfield values carry; pixels are checked later."""

HOUNSFIELD_WORD = "HOUN"
"""Some workstations write the unit out, with and without a spelling mistake."""

PHASE_TYPES = {"P", "PHASE", "PHASE MAP"}
"""Third values of image type (0008,0008) of MR that hold angles, made for calculations."""

KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "FrameOfReferenceUID", "ImageType", "ConvolutionKernel",
    "Rows", "Columns", "NumberOfFrames", "FrameIncrementPointer", "PhotometricInterpretation",
    "SamplesPerPixel", "BitsAllocated", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber",
    "SliceLocation", "AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime", "DiffusionBValue",
    "EchoTime", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *patient.KEYWORDS, *scan_time.KEYWORDS, *body_parts.KEYWORDS, *dicom_terms.CONTRAST_KEYWORDS, *radiograph.KEYWORDS,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """One plane of pixels as its headers describe it."""

    source: SliceSource
    patient: Patient
    study_uid: str
    """Empty if the file has none."""
    series_uid: str
    study_date: str
    scanned_at: str
    """As `scan_time` gives it; empty if the file does not say."""
    frame_of_reference: str
    """UID; empty if the file has none."""
    modality: Modality
    body_parts: tuple[BodyPart, ...]
    """All that the texts of the header name."""
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None
    """Row, column."""
    spacing_between_mm: float | None
    """Spacing between slices if given, else slice thickness: only for a stack without positions."""
    thickness_mm: float | None
    slice_location_mm: float | None
    echo_time_ms: float | None
    """Of an MR."""
    position_mm: tuple[float, ...] | None
    """LPS of the centre of the first pixel."""
    orientation: tuple[float, ...] | None
    """Direction cosines of a row (along columns), then of a column."""
    contrast: tuple[str, ...]
    """Series number, stack and, in MR, kind of image: one volume shares them all."""
    repeats: tuple[str, ...]
    """Values that may tell apart slices at one position, named by `REPEAT_NAMES`."""
    instance_number: int
    is_original: bool
    is_localizer: bool
    is_sharp_kernel: bool
    has_contrast_agent: bool
    rescale: tuple[float, float] | None
    """Slope and intercept of a CT that make Hounsfield units; None where they cannot."""
    is_for_processing: bool
    view: View
    hanging: tuple[Turn, bool]
    """Of a radiograph: the turn to the standard way up, and whether the header gives it."""
    notes: tuple[Problem, ...] = ()
    """What had to be assumed to read this slice."""


REPEAT_NAMES = ("b-values", "image types", "kernels", "time points", "acquisitions", "phases")
"""Names of the values of `SliceHeader.repeats`, in the order in which they are tried."""


def read_slice_headers(path: Path) -> list[SliceHeader]:
    """Every slice of one DICOM file, pixels unread.

    Raises:
        UnreadableFileError: not an image that can be stacked (with the reason), damaged,
            truncated, or beyond the limits.
    """
    return parse_guarded(lambda: _read(path))


def _read(path: Path) -> list[SliceHeader]:
    dataset, pixel_bytes = read_header(path, KEYWORDS)
    modality = _modality(dataset)
    frame_count = _count(dataset, "NumberOfFrames", 1)
    _check_pixels(dataset, frame_count, pixel_bytes)
    frames = (Frame(dataset, index) for index in range(frame_count))
    person, scanned_at = patient_of(dataset), scan_time.scan_time(dataset)
    headers = [_slice_header(path, frame, modality, person, scanned_at) for frame in frames]
    if is_mosaic(dataset):
        return _tiles(path, headers[0])
    is_classic = "PerFrameFunctionalGroupsSequence" not in dataset
    is_volume = modality in (Modality.CT, Modality.MR) and frame_count > 1
    return _placed_frames(dataset, headers) if is_classic and is_volume else headers


TIME_POINTERS = (0x00181063, 0x00181065)
"""Frame time and frame time vector: frames that follow each other in time, at one place."""


def _placed_frames(dataset: Dataset, headers: list[SliceHeader]) -> list[SliceHeader]:
    """Frames of a classic multi-frame image, which has one position for all of them.

    They follow each other by spacing between slices (0018,0088), in one of the two directions.
    """
    first = headers[0]
    pointers = np.atleast_1d(dataset.get("FrameIncrementPointer") or [])
    if any(int(pointer) in TIME_POINTERS for pointer in pointers):
        return headers
    step_mm = Frame(dataset, 0).number("SpacingBetweenSlices")
    if not step_mm or first.position_mm is None or first.orientation is None:
        return [replace(header, position_mm=None) for header in headers]
    normal = stack_normal(np.array(first.orientation))
    note = Problem(
        "frames_placed_by_spacing",
        f"{len(headers)} frames have one position; {abs(step_mm):g} mm from each to the next, "
        "ascending, is taken from spacing between slices",
    )
    return [
        replace(
            header,
            position_mm=tuple((np.array(first.position_mm) + normal * abs(step_mm) * i).tolist()),
            notes=(note,),
        )
        for i, header in enumerate(headers)
    ]


def _tiles(path: Path, image: SliceHeader) -> list[SliceHeader]:
    """One header per tile of a mosaic."""
    position, orientation = image.position_mm, image.orientation
    if position is None or orientation is None or image.pixel_spacing_mm is None:
        raise UnreadableFileError("mosaic of tiles without a position; export it as single slices")
    mosaic = read_mosaic(read_header(path)[0])
    return [
        replace(
            image,
            source=replace(image.source, frame=tile),
            rows=mosaic.rows,
            columns=mosaic.columns,
            position_mm=mosaic.corner_mm(tile, position, orientation, image.pixel_spacing_mm),
        )
        for tile in range(mosaic.count)
    ]


def _modality(dataset: Dataset) -> Modality:
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if not sop_class:
        raise UnreadableFileError("not a DICOM image: no SOP class, or damaged")
    sop_class = pydicom.uid.UID(str(sop_class))
    if sop_class not in IMAGE_CLASSES:
        known = sop_class.name if sop_class.name != str(sop_class) else "an unknown class"
        raise UnreadableFileError(f"not a CT, MR, CR or DX image: {known}")
    if not dataset.get("SeriesInstanceUID") or not dataset.get("SOPInstanceUID"):
        raise UnreadableFileError("no series or object UID")
    return IMAGE_CLASSES[sop_class]


def _check_pixels(dataset: Dataset, frame_count: int, pixel_bytes: int | None) -> None:
    rows, columns = _count(dataset, "Rows", 0), _count(dataset, "Columns", 0)
    if not (0 < rows <= MAX_ROWS_COLUMNS and 0 < columns <= MAX_ROWS_COLUMNS):
        raise UnreadableFileError(
            f"{rows} × {columns} pixels; expected 1 to {MAX_ROWS_COLUMNS} each way"
        )
    if rows * columns > MAX_PIXELS:
        raise UnreadableFileError(f"{rows} × {columns} pixels; expected at most {MAX_PIXELS:,}")
    if not 0 < frame_count <= MAX_FRAMES:
        raise UnreadableFileError(f"{frame_count} frames; expected 1 to {MAX_FRAMES}")
    is_palette = "PALETTE" in str(dataset.get("PhotometricInterpretation") or "")
    if _count(dataset, "SamplesPerPixel", 1) != 1 or is_palette:
        raise UnreadableFileError("colour image, not a scan")
    if pixel_bytes is None:
        raise UnreadableFileError("no pixel data; the file may be truncated")
    syntax = dataset.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
    expected = rows * columns * frame_count * _count(dataset, "BitsAllocated", 16) // 8
    if is_native(syntax) and pixel_bytes < expected:
        raise UnreadableFileError(
            f"truncated: {pixel_bytes:,} of {expected:,} bytes of pixel data are there"
        )


def _slice_header(
    path: Path, frame: Frame, modality: Modality, person: Patient, scanned_at: str
) -> SliceHeader:
    dataset = frame.dataset
    is_radiograph = modality in (Modality.CR, Modality.DX)
    image_type = _image_type(frame, modality)
    spacing = frame.numbers("PixelSpacing", "PixelMeasuresSequence", 2)
    if spacing is None and is_radiograph:
        spacing = frame.numbers("ImagerPixelSpacing", "", 2)
    between = frame.number("SpacingBetweenSlices", "PixelMeasuresSequence")
    thickness = frame.number("SliceThickness", "PixelMeasuresSequence")
    kernel = frame.term("ConvolutionKernel", "CTReconstructionSequence")
    is_phase = modality is Modality.MR and not PHASE_TYPES.isdisjoint(image_type[2:4])
    return SliceHeader(
        source=SliceSource(path, frame.index, _uid(dataset, "SOPInstanceUID")),
        patient=person,
        study_uid=_uid(dataset, "StudyInstanceUID", default=""),
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        study_date=frame.term("StudyDate"),
        scanned_at=scanned_at,
        frame_of_reference=_uid(dataset, "FrameOfReferenceUID", default=""),
        modality=modality,
        body_parts=body_parts_of(frame, modality),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
        spacing_between_mm=abs(between or thickness or 0.0) or None,
        thickness_mm=thickness if thickness and thickness > 0 else None,
        slice_location_mm=frame.number("SliceLocation"),
        echo_time_ms=_echo_time_ms(frame) if modality is Modality.MR else None,
        position_mm=_position_mm(frame),
        orientation=_orientation(frame),
        contrast=_contrast(frame, modality, image_type),
        repeats=_repeats(frame, image_type, kernel),
        instance_number=round(frame.number("InstanceNumber") or 0),
        is_original="DERIVED" not in image_type[:1] and not is_phase,
        is_localizer="LOCALIZER" in image_type,
        is_sharp_kernel=is_sharp_kernel(kernel),
        has_contrast_agent=has_contrast_agent(frame),
        rescale=_hounsfield_rescale(frame),
        is_for_processing=is_radiograph and is_for_processing(frame),
        view=view_of(frame) if is_radiograph else View.UNKNOWN,
        hanging=hanging(frame) if is_radiograph else (AS_STORED, False),
    )


def _position_mm(frame: Frame) -> tuple[float, ...] | None:
    position = frame.numbers("ImagePositionPatient", "PlanePositionSequence", 3)
    return position if position and max(map(abs, position)) <= MAX_POSITION_MM else None


def _orientation(frame: Frame) -> tuple[float, ...] | None:
    cosines = frame.numbers("ImageOrientationPatient", "PlaneOrientationSequence", 6)
    return cosines if cosines and is_orientation(np.array(cosines)) else None


def _image_type(frame: Frame, modality: Modality) -> list[str]:
    macro = {
        Modality.CT: "CTImageFrameTypeSequence",
        Modality.MR: "MRImageFrameTypeSequence",
    }.get(modality, "")
    per_frame = frame.term("FrameType", macro) if macro else ""
    return (per_frame or frame.term("ImageType")).split("\\")


def _contrast(frame: Frame, modality: Modality, image_type: list[str]) -> tuple[str, ...]:
    group = frame.term("SeriesNumber"), frame.term("StackID", "FrameContentSequence")
    if modality != Modality.MR:
        return group
    component = frame.term("ComplexImageComponent", "MRImageFrameTypeSequence")
    return (*group, component, *image_type[2:4])


def _echo_time_ms(frame: Frame) -> float | None:
    echo_ms = frame.number("EffectiveEchoTime", "MREchoSequence")
    return frame.number("EchoTime") if echo_ms is None else echo_ms


def _repeats(frame: Frame, image_type: list[str], kernel: str) -> tuple[str, ...]:
    content = "FrameContentSequence"
    return (
        frame.term("DiffusionBValue", "MRDiffusionSequence"),
        "\\".join(image_type),
        kernel,
        frame.term("TemporalPositionIndex", content) or frame.term("TemporalPositionIdentifier"),
        frame.term("FrameAcquisitionNumber", content) or frame.term("AcquisitionNumber"),
        frame.term("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence")
        or frame.term("TriggerTime"),
    )


def _hounsfield_rescale(frame: Frame) -> tuple[float, float] | None:
    macro = "PixelValueTransformationSequence"
    slope, intercept = frame.number("RescaleSlope", macro), frame.number("RescaleIntercept", macro)
    if not slope or slope < 0 or intercept is None or not math.isfinite(slope * intercept):
        return None
    unit = frame.term("RescaleType", macro)
    is_hounsfield = unit in HOUNSFIELD_TYPES or unit.startswith(HOUNSFIELD_WORD)
    return (slope, intercept) if is_hounsfield else None


def _uid(dataset: Dataset, keyword: str, default: str | None = None) -> str:
    """A UID of digits and dots; anything else is hashed into one, for it could be a name."""
    uid = str(dataset.get(keyword) or "")
    if not uid and default is not None:
        return default
    if re.fullmatch(r"[0-9.]{1,64}", uid):
        return uid
    return str(pydicom.uid.generate_uid(entropy_srcs=[keyword, uid]))


def _count(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)
