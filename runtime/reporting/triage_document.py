"""The document `triage.json`: one dataclass for each object of the document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from edge_medgemma.runtime.documents import Count, Sha256, Size
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.report import Effort, FindingStatus
from edge_medgemma.runtime.triage.urgency import Urgency

Seconds = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Program:
    """The program that wrote the document."""

    name: Literal["edge-medgemma"]
    version: str


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """The engine that was asked."""

    name: str
    revision: str | None
    manifest_sha256: Sha256
    """Hash of the engine's manifest, which holds the hash of every file."""
    precision: Mapping[str, str]
    """Part of the model to the way its weights are stored; `head`: in the table of the head."""
    notice: str | None
    """Statement of a demo engine or of random weights about themselves; null for others."""
    has_random_weights: bool
    """Whether nothing that the engine says means anything."""


@dataclass(frozen=True, slots=True)
class ProtocolEntry:
    """The protocol that was applied."""

    name: str
    title: str
    sha256: Sha256
    """Hash of the protocol's file."""


@dataclass(frozen=True, slots=True)
class SeriesEntry:
    """Identity and geometry of a series; nothing about the patient."""

    series_instance_uid: str
    """DICOM (0020,000E)."""
    modality: Modality
    body_part: BodyPart
    shape: tuple[Size, Size, Size]
    """Slices, rows, columns."""
    spacing_mm: tuple[float | None, float | None, float | None]
    """Slice, row, column; null where it is not known."""
    orientation: str
    scanned_at: str | None
    """ISO 8601 date or date and time, by the scanner's clock; null where it is not stated."""


@dataclass(frozen=True, slots=True)
class SliceEntry:
    """A slice that was shown to the model."""

    slice_index: Size
    """0-based, in the spatial order of the series."""
    position_mm: float | None
    """Along the normal of the stack."""
    sop_instance_uid: str | None
    """DICOM (0008,0018); null for NIfTI."""
    calibration_ratio: float | None
    """Distance from the engine's calibration scans, 1 where 1 % of their slices lie farther out; above
    1.5 the slice is unlike them. null where it could not be measured."""
    view: str | None
    """Projection of a radiograph: `PA`, `AP`, `frontal` or `lateral`; null where it is not stated."""


@dataclass(frozen=True, slots=True)
class CalibrationDistanceEntry:
    """Distance of a study's image features from those of the engine's calibration scans."""

    ratio: float | None
    """Median of the slices, 1 where 1 % of the calibration studies lie farther out."""
    conformal_p: float
    """Share of the calibration studies that lie as far out, this study counted among them."""
    studies: Count
    """Calibration studies it was compared with."""


@dataclass(frozen=True, slots=True)
class PassEntry:
    """State of a study after so many slices; later passes only add slices."""

    slices: Count
    largest_gap_mm: float | None
    """Longest stretch of the series without a slice that was shown."""
    duration_s: Seconds | None
    urgency: Urgency
    """Urgency of the study then, flags of earlier passes included."""
    flagged: tuple[str, ...]
    """Codes of the findings that this pass flagged."""


@dataclass(frozen=True, slots=True)
class StandardCodeEntry:
    """A finding's entry in a public terminology."""

    scheme: str
    """DICOM coding scheme designator, `SCT` for SNOMED CT."""
    value: str
    display: str


@dataclass(frozen=True, slots=True)
class KeySliceEntry:
    """A slice on which the answer to a finding rests."""

    slice_index: Size
    position_mm: float | None
    sop_instance_uid: str | None
    effect: float | None
    """Log-odds that the slice is worth."""


@dataclass(frozen=True, slots=True)
class FittedOnEntry:
    """Labelled patients. Of fewer than 20 on either side a probability says little: it is not printed."""

    positives: Count
    """With the finding."""
    negatives: Count
    """Without it."""


@dataclass(frozen=True, slots=True)
class FindingEntry:
    """The answer to one question of the protocol."""

    code: str
    title: str
    question: str
    urgency: Urgency
    """Urgency of the study if the finding is flagged."""
    status: FindingStatus
    reason: str | None
    """Why it was not assessed, or what speaks against the flag."""
    log_odds: float | None
    """Log-odds of yes against no, all spellings added up."""
    baseline_log_odds: float | None
    """The same for as many blank slices: models tend to answer yes to everything."""
    score: float | None
    """The finding is flagged when this is above the threshold."""
    threshold: float
    probability: float | None
    """Only where the engine has a calibration on labelled scans."""
    fitted_on: FittedOnEntry | None
    """What threshold and probability were fitted on; null for the protocol's threshold."""
    standard_code: StandardCodeEntry | None
    key_slices: tuple[KeySliceEntry, ...]


@dataclass(frozen=True, slots=True)
class CacheHitsEntry:
    """Work that the scan cache of an earlier run spared."""

    slices: Size
    """Slices that were not encoded anew."""
    prefix: bool
    """Whether the slices were not prefilled anew either."""


@dataclass(frozen=True, slots=True)
class ProblemEntry:
    """Something that is known to be wrong with the series or the result."""

    name: str
    """Stable, snake case."""
    detail: str
    """A sentence; no text of the scan."""


@dataclass(frozen=True, slots=True)
class StudyEntry:
    """One protocol applied to one study."""

    name: str
    """`Study 1` and so on; never a name from the scan."""
    study_instance_uid: str
    """DICOM (0020,000D), to find the study in the archive."""
    urgency: Urgency
    """In the order of the queue; `routine` means no flag raised, which is not a normal report."""
    limitations: tuple[str, ...]
    """In plain words, what stands in the way of assessing the study."""
    protocol: ProtocolEntry | None
    """null where none fits."""
    series: SeriesEntry | None
    """The series that was shown to the model."""
    series_reason: str
    """Why that series was chosen, or why none was."""
    other_series: tuple[SeriesEntry, ...]
    preset: str | None
    """How pixels were made of the stored values."""
    slices: tuple[SliceEntry, ...]
    calibration_distance: CalibrationDistanceEntry | None
    """null where the engine does not say what it was calibrated on, or was not run."""
    passes: tuple[PassEntry, ...]
    """One unless a coarse pass came first."""
    findings: tuple[FindingEntry, ...]
    cache_hits: CacheHitsEntry
    problems: tuple[ProblemEntry, ...]
    timings_s: Mapping[str, Seconds]
    """Stage to seconds of wall-clock time."""
    was_slowed_by_heat: bool = False
    """Whether the processor was meanwhile, as far as the machine tells: the times are then not typical."""


@dataclass(frozen=True, slots=True)
class TriageDocument:
    """Findings of 'edge-medgemma triage' in one scan: an aid to prioritisation, not a diagnosis."""

    schema_version: Literal[2]
    intended_use: str
    created_at: str
    """UTC by the device's clock, ISO 8601."""
    program: Program
    engine: EngineEntry
    effort: Effort
    urgency: Urgency
    """Urgency of the most urgent study."""
    studies: tuple[StudyEntry, ...]
    """Most urgent first; a study to which several protocols apply stands here once for each."""
    skipped_files: Mapping[str, Count]
    """Reason to number of files, without names."""
    timings_s: Mapping[str, Seconds]
    """Seconds of what concerns no single study."""
