"""A file a process touches while it works: one that hangs is found by others, whatever its clock says."""

import contextlib
from pathlib import Path

from edge_medgemma.runtime.clinic.clock import boot_s
from edge_medgemma.runtime.clinic.state_folder import StateFolder


def beat(state: StateFolder, process: str) -> None:
    """Say that `process` (`node`, `worker`, `page`) is at work; a full disk is no reason to stop.

    Not forced onto the disk: after a power cut nothing beats anyway.
    """
    with contextlib.suppress(OSError):
        _file(state, process).write_text(f"{boot_s():.1f}\n", encoding="ascii")


def seconds_since_beat(state: StateFolder, process: str) -> float | None:
    """Seconds since the last beat; None where there was none since the machine was started.

    The supervisor forgets beats when it starts a process, so that one of an earlier start of the
    machine that lies before now stands at most until then.
    """
    try:
        silent_s = boot_s() - float(_file(state, process).read_text(encoding="ascii"))
    except (OSError, ValueError):  # ValueError: read while it was written, or cut short
        return None
    return silent_s if silent_s > -1 else None  # else of an earlier start


def forget_beat(state: StateFolder, process: str) -> None:
    """A process that is started anew has not beaten."""
    with contextlib.suppress(OSError):
        _file(state, process).unlink()


def _file(state: StateFolder, process: str) -> Path:
    return state.path / f"{process}.beat"
