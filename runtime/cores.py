"""How many cores there are to compute with."""

import os


def usable_cores() -> int:
    """That this process may use, where the system tells; at least one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
