"""A process that is killed just before its n-th change of files below a folder, as by a power cut."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.mkdir", "open")
"""Audit events: a name appears, changes or goes, or a file is opened to be written."""


def run_killed_at(change: int, folder: Path, work: Callable[[], None], sparse: str = "") -> bool:
    """Run `work` in a child process that is killed at its `change`-th change; whether it was.

    Args:
        change: from 1
        folder: changes elsewhere do not count
        work: called in the child, which has what this process has
        sparse: of the changes whose path holds this, one in eight counts
    """
    child = os.fork()
    if child == 0:
        _kill_at(change, str(folder), sparse)
        try:
            work()
        except BaseException:  # noqa: BLE001 the parent is told
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return killed


def _kill_at(change: int, folder: str, sparse: str) -> None:
    seen = like_others = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen, like_others
        if event not in CHANGES or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not _writes(arguments):
            return
        if sparse and sparse in str(arguments[0]):
            like_others += 1
            if like_others % 8 != 1:
                return
        seen += 1
        if seen == change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
