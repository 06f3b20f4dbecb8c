"""What a triage run found, as plain records; files are made of it in the reporting room."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem
from edge_medgemma.runtime.tracing.spans import Span, total_s
from edge_medgemma.runtime.triage.protocol import StandardCode
from edge_medgemma.runtime.triage.urgency import Urgency


class Effort(StrEnum):
    """How an answer is won."""

    FAST = "fast"
    """The first token of the answer, all findings in one pass."""
    REASONED = "reasoned"
    """The model reasons in words first; minutes per finding on a CPU."""


class FindingStatus(StrEnum):
    """What is known about one finding."""

    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    NOT_ASSESSED = "not_assessed"


@dataclass(frozen=True, slots=True)
class KeySlice:
    """A slice on which a finding's score rests."""

    slice_index: int
    """0-based, in the spatial order of the series."""
    position_mm: float
    """Along the stack normal."""
    sop_instance_uid: str
    """Empty for NIfTI."""
    effect: float
    """Log-odds that the slice is worth; see `evidence.py`."""


@dataclass(frozen=True, slots=True)
class FindingResult:
    """The answer to one question of the protocol."""

    code: str
    title: str
    question: str
    urgency: Urgency
    """Of the study if this finding is flagged."""
    status: FindingStatus
    reason: str
    """Why it was not assessed, or that a later pass did not confirm the flag; else empty."""
    log_odds: float | None
    """Of yes against no, as the model gave them; None where it was not asked."""
    control_log_odds: float | None
    """The same for blank slices; None where no control was run."""
    score: float | None
    """What the threshold is compared with: log-odds less control, or the calibrated logit."""
    probability: float | None
    """Only where a calibration on labelled scans exists."""
    threshold: float
    standard_code: StandardCode | None
    key_slices: tuple[KeySlice, ...]
    """Of a flagged finding, in spatial order."""


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """Identity and geometry of a series; nothing about the patient."""

    series_uid: str
    modality: Modality
    body_part: BodyPart
    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    spacing_mm: tuple[float, float, float]
    """Slice, row, column."""
    orientation: str


@dataclass(frozen=True, slots=True)
class SliceSeen:
    """One slice as it was shown to the model."""

    slice_index: int
    position_mm: float
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Pass:
    """What stood after looking at so many slices; later passes only add slices."""

    slices: int
    largest_gap_mm: float
    """Longest stretch of the series without a slice that was looked at; NaN without positions."""
    duration_s: float
    urgency: Urgency
    """Of the study, flags of earlier passes included."""
    flagged: tuple[str, ...]
    """Codes of the findings that this pass flagged."""


@dataclass(frozen=True, slots=True)
class KeyImage:
    """A slice as a human is shown it."""

    slice_index: int
    position_mm: float
    pixels: NDArray[np.uint8]
    """[rows, columns], square pixels."""
    left_mark: str
    """`R` or `L`: patient side at the left edge; empty where it is not known."""
    right_mark: str
    window: str
    """Grey scale in words."""
    findings: tuple[str, ...]
    """Titles of the findings that rest on this slice; empty for a neighbour or an overview."""


@dataclass(frozen=True, slots=True)
class CacheHits:
    """What a reading took from the scan cache."""

    slices: int = 0
    """Slices that were not encoded for it."""
    prefix: bool = False
    """The slices were not read for it either."""


NO_CACHE_HITS = CacheHits()


@dataclass(frozen=True, slots=True)
class StudyReport:
    """One protocol applied to one study."""

    name: str
    """`Study 1`: no name of a patient, file or folder."""
    study_uid: str
    urgency: Urgency
    doubts: tuple[str, ...]
    """In plain words, what stands in the way of assessing the study."""
    protocol_name: str
    """Empty where no protocol fits."""
    protocol_title: str
    protocol_sha256: str
    series: SeriesRecord | None
    series_reason: str
    """Why this series was chosen, or why none was."""
    other_series: tuple[SeriesRecord, ...]
    preset: str
    """Of intensities, as the slicing room names it."""
    slices: tuple[SliceSeen, ...]
    passes: tuple[Pass, ...]
    """In order; one unless a coarse pass came first. Empty where nothing was looked at."""
    findings: tuple[FindingResult, ...]
    problems: tuple[Problem, ...]
    pictures: tuple[KeyImage, ...]
    spans: tuple[Span, ...]
    recalled: CacheHits = NO_CACHE_HITS
    """What came from the scan cache."""

    @property
    def flagged(self) -> tuple[FindingResult, ...]:
        """Flagged findings, most urgent first, then by score."""
        found = [f for f in self.findings if f.status is FindingStatus.FLAGGED]
        return tuple(sorted(found, key=lambda f: (f.urgency.rank, -(f.score or 0.0))))

    @property
    def not_assessed(self) -> int:
        """Number of findings that were not assessed."""
        return sum(f.status is FindingStatus.NOT_ASSESSED for f in self.findings)

    @property
    def total_s(self) -> dict[str, float]:
        """Seconds per stage."""
        return total_s(self.spans)


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """Which engine looked."""

    name: str
    revision: str | None
    sha256: str
    """Of the manifest, which holds the hash of every file."""
    precision: Mapping[str, str]
    """Part of the model to `fp32`, `int8` or `int4`."""
    notice: str
    """What a demonstration engine says about itself; empty for others."""


@dataclass(frozen=True, slots=True)
class TriageReport:
    """All studies of a scan, most urgent first."""

    created_at: str
    """UTC, ISO 8601, from the device's clock."""
    program_version: str
    effort: Effort
    engine: EngineRecord
    studies: tuple[StudyReport, ...]
    skipped: Mapping[str, int]
    """Reason to number of files."""
    spans: tuple[Span, ...]
    """Outside the studies."""

    @property
    def urgency(self) -> Urgency:
        """Of the most urgent study."""
        return self.studies[0].urgency if self.studies else Urgency.NOT_ASSESSABLE

    @property
    def total_s(self) -> dict[str, float]:
        """Seconds per stage outside the studies."""
        return total_s(self.spans)

    @property
    def all_spans(self) -> tuple[Span, ...]:
        """Of the scan and of every study."""
        return (*self.spans, *(span for study in self.studies for span in study.spans))
