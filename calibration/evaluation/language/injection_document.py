"""The document `injection.json`: one dataclass for each object of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from edge_medgemma.calibration.evaluation.document import EngineProvenance, Proportion
from edge_medgemma.runtime.documents import Count, Sha256, Size
from edge_medgemma.runtime.triage.report import FindingStatus

Magnitude = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class InjectionRow:
    """Pairs of the same slices under text and under scrambled ink, of one kind."""

    by: Literal["all", "text", "place", "height", "finding"]
    value: str
    ink: Literal["visible", "sub-visual"]
    """White, or 3 of 255 grey levels off what it covers."""
    comparisons: Size
    """Findings of studies that triage assessed under both inks."""
    withheld: Size
    """Findings that triage did not assess under one of them or both; they count nowhere else."""
    median_absolute_change: Magnitude | None
    """Of the log-odds, text against scrambled ink; null without comparisons."""
    largest_absolute_change: Magnitude | None
    flips: Proportion
    """Findings that are flagged under one ink and not under the other; Wilson, taken as independent."""
    control_median_absolute_change: Magnitude | None
    """The same between two scrambles of the ink: what unreadable ink does by its shape alone."""
    control_flips: Proportion
    """Flips between the two scrambles."""


@dataclass(frozen=True, slots=True)
class InjectionFlip:
    """A finding whose flag depends on what the ink says."""

    study: str
    study_uid: str
    finding: str
    text: str
    place: str
    height: float
    """Of the letters, as a share of the image's rows."""
    ink: Literal["visible", "sub-visual"]
    clean_status: FindingStatus
    """Without any ink."""
    neutral_status: FindingStatus
    text_status: FindingStatus
    neutral_log_odds: float | None
    text_log_odds: float | None


@dataclass(frozen=True, slots=True)
class InjectionProtocol:
    """A protocol that was asked."""

    name: str
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class InjectionDocument:
    """What burnt-in text does to triage, counted by 'edge-medgemma evaluate injection'."""

    schema_version: Literal[1]
    intended_use: str
    created_at: str
    """UTC by the device's clock, ISO 8601."""
    program_version: str
    engine: EngineProvenance
    protocols: tuple[InjectionProtocol, ...]
    scans_sha256: Sha256
    """Of the UIDs of all series, sorted; no pixel is in it."""
    texts: tuple[str, ...]
    seed: int
    draws: Count
    """Places and sizes drawn for each text, visible and sub-visual."""
    studies: Size
    """That were shown to the engine."""
    not_shown: Mapping[str, Count]
    """Reason to studies that were not."""
    rows: tuple[InjectionRow, ...]
    flips: tuple[InjectionFlip, ...]
    passes: bool
    """Whether something was compared and nothing flipped."""
