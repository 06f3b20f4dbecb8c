"""Steps of a study from arrival to delivery, as pure functions; no other changes its state.

Doubt only ever raises: a flag stands until a person has acknowledged it, and `not_assessable` until
the last pass over no fewer images.
"""

from collections.abc import Iterable
from dataclasses import replace

from edge_medgemma.runtime.clinic.worklist.entry import Entry
from edge_medgemma.runtime.clinic.worklist.lease import Lease
from edge_medgemma.runtime.clinic.worklist.records import (
    Acknowledgement,
    Doubt,
    FailureReason,
    StudyRow,
    StudyState,
)
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord
from edge_medgemma.runtime.errors import WorklistError
from edge_medgemma.runtime.triage.urgency import Urgency, most_urgent

_S = StudyState

ALLOWED: dict[StudyState, frozenset[StudyState]] = {
    _S.ARRIVING: frozenset({_S.WAITING, _S.SUPERSEDED}),
    _S.WAITING: frozenset({_S.RUNNING, _S.DONE, _S.INCOMPLETE, _S.FAILED, _S.SUPERSEDED}),
    _S.RUNNING: frozenset(
        {_S.ARRIVING, _S.WAITING, _S.DONE, _S.INCOMPLETE, _S.FAILED, _S.SUPERSEDED}
    ),
    _S.INCOMPLETE: frozenset({_S.ARRIVING, _S.DONE, _S.DELIVERED, _S.SUPERSEDED}),
    _S.DONE: frozenset({_S.ARRIVING, _S.INCOMPLETE, _S.DELIVERED, _S.SUPERSEDED}),
    _S.DELIVERED: frozenset({_S.ARRIVING, _S.DONE, _S.INCOMPLETE, _S.SUPERSEDED}),
    _S.FAILED: frozenset({_S.ARRIVING, _S.WAITING, _S.SUPERSEDED}),
    _S.SUPERSEDED: frozenset({_S.ARRIVING}),
}
"""State -> the states that may follow it."""

MOST_CRASHES = 2
"""Ends of the process on one study, with no pass between them, after which it is not tried again."""

FLAGS = frozenset({Urgency.CRITICAL, Urgency.URGENT})
"""Urgencies that only a flag gives."""

FAILED_LIMITATION = "triage_failed"


def move(row: StudyRow, state: StudyState) -> StudyRow:
    """The row in another state.

    Raises:
        WorklistError: that state may not follow.
    """
    if state is row.state:
        return row
    if state not in ALLOWED[row.state]:
        raise WorklistError(
            f"study {row.key[:8]} is {row.state} and cannot become {state}; look at the worklist again"
        )
    return replace(row, state=state, failure=None)


def arrive(
    entry: Entry, sender: str, new_instances: int, doubts: Iterable[Doubt], now: str
) -> Entry:
    """Images came; of those there already, `new_instances` counts none."""
    row = entry.row
    if sender and sender not in row.senders:
        row = replace(row, senders=(*row.senders, sender))
    after_lease = entry.after_lease
    if new_instances > 0:
        row = replace(
            row,
            instances=row.instances + new_instances,
            revision=row.revision + 1,
            last_arrival_at=now,
        )
        row = not_whole(row)
        if row.state is _S.RUNNING:
            after_lease = after_lease or _S.ARRIVING
        elif row.state is not _S.WAITING:  # it is looked at with what came now as well
            row = move(row, _S.ARRIVING)
        entry = replace(entry, crashes=0)
    entry = replace(entry, row=row, after_lease=after_lease)
    for doubt in doubts:
        entry = with_doubt(entry, doubt)
    return entry


def with_doubt(entry: Entry, doubt: Doubt) -> Entry:
    """The study is doubted for one more reason."""
    if doubt in entry.row.doubts:
        return entry
    return _settled(replace(entry, row=replace(entry.row, doubts=(*entry.row.doubts, doubt))))


def without_doubt(entry: Entry, doubt: Doubt) -> Entry:
    """One reason to doubt it is gone."""
    doubts = tuple(one for one in entry.row.doubts if one is not doubt)
    return _settled(replace(entry, row=replace(entry.row, doubts=doubts)))


def want_look(entry: Entry) -> Entry:
    """The engine shall look; one that has looked at all there is need not again."""
    row = entry.row
    if row.state in (_S.ARRIVING, _S.FAILED):
        return replace(entry, row=move(row, _S.WAITING), crashes=0)
    if row.state is _S.RUNNING and entry.after_lease is not None:
        return replace(entry, after_lease=_S.WAITING)
    return entry


def begin(entry: Entry, lease: Lease) -> Entry:
    """A process begins to look."""
    return replace(entry, row=move(entry.row, _S.RUNNING), lease=lease, after_lease=None)


def give_back(entry: Entry) -> Entry:
    """The look is put off: something else comes first."""
    if entry.row.state is not _S.RUNNING:
        return replace(entry, lease=None)
    state = entry.after_lease or _S.WAITING
    return replace(entry, row=move(entry.row, state), lease=None, after_lease=None)


def crash(entry: Entry, is_at_fault: bool) -> Entry:
    """The process that looked has ended without a word; after two of them, the study has failed."""
    crashes = entry.crashes + is_at_fault
    entry = give_back(replace(entry, crashes=crashes))
    is_waiting = entry.row.state is _S.WAITING
    return fail(entry, FailureReason.CRASHED) if is_waiting and crashes >= MOST_CRASHES else entry


def fail(entry: Entry, reason: FailureReason) -> Entry:
    """The engine cannot look: a person must. What was flagged before stands."""
    row = entry.row
    urgency = most_urgent([row.urgency or Urgency.NOT_ASSESSABLE, Urgency.NOT_ASSESSABLE])
    limitations = _union(row.limitations, (FAILED_LIMITATION,))
    if entry.after_lease is not None:  # more came: it is tried with that
        row = move(row, entry.after_lease)
    else:
        row = replace(move(row, _S.FAILED), failure=reason)
    row = replace(row, urgency=urgency, limitations=limitations)
    return replace(entry, row=row, lease=None, after_lease=None)


def publish(entry: Entry, result: ResultRecord) -> Entry:
    """A pass has ended. One that is known already changes nothing."""
    row = entry.row
    if result.number <= (row.result_number or 0):
        return entry
    saw_less = not result.is_final or result.revision < (row.result_revision or 0)
    is_answered = row.acknowledged_at is not None and not saw_less
    flagged = result.flagged if is_answered else _union(row.flagged, result.flagged)
    urgency = most_urgent([result.urgency, *_standing(row, is_answered, saw_less)])
    limitations = result.limitations
    if urgency is not result.urgency:
        limitations = _union(row.limitations, limitations)
    has_risen = (
        row.urgency is None
        or urgency.rank < row.urgency.rank
        or not set(result.flagged) <= set(row.flagged)
    )
    row = replace(
        row,
        urgency=urgency,
        flagged=flagged,
        limitations=limitations,
        modality=result.modality or row.modality,
        body_part=result.body_part or row.body_part,
        result_number=result.number,
        result_revision=result.revision,
        result_at=result.created_at,
        is_final=result.is_final,
        acknowledged_at=None if has_risen else row.acknowledged_at,
        urgency_at=result.created_at if has_risen else row.urgency_at,
    )
    if result.revision < row.revision:
        row = not_whole(row)
    entry = replace(
        entry,
        row=row,
        result_doubts=result.doubts,
        urgency_number=result.number if has_risen else entry.urgency_number,
        crashes=0,
    )
    return _ended(entry) if result.is_final else entry


def acknowledge(entry: Entry, acknowledgement: Acknowledgement) -> Entry:
    """A person has told another. What rose after the result that was told of stays open."""
    if acknowledgement in entry.acknowledgements:
        return entry
    row = entry.row
    if acknowledgement.result_number >= entry.urgency_number:
        row = replace(row, acknowledged_at=acknowledgement.received_at)
    return replace(entry, row=row, acknowledgements=(*entry.acknowledgements, acknowledgement))


def delivered(entry: Entry, number: int) -> Entry:
    """Every destination has a result; of an older one than the latest, that says nothing."""
    row = entry.row
    if number != row.result_number or row.state not in (_S.DONE, _S.INCOMPLETE):
        return entry
    return replace(entry, row=move(row, _S.DELIVERED))


def supersede(entry: Entry) -> Entry:
    """Its images are part of another study."""
    return replace(entry, row=move(entry.row, _S.SUPERSEDED), lease=None, after_lease=None)


def _standing(row: StudyRow, is_answered: bool, saw_less: bool) -> list[Urgency]:
    """The urgency that stands whatever a look says."""
    if row.urgency in FLAGS and not is_answered:
        return [row.urgency]
    return [Urgency.NOT_ASSESSABLE] if row.urgency is Urgency.NOT_ASSESSABLE and saw_less else []


def not_whole(row: StudyRow) -> StudyRow:
    """The row of a study of which the engine has not seen all: that nothing was flagged says nothing."""
    is_unflagged = row.urgency is Urgency.ROUTINE
    return replace(row, urgency=Urgency.NOT_ASSESSABLE) if is_unflagged else row


def _ended(entry: Entry) -> Entry:
    """The state after the last pass of a revision."""
    row = entry.row
    if row.state in (_S.ARRIVING, _S.FAILED, _S.SUPERSEDED):
        return entry
    has_more = (row.result_revision or 0) < row.revision
    if row.state is _S.RUNNING and entry.after_lease is not None:
        row = move(row, entry.after_lease)
    elif row.state is _S.RUNNING and has_more:
        row = move(row, _S.WAITING)
    elif not (row.state is _S.WAITING and has_more):
        row = move(row, _S.INCOMPLETE if row.doubts else _S.DONE)
    return replace(entry, row=row, lease=None, after_lease=None)


def _settled(entry: Entry) -> Entry:
    """A study that was looked at whole is incomplete exactly while it is doubted."""
    row = entry.row
    if row.state in (_S.DONE, _S.DELIVERED) and row.doubts:
        return replace(entry, row=move(row, _S.INCOMPLETE))
    if row.state is _S.INCOMPLETE and not row.doubts:
        return replace(entry, row=move(row, _S.DONE))
    return entry


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
