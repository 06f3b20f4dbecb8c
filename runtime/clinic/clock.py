"""Whether the device's clock can be right: boxes without a battery start in the past."""

import time
from datetime import UTC, datetime

BUILT_ON = datetime(2026, 11, 1, tzinfo=UTC)
"""The program is no older: a clock that shows an earlier time is wrong."""


def is_clock_set(now: datetime | None = None) -> bool:
    """Whether the time of the device is not before the program was built."""
    return (now or datetime.now(UTC)) >= BUILT_ON


def likely_now() -> datetime:
    """The device's time or, where that cannot be right, the earliest time that can."""
    return max(datetime.now(UTC), BUILT_ON)


def boot_s() -> float:
    """Seconds on a clock that only a restart of the machine sets back; the same in every process."""
    return (
        time.clock_gettime(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic()
    )
