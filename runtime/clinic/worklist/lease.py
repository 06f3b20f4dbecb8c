"""Who looks at a study. A lease ends with the process that holds it, whatever ended that."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process of this machine, told from every other by more than its number."""

    boot_id: str
    """New at every start of the machine; empty where the system has none."""
    pid: int
    started: str
    """Clock ticks from the start of the machine to that of the process (proc(5), `starttime`)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to look at one study, of one process."""

    key: str
    revision: int
    """Of the study when the lease began: what arrives later, this look need not have seen."""
    instances: int
    """Images in the spool then."""
    holder: Holder
    acquired_monotonic_s: float
    """By the clock that no one can set; it begins anew with the machine."""


def this_process() -> Holder:
    """The calling process."""
    return Holder(boot_id(), os.getpid(), _started(os.getpid()))


def boot_id() -> str:
    """What names this run of the machine."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def ended_with_machine(lease: Lease) -> bool:
    """Whether the machine itself went down since, so that its holder did nothing wrong."""
    began_later = lease.acquired_monotonic_s > time.monotonic()
    return lease.holder.boot_id != boot_id() or began_later


def is_alive(lease: Lease) -> bool:
    """Whether the process that holds a lease still runs."""
    holder = lease.holder
    if ended_with_machine(lease):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, as another user
    return _started(holder.pid) == holder.started


def _started(pid: int) -> str:
    """Empty where the system does not tell, or for a process that has ended and waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return "" if fields[0] in "ZX" else fields[19]
