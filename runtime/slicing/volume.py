"""Results of slicing: series found, volumes read, stacks of model-ready slices."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.display import AS_STORED, Turn


class Modality(StrEnum):
    """Kinds of image a protocol can be asked about; values are DICOM (0008,0060) terms."""

    CT = "CT"
    MR = "MR"
    CR = "CR"
    DX = "DX"


class BodyPart(StrEnum):
    """Closed list that body part examined (0018,0015) is mapped to; only this reaches a prompt."""

    HEAD = "head"
    CHEST = "chest"
    ABDOMEN = "abdomen"
    OTHER = "other"
    """The header names a part, and it is none of these."""
    UNKNOWN = "unknown"


class View(StrEnum):
    """Projection of a radiograph."""

    PA = "PA"
    AP = "AP"
    FRONTAL = "frontal"
    LATERAL = "lateral"
    UNKNOWN = ""

    @property
    def is_frontal(self) -> bool:
        """From front or back."""
        return self in (View.PA, View.AP, View.FRONTAL)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a series that a reader of the report must know, with a stable name."""

    name: str
    """Snake-case term such as `gantry_tilt`, `missing_slices`, `non_uniform_spacing`."""
    detail: str
    """One sentence with figures and units; never text from the file."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that gave no slice, and why."""

    path: str
    """Relative to the scan folder, POSIX separators."""
    reason: str


@dataclass(frozen=True, slots=True)
class Series:
    """One stack of slices known from headers alone, in spatial order, pixels not yet read."""

    study_uid: str
    series_uid: str
    modality: Modality
    body_part: BodyPart
    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    affine_lps_mm: NDArray[np.float64]
    """[4, 4]: (slice, row, column, 1) at pixel centres to patient LPS mm. PS3.3 C.7.6.2.1.1"""
    positions_mm: NDArray[np.float64]
    """[slices]: position of each slice along the stack normal, ascending."""
    spacing_mm: tuple[float, float, float]
    """Slice (median of successive positions), row, column."""
    orientation: str
    """`axial`, `coronal`, `sagittal` or `oblique`; `projection` for a radiograph."""
    sources: tuple["SliceSource", ...]
    problems: tuple[Problem, ...]
    is_original: bool = True
    """False if image type (0008,0008) says DERIVED for any slice."""
    is_sharp_kernel: bool = False
    """True if convolution kernel (0018,1210) is one of those made for bone or lung."""
    other_body_parts: tuple[BodyPart, ...] = ()
    """Further parts that the header names: a CT of chest, abdomen and pelvis has several."""
    person: int = 0
    """Number of the person within the scan; slices of two people never share a series."""
    has_contrast_agent: bool = False
    """True if the header names a contrast agent."""
    is_for_processing: bool = False
    """True for raw values of an X-ray detector, which are not made for reading."""
    turns: tuple[Turn, ...] = (AS_STORED,)
    """From stored slices to the standard way up, in which everything here is given; one for all, or
    one for each radiograph."""
    views: tuple[View, ...] = ()
    """Of a radiograph: the projection of each image; empty otherwise."""
    scanned_at: str = ""
    """ISO 8601 date or date and time of the first slice, by the scanner's clock; empty if not stated."""

    @property
    def body_parts(self) -> tuple[BodyPart, ...]:
        """All parts that the header names; UNKNOWN where it names none."""
        return (self.body_part, *self.other_body_parts)


@dataclass(frozen=True, slots=True)
class SliceSource:
    """File and frame that hold the pixels of one slice."""

    path: Path
    frame: int
    """0-based frame of a multi-frame object, or index along the slice axis of a NIfTI array."""
    sop_instance_uid: str
    """Empty for NIfTI."""


@dataclass(frozen=True, slots=True)
class ScanListing:
    """All that a scan holds."""

    series: tuple[Series, ...]
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """Decoded slices of one series."""

    series: Series
    slice_indices: NDArray[np.int64]
    """[N]: which slices of the series were read, ascending."""
    array: NDArray[np.float32]
    """[N, rows, columns]: Hounsfield units for CT; rescaled intensity for MR; CR/DX after the VOI
    window, 0 (black) to 1 (white)."""
    problems: tuple[Problem, ...]
    """Those of the series and those found while decoding."""
    value_range: tuple[float, float] | None = None
    """Lowest and highest value of all slices of an MR series, read or not; None for other modalities."""


@dataclass(frozen=True, slots=True)
class SliceStack:
    """Slices as the model gets them, before the processor's resize."""

    pixels: NDArray[np.uint8]
    """[N, rows, columns, 3]"""
    slice_indices: NDArray[np.int64]
    """[N]: 0-based index of each slice in its series."""
    positions_mm: NDArray[np.float64]
    """[N]"""
    series: Series
    preset: str
    """Name of the intensity preset that made the pixels, e.g. `medgemma-ct`."""
    problems: tuple[Problem, ...]
