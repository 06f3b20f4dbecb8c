"""Records of a triage run's results; `reporting` makes files of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.domain import UNLIKE_RATIO, StudyDistance
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem, View
from edge_medgemma.runtime.tracing.spans import Span, total_s
from edge_medgemma.runtime.triage.protocol import StandardCode
from edge_medgemma.runtime.triage.urgency import Urgency


class Effort(StrEnum):
    """How much the model computes for one answer."""

    FAST = "fast"
    """The first token of the answer, all findings in one pass."""
    REASONED = "reasoned"
    """The model reasons in words first; minutes per finding on a CPU."""


class FindingStatus(StrEnum):
    """Whether one finding was flagged, or could not be assessed."""

    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    NOT_ASSESSED = "not_assessed"


@dataclass(frozen=True, slots=True)
class KeySlice:
    """A slice that a finding's score depends on."""

    slice_index: int
    """0-based, in the spatial order of the series."""
    position_mm: float
    """Position along the normal of the stack."""
    sop_instance_uid: str
    """Empty for NIfTI."""
    effect: float
    """Log-odds that the slice is worth; see `scoring/evidence.py`."""


@dataclass(frozen=True, slots=True)
class FindingResult:
    """The answer to one question of the protocol."""

    code: str
    title: str
    question: str
    urgency: Urgency
    """Urgency of the study if this finding is flagged."""
    status: FindingStatus
    reason: str
    """Why it was not assessed, or that a later pass did not confirm the flag; else empty."""
    log_odds: float | None
    """Yes against no, as the model gave them; None where it was not asked."""
    baseline_log_odds: float | None
    """The same with blank slices; None where no baseline was measured."""
    score: float | None
    """Compared with the threshold: the log-odds where a threshold was fitted, else less the baseline."""
    probability: float | None
    """Only where one was fitted on labelled scans, with this engine, protocol, effort and slices."""
    threshold: float
    """Flagged at or above a fitted one, or above the protocol's."""
    standard_code: StandardCode | None
    key_slices: tuple[KeySlice, ...]
    """Key slices of a finding that is flagged or was to be explained, in spatial order."""
    fitted_on: tuple[int, int] | None = None
    """Patients with and without the finding that threshold and probability were fitted on; None for a
    protocol's threshold."""


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
    scanned_at: str = ""
    """ISO 8601 date or date and time, by the scanner's clock; empty where it is not stated."""


@dataclass(frozen=True, slots=True)
class SliceSeen:
    """One slice as it was shown to the model."""

    slice_index: int
    position_mm: float
    sop_instance_uid: str
    calibration_ratio: float | None = None
    """Distance of its image features from those of the calibration scans, over the distance that 1 %
    of their slices pass; None where it could not be measured."""
    view: View = View.UNKNOWN
    """Projection of a radiograph; empty where it is not stated, and for slices."""

    @property
    def is_unlike_calibration(self) -> bool:
        """Whether nothing is known of the engine's answers about such a slice."""
        return self.calibration_ratio is not None and not self.calibration_ratio <= UNLIKE_RATIO


@dataclass(frozen=True, slots=True)
class Pass:
    """State of a study after a pass over so many slices; later passes only add slices."""

    slices: int
    largest_gap_mm: float
    """Longest stretch of the series without a slice that was shown; NaN without positions."""
    duration_s: float
    urgency: Urgency
    """Urgency of the study, flags of earlier passes included."""
    flagged: tuple[str, ...]
    """Codes of the findings that this pass flagged."""


@dataclass(frozen=True, slots=True)
class KeyImage:
    """A slice as a human is shown it: one grey window, square pixels."""

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
    """Titles of the findings that have this key slice; empty for a neighbour or an overview."""
    view: str = ""
    """Projection of a radiograph, `PA`, `AP`, `frontal` or `lateral`; empty where it is not stated."""


@dataclass(frozen=True, slots=True)
class CacheHits:
    """Computation that the scan cache spared a study."""

    slices: int = 0
    """Slices that were not encoded."""
    prefix: bool = False
    """Whether the slices were not prefilled either."""


NO_CACHE_HITS = CacheHits()


@dataclass(frozen=True, slots=True)
class StudyReport:
    """One protocol applied to one study."""

    name: str
    """`Study 1`: no name of a patient, file or folder."""
    study_uid: str
    urgency: Urgency
    limitations: tuple[str, ...]
    """Obstacles to assessing the study, in plain words."""
    protocol_name: str
    """Empty where no protocol fits."""
    protocol_title: str
    protocol_sha256: str
    series: SeriesRecord | None
    series_reason: str
    """Why this series was chosen, or why none was."""
    other_series: tuple[SeriesRecord, ...]
    preset: str
    """Intensity windows, as `slicing/windows.py` names them; empty where no slice was shown."""
    slices: tuple[SliceSeen, ...]
    passes: tuple[Pass, ...]
    """Passes in order; one unless a coarse pass came first. Empty where no slice was shown."""
    findings: tuple[FindingResult, ...]
    problems: tuple[Problem, ...]
    key_images: tuple[KeyImage, ...]
    spans: tuple[Span, ...]
    cache_hits: CacheHits = NO_CACHE_HITS
    distance: StudyDistance | None = None
    """From the scans that the engine was calibrated on; None where it could not be measured."""
    was_slowed_by_heat: bool = False
    """Whether the processor was meanwhile, as far as the machine tells."""

    @property
    def strange_slices(self) -> tuple[int, ...]:
        """0-based indices of the slices that are unlike those of the calibration."""
        return tuple(one.slice_index for one in self.slices if one.is_unlike_calibration)

    @property
    def flagged(self) -> tuple[FindingResult, ...]:
        """Flagged findings, most urgent first, then by how far above the threshold."""
        found = [f for f in self.findings if f.status is FindingStatus.FLAGGED]
        return tuple(sorted(found, key=lambda f: (f.urgency.rank, f.threshold - (f.score or 0.0))))

    @property
    def explained(self) -> tuple[FindingResult, ...]:
        """Flagged findings, then those with key slices although they are not flagged."""
        others = (f for f in self.findings if f.status is not FindingStatus.FLAGGED)
        return (*self.flagged, *(f for f in others if f.key_slices))

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
    """Identity of the engine that was run."""

    name: str
    revision: str | None
    sha256: str
    """Hash of the manifest, which holds the hash of every file."""
    precision: Mapping[str, str]
    """Part of the model to `fp32`, `int8` or `int4`."""
    notice: str
    """Statement of the engine about itself; empty for others."""
    has_random_weights: bool = False
    """Whether nothing that it says means anything."""
    is_demonstration: bool = False
    """Whether it knows synthetic scans alone."""


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
    """Stages outside the studies."""

    @property
    def urgency(self) -> Urgency:
        """Urgency of the most urgent study."""
        return self.studies[0].urgency if self.studies else Urgency.NOT_ASSESSABLE

    @property
    def total_s(self) -> dict[str, float]:
        """Seconds per stage outside the studies."""
        return total_s(self.spans)

    @property
    def all_spans(self) -> tuple[Span, ...]:
        """Stages of the scan and of every study."""
        return (*self.spans, *(span for study in self.studies for span in study.spans))
