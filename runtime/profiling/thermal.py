"""Temperature, clocks and throttling, as the Linux kernel tells them under /sys."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HOST = Path("/")
"""Root of the file tree that is read; tests read recorded ones."""


@dataclass(frozen=True, slots=True)
class Thermal:
    """A moment's state; what a machine does not tell is empty or None."""

    zones_celsius: dict[str, float]
    """Temperature by type of the thermal zone, the hottest of each."""
    clock_mhz: float | None
    """Mean over the cores."""
    maximum_clock_mhz: float | None
    throttle_events: int | None
    """Times that cores and packages were slowed for heat since the machine started; Intel only."""

    @property
    def hottest_celsius(self) -> float | None:
        """Highest temperature of all zones."""
        return max(self.zones_celsius.values(), default=None)


def read_thermal(root: Path = HOST) -> Thermal:
    """The present state of the machine whose file tree begins at `root`."""
    cores = root / "sys/devices/system/cpu"
    clocks = _numbers(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    limits = _numbers(cores.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    events = _numbers(cores.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return Thermal(
        zones_celsius=_zones(root),
        clock_mhz=sum(clocks) / len(clocks) / 1e3 if clocks else None,
        maximum_clock_mhz=max(limits) / 1e3 if limits else None,
        throttle_events=int(sum(events)) if events else None,
    )


def has_throttled(before: Thermal, after: Thermal) -> bool | None:
    """Whether a throttle counter moved; None where there are no counters."""
    if before.throttle_events is None or after.throttle_events is None:
        return None
    return after.throttle_events > before.throttle_events


def _zones(root: Path) -> dict[str, float]:
    zones: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text().strip()
            celsius = int((zone / "temp").read_text()) / 1e3
        except (OSError, ValueError):  # Jetson refuses to read zones that are powered off
            continue
        zones[name] = max(celsius, zones.get(name, celsius))
    return zones


def _numbers(paths: Iterable[Path]) -> list[float]:
    found = []
    for path in paths:
        try:
            found.append(float(path.read_text()))
        except (OSError, ValueError):
            continue
    return found
