"""Rows of the worklist. Nothing here says whose scan it is."""

from dataclasses import dataclass
from enum import StrEnum

from edge_medgemma.runtime.triage.urgency import Urgency


class StudyState(StrEnum):
    """Where a study stands."""

    ARRIVING = "arriving"
    WAITING = "waiting"
    """For the engine: nothing was looked at, or something came since."""
    RUNNING = "running"
    INCOMPLETE = "incomplete"
    """Looked at, and more images are known or feared to be missing."""
    DONE = "done"
    """Looked at whole; not delivered, or nowhere to be delivered to."""
    DELIVERED = "delivered"
    """Every destination has the result, proved where the destination can."""
    FAILED = "failed"
    """The engine could not look at it: a person must."""
    SUPERSEDED = "superseded"
    """Its images are part of another study now; kept for the record."""


class Doubt(StrEnum):
    """Why a study may not be what it seems, each with a sentence in `reporting/languages`."""

    ABORTED = "aborted"
    """An association broke off before it was released."""
    FEWER_THAN_ARCHIVE = "fewer_than_archive"
    """The archive has more images of this study."""
    GAP = "gap"
    """Slices are missing in the middle, by their positions."""
    CONFLICTING_COPIES = "conflicting_copies"
    """One image came twice with different content."""
    STILL_ARRIVING = "still_arriving"
    """The sender has not ended its association."""
    CLOCK_NOT_SET = "clock_not_set"
    """The device's clock was before its own build date when the study came."""


class FailureReason(StrEnum):
    """Why the engine could not look at a study, each with a sentence in `reporting/languages`."""

    CRASHED = "crashed"
    """The program ended twice while it looked at the study."""
    OUT_OF_MEMORY = "out_of_memory"
    UNREADABLE = "unreadable"
    """None of its files is an image that can be read."""
    ENGINE = "engine"
    """The engine, or the device that it runs on, refused."""
    DISK_FULL = "disk_full"
    """The result could not be written."""
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One study of the worklist."""

    key: str
    """`StateFolder.study_key` of its UID."""
    study_uid: str
    """DICOM (0020,000D)."""
    state: StudyState
    urgency: Urgency | None
    """None until something was looked at. Never lowered by a later look that saw less."""
    flagged: tuple[str, ...]
    """Codes of the findings that any look flagged."""
    limitations: tuple[str, ...]
    """Names of the problems that stood in the way, as in `urgency.BLOCKING_PROBLEMS`."""
    doubts: tuple[Doubt, ...]
    modality: str
    """`CT`, `MR`, ...; empty until the worker has read it."""
    body_part: str
    senders: tuple[str, ...]
    """Calling AE titles, `upload`, `folder` or `pull`."""
    instances: int
    """Images in the spool."""
    expected_instances: int | None
    """Images that the archive says there are."""
    revision: int
    """Counts up whenever images came; a result is of one revision."""
    first_arrival_at: str
    """UTC, ISO 8601, by the device's clock; the same for the other times."""
    last_arrival_at: str
    result_number: int | None
    """Of the latest result; folders are numbered from 1."""
    result_revision: int | None
    """Revision that the latest result saw."""
    result_at: str | None
    acknowledged_at: str | None
    """When a person acknowledged the latest urgency and flags; None where nobody has, or where the
    urgency has risen or a finding was flagged since."""
    place: int = 0
    """Order of first arrival, whatever the clock said."""
    is_final: bool = False
    """Whether the latest result was the last pass of its revision; before, a closer look follows."""
    urgency_at: str | None = None
    """When the urgency last rose, or a finding was first flagged: `identified_at` of an
    acknowledgement."""
    failure: FailureReason | None = None
    """Why `state` is `failed`."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """ACR's six fields of a communicated result (ACR Practice Parameter for Communication, 2020)."""

    study_key: str
    result_number: int
    finding: str
    """Codes of what was communicated, joined by a comma; `none` for no flag."""
    identified_at: str
    """UTC, ISO 8601: when the program flagged it."""
    communicated_by: str
    """Who acknowledged on the page: a member of the staff, never a patient."""
    received_by: str
    """Who was told; of the staff."""
    received_at: str
    method: str
    """`in person`, `telephone`, `message` or `page`."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit."""

    at: str
    """UTC, ISO 8601."""
    event: str
    """Stable, snake case: `received`, `conflict`, `looked_at`, `delivered`, `viewed`, ..."""
    who: str
    """Calling AE title, name of a user of the page, or `box`."""
    study_key: str
    """Empty where it concerns no study."""
    detail: str
    """Numbers and words of closed lists; no text of a scan."""
