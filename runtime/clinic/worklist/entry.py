"""What the database holds of one study: its row, and what only the worklist itself needs."""

from dataclasses import dataclass

from edge_medgemma.runtime.clinic.worklist.lease import Lease
from edge_medgemma.runtime.clinic.worklist.records import (
    Acknowledgement,
    Doubt,
    StudyRow,
    StudyState,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One study."""

    row: StudyRow
    acknowledgements: tuple[Acknowledgement, ...] = ()
    lease: Lease | None = None
    """Of the process that looks at it; `row.state` is `running` exactly while there is one."""
    after_lease: StudyState | None = None
    """Where it goes then: `arriving` or `waiting` if images came meanwhile."""
    result_doubts: tuple[Doubt, ...] = ()
    """Which the report of the latest result says."""
    urgency_number: int = 0
    """Result with which the urgency last rose, or a finding was first flagged."""
    crashes: int = 0
    """Processes that ended while they looked at it, since a pass last ended."""


def new_entry(key: str, study_uid: str, place: int, now: str) -> Entry:
    """A study of which nothing has come yet."""
    return Entry(
        StudyRow(
            key=key,
            study_uid=study_uid,
            state=StudyState.ARRIVING,
            urgency=None,
            flagged=(),
            limitations=(),
            doubts=(),
            modality="",
            body_part="",
            senders=(),
            instances=0,
            expected_instances=None,
            revision=0,
            first_arrival_at=now,
            last_arrival_at=now,
            result_number=None,
            result_revision=None,
            result_at=None,
            acknowledged_at=None,
            place=place,
        )
    )
