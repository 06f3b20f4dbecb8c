"""What the worker says of itself for page and check: `STATE/worker.json`, whole at any moment."""

import contextlib
from dataclasses import dataclass
from enum import StrEnum

from edge_medgemma.runtime.clinic.heartbeat import seconds_since_beat
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.documents import dump_json, parse_json
from edge_medgemma.runtime.files import write_atomically

WORKER = "worker"
"""Name of its heartbeat."""


class WorkerState(StrEnum):
    """What the worker does."""

    OPENING = "opening"
    """Reads and checks the engine."""
    IDLE = "idle"
    LOOKING = "looking"
    ANSWERING = "answering"
    REFUSED = "refused"
    """There is no engine that may be run here; `problem` says why. Scans are received all the same."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One state of the worker."""

    state: WorkerState
    engine: str = ""
    """Name of the checkpoint; empty before one is open."""
    notice: str = ""
    """What the engine says of itself with every result; empty for most."""
    scope: str = ""
    """What it was made for, as `CT of the head`; empty where it is made for all."""
    problem: str = ""
    """What a person must know or do, in plain words; empty while all is well."""
    study_key: str = ""
    """Which is looked at."""
    since: str = ""
    """UTC, ISO 8601: when this state began."""


def write_worker_status(state: StateFolder, status: WorkerStatus) -> None:
    """Replace what was said before; a full disk is no reason to stop."""
    with contextlib.suppress(OSError):
        write_atomically(state.path / "worker.json", dump_json(status).encode())


def read_worker_status(state: StateFolder) -> WorkerStatus | None:
    """The last word of the worker; None before there was any. `is_worker_alive` says if it still holds."""
    with contextlib.suppress(OSError, ValueError):
        return parse_json((state.path / "worker.json").read_bytes(), WorkerStatus)
    return None


def is_worker_alive(state: StateFolder, silence_s: float = 1800.0) -> bool:
    """Whether the worker has shown a sign of life; one slice of a slow engine takes minutes."""
    silent_s = seconds_since_beat(state, WORKER)
    return silent_s is not None and silent_s <= silence_s
