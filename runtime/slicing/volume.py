"""Results of slicing: series found, volumes read, stacks of model-ready slices."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
    UNKNOWN = "unknown"


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
