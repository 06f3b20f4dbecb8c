"""The order of the list for people, and the order in which the engine looks."""

from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.triage.urgency import Urgency


def reading_order(row: StudyRow) -> tuple[int, bool, bool, int]:
    """Sort key for people: urgency, then what nobody has acknowledged, doubt and arrival.

    A study that was never looked at may be anything: it stands with those that cannot be assessed,
    above routine.
    """
    urgency = row.urgency or Urgency.NOT_ASSESSABLE
    return (urgency.rank, row.acknowledged_at is not None, not is_doubtful(row), row.place)


def is_doubtful(row: StudyRow) -> bool:
    """Whether what is known of a study may not be all."""
    is_behind = row.result_revision is not None and row.result_revision < row.revision
    has_failed = row.state is StudyState.FAILED
    return bool(row.doubts) or row.result_number is None or is_behind or has_failed


def looking_order(row: StudyRow) -> tuple[int, int, int]:
    """Sort key for the engine: never looked at by arrival, then images that came since, then a
    closer look; the last two by urgency."""
    if row.result_number is None:
        return (0, 0, row.place)
    rank = (row.urgency or Urgency.NOT_ASSESSABLE).rank
    return (1 if needs_coarse_look(row) else 2, rank, row.place)


def needs_coarse_look(row: StudyRow) -> bool:
    """Whether there are images of which the engine has seen nothing."""
    return (row.result_revision or 0) < row.revision or row.result_number is None
