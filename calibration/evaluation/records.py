"""Records that the evaluation hands on: labels as a dataset gives them, and predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class LabelRow:
    """What a dataset's table says of one study."""

    key: str
    """Study instance UID, folder or file name by which the study is found."""
    findings: Mapping[str, bool | None]
    """Finding code -> present, absent, or None where it was not read or the readers disagree."""
    patient: str = ""
    """As the table names the patient; empty where it does not, and each study is then its own."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else the table says and a subgroup may be made of: `sex`, `age`, `view`."""


@dataclass(frozen=True, slots=True)
class Labels:
    """A table of labels, read whole."""

    dataset: str
    rows: tuple[LabelRow, ...]
    codes: tuple[str, ...]
    """Finding codes that the table speaks of, in its order."""
    sha256: str
    """Hash of the table's files."""
    notes: tuple[str, ...] = ()
    """One sentence each, with counts: columns not used, rows that say the same twice, readers that
    disagree. Never a name of a patient."""


class Outcome(StrEnum):
    """What triage said of one finding of one study."""

    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    NOT_ASSESSABLE = "not_assessable"
    """Not flagged, in a study that triage would not call routine for a limitation, or not asked."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One finding of one study: a row of predictions.csv."""

    study: str
    """Key of its label row; without one, `unlabelled N` by place in the scan folder."""
    patient: int
    """Number of the patient, in the order of the studies."""
    study_uid: str
    case: str
    """Hash of the UIDs of study and series and the name of the protocol, the same in every run."""
    protocol: str
    finding: str
    present: bool | None
    """By the labels; None where they do not say."""
    outcome: Outcome
    is_assessable: bool
    """Whether nothing stood in the way of assessing the study, flagged or not."""
    reason: str
    """Limitations of the study and the reason of the finding, in plain words; empty where there are
    none."""
    log_odds: float | None
    baseline_log_odds: float | None
    score: float | None
    threshold: float
    """On the scale of the score."""
    slices: int
    """Slices shown."""
