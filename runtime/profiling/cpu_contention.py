"""What other programs take of the processor while one thing is measured."""

import os
import resource
import time
from pathlib import Path

STAT = Path("/proc/stat")

_IDLE_FIELDS = (3, 4)
"""idle and iowait of the `cpu` line; proc_stat(5)"""
_COUNTED_FIELDS = 8
"""user, nice, system, idle, iowait, irq, softirq, steal: guest time is in user already. Stolen
time is another's too."""


class BackgroundLoad:
    """From its making on: the share of all cores that went to others."""

    def __init__(self, stat: Path = STAT) -> None:
        """`stat` is the kernel's file of processor times."""
        self._stat = stat
        self._start_s = time.perf_counter()
        self._before = self._read_s()

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._start_s

    def share(self) -> float | None:
        """0 to 1; None where the system does not tell. Coarse below a tenth of a second."""
        now = self._read_s()
        if self._before is None or now is None or now[0] <= self._before[0]:
            return None
        total_s, busy_s, own_s = (b - a for a, b in zip(self._before, now, strict=True))
        return min(max((busy_s - own_s) / total_s, 0.0), 1.0)

    def _read_s(self) -> tuple[float, float, float] | None:
        """Seconds of all cores, of them busy, and of this process with its ended children."""
        try:
            fields = self._stat.read_text().partition("\n")[0].split()[1:]
            ticks = [int(field) for field in fields[:_COUNTED_FIELDS]]
            tick_s = 1 / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):
            return None
        idle = sum(ticks[field] for field in _IDLE_FIELDS)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own_s = time.process_time() + children.ru_utime + children.ru_stime
        return sum(ticks) * tick_s, (sum(ticks) - idle) * tick_s, own_s
