"""A process that ends itself, as by a power cut, at a chosen change of the file system."""

import os
import signal
import sys
from itertools import count

CHANGES = ("os.rename", "os.remove")
"""Audit events raised just before a file gets its final name or goes; docs.python.org, audit events."""


def kill_at(change: int) -> None:
    """Let this process be killed just before its `change`-th change (from 1) from now on."""
    counted = count(1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in CHANGES and next(counted) == change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
