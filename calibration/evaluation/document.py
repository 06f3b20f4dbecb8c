"""The document `evaluation.json`: all that its page shows, one dataclass for each object of it.

A figure is null where nothing was counted that it could be made of; its counts stand beside it always.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from edge_medgemma.calibration.evaluation.figure_entries import (
    Area,
    PredictiveValues,
    Proportion,
    Reliability,
    ReliabilityBin,
    RocPoint,
    Share,
    Subgroup,
    TwoByTwo,
)
from edge_medgemma.calibration.evaluation.records import Outcome
from edge_medgemma.runtime.documents import Count, Sha256, Size
from edge_medgemma.runtime.triage.report import Effort

__all__ = [
    "Area",
    "AreaChange",
    "Comparison",
    "EngineProvenance",
    "EvaluationDocument",
    "FindingEntry",
    "Flip",
    "Flow",
    "NotificationTimes",
    "PairedCounts",
    "PairedFinding",
    "Picture",
    "PredictiveValues",
    "Proportion",
    "ProtocolProvenance",
    "Provenance",
    "Reliability",
    "ReliabilityBin",
    "Requirement",
    "RocPoint",
    "Share",
    "Subgroup",
    "TwoByTwo",
    "WrongAnswer",
]

Seconds = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class FindingEntry:
    """One finding over all scans that have a label for it."""

    code: str
    title: str
    protocols: tuple[str, ...]
    """Names of the protocols that ask for it."""
    positives: Size
    negatives: Size
    unlabelled: Size
    """Scans that were asked for it and have no label of it; they count nowhere else."""
    not_assessable_positives: Size
    not_assessable_negatives: Size
    not_assessable: Mapping[str, Count]
    """Reason to labelled scans; a scan may have several reasons."""
    primary: TwoByTwo
    """Not assessable counts against the engine: as missed, and as not passed."""
    secondary: TwoByTwo
    """Not assessable is left out."""
    area: Area
    roc: tuple[RocPoint, ...]
    """From no scan flagged to every scan flagged; empty where the area is null."""
    operating_point: RocPoint | None
    """As the engine flags, over the scans of the curve; null where there is no curve."""
    reliability: Reliability | None
    """null where the engine states no probability."""
    predictive_values: PredictiveValues | None
    """null where the user gave no prevalence."""
    subgroups: tuple[Subgroup, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """Scans and labels from what was found to what was assessed."""

    label_rows: Size
    studies_found: Size
    """In the scan folder; a study with several protocols counts once, as everywhere here."""
    files_skipped: Mapping[str, Count]
    """Reason to number of files."""
    studies_labelled: Size
    """Found, and matched with a row of the labels."""
    studies_read: Size
    """Of those, the ones of which at least one slice was shown to the engine."""
    studies_assessed: Size
    """Of those, the ones that nothing stood in the way of assessing."""
    studies_not_assessable: Size
    """Labelled less assessed."""
    not_assessable: Mapping[str, Count]
    """Reason to labelled studies; a study may have several reasons."""
    patients: Size
    """Of the labelled studies."""
    labels_without_study: tuple[str, ...]
    """Keys of label rows that no study was found for."""
    studies_without_label: tuple[str, ...]
    """`unlabelled N`, as in predictions.csv, with the study instance UID where there is one."""
    findings_not_asked: tuple[str, ...]
    """Codes that are labelled and that no protocol of the run asks for."""
    notes: tuple[str, ...]
    """Sentences about the labels and the matching."""
    labels_of_several_studies: tuple[str, ...] = ()
    """Keys of label rows that fit more than one study; none of these is taken."""
    studies_of_several_labels: tuple[str, ...] = ()
    """Studies that more than one row fits, none of which is taken; named as those without label."""


@dataclass(frozen=True, slots=True)
class NotificationTimes:
    """Seconds from opening a study to its result, reading the folder not counted."""

    studies: Size
    median_s: Seconds | None
    ninety_percent_s: Seconds | None
    """Nine of ten studies took no longer."""
    max_s: Seconds | None


@dataclass(frozen=True, slots=True)
class Picture:
    """A key slice of a wrong answer, kept as a small JPEG."""

    file: str
    """Path relative to evaluation.json."""
    slice_index: Size
    """0-based, in the spatial order of the series."""
    position_mm: float | None
    window: str
    """Grey scale in words."""
    left_mark: str
    """`R` or `L`: patient side at the left edge; empty where it is not known."""
    right_mark: str


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """A labelled finding that triage missed, or flagged although it is absent."""

    study: str
    """As in predictions.csv."""
    finding: str
    title: str
    outcome: Outcome
    """`not_assessable` is a miss that triage did not hide."""
    log_odds: float | None
    score: float | None
    threshold: float
    """On the scale of the score."""
    reason: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class EngineProvenance:
    """An engine that was asked."""

    name: str
    manifest_sha256: Sha256
    precision: Mapping[str, str]
    """Part of the model to the way its weights are stored."""
    notice: str | None
    """Statement of the engine about itself; null for most."""
    has_random_weights: bool
    """Whether nothing that the engine says means anything."""


@dataclass(frozen=True, slots=True)
class ProtocolProvenance:
    """A protocol that was applied."""

    name: str
    title: str
    sha256: Sha256
    slices: Count
    """Most slices shown: the user's number, or the protocol's own."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """All that the figures depend on."""

    engine: EngineProvenance
    protocols: tuple[ProtocolProvenance, ...]
    effort: Effort
    slices: Count | None
    """Most slices shown; null is each protocol's own number."""
    program_version: str
    dataset: str
    """Layout of the labels."""
    labels_sha256: Sha256
    scans_sha256: Sha256
    """Hash of the UIDs of all studies and series that were evaluated, in an order of their own; no pixel is
    in it."""
    reference: str
    """How several readers make one label: `majority`, `any` or `reader:NAME`."""
    threshold_origin: str
    """Where the thresholds come from, in words."""
    split: Literal["none"]
    """No threshold is fitted on these scans by the evaluation itself."""


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """The same scans flagged by both engines, one, or none, and how likely such a split is by chance."""

    scans: Size
    both: Size
    first_only: Size
    second_only: Size
    neither: Size
    p_value: Share | None
    """Exact McNemar, two-sided; null without scans."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A scan whose finding changed its outcome between the engines."""

    study: str
    finding: str
    present: bool | None
    first: Outcome
    second: Outcome
    first_log_odds: float | None
    second_log_odds: float | None


@dataclass(frozen=True, slots=True)
class AreaChange:
    """Area of the second engine less that of the first, over scans with log-odds of both."""

    value: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None
    low: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None
    """95 % interval over patients resampled, both engines together; exact where none changes the
    area."""
    high: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None
    first: Share | None
    second: Share | None
    positives: Size
    negatives: Size


@dataclass(frozen=True, slots=True)
class PairedFinding:
    """One finding as both engines answered it."""

    code: str
    title: str
    all: PairedCounts
    """Labelled or not."""
    positives: PairedCounts
    """By the labels: flagged is right."""
    negatives: PairedCounts
    """By the labels: flagged is wrong."""
    changed_outcomes: Size
    """Scans with another outcome, `not_assessable` being one of them."""
    log_odds_scans: Size
    """Scans with log-odds of both."""
    median_change: float | None
    """Of the log-odds, second less first."""
    median_absolute_change: float | None
    largest_absolute_change: float | None
    area: AreaChange


@dataclass(frozen=True, slots=True)
class Comparison:
    """A second engine on the same scans, in pairs."""

    engine: EngineProvenance
    """The second."""
    findings: tuple[PairedFinding, ...]
    flips: tuple[Flip, ...]
    """Every scan and finding whose outcome changed."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A figure that the user demanded."""

    text: str
    """As given: `sensitivity(intracranial_haemorrhage)>=0.8`."""
    value: float | None
    trials: Size
    """Scans that the figure was counted over."""
    is_met: bool
    """Never where there is no value."""


@dataclass(frozen=True, slots=True)
class EvaluationDocument:
    """What an engine is worth on labelled scans, counted by 'edge-medgemma evaluate'."""

    schema_version: Literal[1]
    intended_use: str
    created_at: str
    """UTC by the device's clock, ISO 8601."""
    provenance: Provenance
    flow: Flow
    findings: tuple[FindingEntry, ...]
    """In the order of the labels."""
    time_to_result: NotificationTimes
    """Labelled studies that were read."""
    time_to_flag: NotificationTimes
    """Of those, the ones with a flag: time to notification."""
    worst_misses: tuple[WrongAnswer, ...]
    """At most ten, lowest log-odds against their threshold first."""
    worst_false_flags: tuple[WrongAnswer, ...]
    """At most ten, highest first."""
    comparison: Comparison | None = None
    requirements: tuple[Requirement, ...] = ()
