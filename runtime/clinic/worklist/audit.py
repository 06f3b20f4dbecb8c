"""Who did what, in lines that are only ever added; each holds the hash of the one before it.

A line that was changed, taken out or put in breaks the chain there. Lines taken off the end leave no
trace: whoever must prove there were none copies the hash of the last line somewhere else.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from edge_medgemma.runtime.clinic.state_folder import StateFolder, sync_folder
from edge_medgemma.runtime.clinic.worklist.records import AuditEntry
from edge_medgemma.runtime.errors import WorklistError
from edge_medgemma.runtime.files import write_errors

_FIRST = "0" * 64
_LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the file."""

    at: str
    event: str
    who: str
    study_key: str
    detail: str
    previous: str
    """SHA-256 of the line before, without its newline."""


def append(
    state: StateFolder, event: str, who: str, study_key: str = "", detail: str = ""
) -> AuditEntry:
    """Add a line, on the disk when this returns; any process may.

    What a power cut left of a line that nobody was told of is cut off first.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    entry = AuditEntry(utc_now(), event, who, study_key, detail)
    with write_errors(state.audit_file), _locked(state) as file:
        last = _last_line(file)
        line = _Line(entry.at, event, who, study_key, detail, _digest(last))
        file.seek(0, os.SEEK_END)
        file.write(msgspec.json.encode(line) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return entry


def read(state: StateFolder) -> Iterator[AuditEntry]:
    """Entries in order, up to the first line that is not whole or not in its chain."""
    with contextlib.suppress(WorklistError):
        yield from _checked(state)


def verify(state: StateFolder) -> int:
    """Number of lines, all of them whole and in their chain.

    Raises:
        WorklistError: names the first line that was altered, taken out, put in or torn.
    """
    return sum(1 for _ in _checked(state))


def utc_now() -> str:
    """UTC by the device's clock, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _checked(state: StateFolder) -> Iterator[AuditEntry]:
    try:
        file = state.audit_file.open("rb")
    except FileNotFoundError:
        return
    with file:
        previous = _FIRST
        for number, data in enumerate(file, start=1):
            line = _parse(data)
            if line is None or line.previous != previous:
                raise WorklistError(
                    f"line {number} of '{state.audit_file}' is torn, altered or not in its place; "
                    "lines before it hold. Keep the file, and compare it with a copy"
                )
            previous = _digest(data)
            yield AuditEntry(line.at, line.event, line.who, line.study_key, line.detail)


def _parse(data: bytes) -> _Line | None:
    if not data.endswith(b"\n"):
        return None
    with contextlib.suppress(ValueError):
        line = msgspec.json.decode(data, type=_Line)
        if msgspec.json.encode(line) + b"\n" == data:
            return line
    return None


@contextlib.contextmanager
def _locked(state: StateFolder) -> Iterator[BinaryIO]:
    import fcntl

    is_new = not state.audit_file.exists()
    descriptor = os.open(state.audit_file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if is_new:
            sync_folder(state.path)
        yield file


def _last_line(file: BinaryIO) -> bytes:
    """The last whole line; empty in a new file. What a power cut left of one behind it is cut off."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - _LONGEST_LINE, 0))
    tail = file.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(whole) < len(tail):
        file.truncate(end - len(tail) + len(whole))  # nobody was told that it was written
    return whole.rstrip(b"\n").rpartition(b"\n")[2]


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest() if line else _FIRST
