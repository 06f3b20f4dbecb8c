"""What must be known of a study's arrival and stands in none of its files: who sent it, who still does.

One small JSON file a study, so that the worklist can be made anew from files alone.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_medgemma.runtime.clinic.state_folder import StateFolder, sync_folder
from edge_medgemma.runtime.documents import dump_json, parse_json
from edge_medgemma.runtime.files import write_atomically, write_errors


@dataclass(frozen=True, slots=True)
class ArrivalRecord:
    """The arrival of one study."""

    study_uid: str
    """DICOM (0020,000D)."""
    senders: tuple[str, ...]
    """Calling AE titles, `upload`, `folder` or `pull`, in order of their first image."""
    first_arrival_at: str
    """UTC, ISO 8601, by the device's clock."""
    doubts: tuple[str, ...] = ()
    """`worklist.records.Doubt` of this arrival that only its course could tell."""
    sending: tuple[str, ...] = ()
    """Senders that were not at their end when this was written: after a restart, broken off."""


def read_arrival_record(state: StateFolder, study_key: str) -> ArrivalRecord | None:
    """The record of a study; None where there is none or it is damaged."""
    try:
        return parse_json(_path(state, study_key).read_bytes(), ArrivalRecord)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def note_sender(state: StateFolder, study_key: str, study_uid: str, sender: str) -> None:
    """Add a sender to the record of a study, on the disk when this returns.

    Raises:
        ResourceError: it cannot be written.
    """

    def with_sender(known: ArrivalRecord | None) -> ArrivalRecord:
        if known is None:
            return ArrivalRecord(study_uid, (sender,), datetime.now(UTC).isoformat("T", "seconds"))
        return replace(known, senders=tuple(dict.fromkeys((*known.senders, sender))))

    known = read_arrival_record(state, study_key)
    if known is None or sender not in known.senders:
        _change(state, study_key, with_sender)


def note_sending(state: StateFolder, study_key: str, sender: str) -> None:
    """Say in the record of a study that a sender's association is open.

    Raises:
        ResourceError: it cannot be written.
    """

    def with_sending(known: ArrivalRecord | None) -> ArrivalRecord | None:
        if known is None or sender in known.sending:
            return known
        return replace(known, sending=(*known.sending, sender))

    known = read_arrival_record(state, study_key)
    if known is not None and sender not in known.sending:
        _change(state, study_key, with_sending)


def note_sent(state: StateFolder, study_key: str, sender: str) -> None:
    """Say in the record of a study that a sender has ended, or was broken off.

    Raises:
        ResourceError: it cannot be written.
    """

    def without_sender(known: ArrivalRecord | None) -> ArrivalRecord | None:
        if known is None:
            return None
        return replace(known, sending=tuple(one for one in known.sending if one != sender))

    _change(state, study_key, without_sender)


def note_doubts(state: StateFolder, study_key: str, doubts: tuple[str, ...]) -> None:
    """Replace in the record of a study what is doubted.

    Raises:
        ResourceError: it cannot be written.
    """

    def with_doubts(known: ArrivalRecord | None) -> ArrivalRecord | None:
        return None if known is None else replace(known, doubts=doubts)

    known = read_arrival_record(state, study_key)
    if known is not None and known.doubts != doubts:
        _change(state, study_key, with_doubts)


def _path(state: StateFolder, study_key: str) -> Path:
    return state.arrivals / f"{study_key}.json"


def _change(
    state: StateFolder,
    study_key: str,
    change: Callable[[ArrivalRecord | None], ArrivalRecord | None],
) -> None:
    with _lock(state):
        known = read_arrival_record(state, study_key)
        changed = change(known)
        if changed is not None and changed != known:
            write_atomically(_path(state, study_key), dump_json(changed).encode())
            sync_folder(state.arrivals)


@contextlib.contextmanager
def _lock(state: StateFolder) -> Iterator[None]:
    """Keep other processes and threads from changing records at the same time."""
    import fcntl

    with write_errors(state.arrivals):
        descriptor = os.open(state.arrivals / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
